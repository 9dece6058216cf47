"""The program: `reslab`, or `python -m reslab`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # added by python -m; nothing may be imported from the working directory
    del sys.path[0]

from reslab.machine.signals import ended_by_signals


def main() -> None:
    """Run a command. Signals are handled from here on, including while the rest is imported."""
    with ended_by_signals():
        from reslab.cli import main as run_command

        run_command()


if __name__ == "__main__":
    main()
