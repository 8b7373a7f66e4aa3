"""What a run cost, for the summary at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.cli.plan_cost import to_amount
from sweeper.model.charges import AT_LEAST
from sweeper.model.money import CURRENCY, NOTHING, Amount
from sweeper.model.result import Run
from sweeper.store import Store


def describe_run_cost(run: Run) -> dict[str, Any] | None:
    """What the jobs of the run cost, and those of all runs of its folder, for JSON.

    A job that has not ended counts as the most that it may cost. None for a run without costs and without a budget.
    """
    if run.spent == NOTHING and run.budget is None:
        return None
    with Store.open(run.out, readonly=True) as store:
        cost = store.charges.load_whole_cost(run.run_id)
    return {
        "currency": CURRENCY,
        "run": run.cost.to_dict(),
        "kind": None if cost is None else cost.kind.removesuffix(AT_LEAST),
        "folder": run.spent.to_dict(),
        "budget": run.budget,
    }


def format_run_cost(cost: Mapping[str, Any]) -> str:
    """The same as text."""
    text = str(to_amount(cost["run"])) + " in this run" + (f" ({cost['kind']})" if cost["kind"] else "")
    if cost["folder"] != cost["run"] or cost["budget"] is not None:
        text += f", {to_amount(cost['folder'])} in this folder"
    return text if cost["budget"] is None else f"{text} of a budget of {Amount.exactly(cost['budget'])}"
