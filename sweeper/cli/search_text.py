"""The text of a search: its rounds while it runs, what it would do, and what it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sweeper.answers.cells import format_cell
from sweeper.cli.schema_text import join_choices
from sweeper.cli.text_table import shorten_cell
from sweeper.model.experiment import NumberRange, Search
from sweeper.model.search_columns import SearchedPoint, SearchResult
from sweeper.running.run_events import RoundPlanned
from sweeper.wording import count_things, join_names

_ENDINGS: Final = {
    "trials": "that is the limit; `trials:` or --trials allows more",
    "until": "no trial was better for {patience} trials",
    "exhausted": "every allowed point of the space was tried",
    "budget": "no further trial fits into the budget",
    "votes": "it needs about {votes} to go on",
    "interrupt": "interrupted; the same command goes on",
}


def describe_round(event: RoundPlanned) -> str:
    """The line that announces a round: what it asks for, and the best so far."""
    trials = count_things(event.trials, "trial" if event.points else "more trial")
    points = count_things(event.points, "new point") if event.points else "points asked for earlier"
    of = "" if event.limit is None else f" of {event.limit}"
    text = f"round {event.number}: {trials} of {points} ({event.asked}{of} done)"
    return text if event.best is None else f"{text}; best {describe_point(event.best, event.objectives)}"


def describe_point(point: SearchedPoint, objectives: Sequence[str]) -> str:
    """`sharpness 344.7 at cfg 5.51, steps 20`."""
    pairs = zip(objectives, point.objectives, strict=True)
    found = " and ".join(f"{name} {format_cell(value, rounded=True)}" for name, value in pairs)
    values = ", ".join(f"{name} {shorten_cell(format_cell(cell))}" for name, cell in point.values.items())
    return f"{found} at {values}"


def describe_aim(search: Search) -> str:
    """`maximize sharpness over prompt (2) x seed (2): 4 trials of each point`."""
    aims = [f"{'maximize' if one.maximize else 'minimize'} {one.metric}" for one in search.objectives]
    if not search.over:
        return join_names(aims)
    over = " x ".join(f"{axis.name} ({len(axis.options)})" for axis in search.over)
    count = 1
    for axis in search.over:
        count *= len(axis.options)
    early = " at most, fewer of points that are clearly worse" if search.stop_early else ""
    return f"{join_names(aims)} over {over}: {count_things(count, 'trial')} of each point{early}"


def list_axes(search: Search) -> Iterator[tuple[str, str, str]]:
    """(name, number of values or nothing, values) of each axis of the space."""
    for one in search.space:
        if one.numbers is not None:
            yield one.name, "", _describe_range(one.numbers)
        else:
            cells = [shorten_cell(format_cell(option.cell)) for option in one.axis.options]
            yield one.name, str(len(cells)), join_choices(cells)


def _describe_range(numbers: NumberRange) -> str:
    kind = "integers, " if numbers.is_integer else ""
    scale = ", log scale" if numbers.is_log else ""
    return f"{kind}{format_cell(numbers.low)} to {format_cell(numbers.high)}{scale}"


def describe_counts(result: SearchResult) -> str:
    """`48 trials of 24 points in 6 rounds`."""
    trials, points = count_things(result.trials, "trial"), count_things(result.points, "point")
    return f"{trials} of {points} in {count_things(result.rounds, 'round')}"


def describe_end(result: SearchResult, search: Search) -> str:
    """Why the search ended, and what to do next."""
    if result.ended_by == "trials" and search.trials is not None and result.trials < search.trials:
        return f"{count_things(search.trials - result.trials, 'trial')} left, too few for another point"
    if result.ended_by in _ENDINGS:
        votes = count_things(result.votes_needed, "vote")
        return _ENDINGS[result.ended_by].format(trials=result.trials, patience=search.patience, votes=votes)
    return "ended early" if result.error is not None else f"stopped: {result.ended_by}"


def describe_idle_axes(shares: Mapping[str, float]) -> str:
    """Name the axes that hardly matter. `shares`: what each explains at most, from 0 to 1."""
    found = [f"{name} (at most {share:.0%})" for name, share in shares.items()]
    return f"hardly any of the differences between points is due to {join_names(found)}; fix what does not matter"
