"""What a run cost, for the summary at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.cli.plan_cost import to_amount
from sweeper.model.charges import find_weakest_kind, sum_charges
from sweeper.model.money import CURRENCY
from sweeper.model.result import Run
from sweeper.store import FILE_NAME, Store


def describe_run_cost(run: Run) -> dict[str, Any] | None:
    """What the jobs of the run cost, and those of all runs of its folder, for JSON; None if nothing has a price.

    A job that has not ended counts with what it costs at most.
    """
    if not (run.out / FILE_NAME).is_file():
        return None
    with Store.open(run.out, readonly=True) as store:
        charges = [(job.run, job.charge) for job in store.charges.iter_all()]
    own = [charge for run_id, charge in charges if run_id == run.run_id]
    if not charges:
        return None
    return {
        "currency": CURRENCY,
        "run": sum_charges(own).to_dict(),
        "kind": find_weakest_kind(charge.kind for charge in own),
        "folder": sum_charges(charge for _, charge in charges).to_dict(),
    }


def format_run_cost(cost: Mapping[str, Any]) -> str:
    """The same as text."""
    kind = "" if cost["kind"] is None else f" ({cost['kind']})"
    text = f"{to_amount(cost['run'])} in this run{kind}"
    return text if cost["folder"] == cost["run"] else f"{text}, {to_amount(cost['folder'])} in this folder"
