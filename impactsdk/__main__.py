"""``python -m impactsdk``: the command line."""

import sys

from impactsdk.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
