"""The best points of a search, for its contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.model.result import Result
from sweeper.model.search_columns import PointKey, SearchColumns


@dataclass(frozen=True, slots=True)
class BestPoint:
    """A point: its objectives (empty if they are not known), and the indexes of its rows."""

    objectives: tuple[float, ...]
    rows: tuple[int, ...]


def list_best_points(rows: Sequence[Result], search: SearchColumns) -> list[BestPoint]:
    """List the points of these rows, best first; with several objectives, those that no other point beats.

    Points that have fewer trials than others are left out, because their means say less, unless no point is complete.
    Without any objective, these are all points in the order of the rows.
    """
    indexes: dict[PointKey, list[int]] = {}
    for index, row in enumerate(rows):
        indexes.setdefault(search.get_point(row), []).append(index)
    points = [BestPoint(_find_objectives(rows[found[0]], search), tuple(found)) for found in indexes.values()]
    known = [point for point in points if point.objectives]
    most = max((len(point.rows) for point in known), default=0)
    known = [point for point in known if len(point.rows) == most]
    front = known if len(search.objectives) == 1 else [p for p in known if not any(_beats(q, p, search) for q in known)]
    return sorted(front, key=lambda point: _sign(point, search)[0], reverse=True) or points


def _find_objectives(row: Result, search: SearchColumns) -> tuple[float, ...]:
    """The objectives of a row's point, which stand in each of its rows; empty unless all are known."""
    values = [row.metrics.get(name) for name in search.objective_columns]
    numbers = tuple(float(value) for value in values if isinstance(value, int | float))
    return numbers if len(numbers) == len(values) else ()


def _beats(one: BestPoint, other: BestPoint, search: SearchColumns) -> bool:
    pairs = list(zip(_sign(one, search), _sign(other, search), strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _sign(point: BestPoint, search: SearchColumns) -> tuple[float, ...]:
    pairs = zip(point.objectives, search.objectives, strict=True)
    return tuple(value if objective.maximize else -value for value, objective in pairs)
