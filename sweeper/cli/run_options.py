"""The options of `sweeper run` that `sweeper search` has too, because each of its rounds is a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import click

from sweeper.cli import options
from sweeper.errors import UsageError
from sweeper.model.money import parse_usd


def _parse_max_failures(ctx: click.Context, param: click.Parameter, value: str | None) -> int | float | None:
    """Parse `3` or `10%`, as in the experiment's `max_failures`: a count, or a share from 0 to 1."""
    if value is None:
        return None
    text = value.strip()
    try:
        limit = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        message = f"{text!r} is neither a count such as 3 nor a share such as 10%"
        raise click.BadParameter(message, ctx, param) from None
    if not (0 <= limit <= 1 if isinstance(limit, float) else limit >= 0):
        raise click.BadParameter(f"{text!r} is out of range: give at least 0, or 0% to 100%", ctx, param)
    return limit


def parse_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> Decimal | None:
    """Parse `20 USD` or `20`, as in the experiment's `budget`."""
    try:
        return None if value is None else parse_usd(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


out = click.option(
    "-o", "--out", type=options.DirOrUrl(), metavar="DIR|URL", help="Results folder, or a URL to save the pictures to "
    "instead, such as s3://bucket/folder. [default: results/NAME beside EXPERIMENT]",
)  # fmt: skip
view = click.option("--view", is_flag=True, help="Show the run in a browser, until Ctrl-C.")

_SHARED: Final = (
    click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs in flight per target."),
    click.option("--retries", type=click.IntRange(min=0), metavar="N",
                 help="How many more times to submit a trial that fails."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S",
                 help="Cancel a job that runs longer than this many seconds."),
    click.option("--patience", type=click.FloatRange(min=0), metavar="S", help="Seconds to retry a target that stops "
                 "responding, if no other target can continue. [default: 300]"),
    click.option("--max-trials", type=click.IntRange(min=1), metavar="N",
                 help="Reject a larger plan. [default: 10000]"),
    click.option("--max-failures", callback=_parse_max_failures, metavar="N|P%",
                 help="Stop when more trials than this have failed."),
    click.option("--budget", callback=parse_budget, metavar="USD",
                 help="The most that the results folder may cost over all its runs, such as '20 USD'."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failed trial."),
    click.option("--retry-failed", is_flag=True, help="Resubmit trials that failed in an earlier run."),
)  # fmt: skip
_SHARED_AFTER: Final = (
    click.option("--keep-temp/--no-keep-temp", default=None,
                 help="Also download previews (files of type temp). [default: off]"),
    click.option("--check/--no-check", default=True,
                 help="First check every workflow against the target's node classes. [default: on]"),
)  # fmt: skip


def limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--concurrency` to `--retry-failed`. The command gets them by the names of RunOptions' fields.

    Refuses two options that exclude each other.
    """

    @functools.wraps(command)
    def with_limits(*args: Any, **given: Any) -> Any:
        if given["fail_fast"] and given["max_failures"] is not None:
            raise UsageError("--fail-fast and --max-failures both say when to stop; give one")
        return command(*args, **given)

    return _apply(_SHARED, with_limits)


def downloads(command: Callable[..., Any]) -> Callable[..., Any]:
    return _apply(_SHARED_AFTER, command)


def _apply(decorators: tuple[Callable[..., Any], ...], command: Callable[..., Any]) -> Callable[..., Any]:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
