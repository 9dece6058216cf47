"""Extension: teach the network of a finished run new classes."""

from reslab.extension.memory import remember
from reslab.extension.methods import DEFAULT, METHODS
from reslab.extension.run import extend, resume_extension

__all__ = ["DEFAULT", "METHODS", "extend", "remember", "resume_extension"]
