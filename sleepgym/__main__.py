"""``python -m sleepgym`` is ``sleepgym``."""

import sys

from sleepgym.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
