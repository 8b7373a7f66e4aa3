"""Writes the report's folder: the page, its data, thumbnails and all artifacts.

The folder is self-contained: it can be moved, mailed or put on a web server. Artifacts are hard-linked into it to save
disk space, or copied if the file system has no hard links.

The folder may hold other files too. Files of earlier reports may show pictures that left the sweep; sweeper removes
those that are known to be a report's: those in the previous report's data, artifacts of the store, and thumbnails and
sprite sheets by their unique names.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ResultsError
from sweeper.files import atomic_write, describe_write_error
from sweeper.regression.cases import find_run_record
from sweeper.reporting.check_findings import (
    ACCEPTED_FOLDER,
    build_accepted_entries,
    build_check_data,
    group_by_trial,
    list_missing_cases,
)
from sweeper.reporting.contents import (
    FILES_FOLDER,
    collect_artifacts,
    describe_run,
    encode_marks,
    iter_file_entries,
    list_pictures,
    number_outputs,
)
from sweeper.reporting.dataset import TrialTable, build_dataset, iter_json, iter_script, tabulate, transpose_files
from sweeper.reporting.page_answers import Answers, encode_answers
from sweeper.reporting.thumbnails import THUMB_NAME, THUMBS_FOLDER, Thumbnails
from sweeper.serving.page_files import read_page
from sweeper.store import Store
from sweeper.store.artifacts import link_files
from sweeper.store.containment import refuse_links
from sweeper.store.records import RunRecord, TableLayout, TrialOutcome
from sweeper.store.remote_artifacts import is_url, local_path
from sweeper.store.row_queries import batch_outcomes
from sweeper.store.votes import Mark, merge_marks
from sweeper.tables.select_rows import select_results

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparison, Comparisons
    from sweeper.regression.versions import VersionChecks

PAGE_FOLDER: Final = Path(__file__).parent / "page"
# The path in the entry of a file in data.json, as a JSON text. Inside of a text, its quotes would be escaped.
_PATH_OF_FILE: Final = re.compile(rb'"was":"(?:[^"\\\\]|\\\\.)*","path":("(?:[^"\\\\]|\\\\.)*")')


@dataclass(frozen=True, slots=True)
class Report:
    """A written report; `missing_count` is the number of artifacts that no longer exist."""

    page: Path
    trial_count: int
    missing_count: int


def write_report(
    results: Path,
    out: Path | None = None,
    *,
    run: str | None = None,
    checked: Comparisons | None = None,
    is_review: bool = False,
    trials: Collection[int] | None = None,
    marks: Iterable[Mark] | None = (),
    answers: Answers | None = None,
) -> Report:
    """Write the report of a results folder to `out`, by default `<results>/report/`.

    `checked`: comparisons with the baseline to show; with `is_review`, the page opens on what is not the same.
    `trials`: show only these trials of the run. `marks`: added to those of the folder; None: without these, too.
    `answers`: of `page_answers.find_answers`.

    Raises ResultsError if the results cannot be read or the folder cannot be written.
    """
    if out is None:
        out = results / "report"
        refuse_links(out)
    with Store.open(results, readonly=True) as store:
        recorded, data = _build_data(_read_table(store, run, trials), store, find_run_record(store, run), results)
        data["answers"] = encode_answers(answers or {}, data["columns"])
        data["marks"] = encode_marks([] if marks is None else merge_marks(store.marks.load(), marks))
    return _write_page(data, recorded, results, out, checked, is_review=is_review)


def _build_data(
    table: TrialTable, store: Store, record: RunRecord, results: Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """The hash of each output, and the page's data. What it does not need of a table may take 50 MB."""
    recorded = dict(chain.from_iterable(map(zip, table.facts["outputs"], table.facts["sha256"])))
    data = build_dataset(table)
    data |= {"outputs": number_outputs(table.facts["outputs"], recorded), "answers": {}, "marks": {}}
    return recorded, data | describe_run(record, results, table, store)


def _write_page(
    data: dict[str, Any],
    recorded: Mapping[str, str],
    results: Path,
    out: Path,
    checked: Comparisons | None,
    *,
    is_review: bool = False,
) -> Report:
    refuse_links(*(out / name for name in (FILES_FOLDER, THUMBS_FOLDER, ACCEPTED_FOLDER)), inside=results)
    try:
        out.mkdir(parents=True, exist_ok=True)
        artifacts = collect_artifacts(recorded, results)
        thumbnails = Thumbnails(out)
        sprites = thumbnails.make(lambda: list_pictures(artifacts.values()), len(artifacts))
        data["sprites"] = sprites.as_data()
        entries = iter_file_entries(artifacts, thumbnails.known, sprites.indices)
        present = ((each.path, each.page_name) for each in artifacts.values() if each.size is not None)
        link_files(present, out / FILES_FOLDER)
        if checked is not None:
            data["check"], accepted = _add_check(checked, data["trials"], len(artifacts), out, is_review=is_review)
            entries = chain(entries, accepted)
        data["files"] = transpose_files(entries)
        thumbnails.prune_index(sprites)
        _remove_stale_files(out, results, data["files"].get("path", ()), partial(thumbnails.is_shown, sprites=sprites))
        pages = {name: [text] for name, text in read_page(PAGE_FOLDER).items()}
        for name, parts in {"data.json": iter_json(data), "data.js": iter_script(data), **pages}.items():
            with atomic_write(out / name) as file:
                file.writelines(part.encode() for part in parts)
    except OSError as error:
        reason = describe_write_error(out / "index.html", error)
        raise ResultsError(f"{out}: the report cannot be written: {reason}") from error
    missing = sum(artifact.size is None for artifact in artifacts.values())
    return Report(out / "index.html", len(data["trials"]), missing)


def _read_table(store: Store, run: str | None, trials: Collection[int] | None) -> TrialTable:
    """Read all trials of a run, or these."""
    if trials is None:
        return tabulate(store.batches(run), store.layout(run))
    layout, rows = _read_rows(store, run, trials)
    return tabulate(batch_outcomes(rows), layout)


def _read_rows(store: Store, run: str | None, trials: Collection[int] | None) -> tuple[TableLayout, list[TrialOutcome]]:
    rows = list(store.outcomes(run))
    layout, _ = select_results(store.layout(run), [row.result for row in rows], trials)
    return layout, [row for row in rows if trials is None or row.result.trial in trials]


def write_review(comparisons: Comparisons, out: Path) -> None:
    """Write the page of a check: the report of its run, which opens on the cases that are not the same.

    Raises ResultsError if the folder cannot be written.
    """
    run = None if comparisons.run is None else str(comparisons.run)
    trials = group_by_trial(comparisons).keys() or None
    write_report(comparisons.results, out, run=run, checked=comparisons, is_review=True, trials=trials, marks=None)


def write_versions(checks: VersionChecks, out: Path) -> None:
    """Write one page of all versions that ran, whose axis `comfyui` has their names and is the columns of the grid.

    Pictures are compared with the accepted ones, or without a baseline with those of the version before. Raises
    ResultsError as `write_report`.
    """
    ran = [(version, checked) for version in checks.versions if (checked := version.checked) is not None]
    layouts: list[TableLayout] = []
    rows: list[TrialOutcome] = []
    cases: list[Comparison] = []
    for version, checked in ran:
        start = 1 + max((row.result.trial for row in rows), default=-1)
        with Store.open(checked.results, readonly=True) as store:
            layout, found = _read_rows(store, str(checked.run), group_by_trial(checked).keys() or None)
        layouts.append(layout)
        axis = "comfyui" if "comfyui" not in layouts[0].axis_columns else "version of ComfyUI"
        for row in found:
            result, folder = row.result, checked.results.name
            outputs = tuple(name if is_url(name) else f"{folder}/{name}" for name in result.outputs)
            columns, trial = {axis: version.version, **result.columns}, start + result.trial
            rows.append(replace(row, result=replace(result, trial=trial, columns=columns, outputs=outputs)))
        shown = checked if checked.has_baseline else version.changes or checked
        cases += [replace(item, trial=None if item.trial is None else start + item.trial) for item in shown]
    if not ran:
        return
    first, layout = ran[0][1], replace(layouts[0], axis_columns=(axis, *layouts[0].axis_columns))
    with Store.open(first.results, readonly=True) as store:
        record = find_run_record(store, str(first.run))
        recorded, data = _build_data(tabulate(batch_outcomes(rows), layout), store, record, checks.results)
    data |= {"equal": [], "spending": "", "first": {"axes": {"x": axis}, "view": "grid"}}
    _write_page(data, recorded, checks.results, out, replace(first, results=checks.results, cases=tuple(cases)))


def _add_check(
    checked: Comparisons, trials: Sequence[int], start: int, out: Path, *, is_review: bool
) -> tuple[dict[str, Any], Collection[dict[str, Any]]]:
    """Link the accepted files into the report, and build the page's `check` and their entries, which begin at `start`
    among the page's files.
    """
    accepted = build_accepted_entries(checked)
    link_files(((path, PurePosixPath(entry["path"]).name) for path, entry in accepted.items()), out / ACCEPTED_FOLDER)
    check = {
        "baseline": str(checked.baseline),
        "gone": list_missing_cases(checked),
        "notes": checked.list_notes(),
        "is_review": is_review,
        "accept_command": checked.accept_command,
        **build_check_data(trials, group_by_trial(checked), accepted, start, with_texts=is_review),
    }
    return check, accepted.values()


def _remove_stale_files(
    out: Path, results: Path, shown: Iterable[str | None], is_shown_thumb: Callable[[str], bool]
) -> None:
    """Remove the files of earlier reports that are not `shown`. Raises OSError."""
    # Compare without case, because some file systems take both spellings for one file.
    kept = {_fold(path) for path in shown if path is not None}
    paths = (f"{folder}/{name}" for folder in (FILES_FOLDER, ACCEPTED_FOLDER) for name in _list_files(out, folder))
    stray = {path for path in paths if _fold(path) not in kept}
    thumbs = (name for name in _list_files(out, THUMBS_FOLDER) if THUMB_NAME.fullmatch(name))
    stray_thumbs = [f"{THUMBS_FOLDER}/{name}" for name in thumbs if not is_shown_thumb(name)]
    for path in (*stray_thumbs, *(_find_own_files(stray, out, results) if stray else ())):
        (out / path).unlink(missing_ok=True)


def _fold(path: str) -> str:
    return path if path.isascii() and path.islower() else path.casefold()  # a copy of each of many takes memory


def _list_files(out: Path, folder: str) -> Iterator[str]:
    """The files in a folder of the report; none if the folder is a link, because its target is not the report's."""
    path = out / folder
    if not path.is_dir() or path.resolve() != out.resolve() / folder:
        return
    with os.scandir(path) as entries:
        yield from (entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))


def _find_own_files(paths: Collection[str], out: Path, results: Path) -> set[str]:
    """Which of these paths are artifacts of the store, or files that the data of the report that is there names."""
    own: set[str] = set()
    if Store.exists(results):
        with Store.open(results, readonly=True) as store:
            names = (f"{FILES_FOLDER}/{local_path(results, *file).name}" for file in store.files())
            own |= {path for path in names if path in paths}
    # Its values would take several times the memory of its text, of which only a page is in memory at once.
    with (
        contextlib.suppress(OSError, ValueError),
        (out / "data.json").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        names = (json.loads(match[1]) for match in _PATH_OF_FILE.finditer(text))
        own |= {name for name in names if name in paths}
    return own
