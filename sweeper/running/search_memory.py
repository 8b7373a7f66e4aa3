"""The memory of a search: the rows of its results folder, of all runs. There is no other record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sweeper.model.result import Result
from sweeper.model.search_columns import ROUND
from sweeper.planning.searching.search_plan import Point, PointBatch, SearchPlan, SearchSpace
from sweeper.planning.searching.search_state import group_points
from sweeper.store import Store
from sweeper.store.records import FAILED, REJECTED, SUCCEEDED

_ENDED = (SUCCEEDED, FAILED, REJECTED)


def load_batches(space: SearchSpace, store: Store, targets: Sequence[str]) -> list[PointBatch]:
    """Return what the search asked for earlier, and what other runs have done of its space, as batches.

    A row counts if the experiment would make the same workflow of its point today, so that a changed template, space
    or `where` leaves out what no longer belongs to it. Rows of other runs count if their jobs on these targets have
    ended; they are round 0.
    """
    found: dict[tuple[Point, int], dict[str, tuple[int, int]]] = {}  # by cell and digest: the round, and its first row
    ended = {digest for digest, job in store.current_jobs(targets).items() if job.state in _ENDED}
    for row, (digest, params, columns) in enumerate(store.iter_trials()):
        asked = columns.get(ROUND, 0) if isinstance(columns.get(ROUND, 0), int) else 0
        if not asked and digest not in ended:
            continue
        point, combination = space.read_point(params, columns), space.read_combination(params, columns)
        if point is not None and combination is not None:
            rows = found.setdefault((point, combination), {})
            if digest not in rows or rows[digest][0] < asked:
                rows[digest] = asked, row
    points = list(dict.fromkeys(point for point, _ in found))
    allowed = dict(zip(points, space.find_allowed(points), strict=True))
    possible = [(0, point, combination) for point, combination in found if combination in allowed[point]]
    if not possible:
        return []
    plan = SearchPlan(space, group_points(possible))
    cells = [
        (found[point, combination][trial.digest], point, combination)
        for (_, point, combination), trial in zip(plan.iter_cells(), plan.written(), strict=True)
        if trial.digest in found[point, combination]
    ]
    cells.sort(key=lambda cell: cell[0][1])
    return group_points([(asked, point, combination) for (asked, _), point, combination in cells])


def load_rows(plan: SearchPlan, store: Store) -> list[Result]:
    """Return a row for each trial of a plan, with the best result that any run has for it."""
    found: dict[str, Result] = {}
    for run in store.runs():
        for row in store.results(run.id):
            known = found.get(row.digest)
            if known is None or known.status != SUCCEEDED or row.status == SUCCEEDED:
                found[row.digest] = row
    return [
        replace(found[trial.digest], trial=trial.index, columns=trial.columns, params=trial.params)
        if trial.digest in found
        else Result(trial.index, trial.columns, trial.params, trial.digest)
        for trial in plan.written()
    ]


def load_votes_needed(store: Store, run_id: int | None = None) -> int:
    """Return about how many votes the rows of a run, by default the latest, lack for a search by votes to go on.

    With a run, bring the metric of votes up to date, too: what the store has may be that of another table.
    """
    from sweeper.tables.vote_pictures import VotePictures
    from sweeper.tables.vote_tally import count_votes_needed, write_metric

    pictures, votes = VotePictures(store, run_id=run_id), store.votes.load()
    if run_id is not None:
        write_metric(store, pictures, votes)
    return count_votes_needed(pictures, votes) or 0
