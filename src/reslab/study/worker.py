"""One run of a study in a process of its own: `python -P -m reslab.study.worker`, which `processes` starts.

It is told what to do by one line of JSON on its standard input. That the input ends is its order to save and stop, so
no worker outlives the process that has started it.
"""

import os
import signal
import sys
import threading

from reslab.errors import Failure, UserError
from reslab.machine.launch import set_up_threads
from reslab.study.plan import Assignment, Machine


def main() -> None:
    """Do the run, and say in the last line why it failed if it did."""
    assignment = Assignment.load(_read_line())
    threading.Thread(target=_stop_with_the_input, daemon=True).start()
    sys.argv[:] = assignment.command
    set_up_threads()
    from reslab.study.execute import do

    machine = Machine(assignment.device, assignment.data_dir, silent=False, threads=assignment.threads)
    try:
        do(assignment.job, machine)
    except (UserError, Failure, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)


def _read_line() -> bytes:
    """Read a line, and nothing after it; not by `sys.stdin`, whose lock a thread would hold while Python ends."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _stop_with_the_input() -> None:
    while os.read(0, 1):
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
