"""The points of a search, from the rows of its table alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.model.result import SUCCEEDED
from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.model.search_result import SearchedPoint
from sweeper.model.workflow import encode_canonical
from sweeper.tables.select_rows import Rows


def list_points(rows: Rows, search: SearchColumns) -> list[SearchedPoint]:
    """Return the points of all rows of a table whose objectives are known.

    If the search stops points early, the points with fewer trials than others are left out, as the search itself does
    when it chooses the best: chance favours a mean of few.
    """
    groups: dict[bytes, Rows] = defaultdict(list)
    for row in rows:
        groups[encode_canonical([row[name] for name in search.space])].append(row)
    most = max(map(len, groups.values()), default=0)
    points = [_make_point(group, search) for group in groups.values() if _has_objectives(group[0], search)]
    if not search.stop_early:
        return points
    return [point for point in points if len(point.trials) == most or point.round == 0] or points


def _has_objectives(row: Mapping[str, Any], search: SearchColumns) -> bool:
    return all(row[name] is not None for name in search.objective_columns)


def _make_point(rows: Sequence[Mapping[str, Any]], search: SearchColumns) -> SearchedPoint:
    first = rows[0]
    labels = {name: first.get(f"{name}.label") for name in search.space}
    return SearchedPoint(
        values={name: first[name] if label is None else label for name, label in labels.items()},
        objectives=tuple(first[name] for name in search.objective_columns),
        round=int(min(row[ROUND] for row in rows)),
        trials=tuple(row["trial"] for row in rows),
        succeeded=sum(row["status"] == SUCCEEDED for row in rows),
    )
