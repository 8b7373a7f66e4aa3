"""The points of a search, from its results folder alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeper.answers.cells import format_cell
from sweeper.answers.parts import MAX_CELL_LENGTH, Line, Note, Part, Table
from sweeper.answers.render import AS_JSON, NOT_IN_JSON
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.search_columns import ROUND, PointKey, SearchColumns, SearchedPoint, sort_points
from sweeper.store import Store
from sweeper.tables.aggregate import label_column, to_label
from sweeper.wording import join_names, shorten


@dataclass(frozen=True, slots=True)
class BestPoints:
    """The best points, best first; with several objectives, those of the Pareto front. None of `total` means all."""

    points: Sequence[SearchedPoint] = field(metadata=AS_JSON)
    total: int | None = field(default=None, metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """One table; of several objectives, what their front is."""
        if not self.points:
            yield Note("no point has a number for each objective yet")
            return
        first, shown, total = self.points[0], len(self.points), self.total or len(self.points)
        if len(first.objectives) > 1:
            of = f"{shown} of the {total}" if shown < total else f"the {total}"
            noun, every = "point" if total == 1 else "points", join_names(first.objectives)
            yield Line(f"{of} {noun} of the Pareto front, which no other point beats in all of {every}")
        labels = {name: label_column([point.values[name] for point in self.points]) for name in first.values}
        rows = [
            [*point.objectives.values(), *(to_label(cell, labels[name]) for name, cell in point.values.items()),
             point.round, _format_rows(point.trials), point.succeeded]
            for point in self.points
        ]  # fmt: skip
        columns = [*first.objectives, *first.values, "round", "trials", "succeeded"]
        yield Table(columns, rows, rounded=list(first.objectives))


def _format_rows(trials: Sequence[int]) -> str:
    """`12-15`, or `3, 8` for rows that are not in a row."""
    if len(trials) > 2 and list(trials) == list(range(trials[0], trials[-1] + 1)):
        return f"{trials[0]}-{trials[-1]}"
    return ", ".join(map(str, trials))


def describe_values(values: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    """`cfg 5.51, steps 20`. A long text has the words that tell it from the values of the points `among` it."""
    labels = {name: label_column([cell, *(other.get(name) for other in among)]) for name, cell in values.items()}
    return ", ".join(
        f"{name} {shorten(format_cell(to_label(cell, labels[name])), MAX_CELL_LENGTH)}" for name, cell in values.items()
    )


def find_search_run(store: Store) -> int | None:
    """Return the latest run that is a search; None if there is none."""
    runs = (record.id for record in reversed(store.runs()))
    return next((run for run in runs if store.layout(run).search is not None), None)


def list_points(rows: Sequence[Result], search: SearchColumns) -> list[SearchedPoint]:
    """Return the points of the rows of a table, in order. Their objectives are empty unless all are known."""
    groups: dict[PointKey, list[Result]] = defaultdict(list)
    for row in rows:
        groups[search.get_point(row)].append(row)
    return [_make_point(group, search) for group in groups.values()]


def find_best_points(rows: Sequence[Result], search: SearchColumns) -> list[SearchedPoint]:
    """Return the points whose objectives are known, best first; with several objectives, the Pareto front.

    If the search stops points early, the points with fewer trials than others are left out, as the search itself does:
    chance favours a mean of few.
    """
    points = [point for point in list_points(rows, search) if point.objectives]
    if search.stop_early:
        most = max((len(point.trials) for point in points), default=0)
        points = [point for point in points if len(point.trials) == most or point.round == 0]
    return sort_points(points, search.objectives)


def _make_point(rows: Sequence[Result], search: SearchColumns) -> SearchedPoint:
    first = rows[0]
    labels = {name: first.columns.get(f"{name}.label") for name in search.space}
    pairs = zip(search.objectives, search.objective_columns, strict=True)
    numbers = {objective.metric: first.metrics.get(column) for objective, column in pairs}
    objectives = {name: float(number) for name, number in numbers.items() if isinstance(number, int | float)}
    return SearchedPoint(
        values={name: first.columns.get(name) if label is None else label for name, label in labels.items()},
        objectives=objectives if len(objectives) == len(numbers) else {},
        round=min(int(row.metrics.get(ROUND, 0)) for row in rows),
        trials=tuple(row.trial for row in rows),
        succeeded=sum(row.status == SUCCEEDED for row in rows),
    )
