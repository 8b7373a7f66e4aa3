"""What plans and runs cost: as JSON (`describe_*`), and that as text (`format_*`, `show_*`).

A figure of a plan is `priced` (from the class of a partner node) or `estimated` (learnt seconds, times the price of the
target).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from sweeper.answers.cells import format_cell, sanitize
from sweeper.cli.text_table import print_table, shorten_cell
from sweeper.model.charges import AT_LEAST
from sweeper.model.money import CURRENCY, NOTHING, Amount, to_usd
from sweeper.model.result import Run
from sweeper.planning.pricing import NodeCost, PlanCost, PlanPrices
from sweeper.store import Store

_MAX_NODES: Final = 3  # in the line; the table has all
_MAX_VALUES: Final = 20  # in a table; --json has all

PrintLine = Callable[[str], None]


def _show_groups(name: str, rows: Sequence[Mapping[str, str]], print_line: PrintLine) -> None:
    print_line("")
    print_line(sanitize(f"cost by {name}:"))
    print_table(rows[:_MAX_VALUES], print_line)
    if len(rows) > _MAX_VALUES:
        print_line(f"  and {len(rows) - _MAX_VALUES} more; --json lists them")


# --- a plan


def describe_cost(prices: PlanPrices, distinct: bytearray, pending: bytearray) -> dict[str, Any] | None:
    """The cost of all distinct trials, and what is left to pay for the pending ones; None if nothing has a price.

    Both have one byte for each trial of the plan, in written order.
    """
    if not prices.has_prices:
        return None
    whole, left = prices.compute(distinct), prices.compute(pending)
    return {
        "currency": CURRENCY,
        "jobs": whole.jobs,
        "total": whole.total.to_dict(),
        "left": left.total.to_dict(),
        "priced": {"total": whole.node_total.to_dict(), "left": left.node_total.to_dict()},
        "estimated": _describe_time(whole, left),
        "nodes": [_describe_node(node, rest) for node, rest in zip(whole.nodes, left.nodes, strict=True)],
        "axes": {
            name: [{"value": cell, "jobs": jobs, "priced": amount.to_dict()} for cell, jobs, amount in rows]
            for name, rows in whole.axes.items()
        },
    }


def _describe_time(whole: PlanCost, left: PlanCost) -> dict[str, Any] | None:
    if whole.time is None or left.time is None:
        return None
    seconds = whole.time.seconds
    return {
        "seconds": None if seconds is None else {"low": round(seconds[0], 3), "high": round(seconds[1], 3)},
        "total": whole.time.amount.to_dict(),
        "left": left.time.amount.to_dict(),
    }


def _describe_node(node: NodeCost, left: NodeCost) -> dict[str, Any]:
    return {
        "node": node.node,
        "class": node.class_type,
        "kind": "priced",
        "executions": {"low": node.executions[0], "high": node.executions[1]},
        "each": node.each.to_dict(),
        "total": node.total.to_dict(),
        "left": left.total.to_dict(),
        "approximate": node.is_approximate,
        "reasons": list(node.reasons),
    }


def format_cost(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The row of the cost, as (label, text, rest). Nothing if the plan has no price."""
    cost = summary["cost"]
    if cost is None:
        return
    parts = []
    if cost["nodes"]:
        parts.append(f"{Amount.from_dict(cost['priced']['total'])} ({_list_nodes(cost)})")
    if cost["estimated"] is not None:
        parts.append(_format_time(cost["estimated"]))
    text = " + ".join(parts)
    left = Amount.from_dict(cost["left"])
    if summary["limit"] is not None:
        text += f"; {left} for the jobs of this run (at most {summary['limit']})"
    elif summary["done"]:
        done = f"{summary['done']} of {summary['selected']} done"
        text += f"; {'nothing' if left == NOTHING else left} left to pay ({done})"
    yield "cost", text, ""


def _list_nodes(cost: Mapping[str, Any]) -> str:
    nodes = cost["nodes"]
    texts = []
    for node in nodes[:_MAX_NODES]:
        count = _format_executions(node)
        unit = "jobs" if count == str(cost["jobs"]) else "executions"
        texts.append(f"{count} {unit} x {_format_each(node)} {node['class']}")
    more = [f"{len(nodes) - _MAX_NODES} more nodes"] if len(nodes) > _MAX_NODES else []
    return ", ".join([*texts, *more])


def _format_executions(node: Mapping[str, Any]) -> str:
    low, high = node["executions"]["low"], node["executions"]["high"]
    return str(high) if low == high else f"{low}-{high}"


def _format_each(node: Mapping[str, Any]) -> str:
    return ("about " if node["approximate"] else "") + str(Amount.from_dict(node["each"]))


def _format_time(time: Mapping[str, Any]) -> str:
    amount = Amount.from_dict(time["total"])
    seconds = time["seconds"]
    if seconds is not None:
        return f"{_format_range(seconds['low'], seconds['high'])} of GPU, {amount}"
    if amount.high is None:
        return "GPU time, unknown until the first job has run"
    return f"{amount} for the jobs on the target"


def _format_range(low: float, high: float) -> str:
    """A range of seconds in one unit: `40-55 s`, `0.9-1.3 h`."""
    units = (("h", 3600.0), ("min", 60.0))
    unit, size = next(((unit, size) for unit, size in units if high >= 1.5 * size), ("s", 1.0))
    first, last = f"{low / size:.1f}", f"{high / size:.1f}"
    return f"{first} {unit}" if first == last else f"{first}-{last} {unit}"


def show_cost_tables(cost: Mapping[str, Any] | None, print_line: PrintLine) -> None:
    """Print the cost by node if there are several, and by the value of each axis that changes it."""
    if cost is None:
        return
    nodes = cost["nodes"]
    if len(nodes) > 1:
        print_line("")
        print_line("cost by node:")
        print_table([_make_node_row(node) for node in nodes], print_line)
    for name, rows in cost["axes"].items():
        _show_groups(name, [_make_axis_row(name, row) for row in rows if row["jobs"]], print_line)
    reasons = [f"  node {node['node']} ({node['class']}): {reason}" for node in nodes for reason in node["reasons"][:3]]
    if reasons:
        print_line("")
        print_line("not known exactly, so the cost is a lower bound:")
        for line in reasons:
            print_line(sanitize(line))


def _make_node_row(node: Mapping[str, Any]) -> dict[str, str]:
    return {
        "node": node["node"],
        "class": node["class"],
        "executions": _format_executions(node),
        "each": _format_each(node),
        "total": str(Amount.from_dict(node["total"])),
    }


def _make_axis_row(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    amount = Amount.from_dict(row["priced"])
    return {
        name: shorten_cell(format_cell(row["value"])),
        "jobs": str(row["jobs"]),
        "each job": str(amount.scale(Fraction(1, row["jobs"]))),
        "total": str(amount),
    }


def format_cost_difference(cost: Mapping[str, Any]) -> str:
    """The cost of the partner nodes and of GPU time in an earlier run and in the plan, for `plan --diff`."""
    before, now, time = Amount.from_dict(cost["run"]), Amount.from_dict(cost["plan"]), cost["time"]
    texts = [_format_change(before, now, "partner nodes")] if time is None or {before, now} != {NOTHING} else []
    if time is not None:
        texts.append(_format_change(Amount.from_dict(time["run"]), Amount.from_dict(time["plan"]), "GPU time"))
    return "; ".join(texts)


def _format_change(before: Amount, now: Amount, what: str) -> str:
    if before == now:
        return f"{now} for {what}, as before"
    change = ""
    if before.low == before.high and now.low == now.high:
        difference = abs(now.low - before.low)
        change = f" ({'+' if now.low > before.low else '-'}{Amount(difference, difference)})"
    return f"{before} -> {now} for {what}{change}"


# --- a run


def describe_run_cost(run: Run) -> dict[str, Any] | None:
    """What the jobs of the run cost, and those of all runs of its folder.

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
        "budget": None if run.budget is None else to_usd(run.budget),
    }


def format_run_cost(cost: Mapping[str, Any]) -> str:
    """The same as text."""
    text = str(Amount.from_dict(cost["run"])) + " in this run" + (f" ({cost['kind']})" if cost["kind"] else "")
    if cost["folder"] != cost["run"] or cost["budget"] is not None:
        text += f", {Amount.from_dict(cost['folder'])} in this folder"
    return text if cost["budget"] is None else f"{text} of a budget of {Amount.exactly(cost['budget'])}"


def count_jobs(jobs: int) -> str:
    """`1 job`, `3 jobs`."""
    return "1 job" if jobs == 1 else f"{jobs} jobs"
