"""The HTML of a plan, a run and a search, as a notebook shows them below a cell: their answers, with a few pictures.

Pictures are data URLs, which the notebook's file stores, so there are few of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from sweeper.answers.parts import Heading, Line, Part, Pictures, ShownPicture, Warn
from sweeper.answers.render import render_html
from sweeper.errors import SweeperError
from sweeper.images.html_thumbnail import make_thumbnail_url
from sweeper.model.result import Run
from sweeper.model.search_result import SearchResult
from sweeper.planning.plan import Plan
from sweeper.planning.plan_outline import outline_plan
from sweeper.running.run_answer import answer_run
from sweeper.running.search_answer import answer_search, describe_point
from sweeper.store import Store
from sweeper.tables.results_folder import find_picture

_MAX_PICTURES: Final = 24  # of 128 pixels: together about 100 kB


def to_html(value: Plan | Run | SearchResult) -> str:
    """The HTML of a plan, a run or the result of a search."""
    match value:
        case Plan():
            return render_html(outline_plan(value).parts())
        case Run():
            return render_html(_list_run(value))
        case SearchResult():
            return render_html(_list_search(value))


def _list_run(run: Run) -> Iterator[Part]:
    yield Heading(f"Run {run.run_id}")
    yield from answer_run(run).parts()
    if problem := run.error or run.stopped_by:
        yield Warn(problem)
    pictures = list(itertools.islice(_iter_pictures(run.out), _MAX_PICTURES + 1))
    if len(pictures) > _MAX_PICTURES:
        yield Line(f"the first {_MAX_PICTURES} pictures; sweeper.show(run) shows all")
    yield Pictures([ShownPicture("", read) for _, read in pictures[:_MAX_PICTURES]])


def _list_search(result: SearchResult) -> Iterator[Part]:
    answer = answer_search(result, find_idle=False)
    yield Heading("Search")
    yield from answer.parts()
    if result.error is not None:
        yield Warn(result.error)
    if result.run is not None:
        best = answer.best.points[:_MAX_PICTURES]
        pictures = dict(_iter_pictures(result.run.out, {trial for point in best for trial in point.trials}))
        shown = [(point, read) for point in best if (read := next(filter(None, map(pictures.get, point.trials)), None))]
        yield Pictures([ShownPicture(describe_point(point, best), read) for point, read in shown])


def _iter_pictures(folder: Path, trials: Collection[int] | None = None) -> Iterator[tuple[int, Callable[[], str]]]:
    """Yield trial and first picture of each row, in order. Nothing if the results cannot be read now."""
    try:
        with Store.open(folder, readonly=True) as store:
            for row in store.results():
                picture = find_picture(folder, row.outputs) if trials is None or row.trial in trials else None
                if picture is not None:
                    yield row.trial, partial(make_thumbnail_url, picture)
    except (SweeperError, OSError):
        return
