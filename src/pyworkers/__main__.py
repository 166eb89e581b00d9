"""`python -m pyworkers`."""

import sys

from pyworkers.cli import main

if __name__ == "__main__":
    sys.exit(main())
