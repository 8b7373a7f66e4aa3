"""What notebooks show: the page of a report inside a cell (`show`), and the HTML of a plan, a run and a search.

A notebook's page can open no files of the disk, and the kernel may run on another machine, so neither the report's
folder nor a server of our own would work everywhere. Therefore the page, its data and its pictures stand in the
`srcdoc` of an iframe. Jupyter Notebook, JupyterLab, VS Code, Colab and marimo show such an iframe; a viewer that
removes iframes, such as GitHub's, does not. The iframe has a sandbox, so that no text of a stranger can reach the
notebook.

The HTML of a value is that of its answer, with a few pictures as data URLs, which the notebook's file stores.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.answers.parts import Heading, Line, Part, Pictures, ShownPicture, Warn
from sweeper.answers.render import render_html
from sweeper.errors import SweeperError, UsageError
from sweeper.images.html_thumbnail import make_thumbnail_url
from sweeper.model.result import Run
from sweeper.planning.plan import Plan
from sweeper.planning.plan_outline import outline_plan
from sweeper.reporting.one_file import THUMBNAILS_ONLY, make_page, select_files
from sweeper.reporting.page_answers import find_answers
from sweeper.reporting.write_report import write_report
from sweeper.running.run_answer import SearchResult, answer_run, answer_search, describe_point
from sweeper.store import Store
from sweeper.store.containment import refuse_links
from sweeper.tables.results_folder import find_picture, find_results_folder
from sweeper.wording import join_command, suggest

if TYPE_CHECKING:
    import pandas as pd

PAGE_OF_NOTEBOOK: Final = "notebook"  # in a results folder: the report of which `show` shows a small copy
MAX_BYTES: Final = 8_000_000  # of pictures in a page, because the notebook's file stores them
_VIEWS: Final = ("grid", "gallery", "table", "plots")
_MIN_HEIGHT: Final = 200
_MAX_PICTURES: Final = 24  # below a value, of 128 pixels: together about 100 kB


@dataclass(frozen=True, slots=True)
class InlinePage:
    """A page for the last line of a cell, or for `display`. `page`: the full report, `trials`: how many it shows."""

    page: Path
    trials: int
    markup: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return f"<page of {self.trials} trials; open it in a browser: {self.page}>"


def show(
    results: Run | SearchResult | pd.DataFrame | str | os.PathLike[str],
    x: str | None = None,
    y: str | None = None,
    *,
    view: str | None = None,
    height: int = 640,
) -> InlinePage:
    """Show the interactive page of results in a notebook; write this as the last line of a cell.

    `results`: a run, a results folder, an experiment file, or a table that `sweeper.results` returned; of a selection
    of its rows, the page shows these trials. `x`, `y`: the axes across and down. `view`: `grid`, `gallery`, `table`,
    `plots`, or `search` for a search. `height`: of the page in pixels.

    The notebook's file stores the page with its pictures: all files of the results up to 8 MB, otherwise thumbnails,
    the smaller the more there are. If even these are more, it shows only where the full page is. That one is in the
    folder `notebook/` of the results, whose earlier page it replaces. Marks that you make in the notebook last until
    its page is loaded again, unless you save them as a file.

    Raises ResultsError if there are no results, and UsageError for an unknown axis or view.
    """
    folder, run, trials = _find_rows(results)
    out = folder.resolve() / PAGE_OF_NOTEBOOK
    refuse_links(out)
    answers = find_answers(folder, run) if trials is None else {}
    report = write_report(folder, out, run=run, trials=trials, answers=answers)
    data = json.loads((out / "data.json").read_text("utf-8"))
    data["first"] = {"axes": _check_axes(data, x=x, y=y), "view": _check_view(data, view)}
    selected = select_files(data["files"], out, MAX_BYTES)
    if selected is None:
        command = join_command(["sweeper", "report", str(folder), "--open"])
        note = f"The pictures of {report.trial_count} trials are too many for a notebook. Show a selection, or run"
        markup = f"<p>{note} <code>{html.escape(command)}</code></p>{_make_note(report.page, '')}"
        return InlinePage(report.page, report.trial_count, markup)
    files, contents, words = selected
    page = html.escape(make_page(data, files, contents), quote=False).replace("'", "&#39;")
    frame = (
        f"<iframe srcdoc='{page}' title='sweeper report' sandbox='allow-scripts allow-downloads allow-popups' "
        f"allow='clipboard-write; fullscreen' style='width:100%;height:{max(height, _MIN_HEIGHT)}px;border:0'></iframe>"
    )
    text = "These are thumbnails. " if words == THUMBNAILS_ONLY else ""
    return InlinePage(report.page, report.trial_count, frame + _make_note(report.page, text))


def _find_rows(results: Any) -> tuple[Path, str | None, Collection[int] | None]:
    """The results folder, the run (None: the latest) and the trials (None: all) to show. Raises as `show` does."""
    if isinstance(results, SearchResult):
        if results.run is None:
            raise UsageError("show: the search ran nothing; pass its results folder")
        results = results.run
    if isinstance(results, Run):
        return results.out, None, None
    if isinstance(results, str | os.PathLike):
        return find_results_folder(results), None, None
    folder = getattr(results, "results_folder", None)
    if folder is None or "trial" not in results:
        raise UsageError(
            "show: takes a run, a results folder, an experiment file, or rows of sweeper.results() with their column "
            f"'trial'; this {type(results).__name__} is none of them. Of a merged table, pass the rows of the "
            "original: table[table['trial'].isin(merged['trial'])]"
        )
    trials = frozenset(map(int, results["trial"]))
    if not trials:
        raise UsageError("show: the table has no rows, so there is nothing to show")
    return folder, results.results_run, trials


def _check_axes(data: Mapping[str, Any], **axes: str | None) -> dict[str, str]:
    """Return the axes that are given. Raises UsageError for one that the results do not have."""
    names = [column["name"] for column in data["columns"] if column["role"] == "axis"]
    for direction, name in axes.items():
        if name is not None and name not in names:
            raise UsageError(f"show: {direction}={name!r}: there is no such axis{suggest(name, names, 'axes')}")
    return {direction: name for direction, name in axes.items() if name is not None}


def _check_view(data: Mapping[str, Any], view: str | None) -> str | None:
    allowed = [*_VIEWS, *(["search"] if "search" in data else [])]
    if view is not None and view not in allowed:
        raise UsageError(f"show: view={view!r}: there is no such view{suggest(view, allowed, 'views')}")
    return view


def _make_note(page: Path, text: str) -> str:
    return f"<small>{text}The full page: <code>{html.escape(str(page))}</code></small>"


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
    pictures = list(islice(_iter_pictures(run.out), _MAX_PICTURES + 1))
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
