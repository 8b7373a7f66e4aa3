"""The command line: parse, call the library, print. The only package that may print or choose an exit code.

This file is what every `sweeper` command imports first, so it imports nothing of weight: `sweeper`, `sweeper
--help` and `sweeper --version` are answered from the table below, and the click group (`group`) reads the same table,
importing the one command that was asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import sweeper
from sweeper.cli.command_table import render_help


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; `sys.argv` by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] not in ("-h", "--help", "--version"):
        from sweeper.cli.main_group import invoke  # noqa: PLC0415 - click is not needed for the lines below

        return invoke(arguments)
    text = f"sweeper {sweeper.__version__}\n" if arguments and arguments[0] == "--version" else render_help()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        from sweeper.cli.exit_codes import handle_closed_pipe  # noqa: PLC0415

        return handle_closed_pipe()
    return 0
