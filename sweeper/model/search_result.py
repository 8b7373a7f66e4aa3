"""The summary of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.model.html_display import HtmlDisplay
from sweeper.model.result import Run
from sweeper.model.search_columns import Objective, dominates, make_larger_better


@dataclass(frozen=True, slots=True)
class SearchedPoint:
    """A point: its values by axis, its objectives in the order of the search, its round, and its rows in the table.

    `succeeded`: how many of these rows succeeded.
    """

    values: Mapping[str, Any]
    objectives: tuple[float, ...]
    round: int
    trials: tuple[int, ...]
    succeeded: int


def sort_points(points: Iterable[SearchedPoint], objectives: Sequence[Objective]) -> list[SearchedPoint]:
    """Return the points, best first; with several objectives, only the Pareto front: those that no other dominates."""
    goodness = [(make_larger_better(point.objectives, objectives), point) for point in points]
    if len(objectives) > 1:
        goodness = [entry for entry in goodness if not any(dominates(other, entry[0]) for other, _ in goodness)]
    return [point for _, point in sorted(goodness, key=lambda entry: entry[0][0], reverse=True)]


@dataclass(frozen=True, slots=True)
class SearchResult(HtmlDisplay):
    """The summary of a search.

    `run`: the summary of its run, None if there was nothing to run. `ended_by`: `trials`, `until`, `exhausted` (no
    point is left), `votes` (the round waits for votes), or what stopped the run, such as `budget` or `interrupt`.
    `rounds`, `points` and `trials` count what the search asked for, with earlier runs of it. `best`: the five best
    points; with several objectives, all points that no other beats, the best in the first objective first. `error`: why
    the search ended early, for people. `votes_needed`: about so many votes let it go on.
    """

    run: Run | None
    ended_by: str
    rounds: int
    points: int
    trials: int
    best: tuple[SearchedPoint, ...] = ()
    error: str | None = None
    votes_needed: int = 0
