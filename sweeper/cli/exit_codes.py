"""The exit codes of `sweeper`, and which exception leads to which."""

from __future__ import annotations

from typing import Final

from sweeper.errors import ImageError, InputError, ResultsError, SweeperError, TargetError, TransientError

OK: Final = 0
FAILED: Final = 1
INVALID_INPUT: Final = 2
UNREACHABLE: Final = 3
INTERNAL_ERROR: Final = 70  # EX_SOFTWARE of sysexits.h: a bug of ours, and no code that scripts act on
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141  # what a shell reports for SIGPIPE, as in `sweeper plan x.yaml --jsonl - | head`


def get_exit_code(failure: SweeperError) -> int:
    if isinstance(failure, InputError | ResultsError | ImageError):
        return INVALID_INPUT
    return UNREACHABLE if isinstance(failure, TargetError | TransientError) else FAILED


def get_run_exit_code(stopped_by: str | None, *, ok: bool) -> int:
    """The exit code of a command that ran trials. `stopped_by` is that of the run."""
    if stopped_by == "interrupt":
        return INTERRUPTED
    if stopped_by in ("refused", "unreachable"):
        return UNREACHABLE
    return OK if ok else FAILED
