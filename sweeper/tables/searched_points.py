"""The points of a search, from its results folder alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.search_columns import ROUND, PointKey, SearchColumns
from sweeper.model.search_result import SearchedPoint, sort_points
from sweeper.store import Store


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
    numbers = [first.metrics.get(name) for name in search.objective_columns]
    objectives = tuple(float(number) for number in numbers if isinstance(number, int | float))
    return SearchedPoint(
        values={name: first.columns.get(name) if label is None else label for name, label in labels.items()},
        objectives=objectives if len(objectives) == len(numbers) else (),
        round=min(int(row.metrics.get(ROUND, 0)) for row in rows),
        trials=tuple(row.trial for row in rows),
        succeeded=sum(row.status == SUCCEEDED for row in rows),
    )
