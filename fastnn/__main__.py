"""The command line: `python -m fastnn info | demo | bench | train | predict | trace`."""

import sys

from fastnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
