"""The program: `reslab`, or `python -m reslab`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # Python's -m puts it there, and nothing is to be imported from it
    del sys.path[0]

from reslab.machine.signals import ended_by_signals


def main() -> None:
    """Run a command; signals are heeded from here on, while the rest is loaded too."""
    with ended_by_signals():
        from reslab.cli import main as run_command

        run_command()


if __name__ == "__main__":
    main()
