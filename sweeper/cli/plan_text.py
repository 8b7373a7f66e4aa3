"""The text output of `sweeper plan`: axes, filters, work to do, order, estimated time, and differences.

Everything comes from the summary that `--json` prints, except the values of the axes, which come from the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sweeper.answers.cells import format_cell, sanitize
from sweeper.cli.cost_text import format_cost, format_cost_difference, show_cost_tables
from sweeper.cli.schema_text import join_choices
from sweeper.cli.text_table import print_table, shorten_cell
from sweeper.planning.plan import Plan
from sweeper.wording import count_things

_MAX_ROWS: Final = 10  # rows of each kind of difference
_Row = tuple[str, "int | str", str]  # label, number, the text after it


def show_plan(plan: Plan, summary: Mapping[str, Any], print_line: Callable[[str], None]) -> None:
    """Print a plan. `summary` is what PlanSummary.to_dict returns."""
    on = f" on {', '.join(summary['targets'])}" if summary["targets"] else ""
    print_line(f"{summary['name']}: {count_things(summary['count'], 'trial')} of {summary['template']}{on}")
    print_line("")
    name_width = max(map(len, summary["axes"]), default=0)
    size_width = max((len(str(size)) for size in summary["axes"].values()), default=0)
    for name, size in summary["axes"].items():
        values = join_choices([shorten_cell(format_cell(cell)) for cell in plan.axis_cells(name)])
        print_line(sanitize(f"  {name:<{name_width}}  {size:>{size_width}}  {values}"))
    if summary["axes"]:
        print_line("")
    rows = [
        *_describe_filters(summary),
        *_describe_work(summary),
        *_describe_order(summary),
        *_describe_estimate(summary),
        *format_cost(summary),
    ]
    number_width = max(len(str(number)) for _, number, _ in rows if isinstance(number, int))
    for label, number, rest in rows:
        cell = f"{number:>{number_width}}" if isinstance(number, int) else number
        print_line(sanitize(f"{label:<10} {cell}{f'  {rest}' if rest else ''}"))
    if "workflows" in summary:
        files = summary["workflows"]
        same = f"  ({files['same']} unchanged)" if files["same"] else ""
        print_line(f"workflows  {files['written'] + files['same']}  in {files['dir']}{same}")
    show_cost_tables(summary["cost"], print_line)
    if "diff" in summary:
        _show_diff(summary["diff"], print_line)


def _describe_filters(summary: Mapping[str, Any]) -> Iterator[_Row]:
    """Rows for the product of each block, and for what its filters exclude and its `include` adds."""
    blocks = summary["blocks"]
    for number, block in enumerate(blocks, 1):
        if len(blocks) > 1 or len(block["sizes"]) > 1 or block["excluded"] or block["included"]:
            factors = " x ".join(map(str, block["sizes"]))
            yield "product" if len(blocks) == 1 else f"block {number}", block["product"], f"= {factors}"
        label = "excluded"
        for dropped in block["excluded"]:
            yield label, dropped["count"], f"by {dropped['reason']} {_format_filter(dropped['says'])}"
            label = ""
        if block["included"]:
            yield "included", block["included"], ""


def _format_filter(filter_value: Any) -> str:
    """`{steps: 8, seed: 1}` for a mapping, as it is written in the experiment."""
    if isinstance(filter_value, Mapping):
        return "{" + ", ".join(f"{key}: {format_cell(value)}" for key, value in filter_value.items()) + "}"
    return format_cell(filter_value)


def _describe_work(summary: Mapping[str, Any]) -> Iterator[_Row]:
    yield "trials", summary["count"], ""
    if summary["where"] is not None:
        yield "selected", summary["selected"], f"(by --where: {summary['where']})"
    if summary["duplicates"]:
        yield "duplicates", summary["duplicates"], "(equal to another trial; run once)"
    yield "done", summary["done"], f"(in {summary['out']})" if summary["done"] else ""
    if summary["failed"]:
        yield "failed", summary["failed"], "(in an earlier run; --retry-failed resubmits them)"
    jobs = f"({count_things(summary['jobs'], 'job')})" if summary["jobs"] != summary["new"] else ""
    yield "new", summary["new"], jobs if summary["limit"] is None else f"(submits {summary['jobs']}, by --limit)"
    if summary["open"]:
        yield "open", summary["open"], "(submitted earlier, outcome unknown; checked before submitting)"


def _describe_order(summary: Mapping[str, Any]) -> Iterator[_Row]:
    order = summary["order"]
    by = ", by measured node times" if order["measured"] else ""
    if order["caching"] != "classic":
        by += f", for a server with the cache {order['caching']!r}"
    for number, axes in enumerate(order["axes"], 1):
        label = "order" if len(order["axes"]) == 1 else f"order {number}"
        yield label, " > ".join(axes) or "a single trial", f"({order['mode']}, outermost first{by})"
    if order["why_written"]:
        yield "", f"the written order, because {order['why_written']}", ""
    if order["saved"] > 0:
        saved = f"runs {order['executions']} nodes instead of {order['written']} in written order"
        yield "", f"{saved}: {order['saved']} saved", ""


def _describe_estimate(summary: Mapping[str, Any]) -> Iterator[_Row]:
    estimate = summary["estimate"]
    if not summary["jobs"]:
        return
    if estimate is None:
        yield "estimate", "unknown: no job has run yet", ""
        return
    job = estimate["job"]
    each = f"{format_duration(job['mean_s'])} each"
    if estimate["by_jobs"] > 1:
        each = f"{each} ({format_duration(job['min_s'])} to {format_duration(job['max_s'])})"
    spread = (
        f" ({format_duration(estimate['min_s'])} to {format_duration(estimate['max_s'])})"
        if estimate["max_s"] > estimate["min_s"]
        else ""
    )
    yield "estimate", f"{format_duration(estimate['mean_s'])}{spread} for one job at a time", ""
    yield "", f"from {count_things(estimate['by_jobs'], 'earlier job')}: {each}", ""


def _show_diff(diff: Mapping[str, Any], print_line: Callable[[str], None]) -> None:
    print_line("")
    print_line(f"against run {diff['run']} in {diff['results']}:")
    explanations = {
        "same": "the same work",
        "new": "not in the run",
        "changed": "the same axis values, different work",
        "gone": "in the run, no longer in the plan",
    }
    widest = max(len(str(diff[kind])) for kind in explanations)
    for kind, text in explanations.items():
        print_line(f"  {kind:<8} {diff[kind]:>{widest}}  {text}")
    if diff["cost"] is not None:
        print_line(f"  cost     {format_cost_difference(diff['cost'])}")
    rows = [(kind, row) for kind in ("changed", "new", "gone") for row in diff["trials"][kind][:_MAX_ROWS]]
    if rows:
        print_line("")
        print_table([_make_diff_row(kind, row) for kind, row in rows], print_line, last="what differs")
    hidden = sum(max(0, diff[kind] - _MAX_ROWS) for kind in ("changed", "new", "gone"))
    if hidden:
        print_line(f"  and {hidden} more; --json lists them")


def _make_diff_row(kind: str, row: Mapping[str, Any]) -> dict[str, str]:
    """One row of the table. The trial number is the plan's, or the run's if the row is gone."""
    cells = {"": kind, "trial": str(row["trial"])}
    cells |= {name: shorten_cell(format_cell(value)) for name, value in row["axes"].items()}
    if kind == "changed":
        params = [
            f"{name} {shorten_cell(format_cell(was))} -> {shorten_cell(format_cell(now))}"
            for name, (was, now) in row["params"].items()
        ]
        cells["what differs"] = ", ".join(params) or "the workflow or an input file"
    return cells


def format_duration(seconds: float) -> str:
    """`5.0 s`, `2 min 0 s`, `2 h 2 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
