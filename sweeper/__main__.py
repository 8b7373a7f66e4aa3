"""`python -m sweeper` runs the `sweeper` command."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` looks for modules in the current folder first, and the files there may be a stranger's.
        del sys.path[0]
    from sweeper.cli import main

    sys.exit(main())
