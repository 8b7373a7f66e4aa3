"""How `sweeper plan` looks to a person: what is swept, what is left out, what a run would do, what has changed.

Everything shown comes out of the summary that `--json` prints; only the axes' values are the plan's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli import console
from sweeper.cli.schema_text import join_choices

if TYPE_CHECKING:
    from sweeper.planning.plan import Plan

_EXPLANATIONS: Final = {
    "failed": "earlier; --retry-failed submits them again",
    "open": "submitted earlier, outcome unknown: looked for before anything is sent",
    "duplicates": "equal to another trial: done once",
}
_MAX_ROWS: Final = 10  # of each kind of difference
_MAX_CELL_LENGTH: Final = 32  # characters of a value
_Row = tuple[str, "int | str", str]  # label, number, what follows


def show_plan(plan: Plan, summary: Mapping[str, Any], print_line: Callable[[str], None]) -> None:
    """Put the plan on the screen, line by line."""
    on = f" on {', '.join(summary['targets'])}" if summary["targets"] else ""
    print_line(f"{summary['name']}: {_pluralize(summary['count'], 'trial')} of {summary['template']}{on}")
    print_line("")
    width = max(map(len, summary["axes"]), default=0)
    room = max((len(str(size)) for size in summary["axes"].values()), default=0)
    for name, size in summary["axes"].items():
        values = join_choices([_shorten(console.format_cell(cell)) for cell in plan.axis_cells(name)])
        print_line(console.sanitize(f"  {name:<{width}}  {size:>{room}}  {values}"))
    if summary["axes"]:
        print_line("")
    rows = [
        *_describe_filters(summary),
        *_describe_work(summary),
        *_describe_order(summary),
        *_describe_estimate(summary),
    ]
    widest = max(len(str(number)) for _, number, _ in rows if isinstance(number, int))
    for label, number, rest in rows:
        cell = f"{number:>{widest}}" if isinstance(number, int) else number
        print_line(console.sanitize(f"{label:<10} {cell}{f'  {rest}' if rest else ''}"))
    if "workflows" in summary:
        made = summary["workflows"]
        same = f"  ({made['same']} there already)" if made["same"] else ""
        print_line(f"workflows  {made['written'] + made['same']}  in {made['dir']}{same}")
    if "diff" in summary:
        _show_diff(summary["diff"], print_line)


def _describe_filters(summary: Mapping[str, Any]) -> Iterator[_Row]:
    """The products of the blocks and what becomes of them, where that is more than a number."""
    blocks = summary["blocks"]
    for number, block in enumerate(blocks, 1):
        if len(blocks) > 1 or len(block["sizes"]) > 1 or block["excluded"] or block["included"]:
            factors = " x ".join(map(str, block["sizes"]))
            yield "product" if len(blocks) == 1 else f"block {number}", block["product"], f"= {factors}"
        label = "excluded"
        for one in block["excluded"]:
            yield label, one["count"], f"by {one['reason']} {_format_filter(one['says'])}"
            label = ""
        if block["included"]:
            yield "included", block["included"], ""


def _format_filter(filter_value: Any) -> str:
    if isinstance(filter_value, Mapping):
        return "{" + ", ".join(f"{key}: {console.format_cell(value)}" for key, value in filter_value.items()) + "}"
    return console.format_cell(filter_value)


def _describe_work(summary: Mapping[str, Any]) -> Iterator[_Row]:
    yield "trials", summary["count"], ""
    if summary["duplicates"]:
        yield "duplicates", summary["duplicates"], f"({_EXPLANATIONS['duplicates']})"
    yield "done", summary["done"], f"(in {summary['out']})" if summary["done"] else ""
    if summary["failed"]:
        yield "failed", summary["failed"], f"({_EXPLANATIONS['failed']})"
    yield "new", summary["new"], f"({_pluralize(summary['jobs'], 'job')})" if summary["jobs"] != summary["new"] else ""
    if summary["open"]:
        yield "open", summary["open"], f"({_EXPLANATIONS['open']})"


def _describe_order(summary: Mapping[str, Any]) -> Iterator[_Row]:
    order = summary["order"]
    by = ", by measured node times" if order["measured"] else ""
    if order["caching"] != "classic":
        by += f", for a server with the cache {order['caching']!r}"
    for number, axes in enumerate(order["axes"], 1):
        label = "order" if len(order["axes"]) == 1 else f"order {number}"
        yield label, " > ".join(axes) or "a single trial", f"({order['mode']}, outermost first{by})"
    if order["saved"] > 0:
        saved = f"runs {order['executions']} nodes where the written order runs {order['written']}"
        yield "", f"{saved}: {order['saved']} saved", ""


def _describe_estimate(summary: Mapping[str, Any]) -> Iterator[_Row]:
    found = summary["estimate"]
    if not summary["jobs"]:
        return
    if found is None:
        yield "estimate", "none yet: no earlier job tells how long one takes", ""
        return
    job = found["job"]
    each = f"{format_duration(job['mean_s'])} a job"
    if found["by_jobs"] > 1:
        each = f"{each} ({format_duration(job['min_s'])} to {format_duration(job['max_s'])})"
    spread = (
        f" ({format_duration(found['min_s'])} to {format_duration(found['max_s'])})"
        if found["max_s"] > found["min_s"]
        else ""
    )
    yield "estimate", f"{format_duration(found['mean_s'])}{spread} one job at a time", ""
    yield "", f"by {_pluralize(found['by_jobs'], 'earlier job')}: {each}", ""


def _show_diff(diff: Mapping[str, Any], print_line: Callable[[str], None]) -> None:
    print_line("")
    print_line(f"against run {diff['run']} in {diff['results']}:")
    meaning = {
        "same": "the same work",
        "new": "not in the run",
        "changed": "other work under the same axis values",
        "gone": "in the run, not in the plan any more",
    }
    widest = max(len(str(diff[kind])) for kind in meaning)
    for kind, words in meaning.items():
        print_line(f"  {kind:<8} {diff[kind]:>{widest}}  {words}")
    rows = [(kind, row) for kind in ("changed", "new", "gone") for row in diff["trials"][kind][:_MAX_ROWS]]
    if rows:
        print_line("")
        _print_table([_make_diff_row(kind, row) for kind, row in rows], print_line)
    left = sum(max(0, diff[kind] - _MAX_ROWS) for kind in ("changed", "new", "gone"))
    if left:
        print_line(f"  and {left} more; --json lists them")


def _make_diff_row(kind: str, row: Mapping[str, Any]) -> dict[str, str]:
    """One line of the table; the index is the plan's, and the run's for what is gone."""
    cells = {"": kind, "trial": str(row["trial"])}
    cells |= {name: _shorten(console.format_cell(value)) for name, value in row["axes"].items()}
    if kind == "changed":
        params = [
            f"{name} {_shorten(console.format_cell(was))} -> {_shorten(console.format_cell(now))}"
            for name, (was, now) in row["params"].items()
        ]
        cells["what differs"] = ", ".join(params) or "the workflow or an input file"
    return cells


def _print_table(rows: list[dict[str, str]], print_line: Callable[[str], None]) -> None:
    """Columns under headings; one that no row has anything in is left out, what differs comes last."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    names.sort(key=lambda name: name == "what differs")
    lines = [dict(zip(names, names, strict=True)), *rows]
    widths = [max(len(line.get(name, "")) for line in lines) for name in names]
    for line in lines:
        cells = [f"{line.get(name, ''):<{width}}" for name, width in zip(names, widths, strict=True)]
        print_line(console.sanitize("  " + "  ".join(cells).rstrip()))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_CELL_LENGTH else text[: _MAX_CELL_LENGTH - 3] + "..."


def _pluralize(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def format_duration(seconds: float) -> str:
    """`5.0 s`, `2 min 0 s`, `2 h 2 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
