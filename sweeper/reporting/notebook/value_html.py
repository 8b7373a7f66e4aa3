"""The HTML of a plan, a run and a search, as a notebook shows them below a cell.

It has no script and no colours of its own, so that it fits light and dark notebooks. Every text is escaped, because a
stranger may have written it. Pictures are data URLs, which the notebook's file stores, so there are few of them.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import singledispatch
from math import prod
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import format_rounded, to_json_text
from sweeper.errors import SweeperError
from sweeper.images.html_thumbnail import make_thumbnail
from sweeper.model.money import NOTHING, Amount
from sweeper.model.result import Run
from sweeper.model.search_columns import SearchResult
from sweeper.planning.plan import Plan
from sweeper.planning.trial_filters import DropCounts, get_written_block
from sweeper.store import Store
from sweeper.tables.results_folder import find_picture
from sweeper.wording import count_things

_MAX_PICTURES: Final = 24  # of 128 pixels: together about 100 kB
_MAX_VALUES: Final = 12  # of an axis
_MAX_LETTERS: Final = 60  # of a value
_FRAME: Final = (
    "display:inline-block;margin:0 4px 4px 0;max-width:128px;max-height:128px"  # marimo makes blocks of images
)


@singledispatch
def to_html(value: Any) -> str:
    """The HTML of a Plan, Run or SearchResult. Raises TypeError for other values."""
    raise TypeError(f"no HTML is known for {type(value).__name__}")


@to_html.register
def _(plan: Plan) -> str:
    experiment = plan.experiment
    sizes = {name: size for name, size in plan.axis_sizes.items() if size}
    rows = [(name, str(size), _list_values(plan.axis_cells(name))) for name, size in sizes.items()]
    blocks = len(experiment.blocks)
    is_product = blocks == 1 and prod(sizes.values()) == len(plan)
    title = " x ".join(map(str, sizes.values())) + " = " if is_product and len(sizes) > 1 else ""
    lines = [f"<b>{_escape(experiment.name)}</b>: {title}{count_things(len(plan), 'trial')}"]
    if blocks > 1:
        lines.append(f"{blocks} blocks")
    return _join_lines(lines) + _make_table(("axis", "", "values"), rows) + _join_lines(_iter_filters(plan))


@to_html.register
def _(run: Run) -> str:
    counts = {name: getattr(run, name) for name in ("succeeded", "failed", "cancelled", "pending")}
    texts = [f"{count} {name}" for name, count in counts.items() if count or name == "succeeded"]
    reused = f" ({run.reused} from earlier runs)" if run.reused else ""
    lines = [f"<b>Run {run.run_id}</b>: {count_things(run.trials, 'trial')}, {', '.join(texts)}{reused}"]
    if run.spent != NOTHING or run.budget is not None:
        budget = "" if run.budget is None else f" of a budget of {Amount(run.budget, run.budget)}"
        lines.append(_escape(f"{run.cost} in this run, {run.spent} in this folder{budget}"))
    if run.error is not None or run.stopped_by is not None:
        lines.append(f"⚠ {_escape(run.error or run.stopped_by)}")
    lines.append(f"<code>{_escape(str(run.out))}</code>")
    pictures = list(itertools.islice(_iter_pictures(run.out), _MAX_PICTURES + 1))
    if len(pictures) > _MAX_PICTURES:
        lines.append(f"the first {_MAX_PICTURES} pictures; <code>sweeper.show(run)</code> shows all")
    shown = [thumbnail for _, path in pictures[:_MAX_PICTURES] if "<img" in (thumbnail := make_thumbnail(path))]
    return _join_lines(lines) + f"<div>{''.join(map(_frame, shown))}</div>"


@to_html.register
def _(result: SearchResult) -> str:
    counts = {"point": result.points, "trial": result.trials, "round": result.rounds}
    texts = [count_things(count, word) for word, count in counts.items()]
    lines = [f"<b>Search</b>: {', '.join(texts)}; ended by {_escape(result.ended_by)}"]
    if result.error is not None:
        lines.append(f"⚠ {_escape(result.error)}")
    if result.run is None:
        return _join_lines(lines)
    lines.append(f"<code>{_escape(str(result.run.out))}</code>")
    best = result.best[:_MAX_PICTURES]
    pictures = dict(_iter_pictures(result.run.out, {trial for point in best for trial in point.trials}))
    names = _load_objective_names(result.run.out)
    rows = [
        [
            *map(format_rounded, point.objectives),
            *map(_format_value, point.values.values()),
            _Html(next((_frame(make_thumbnail(pictures[trial])) for trial in point.trials if trial in pictures), "")),
        ]
        for point in best
    ]
    return _join_lines(lines) + _make_table((*names, *(best[0].values if best else ()), ""), rows)


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _iter_filters(plan: Plan) -> Iterator[str]:
    """Yield what each filter of the plan leaves out."""
    for block, dropped in zip(plan.experiment.blocks, plan.drop_counts, strict=False):
        written = get_written_block(plan.experiment, block)
        for rule, count in _list_drops(written, dropped):
            if count:
                yield f"{_escape(rule)} leaves out {count}"


def _list_drops(written: Mapping[str, Any], dropped: DropCounts) -> list[tuple[str, int]]:
    rows = written.get("exclude", [{}] * len(dropped.exclude))
    excluded = [(f"exclude {_format_value(row)}", count) for row, count in zip(rows, dropped.exclude, strict=True)]
    return [*excluded, (f"where {_format_value(written.get('where', ''))}", dropped.where), ("sample", dropped.sample)]


def _iter_pictures(folder: Path, trials: Collection[int] | None = None) -> Iterator[tuple[int, str]]:
    """Yield trial and path of the first picture of each row, in order. Nothing if the results cannot be read now."""
    try:
        with Store.open(folder, readonly=True) as store:
            for row in store.results():
                picture = find_picture(folder, row.outputs) if trials is None or row.trial in trials else None
                if picture is not None:
                    yield row.trial, picture
    except (SweeperError, OSError):
        return


def _load_objective_names(folder: Path) -> list[str]:
    try:
        with Store.open(folder, readonly=True) as store:
            search = store.layout().search
    except (SweeperError, OSError):
        return []
    return [] if search is None else [objective.metric for objective in search.objectives]


def _list_values(cells: Sequence[Any]) -> str:
    texts = [_format_value(cell) for cell in cells[:_MAX_VALUES]]
    more = len(cells) - len(texts)
    return ", ".join(texts) + (f", and {more} more" if more else "")


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else to_json_text(value)
    return text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 1] + "…"


def _make_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; the names are those of the columns."""
    head = "".join(f"<th style='text-align:left'>{_escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else ""


def _join_lines(lines: Iterable[str]) -> str:
    return "".join(f"<div>{line}</div>" for line in lines)


def _frame(thumbnail: str) -> str:
    return thumbnail.replace("<img ", f'<img style="{_FRAME}" ', 1)


def _escape(text: str | None) -> str:
    return text if isinstance(text, _Html) else html.escape(text or "")
