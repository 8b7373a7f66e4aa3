"""Say why a run ended at its budget, what is left, and which budget would do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sweeper.model.money import CURRENCY, NOTHING, Amount, format_usd

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.running.folder_spending import FolderSpending

_DIGITS: Final = 2  # significant ones, of the budget to try next


def describe_over_budget(spending: FolderSpending, left: Iterable[tuple[Trial, int]]) -> str:
    """Describe the end of a run at its budget. `left`: the first trial of each job that is left, and how many it is.

    The first of them comes next.
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
    return (
        f"budget: {amount} of {budget} is spent, and the next job may cost {format_usd(next_job.high)} {CURRENCY}; "
        f"{are_left} left, for about {total}. To go on, run the same command with `--budget '{larger} {CURRENCY}'`"
    )


def _round_up(usd: float) -> str:
    """Return a sum with two significant digits that is at least `usd`."""
    unit = 10.0 ** (math.floor(math.log10(usd)) - _DIGITS + 1) if usd > 0 else 1.0
    return format_usd(math.ceil(usd / unit - 1e-9) * unit)
