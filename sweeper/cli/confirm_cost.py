"""Ask before a run spends more than its user expects.

A program that calls `sweeper.run` is not asked: it has `sweeper plan --json` and the budget of the run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console
from sweeper.comfy.target import Target
from sweeper.errors import SweeperError, UsageError
from sweeper.model.experiment import Experiment
from sweeper.model.money import NOTHING, Amount, floor_micros
from sweeper.model.result import Run
from sweeper.model.target_spec import is_comfy_platform
from sweeper.planning.plan import Plan
from sweeper.planning.plan import plan as make_plan
from sweeper.running.count_plan import answer_plan
from sweeper.running.plan_answer import PlanAnswer
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions
from sweeper.store import Store
from sweeper.wording import count_things

_MAX_UNPRICED_JOBS: Final = 100  # on a paid target whose price nobody stated

option = click.option("--yes", is_flag=True, help="Do not ask before the run spends more than run.confirm_above.")


def confirm_before(runner: Callable[..., Run], *, yes: bool) -> Callable[..., Run]:
    """The same runner, but on a terminal it asks before a run that may cost more than `run.confirm_above`.

    Without a terminal it says what the run may cost, unless the run has a budget, and goes on. The runner raises
    SweeperError if the answer is no.
    """

    def run(experiment: Experiment, target: Any = None, out: Any = None, **rest: Any) -> Run:
        prepared = Prepared(experiment, target, rest.get("named") or {})
        # A given plan repeats a few jobs of a run about which the user was asked, as `check --attribute` does.
        if not yes and rest.get("plan") is None and list_paid_targets(prepared):
            rest["plan"] = make_plan(experiment)
            confirm_plan(prepared, rest["plan"], out, rest)
        return runner(experiment, target=target, out=out, **rest)

    return run


def confirm_plan(prepared: Prepared, plan: Plan, out: Any, run_options: Mapping[str, Any]) -> None:
    """On a terminal, ask before a run of a plan. Raises SweeperError if the answer is no."""
    answer = _answer_plan(replace(prepared, plans=(plan,)), out, run_options)
    budget = run_options.get("budget")
    budget = prepared.experiment.run.budget if budget is None else budget
    _confirm(answer, list_paid_targets(prepared), prepared.experiment, budget)


def confirm_search(prepared: Prepared, out: Any, plan: Plan, *, trials: int, budget: Decimal | None) -> None:
    """On a terminal, ask before a search of up to `trials` trials that may cost more than `run.confirm_above`.

    `plan`: the next of these trials, from whose cost that of the others is estimated. Raises SweeperError if the answer
    is no.
    """
    answer = _answer_plan(replace(prepared, plans=(plan,)), out, {})
    amount = answer.estimate_cost(trials)
    if answer.cost is not None and amount is not None:
        answer = replace(answer, cost=replace(answer.cost, left=amount))
    answer = replace(answer, jobs=trials if answer.jobs else 0)
    _confirm(answer, list_paid_targets(prepared), prepared.experiment, budget)


def _answer_plan(prepared: Prepared, out: Any, run_options: Mapping[str, Any]) -> PlanAnswer:
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


def _confirm(answer: PlanAnswer, paid: Sequence[Target], experiment: Experiment, budget: Decimal | None) -> None:
    left = None if budget is None else max(floor_micros(budget) - load_spent(Path(answer.out)).at_most, 0)
    confirm_above = floor_micros(experiment.run.confirm_above)
    question = _find_question(answer, paid, confirm_above, left)
    if question is None:
        return
    if console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr):
        if answer.cost is not None:
            console.print_status(sanitize(f"cost {answer.describe_cost()}"))
        if not click.confirm(sanitize(f"{question[0].upper()}{question[1:]}?"), err=True):
            raise SweeperError("the answer was no, so nothing was submitted")
    elif left is None:
        console.warn(f"about to {question} (--yes hides this line)")


def list_paid_targets(prepared: Prepared) -> list[Target]:
    """The targets of a run on which jobs can cost anything."""
    try:
        targets = prepared.resolve_targets()
    except UsageError:  # mistakes, which the run reports, or targets that only workers know
        return []
    return [target for target in targets if _may_cost(target)]


def _may_cost(target: Target) -> bool:
    """Whether jobs on the target can cost anything: its time has a price, or a key of the user's pays for its jobs."""
    return target.price is not None or target.partner_key_env is not None or is_comfy_platform(target.url)


def _find_question(
    answer: PlanAnswer, targets: Sequence[Target], confirm_above: int, budget_left: float | None
) -> str | None:
    """What to ask about a plan; None if it costs too little to ask.

    `confirm_above` and what is left of the budget are in micro-dollars.
    """
    amount = answer.cost.left if answer.cost is not None else NOTHING
    if budget_left is not None:
        amount = Amount(int(min(amount.low, budget_left)), int(min(amount.at_most, budget_left)))
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
