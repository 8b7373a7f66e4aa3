"""Find what to ask before a run that spends more than its user expects; the doors ask it.

A program that calls `sweeper.run` is not asked: it has `sweeper plan --json` and the budget of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeper.comfy.target import Target
from sweeper.errors import UsageError
from sweeper.model.experiment import Experiment
from sweeper.model.money import MICROS, NOTHING, Amount, floor_micros
from sweeper.model.target_spec import is_comfy_platform
from sweeper.running.count_plan import answer_plan
from sweeper.running.plan_answer import PlanAnswer
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions
from sweeper.store import Store
from sweeper.wording import count_things

# A variable of runs that `sweeper open` starts, whose page asks: the question that was answered with yes, or nothing.
CONFIRMED: Final = "SWEEPER_CONFIRMED"
UNANSWERED: Final = 4  # the exit code of one that submitted nothing, because its last line is another question
_MAX_UNPRICED_JOBS: Final = 100  # on a paid target whose price nobody stated


class CostQuestion(NamedTuple):
    """What to ask: `submit 12 jobs to cloud for 6.00 USD`; None if a run costs too little to ask.

    `has_budget`: whether it has a budget. `limit`: the budget of a run that must not cost more than a yes was for, or
    than what needs none; None for a cost that is not known.
    """

    text: str | None
    has_budget: bool
    limit: Decimal | None


def answer_priced_plan(prepared: Prepared, out: Any, run_options: Mapping[str, Any]) -> PlanAnswer:
    """What a run would do, by the node classes of its targets."""
    names = {field.name for field in fields(RunOptions)}
    options = RunOptions(**{name: value for name, value in run_options.items() if name in names})
    return answer_plan(prepared.ask_targets(), out if isinstance(out, Path) else None, options)


def load_spent(out: Path) -> Amount:
    """What the jobs in a results folder cost; nothing if there is none yet."""
    if not Store.exists(out):
        return NOTHING
    with Store.open(out, readonly=True) as store:
        return store.charges.load_spent()


def find_cost_question(
    answer: PlanAnswer, paid: Sequence[Target], experiment: Experiment, budget: Decimal | None
) -> CostQuestion:
    """What to ask about a plan. `paid`: those of `list_paid_targets`."""
    spent, above = load_spent(Path(answer.out)), floor_micros(experiment.run.confirm_above)
    left = None if budget is None else max(floor_micros(budget) - spent.at_most, 0)
    amount = answer.cost.left if answer.cost is not None else NOTHING
    if left is not None:
        amount = Amount(int(min(amount.low, left)), int(min(amount.at_most, left)))
    text = _find_text(answer, paid, above, amount)
    limit = None
    if answer.cost is not None and answer.has_classes and amount.high is not None and spent.high is not None:
        limit = Decimal(spent.high + (above if text is None else amount.high)) / MICROS
        limit = limit if budget is None else min(budget, limit)
    return CostQuestion(text, left is not None, limit)


def list_paid_targets(prepared: Prepared) -> list[Target]:
    """The targets of a run on which jobs can cost anything."""
    try:
        targets = prepared.resolve_targets()
    except UsageError:  # mistakes, which the run reports, or targets that only workers know
        return []
    # Their time has a price, or a key of the user's pays for their jobs.
    return [of for of in targets if of.price is not None or of.partner_key_env is not None or is_comfy_platform(of.url)]


def _find_text(answer: PlanAnswer, targets: Sequence[Target], confirm_above: int, amount: Amount) -> str | None:
    """What to ask; None if the plan costs too little. `confirm_above` is in micro-dollars."""
    unpriced = [target.name for target in targets if is_comfy_platform(target.url) and target.price is None]
    has_no_price = not answer.has_classes or unpriced or amount.high is None
    is_dear = (amount.low if amount.high is None else amount.high) > confirm_above
    if not is_dear and not (has_no_price and answer.jobs > _MAX_UNPRICED_JOBS):
        return None
    question = f"submit {count_things(answer.jobs, 'job')} to {' and '.join(target.name for target in targets)}"
    if is_dear:
        question += f" for {amount}"
    if unpriced:
        return f"{question}, whose time costs what nobody stated (`price:` of {' and '.join(unpriced)})"
    return question if is_dear else f"{question}, at a cost that is not known"
