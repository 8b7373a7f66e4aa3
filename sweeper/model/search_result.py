"""The summary of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.model.result import Run


@dataclass(frozen=True, slots=True)
class SearchedPoint:
    """A point: its values by axis, its objectives in the order of the search, its round, and its rows in the table."""

    values: Mapping[str, Any]
    objectives: tuple[float, ...]
    round: int
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The summary of a search.

    `run`: the summary of its run, None if there was nothing to run. `ended_by`: `trials`, `until`, `exhausted` (no
    point is left), `votes` (the round waits for votes), or what stopped the run, such as `budget` or `interrupt`.
    `rounds`, `points` and `trials` count what the search asked for, with earlier runs of it. `best`: the five best
    points; with several objectives, all points that no other beats, the best in the first objective first. `error`: why
    the search ended early, for people.
    """

    run: Run | None
    ended_by: str
    rounds: int
    points: int
    trials: int
    best: tuple[SearchedPoint, ...] = ()
    error: str | None = None
