"""How `sweeper plan` looks to a person: what is swept, what is left out, what a run would do, what has changed.

Everything shown comes out of the summary that `--json` prints; only the axes' values are the plan's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli import console
from sweeper.cli.schema_text import choices

if TYPE_CHECKING:
    from sweeper.planning.plan import Plan

_MEANING: Final = {
    "failed": "earlier; --retry-failed submits them again",
    "open": "submitted earlier, outcome unknown: looked for before anything is sent",
    "duplicates": "equal to another trial: done once",
}
_ROWS: Final = 10  # of each kind of difference
_CELL: Final = 32  # characters of a value
_Row = tuple[str, "int | str", str]  # label, number, what follows


def show_plan(plan: Plan, summary: Mapping[str, Any], put: Callable[[str], None]) -> None:
    """Put the plan on the screen, line by line."""
    on = f" on {', '.join(summary['targets'])}" if summary["targets"] else ""
    put(f"{summary['name']}: {_many(summary['count'], 'trial')} of {summary['template']}{on}")
    put("")
    width = max(map(len, summary["axes"]), default=0)
    room = max((len(str(size)) for size in summary["axes"].values()), default=0)
    for name, size in summary["axes"].items():
        values = choices([_short(console.cell_text(cell)) for cell in plan.axis_cells(name)])
        put(console.clean(f"  {name:<{width}}  {size:>{room}}  {values}"))
    if summary["axes"]:
        put("")
    rows = [*_filter_rows(summary), *_work_rows(summary), *_order_rows(summary), *_estimate_rows(summary)]
    widest = max(len(str(number)) for _, number, _ in rows if isinstance(number, int))
    for label, number, rest in rows:
        cell = f"{number:>{widest}}" if isinstance(number, int) else number
        put(console.clean(f"{label:<10} {cell}{f'  {rest}' if rest else ''}"))
    if "workflows" in summary:
        made = summary["workflows"]
        same = f"  ({made['same']} there already)" if made["same"] else ""
        put(f"workflows  {made['written'] + made['same']}  in {made['dir']}{same}")
    if "diff" in summary:
        _show_difference(summary["diff"], put)


def _filter_rows(summary: Mapping[str, Any]) -> Iterator[_Row]:
    """The products of the blocks and what becomes of them, where that is more than a number."""
    blocks = summary["blocks"]
    for number, block in enumerate(blocks, 1):
        if len(blocks) > 1 or len(block["sizes"]) > 1 or block["excluded"] or block["included"]:
            factors = " x ".join(map(str, block["sizes"]))
            yield "product" if len(blocks) == 1 else f"block {number}", block["product"], f"= {factors}"
        label = "excluded"
        for one in block["excluded"]:
            yield label, one["count"], f"by {one['reason']} {_said(one['says'])}"
            label = ""
        if block["included"]:
            yield "included", block["included"], ""


def _said(says: Any) -> str:
    if isinstance(says, Mapping):
        return "{" + ", ".join(f"{key}: {console.cell_text(value)}" for key, value in says.items()) + "}"
    return console.cell_text(says)


def _work_rows(summary: Mapping[str, Any]) -> Iterator[_Row]:
    yield "trials", summary["count"], ""
    if summary["duplicates"]:
        yield "duplicates", summary["duplicates"], f"({_MEANING['duplicates']})"
    yield "done", summary["done"], f"(in {summary['out']})" if summary["done"] else ""
    if summary["failed"]:
        yield "failed", summary["failed"], f"({_MEANING['failed']})"
    yield "new", summary["new"], f"({_many(summary['jobs'], 'job')})" if summary["jobs"] != summary["new"] else ""
    if summary["open"]:
        yield "open", summary["open"], f"({_MEANING['open']})"


def _order_rows(summary: Mapping[str, Any]) -> Iterator[_Row]:
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


def _estimate_rows(summary: Mapping[str, Any]) -> Iterator[_Row]:
    found = summary["estimate"]
    if not summary["jobs"]:
        return
    if found is None:
        yield "estimate", "none yet: no earlier job tells how long one takes", ""
        return
    job = found["job"]
    each = f"{duration(job['mean_s'])} a job"
    if found["by_jobs"] > 1:
        each = f"{each} ({duration(job['min_s'])} to {duration(job['max_s'])})"
    spread = f" ({duration(found['min_s'])} to {duration(found['max_s'])})" if found["max_s"] > found["min_s"] else ""
    yield "estimate", f"{duration(found['mean_s'])}{spread} one job at a time", ""
    yield "", f"by {_many(found['by_jobs'], 'earlier job')}: {each}", ""


def _show_difference(diff: Mapping[str, Any], put: Callable[[str], None]) -> None:
    put("")
    put(f"against run {diff['run']} in {diff['results']}:")
    meaning = {
        "same": "the same work",
        "new": "not in the run",
        "changed": "other work under the same axis values",
        "gone": "in the run, not in the plan any more",
    }
    widest = max(len(str(diff[kind])) for kind in meaning)
    for kind, words in meaning.items():
        put(f"  {kind:<8} {diff[kind]:>{widest}}  {words}")
    rows = [(kind, row) for kind in ("changed", "new", "gone") for row in diff["trials"][kind][:_ROWS]]
    if rows:
        put("")
        _put_table([_difference(kind, row) for kind, row in rows], put)
    left = sum(max(0, diff[kind] - _ROWS) for kind in ("changed", "new", "gone"))
    if left:
        put(f"  and {left} more; --json lists them")


def _difference(kind: str, row: Mapping[str, Any]) -> dict[str, str]:
    """One line of the table; the index is the plan's, and the run's for what is gone."""
    cells = {"": kind, "trial": str(row["trial"])}
    cells |= {name: _short(console.cell_text(value)) for name, value in row["axes"].items()}
    if kind == "changed":
        params = [
            f"{name} {_short(console.cell_text(was))} -> {_short(console.cell_text(now))}"
            for name, (was, now) in row["params"].items()
        ]
        cells["what differs"] = ", ".join(params) or "the workflow or an input file"
    return cells


def _put_table(rows: list[dict[str, str]], put: Callable[[str], None]) -> None:
    """Columns under headings; one that no row has anything in is left out, what differs comes last."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    names.sort(key=lambda name: name == "what differs")
    lines = [dict(zip(names, names, strict=True)), *rows]
    widths = [max(len(line.get(name, "")) for line in lines) for name in names]
    for line in lines:
        cells = [f"{line.get(name, ''):<{width}}" for name, width in zip(names, widths, strict=True)]
        put(console.clean("  " + "  ".join(cells).rstrip()))


def _short(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """`5.0 s`, `2 min 0 s`, `2 h 2 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
