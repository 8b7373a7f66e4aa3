"""How one run is to go: what the caller asks for, completed by what the experiment says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.model.experiment import RunSettings
    from sweeper.model.trial import Trial


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What may differ from one run of an experiment to the next. None: as the experiment's `run:` says.

    `concurrency`: jobs in flight per target. `retries`: submissions after the first. `timeout`: seconds of execution.
    `max_failures`: a count (int) or a share of the plan (float, 0 to 1). `fail_fast`: stop after the first failure.
    `retry_failed`: submit again what failed before; `fresh`: also what succeeded. `where`: a Jinja2 expression over
    slots and axes, and `limit`, a count, choose which trials this run submits; the others keep their rows.
    `patience`: seconds that targets of a run that has begun may say nothing while no other can go on, after which it
    ends; as long as others work, one that is silent is asked again without end. `keep_temp`: fetch previews (`temp`).
    `remake`: submit again what succeeded and whose files are gone from the results folder (otherwise they are fetched
    from the server once more, if it still has them), with `keep_temp` also what left none.
    `check`: hold the plan against the target's node classes before anything is submitted.
    """

    concurrency: int | None = None
    retries: int | None = None
    timeout: float | None = None
    max_trials: int | None = None
    max_failures: int | float | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    fresh: bool = False
    where: str | None = None
    limit: int | None = None
    patience: float | None = None
    keep_temp: bool | None = None
    remake: bool = False
    check: bool = True


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """The options of one run, complete. `concurrency` None: as the target or its dialect says."""

    concurrency: int | None
    retries: int
    timeout: float | None
    allowed_failures: float  # the run stops when the number of failed trials exceeds it
    retry_failed: bool
    fresh: bool
    limit: int | None
    patience: float
    keep_temp: bool
    remake: bool
    check: bool


def resolve_settings(options: RunOptions, defaults: RunSettings, trial_count: int) -> EffectiveSettings:
    """Options over the experiment's RunSettings. Raises UsageError for values out of range, and when the plan has
    more than `max_trials` trials (CONTRACT.md 20).
    """
    for name, least in (("concurrency", 1), ("retries", 0), ("max_trials", 1), ("limit", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{name}: {value} is less than {least}")
    if options.timeout is not None and not options.timeout > 0:
        raise UsageError(f"timeout: {options.timeout} is not a number of seconds above 0")
    if options.patience is not None and not options.patience >= 0:
        raise UsageError(f"patience: {options.patience} is not a number of seconds, at least 0")
    most = _apply_default(options.max_trials, defaults.max_trials)
    if most is not None and trial_count > most:
        raise UsageError(
            f"the plan has {trial_count} trials, more than max_trials allows ({most}); nothing was submitted. "
            f"Narrow the sweep, or lift the limit with --max-trials {trial_count}"
        )
    return EffectiveSettings(
        concurrency=_apply_default(options.concurrency, defaults.concurrency),
        retries=_apply_default(options.retries, defaults.retries),
        timeout=_apply_default(options.timeout, defaults.timeout),
        allowed_failures=0
        if options.fail_fast
        else _count_allowed_failures(_apply_default(options.max_failures, defaults.max_failures), trial_count),
        retry_failed=options.retry_failed,
        fresh=options.fresh,
        limit=options.limit,
        patience=_apply_default(options.patience, defaults.patience),
        keep_temp=_apply_default(options.keep_temp, defaults.keep_temp),
        remake=options.remake,
        check=options.check,
    )


def _apply_default(given: Any, default: Any) -> Any:
    return default if given is None else given


def _count_allowed_failures(max_failures: int | float | None, trial_count: int) -> float:  # noqa: PYI041 (the two mean different things)
    if max_failures is None:
        return float("inf")
    if not isinstance(max_failures, int):
        if not 0 <= max_failures <= 1:
            raise UsageError(
                f"max_failures: {max_failures} is no share of the plan (0 to 1; a count is a whole number)"
            )
        return max_failures * trial_count
    if max_failures < 0:
        raise UsageError(f"max_failures: {max_failures} is less than 0")
    return max_failures


class TrialFilter:
    """`--where`: whether this run may submit a trial, by its slots and the table's columns of its axes. The expression
    is checked before anything else happens.
    """

    def __init__(self, text: str | None, names: Sequence[str]) -> None:
        """`names`: what the expression may use. Raises UsageError where it does not parse or uses another name."""
        from sweeper.model.expressions import ExpressionError  # noqa: PLC0415 (Jinja2)
        from sweeper.model.expressions.column_expression import compile_column_expression  # noqa: PLC0415

        self._expression = None
        self._error: type[Exception] = ExpressionError
        if text is None:
            return
        try:
            self._expression = compile_column_expression(text, names)
        except ExpressionError as error:
            raise UsageError(f"--where: {error}") from None

    def __call__(self, trial: Trial) -> bool:
        if self._expression is None:
            return True
        values: Mapping[str, Any] = {**trial.axes, **trial.columns, **trial.params}
        try:
            return bool(self._expression.evaluate(values))
        except self._error as error:
            raise UsageError(f"--where: trial {trial.index}: {error}") from None
