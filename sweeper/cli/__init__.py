"""The command line: parse arguments, call the library, print. No other package prints or chooses an exit code.

Every `sweeper` command imports this file first, so it imports nothing heavy. `sweeper`, `sweeper --help` and `sweeper
--version` print text from `command_table` without click; any other command line goes to the click group in
`main_group`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import sweeper
from sweeper.cli.command_table import COMPLETION_VARIABLE, render_help

# The command line of httpx, without which httpx does: `import httpx` would load rich and Pygments for it.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. `argv` excludes the program's name; default: `sys.argv[1:]`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if COMPLETION_VARIABLE in os.environ:
        from sweeper.cli.main_group import complete_command_line

        return complete_command_line()
    needs_click = bool(arguments) and arguments[0] not in ("-h", "--help", "--version")
    if not needs_click:
        try:
            sys.stdout.write(f"sweeper {sweeper.__version__}\n" if arguments[:1] == ["--version"] else render_help())
            sys.stdout.flush()
        except OSError as failure:
            from sweeper.cli.main_group import report_failure

            return report_failure(failure)
        return 0
    from sweeper.cli.wait_for_signal import count_interrupts  # noqa: PLC0415 (`sweeper --help` does without)

    # Python would look for cycles after every 700 objects. The rows of a large folder are millions, without cycles.
    gc.set_threshold(10_000, 20, 50)
    with count_interrupts():
        from sweeper.cli.main_group import invoke

        code = invoke(arguments)
    if argv is None:  # the process ends: Python would search all that is left for cycles, which takes 50 ms
        gc.freeze()
    return code
