"""The one place where exceptions become lines on stderr and an exit code (DESIGN section 12)."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

import click

from sweeper.cli import console
from sweeper.errors import ImageError, InputError, JobError, ResultsError, SweeperError, TargetError, TransientError

OK: Final = 0
FAILED: Final = 1
INVALID_INPUT: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130
_INTERNAL_ERROR: Final = 70  # sysexits.h EX_SOFTWARE: a mistake of ours, none of the codes that scripts branch on
_PIPE_CLOSED: Final = 141  # what a shell reports for SIGPIPE, as in `sweeper plan x.yaml --jsonl - | head`

_CODES: Final[tuple[tuple[type[SweeperError], int], ...]] = (
    (InputError, INVALID_INPUT),
    (ResultsError, INVALID_INPUT),
    (ImageError, INVALID_INPUT),
    (TargetError, UNREACHABLE),
    (TransientError, UNREACHABLE),
    (JobError, FAILED),
    (SweeperError, FAILED),
)


def get_exit_code(failure: SweeperError) -> int:
    """The exit code of an exception of the tree."""
    return next(code for kind, code in _CODES if isinstance(failure, kind))


def report_failure(failure: BaseException) -> int:
    """Say on stderr what went wrong, one line for each problem, and return the exit code."""
    if os.environ.get("SWEEPER_DEBUG"):
        traceback.print_exception(failure)
    if isinstance(failure, click.exceptions.Exit):
        return failure.exit_code
    if isinstance(failure, BrokenPipeError):
        return handle_closed_pipe()
    if isinstance(failure, (KeyboardInterrupt, click.Abort)):
        console.print_status("interrupted")
        return INTERRUPTED
    if isinstance(failure, click.ClickException):
        return _report_usage_error(failure)
    if isinstance(failure, SweeperError):
        for line in str(failure).splitlines() or [type(failure).__name__]:
            console.print_error(line)
        return get_exit_code(failure)
    if isinstance(failure, OSError) and failure.strerror:
        console.print_error(": ".join(str(part) for part in (failure.filename, failure.strerror) if part))
        return INVALID_INPUT
    said = " ".join(str(failure).split()) or "no message"
    console.print_error(f"{type(failure).__name__}: {said} (a mistake in sweeper; SWEEPER_DEBUG=1 shows the traceback)")
    return _INTERNAL_ERROR


def _report_usage_error(failure: click.ClickException) -> int:
    console.print_error(" ".join(failure.format_message().split()))
    context = getattr(failure, "ctx", None)
    if context is not None:
        console.print_status(f"`{context.command_path} --help` shows what there is.")
    return INVALID_INPUT


def handle_closed_pipe() -> int:
    """Whoever read our stdout has gone. Python would complain once more when it flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    return _PIPE_CLOSED
