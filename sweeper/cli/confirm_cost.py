"""Ask on a terminal before a run spends more than its user expects."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console
from sweeper.errors import SweeperError
from sweeper.model.experiment import Experiment
from sweeper.model.result import Run
from sweeper.planning.plan import Plan
from sweeper.running.cost_question import (
    CONFIRMED,
    UNANSWERED,
    answer_priced_plan,
    find_cost_question,
    list_paid_targets,
)
from sweeper.running.plan_answer import PlanAnswer
from sweeper.running.prepare import Prepared

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
            rest["plan"] = Plan(experiment)
            limit = confirm_plan(prepared, rest["plan"], out, rest)
            rest |= {} if limit is None else {"budget": limit}
        return runner(experiment, target=target, out=out, **rest)

    return run


def confirm_plan(prepared: Prepared, plan: Plan, out: Any, run_options: Mapping[str, Any]) -> Decimal | None:
    """On a terminal, ask before a run of a plan. Raises SweeperError if the answer is no.

    A page asks by the variable `CONFIRMED`: returns the budget that the answer allows, or prints the question, and
    raises click's Exit.
    """
    answer = answer_priced_plan(replace(prepared, plans=(plan,)), out, run_options)
    budget = run_options.get("budget")
    budget = prepared.experiment.run.budget if budget is None else budget
    return _confirm(prepared, answer, budget)


def confirm_search(prepared: Prepared, out: Any, plan: Plan, *, trials: int, budget: Decimal | None) -> None:
    """On a terminal, ask before a search of up to `trials` trials that may cost more than `run.confirm_above`.

    `plan`: the next of these trials, from whose cost that of the others is estimated. Raises SweeperError if the answer
    is no.
    """
    answer = answer_priced_plan(replace(prepared, plans=(plan,)), out, {})
    amount = answer.estimate_cost(trials)
    if answer.cost is not None and amount is not None:
        answer = replace(answer, cost=replace(answer.cost, left=amount))
    answer = replace(answer, jobs=trials if answer.jobs else 0)
    _confirm(prepared, answer, budget)


def _confirm(prepared: Prepared, answer: PlanAnswer, budget: Decimal | None) -> Decimal | None:
    question = find_cost_question(answer, list_paid_targets(prepared), prepared.experiment, budget)
    asked = sanitize(f"{question.text[0].upper()}{question.text[1:]}?") if question.text else ""
    if (confirmed := os.environ.get(CONFIRMED)) is not None:
        if asked and confirmed != asked:
            console.print_line(asked)
            raise click.exceptions.Exit(UNANSWERED)
        return question.limit
    if not asked:
        return None
    if console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr):
        if answer.cost is not None:
            console.print_status(sanitize(f"cost {answer.describe_cost()}"))
        if not click.confirm(asked, err=True):
            raise SweeperError("the answer was no, so nothing was submitted")
    elif not question.has_budget:
        console.warn(f"about to {question.text} (--yes hides this line)")
    return None
