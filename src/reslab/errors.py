"""The two kinds of errors that a person sees; everything else is a defect.

The command line prints the message alone: one sentence that says what is wrong, what is allowed and what to do.
"""


class UserError(ValueError):
    """A wrong argument, expression, file or folder; the command ends with 2."""


class Failure(RuntimeError):  # noqa: N818 - not every failure is an error of the program
    """Something failed on the way through no fault of the request (loss, disk, network); the command ends with 1."""
