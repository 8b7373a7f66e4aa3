"""The outcome of a search."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweeper.model.experiment import Search
from sweeper.model.html_display import HtmlDisplay
from sweeper.model.result import Run
from sweeper.model.search_columns import SearchedPoint


@dataclass(frozen=True, slots=True)
class SearchResult(HtmlDisplay):
    """The summary of a search.

    `run`: the summary of its run, None if there was nothing to run. `ended_by`: `trials`, `until`, `exhausted` (no
    point is left), `votes` (the round waits for votes), or what stopped the run, such as `budget` or `interrupt`.
    `rounds`, `points` and `trials` count what the search asked for, with earlier runs of it. `best`: the five best
    points; with several objectives, all points that no other beats, the best in the first objective first. `error`: why
    the search ended early, for people. `votes_needed`: about so many votes let it go on. `search`: what it looked for.
    """

    run: Run | None
    ended_by: str
    rounds: int
    points: int
    trials: int
    best: tuple[SearchedPoint, ...] = field(default=(), metadata={"json": ""})  # an answer has it by metric
    error: str | None = None
    votes_needed: int = 0
    search: Search = field(kw_only=True, repr=False, metadata={"json": ""})

    @property
    def has_finished(self) -> bool:
        """Whether the search came to an end that it was asked for, or waits for votes."""
        if self.ended_by == "budget":
            return self.search.budget is not None
        is_end = self.ended_by in ("trials", "until", "exhausted", "votes")
        return is_end and (self.run is None or self.run.error is None)
