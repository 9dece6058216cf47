"""One run of a study in a process of its own: `python -P -m reslab.study.worker`, which `processes` starts.

It reads its job as one line of JSON from standard input. When the input ends, it saves and stops, so that no worker
outlives the process that started it.
"""

import os
import signal
import sys
import threading

from reslab.machine.launch import set_up_threads
from reslab.study.job import do
from reslab.study.plan import FAILURES, REFUSED, Assignment, Ended


def main() -> None:
    """Do the run; if it fails, print why as the last line."""
    assignment = Assignment.load(_read_line())
    threading.Thread(target=_stop_with_the_input, daemon=True).start()
    sys.argv[:] = assignment.command
    set_up_threads()
    try:
        do(assignment.job, assignment.machine)
    except FAILURES as error:
        ended = Ended.by(error)
        print(ended.reason, file=sys.stderr)
        sys.exit(REFUSED if ended.is_refused else 1)


def _read_line() -> bytes:
    """Read a line and nothing after it, without `sys.stdin`, whose lock a thread would hold while Python exits."""
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
