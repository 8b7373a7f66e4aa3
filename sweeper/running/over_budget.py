"""Say why a run ended at its budget, what is left, and which budget would do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sweeper.comfy.protocol import JobState
from sweeper.model.money import CURRENCY, NOTHING, Amount, format_usd
from sweeper.model.shell_words import join_command
from sweeper.running.retry_rules import is_out_of_memory, is_transient

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.running.folder_spending import FolderSpending
    from sweeper.store.records import JobRecord

_DIGITS: Final = 2  # significant ones, of the budget to try next


def may_pass(job: JobRecord) -> bool:
    """Whether a job failed for a reason that may pass. The budget may have ended the run before its retry."""
    state = JobState(job.state, error_type=job.error_type, error=job.error)
    return is_out_of_memory(state) or is_transient(state)


def describe_over_budget(spending: FolderSpending, left: Iterable[tuple[Trial, int]], *, failures: int = 0) -> str:
    """Describe the end of a run at its budget. `left`: the first trial of each job that is left, and how many it is.

    The first of them comes next. `failures`: how many of the jobs failed for a reason that may pass.
    """
    assert spending.budget is not None
    prices, spent = spending.prices, spending.spent
    total, trials, margin, next_job = NOTHING, 0, 0.0, NOTHING
    for trial, count in left:
        forecast = prices.forecast(trial)
        if not trials:
            next_job = prices.forecast_most(trial)
            margin = next_job.high - forecast.high
        total += forecast
        trials += count
    budget = f"{format_usd(spending.budget)} {CURRENCY}"
    if math.isinf(spent.high):
        jobs = {one.target for one in spending.unbounded_charges}
        where = f" on {' and '.join(sorted(jobs))}" if jobs else ""
        return (
            f"budget: a job{where} may still run, and nobody knows what it costs at most; the same command goes on "
            "when it has ended"
        )
    amount = Amount.exactly(spent.high)
    are_left = "1 trial is" if trials == 1 else f"{trials} trials are"
    needed = spent.high + total.high + margin
    larger = _round_up(needed if math.isfinite(needed) else 2 * (spending.budget + spent.high))
    option = join_command(["--budget", f"{larger} {CURRENCY}"])
    retry = ""
    if failures:
        retry = f" and `--retry-failed`, because {failures} of them failed for a reason that may pass"
    return (
        f"budget: {amount} of {budget} is spent, and the next job may cost {format_usd(next_job.high)} {CURRENCY}; "
        f"{are_left} left, for about {total}. To go on, run the same command with `{option}`"
        f"{retry}"
    )


def _round_up(usd: float) -> str:
    """Return a sum with two significant digits that is at least `usd`."""
    unit = 10.0 ** (math.floor(math.log10(usd)) - _DIGITS + 1) if usd > 0 else 1.0
    return format_usd(math.ceil(usd / unit - 1e-9) * unit)
