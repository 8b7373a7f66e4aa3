"""`python -m sweeper` runs the `sweeper` command."""

from __future__ import annotations

import sys

from sweeper.cli import main

if __name__ == "__main__":
    sys.exit(main())
