"""`python -m reslab`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # Python's -m puts it there, and nothing is to be imported from it
    del sys.path[0]

from reslab.cli import main

if __name__ == "__main__":
    main()
