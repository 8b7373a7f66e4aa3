"""`sweeper results --best N`: the best points of a search, from its results folder alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click

from sweeper.cli import console
from sweeper.cli.search_text import list_best, point_to_json
from sweeper.did_you_mean import join_names
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.model.search_result import SearchedPoint, sort_points
from sweeper.store import Store
from sweeper.tables.searched_points import list_points
from sweeper.tables.select_rows import Rows

option = click.option(
    "--best",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show the N best points of a search, one row for each; with several objectives, the points of the Pareto "
    "front.",
)


def find_search_run(store: Store) -> int | None:
    """The latest run that is a search; None if there is none."""
    runs = (record.id for record in reversed(store.runs()))
    return next((run for run in runs if store.layout(run).search is not None), None)


def choose_best_points(rows: Rows, search: SearchColumns, selected: Collection[int]) -> list[SearchedPoint]:
    """The points of all rows with a trial in `selected`, best first: see `sort_points`."""
    return [
        point
        for point in sort_points(list_points(rows, search), search.objectives)
        if any(trial in selected for trial in point.trials)
    ]


def show_best_points(
    points: Sequence[SearchedPoint], objectives: Sequence[Objective], count: int, *, as_json: bool
) -> None:
    """Print the first `count` of the best points."""
    shown = points[:count]
    if as_json:
        console.print_json([point_to_json(point, objectives) for point in shown])
        return
    if not points:
        console.print_status("no point has a number for each objective yet")
        return
    if len(objectives) > 1:
        of = f"{len(shown)} of the {len(points)}" if len(shown) < len(points) else f"the {len(points)}"
        names = join_names(one.metric for one in objectives)
        console.print_line(f"{of} points of the Pareto front: no other point is as good or better in all of {names}")
        console.print_line()
    headers, cells, rounded = list_best(shown, objectives)
    console.print_table(headers, cells, rounded=rounded)
