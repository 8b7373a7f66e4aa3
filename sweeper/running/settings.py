"""The settings of one run: the caller's options, completed by those of the experiment file; and where it writes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from sweeper.errors import UsageError
from sweeper.model.experiment import Experiment, RunSettings
from sweeper.model.expressions import ExpressionError, compile_column_expression
from sweeper.model.money import floor_micros, parse_usd
from sweeper.model.trial import Trial
from sweeper.model.urls import NotifyAddress, parse_notify_url
from sweeper.planning.plan import Plan
from sweeper.store.remote_artifacts import check_url, is_url
from sweeper.tables.results_folder import default_results_folder


@dataclass(frozen=True, slots=True)
class _PlainOptions:
    """The options that an experiment file has no default for; see `RunOptions`."""

    retry_failed: bool = False
    retry_unknown: bool = False
    fresh: bool = False
    limit: int | None = None
    remake: bool = False
    check: bool = True
    alone: bool = False
    extends: int | None = None
    object_info: Mapping[str, Any] | None = None
    node_seconds: Mapping[str, float] = field(default_factory=dict)
    keep_stale: bool = False
    remake_stale: bool = False
    allow_different_models: bool = False
    may_be_gone: Collection[int] = ()
    trials: Collection[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(_PlainOptions):
    """Options that may differ from one run of an experiment to the next. None: use the experiment's `run:` section.

    `concurrency`: jobs in flight per target. `retries`: submissions after the first. `timeout`: seconds of execution.
    `max_failures`: a count (int) or a share of the plan (float, 0 to 1). `fail_fast`: stop after the first failure.
    `retry_failed`: resubmit trials that failed before; `fresh`: also those that succeeded. `retry_unknown`: also those
    of which an earlier run could not learn whether they ran, on a server that lists no jobs. `where` (a Jinja2
    expression over slots and axes), `trials` (indexes) and `limit` (a count) select the trials to submit; the others
    keep their rows.
    `patience`: seconds to retry unreachable targets of a running run if no reachable target can continue; while one
    can, they are retried without end. `keep_temp`: fetch previews (ComfyUI's type `temp`) too.
    `remake`: resubmit trials that succeeded but whose files are missing from the results folder, and with `keep_temp`
    those that left no file. Without it, missing files are downloaded again if the server still has them.
    `budget`: the most that the results folder may cost over all its runs, in US dollars or as `20 USD`.
    `check`: check the plan against the target's node classes before submitting. `alone`: the table of the results
    folder shows this run alone, and not results of earlier runs in the place of what it did not finish.
    `extends`: the id of an ended run of this process, whose trials are the first ones of the plan. No new run is
    recorded, and that one gets the others. A search does this with each round.
    `object_info`: a server's response to GET /object_info, whose node classes the embedded server runs by stand-ins.
    `node_seconds`: by class, the seconds that each of its nodes takes longer on the embedded server.
    `per_target`: only results of this run's targets count as done. `keep_stale`: trials stay done although their model
    files changed since; `remake_stale`: those are made again too of which only the time of a file changed.
    `may_be_gone`: the indexes of trials that ran before. The run leaves out those that a target refuses only because it
    offers less now (see `preflight.find_gone`), and their rows say so.
    `allow_different_models`: the targets may have different files under one name. `notify`: the URL that gets a message
    when the run ends; an empty text: none does, even if the experiment names one.
    """

    concurrency: int | None = None
    retries: int | None = None
    timeout: float | None = None
    max_trials: int | None = None
    max_failures: int | float | None = None
    budget: Decimal | float | str | None = None
    fail_fast: bool = False
    where: str | None = None
    patience: float | None = None
    keep_temp: bool | None = None
    per_target: bool | None = None
    notify: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSettings(_PlainOptions):
    """The options of one run with all defaults applied. `concurrency` None: use that of the target or its dialect."""

    concurrency: int | None
    retries: int
    timeout: float | None
    allowed_failures: float  # the run stops when the number of failed trials exceeds it
    budget: int | None  # in micro-dollars
    patience: float
    keep_temp: bool
    per_target: bool


def resolve_settings(options: RunOptions, defaults: RunSettings, trial_count: int) -> EffectiveSettings:
    """Apply the experiment's `run:` section as defaults of `options`. `trial_count`: the size of the plan.

    Raises UsageError for values out of range, and if the plan has more than `max_trials` trials, which protects from
    a sweep that is larger, and dearer, than it was meant to be.
    """
    for name, minimum in (("concurrency", 1), ("retries", 0), ("max_trials", 1), ("limit", 0)):
        value = getattr(options, name)
        if value is not None and value < minimum:
            raise UsageError(f"{name}: {value} is less than {minimum}")
    if options.timeout is not None and not options.timeout > 0:
        raise UsageError(f"timeout: {options.timeout} is not a number of seconds above 0")
    if options.patience is not None and not options.patience >= 0:
        raise UsageError(f"patience: {options.patience} is not a number of seconds, at least 0")
    max_trials = _apply_default(options.max_trials, defaults.max_trials)
    if max_trials is not None and trial_count > max_trials:
        raise UsageError(
            f"the plan has {trial_count} trials, more than max_trials allows ({max_trials}); nothing was submitted. "
            f"Narrow the sweep, or lift the limit with --max-trials {trial_count}"
        )
    return EffectiveSettings(
        concurrency=_apply_default(options.concurrency, defaults.concurrency),
        retries=_apply_default(options.retries, defaults.retries),
        timeout=_apply_default(options.timeout, defaults.timeout),
        allowed_failures=0
        if options.fail_fast
        else _count_allowed_failures(_apply_default(options.max_failures, defaults.max_failures), trial_count),
        budget=_read_budget(_apply_default(options.budget, defaults.budget)),
        patience=_apply_default(options.patience, defaults.patience),
        keep_temp=_apply_default(options.keep_temp, defaults.keep_temp),
        per_target=_apply_default(options.per_target, defaults.per_target),
        **{name: getattr(options, name) for name in _PlainOptions.__slots__},
    )


def read_notify(notify: str | None, defaults: RunSettings) -> NotifyAddress | None:
    """Parse the URL of a caller's option, or else that of the experiment. Raises UsageError without showing it."""
    url = _apply_default(notify, defaults.notify)
    try:
        return parse_notify_url(url) if url else None
    except UsageError as error:
        raise UsageError(f"notify: {error}") from None


def _read_budget(budget: Decimal | float | str | None) -> int | None:
    try:
        return None if budget is None else floor_micros(parse_usd(budget))
    except UsageError as error:
        raise UsageError(f"budget: {error}") from None


def _apply_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _count_allowed_failures(max_failures: float | None, trial_count: int) -> float:
    if max_failures is None:
        return float("inf")
    if not isinstance(max_failures, int):
        if not 0 <= max_failures <= 1:
            raise UsageError(
                f"max_failures: {max_failures} is not a share of the plan (0 to 1; a count is a whole number)"
            )
        return max_failures * trial_count
    if max_failures < 0:
        raise UsageError(f"max_failures: {max_failures} is less than 0")
    return max_failures


class TrialFilter:
    """`--where`: whether this run may submit a trial, judged by its slots and its columns of the table."""

    def __init__(self, text: str | None, plan: Plan, trials: Collection[int] | None = None) -> None:
        """Compile the expression `text`, which may use the plan's axes and slots; None selects every trial.

        `trials`: only those of these indexes, if given.

        Raises UsageError if it does not parse or uses another name.
        """
        self._trials = None if trials is None else frozenset(trials)
        names = tuple(dict.fromkeys((*plan.axis_sizes, *plan.axis_columns, *plan.slot_names)))
        try:
            self._expression = None if text is None else compile_column_expression(text, names)
        except ExpressionError as error:
            raise UsageError(f"--where: {error}") from None

    def __call__(self, trial: Trial) -> bool:
        if self._trials is not None and trial.index not in self._trials:
            return False
        if self._expression is None:
            return True
        values: Mapping[str, Any] = {**trial.axes, **trial.columns, **trial.params}
        try:
            return bool(self._expression.evaluate(values))
        except ExpressionError as error:
            raise UsageError(f"--where: trial {trial.index}: {error}") from None


def resolve_output(out: str | os.PathLike[str] | None, experiment: Experiment) -> tuple[Path, str | None]:
    """Return the results folder, and the URL that pictures go to instead (None: they go to the folder).

    `out` may be a folder or a URL. Raises UsageError for a URL that cannot be used.
    """
    is_remote = isinstance(out, str) and is_url(out)
    url = str(out) if is_remote else experiment.run.out
    if url is not None:
        check_url(url)
    if out is None or is_remote:
        return default_results_folder(experiment.file, experiment.name), url
    return Path(out), url
