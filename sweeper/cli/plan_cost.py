"""The cost of a plan for `plan --json`, and as text.

A figure is `priced` (from the class of a partner node) or `estimated` (learnt seconds, times the price of the target).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sweeper.cli import console
from sweeper.cli.text_table import print_table, shorten_cell
from sweeper.model.money import CURRENCY, Amount
from sweeper.planning.prices import NodeCost, PlanCost, PlanPrices

_MAX_NODES: Final = 3  # in the line; the table has all
_MAX_VALUES: Final = 20  # of an axis in the table; --json has all


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
        parts.append(f"{to_amount(cost['priced']['total'])} ({_list_nodes(cost)})")
    if cost["estimated"] is not None:
        parts.append(_format_time(cost["estimated"]))
    text = " + ".join(parts)
    left = to_amount(cost["left"])
    if summary["limit"] is not None:
        text += f"; {left} for the jobs of this run (at most {summary['limit']})"
    elif summary["done"]:
        done = f"{summary['done']} of {summary['selected']} done"
        text += f"; {left if left.high else 'nothing'} left to pay ({done})"
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
    return ("about " if node["approximate"] else "") + str(to_amount(node["each"]))


def _format_time(time: Mapping[str, Any]) -> str:
    amount = to_amount(time["total"])
    seconds = time["seconds"]
    if seconds is not None:
        return f"{format_range(seconds['low'], seconds['high'])} of GPU, {amount}"
    if math.isinf(amount.high):
        return "GPU time, unknown until the first job has run"
    return f"{amount} for the jobs on the target"


def format_range(low: float, high: float) -> str:
    """A range of seconds in one unit: `40-55 s`, `0.9-1.3 h`."""
    unit, size = next(
        (one for one in (("h", 3600.0), ("min", 60.0)) if high >= 1.5 * one[1]),
        ("s", 1.0),
    )
    first, last = f"{low / size:.1f}", f"{high / size:.1f}"
    return f"{first} {unit}" if first == last else f"{first}-{last} {unit}"


def show_cost_tables(cost: Mapping[str, Any] | None, print_line: Callable[[str], None]) -> None:
    """Print the cost by node if there are several, and by the value of each axis that changes it."""
    if cost is None:
        return
    nodes = cost["nodes"]
    if len(nodes) > 1:
        print_line("")
        print_line("cost by node:")
        print_table(
            [
                {
                    "node": node["node"],
                    "class": node["class"],
                    "executions": _format_executions(node),
                    "each": _format_each(node),
                    "total": str(to_amount(node["total"])),
                }
                for node in nodes
            ],
            print_line,
        )
    for name, rows in cost["axes"].items():
        print_line("")
        print_line(console.sanitize(f"cost by {name}:"))
        print_table([_make_axis_row(name, row) for row in rows[:_MAX_VALUES] if row["jobs"]], print_line)
        if len(rows) > _MAX_VALUES:
            print_line(f"  and {len(rows) - _MAX_VALUES} more; --json lists them")
    reasons = [f"  node {node['node']} ({node['class']}): {reason}" for node in nodes for reason in node["reasons"][:3]]
    if reasons:
        print_line("")
        print_line("not known exactly, so the cost is a lower bound:")
        for line in reasons:
            print_line(console.sanitize(line))


def _make_axis_row(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    amount = to_amount(row["priced"])
    return {
        name: shorten_cell(console.format_cell(row["value"])),
        "jobs": str(row["jobs"]),
        "each job": str(amount.scale(1 / row["jobs"])),
        "total": str(amount),
    }


def format_cost_difference(cost: Mapping[str, Any]) -> str:
    """The cost of the partner nodes and of GPU time in an earlier run and in the plan, for `plan --diff`."""
    before, now, time = to_amount(cost["run"]), to_amount(cost["plan"]), cost["time"]
    texts = [_format_change(before, now, "partner nodes")] if time is None or before.high or now.high else []
    if time is not None:
        texts.append(_format_change(to_amount(time["run"]), to_amount(time["plan"]), "GPU time"))
    return "; ".join(texts)


def _format_change(before: Amount, now: Amount, what: str) -> str:
    if before == now:
        return f"{now} for {what}, as before"
    change = ""
    if before.low == before.high and now.low == now.high:
        sign = "+" if now.low > before.low else "-"
        change = f" ({sign}{Amount.exactly(abs(now.low - before.low))})"
    return f"{before} -> {now} for {what}{change}"


def to_amount(value: Mapping[str, Any]) -> Amount:
    """The amount that `Amount.to_dict` wrote."""
    return Amount(value["low"], math.inf if value["high"] is None else value["high"])
