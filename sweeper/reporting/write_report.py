"""Writes the report's folder: the page, its data, thumbnails and all artifacts.

The folder is self-contained: it can be moved, mailed or put on a web server. Artifacts are hard-linked into it to save
disk space, or copied if the file system has no hard links.

The folder may hold other files too. Files of earlier reports may show pictures that left the sweep; sweeper removes
those that are known to be a report's: those in the previous report's data, artifacts of the store, and thumbnails and
sprite sheets by their unique names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ResultsError
from sweeper.files import atomic_write, describe_write_error
from sweeper.model.result import Result
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
    build_file_entries,
    collect_artifacts,
    describe_run,
    encode_marks,
)
from sweeper.reporting.dataset import as_json, as_script, build_dataset, list_file_origins
from sweeper.reporting.thumbnails import (
    THUMB_NAME,
    THUMBS_FOLDER,
    Thumbnails,
    list_file_names,
    select_pictures,
)
from sweeper.serving import SHARED_PAGE
from sweeper.store import Store
from sweeper.store.artifacts import link_files
from sweeper.store.containment import refuse_links
from sweeper.store.remote_artifacts import local_path
from sweeper.store.trial_marks import Mark, merge_marks
from sweeper.tables.export import replace_surrogates
from sweeper.tables.select_rows import select_results

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparisons

PAGE_FOLDER: Final = Path(__file__).parent / "page"


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
    marks: Iterable[Mark] = (),
    answers: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Write the report of a results folder to `out`, by default `<results>/report/`.

    `checked`: comparisons with the baseline to show; with `is_review`, the page opens on what is not the same.
    `trials`: show only these trials of the run. `marks`: added to those of the folder. `answers`: by metric, sentences
    about what matters for it.

    Raises ResultsError if the results cannot be read or the folder cannot be written.
    """
    if out is None:
        out = results / "report"
        refuse_links(out)
    with Store.open(results, readonly=True) as store:
        outcomes = list(store.outcomes(run))
        layout, rows = select_results(store.layout(run), [outcome.result for outcome in outcomes], trials)
        outcomes = [outcome for outcome in outcomes if trials is None or outcome.result.trial in trials]
        run_data = describe_run(find_run_record(store, run), results, rows, layout, store)
        all_marks = [] if is_review else merge_marks(store.marks.load(), marks)
        stored = {f"{FILES_FOLDER}/{local_path(results, path, sha).name}" for path, sha in store.files()}
    data = build_dataset(rows, layout, [list_file_origins(outcome.files) for outcome in outcomes]) | {
        "marks": encode_marks(all_marks),
        "answers": {name: list(map(replace_surrogates, lines)) for name, lines in (answers or {}).items()},
    }
    page_folders = [path.name for path in PAGE_FOLDER.iterdir() if path.is_dir()]
    folders = [out / name for name in (FILES_FOLDER, THUMBS_FOLDER, ACCEPTED_FOLDER, *page_folders)]
    refuse_links(*folders, inside=results)
    try:
        out.mkdir(parents=True, exist_ok=True)
        artifacts = collect_artifacts(rows, results)
        thumbnails = Thumbnails(out)
        pictures = select_pictures(artifacts)
        thumbs = thumbnails.make(pictures)
        sprites = thumbnails.make_sprites(list(thumbs))
        data["files"], data["outputs"] = build_file_entries(rows, artifacts, thumbs, sprites.indices)
        data["sprites"] = sprites.as_data()
        link_files({path: path.name for path, _ in artifacts.values() if path is not None}, out / FILES_FOLDER)
        if checked is not None:
            data["check"] = _add_check(checked, rows, data["files"], out, is_review=is_review)
        data |= run_data
        thumbnails.prune_index(pictures)
        shown = {entry["path"] for entry in data["files"] if "path" in entry} | {*sprites.sheets}
        shown |= {f"{THUMBS_FOLDER}/{name}" for sha in thumbs for name in list_file_names(sha)}
        _remove_stale_files(out, _read_previous_paths(out) | stored, shown)
        for name, text in {"data.json": as_json(data), "data.js": as_script(data), **read_page()}.items():
            with atomic_write(out / name) as file:
                file.write(text.encode())
    except OSError as error:
        reason = describe_write_error(out / "index.html", error)
        raise ResultsError(f"{out}: the report cannot be written: {reason}") from error
    return Report(out / "index.html", len(rows), sum(path is None for path, _ in artifacts.values()))


def write_review(comparisons: Comparisons, out: Path) -> None:
    """Write the page of a check: the report of its run, which opens on the cases that are not the same.

    Raises ResultsError if the folder cannot be written.
    """
    run = None if comparisons.run is None else str(comparisons.run)
    trials = group_by_trial(comparisons).keys()
    write_report(comparisons.results, out, run=run, checked=comparisons, is_review=True, trials=trials or None)


def _add_check(
    checked: Comparisons, rows: Sequence[Result], files: list[dict[str, Any]], out: Path, *, is_review: bool
) -> dict[str, Any]:
    """Link the accepted files into the report, add their entries to `files`, and build the page's `check`."""
    accepted = build_accepted_entries(checked, _name_by_content)
    link_files({path: PurePosixPath(entry["path"]).name for path, entry in accepted.items()}, out / ACCEPTED_FOLDER)
    notes = [f"{servers} ({count} cases)" for servers, count in checked.servers.items()]
    notes += [] if checked.has_baseline else ["There is no baseline: nothing was compared."]
    notes += [f"The run ended early: {checked.stopped_by}."] if checked.stopped_by else []
    return {
        "baseline": str(checked.baseline),
        "gone": list_missing_cases(checked),
        "notes": notes,
        "is_review": is_review,
        "accept_command": checked.accept_command,
        **build_check_data(rows, group_by_trial(checked), accepted, files, with_texts=is_review),
    }


def read_page() -> dict[str, str]:
    """The files of the page by name, `index.html` first; some are those of all pages."""
    index = (PAGE_FOLDER / "index.html").read_text("utf-8")
    paths = {name: PAGE_FOLDER / name for name in re.findall(r'"((?:css|js)/\w+\.\w+)"', index)}
    parts = {name: path if path.is_file() else SHARED_PAGE / name for name, path in paths.items()}
    return {"index.html": index} | {name: path.read_text("utf-8") for name, path in parts.items()}


def _name_by_content(path: Path) -> str:
    """A name for an accepted file, which may have been replaced by another one of the same size."""
    return f"{sha256(path.read_bytes()).hexdigest()[:20]}{path.suffix.lower()}"


def _remove_stale_files(out: Path, own: Collection[str], shown: Collection[str]) -> None:
    """Remove the `own` files of reports, and thumbnails, that are not `shown`. Raises OSError."""
    # Compare without case, because some file systems take both spellings for one file.
    kept = {path.casefold() for path in shown}
    for folder in (FILES_FOLDER, ACCEPTED_FOLDER, THUMBS_FOLDER):
        for name in _list_files(out, folder):
            is_own = f"{folder}/{name}" in own or (folder == THUMBS_FOLDER and THUMB_NAME.fullmatch(name))
            if is_own and f"{folder}/{name}".casefold() not in kept:
                (out / folder / name).unlink(missing_ok=True)


def _list_files(out: Path, folder: str) -> list[str]:
    """The files in a folder of the report; none if the folder is a link, because its target is not the report's."""
    path = out / folder
    if not path.is_dir() or path.resolve() != out.resolve() / folder:
        return []
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _read_previous_paths(out: Path) -> set[str]:
    """The artifacts and accepted files in the data of the report that is there; none if another program wrote it."""
    try:
        files = json.loads((out / "data.json").read_text("utf-8"))["files"]
        return {entry["path"] for entry in files if "path" in entry}
    except (OSError, ValueError, LookupError, TypeError):
        return set()
