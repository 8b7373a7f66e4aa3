"""Writes the report's folder: the page, its data, thumbnails and all artifacts.

The folder is self-contained: it can be moved, mailed or put on a web server. Artifacts are hard-linked into it to save
disk space, or copied if the file system has no hard links.

The folder may hold other files too. Files of earlier reports may show pictures that left the sweep; sweeper removes
those that are known to be a report's: those in the previous report's data or in its index of thumbnails, artifacts of
the store, and sprite sheets by their unique names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.errors import ResultsError
from sweeper.files import atomic_write, describe_write_error
from sweeper.model.result import Result
from sweeper.reporting.check_findings import (
    ACCEPTED_FOLDER,
    CheckFindings,
    build_accepted_entry,
    build_check_data,
    find_accepted_pictures,
)
from sweeper.reporting.contents import (
    FILES_FOLDER,
    build_file_entries,
    collect_artifacts,
    describe_run,
    describe_spending,
    encode_marks,
    find_run_record,
    load_uploaded_inputs,
)
from sweeper.reporting.dataset import as_json, as_script, build_dataset, encode_file_origins, list_file_origins
from sweeper.reporting.sprites import is_sprite_sheet, make_sprites
from sweeper.reporting.thumbnails import THUMBS_FOLDER, Thumbnails, iter_file_names, select_pictures
from sweeper.serving import SHARED_PAGE
from sweeper.store import Store
from sweeper.store.artifacts import link_files
from sweeper.store.containment import refuse_links
from sweeper.store.remote_artifacts import local_path
from sweeper.store.trial_marks import Mark, merge_marks
from sweeper.tables.export import replace_surrogates
from sweeper.tables.select_rows import select_results

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
    checked: CheckFindings | None = None,
    trials: Collection[int] | None = None,
    marks: Iterable[Mark] = (),
    answers: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Write the report of a results folder to `out`, by default `<results>/report/`.

    `checked`: findings to show. `trials`: show only these trials of the run. `marks`: added to those of the folder.
    `answers`: by metric, sentences about what matters for it.

    Raises ResultsError if the results cannot be read or the folder cannot be written.
    """
    if out is None:
        out = results / "report"
        refuse_links(out)
    with Store.open(results, readonly=True) as store:
        outcomes = list(store.outcomes(run))
        layout, rows = select_results(store.layout(run), [outcome.result for outcome in outcomes], trials)
        outcomes = [outcome for outcome in outcomes if trials is None or outcome.result.trial in trials]
        record, first_started = find_run_record(store, run), store.runs()[0].started
        uploaded, spending = load_uploaded_inputs(store, rows), describe_spending(store, rows)
        all_marks = [] if checked is not None and checked.is_review else merge_marks(store.marks.load(), marks)
        stored = [(local_path(results, path, sha).name, sha) for path, sha in store.files()]
    data = build_dataset(rows, layout) | {
        "spending": spending,
        "marks": encode_marks(all_marks),
        "answers": {name: list(map(replace_surrogates, lines)) for name, lines in (answers or {}).items()},
        "places": encode_file_origins(list_file_origins(outcome.files) for outcome in outcomes),
    }
    page_folders = [path.name for path in PAGE_FOLDER.iterdir() if path.is_dir()]
    folders = [out / name for name in (FILES_FOLDER, THUMBS_FOLDER, ACCEPTED_FOLDER, *page_folders)]
    refuse_links(*folders, inside=results)
    try:
        out.mkdir(parents=True, exist_ok=True)
        artifacts = collect_artifacts(rows, results)
        thumbnails = Thumbnails(out)
        pictures = select_pictures((sha, path) for path, sha in artifacts.values() if path is not None)
        thumbs = thumbnails.make(pictures)
        sprites = make_sprites(out, list(thumbs), thumbnails.sprites)
        data["files"], data["outputs"] = build_file_entries(rows, artifacts, thumbs, sprites.indices)
        data["sprites"] = sprites.as_data()
        link_files({path: path.name for path, _ in artifacts.values() if path is not None}, out / FILES_FOLDER)
        if checked is not None:
            data["check"] = _link_accepted(checked, rows, data["files"], out)
        data |= describe_run(record, results, rows, layout, uploaded, first_started=first_started)
        _remove_stale_files(out, data, stored, thumbnails.prune_index(pictures))
        _write_page(out, data)
    except OSError as error:
        reason = describe_write_error(out / "index.html", error)
        raise ResultsError(f"{out}: the report cannot be written: {reason}") from error
    return Report(out / "index.html", len(rows), sum(path is None for path, _ in artifacts.values()))


def _write_page(out: Path, data: Mapping[str, Any]) -> None:
    """Write the data, and the page that shows it."""
    _write_file(out / "data.json", as_json(data))
    _write_file(out / "data.js", as_script(data))
    for name, text in read_page().items():
        _write_file(out / name, text)


def read_page() -> dict[str, str]:
    """The files of the page by name, `index.html` first; some are those of all pages."""
    index = (PAGE_FOLDER / "index.html").read_text("utf-8")
    paths = {name: PAGE_FOLDER / name for name in re.findall(r'"((?:css|js)/\w+\.\w+)"', index)}
    parts = {name: path if path.is_file() else SHARED_PAGE / name for name, path in paths.items()}
    return {"index.html": index} | {name: path.read_text("utf-8") for name, path in parts.items()}


def _link_accepted(
    checked: CheckFindings, rows: Sequence[Result], files: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Link the accepted files into the report and build the page's `check`; adds entries to `files`."""
    pictures = find_accepted_pictures(checked)
    # Name them by content: an accepted file may have been replaced by another one of the same size.
    names = {path: f"{sha256(path.read_bytes()).hexdigest()[:20]}{path.suffix.lower()}" for path in pictures}
    link_files(names, out / ACCEPTED_FOLDER)
    indices = {path: len(files) + index for index, path in enumerate(pictures)}
    files += [build_accepted_entry(path, names[path]) for path in pictures]
    return build_check_data(rows, checked, indices)


def _write_file(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _remove_stale_files(
    out: Path, data: Mapping[str, Any], artifacts: Iterable[tuple[str, str]], dropped_thumbs: Iterable[str]
) -> None:
    """Remove the files of earlier reports that this report does not show. Call it before `data.json` is replaced.

    `data` is this report's. `artifacts`: name and SHA-256 of every artifact of the store; `dropped_thumbs`: SHA-256 of
    the thumbnails that left the index. Raises OSError.
    """
    own = {*_iter_report_files(_read_previous_data(out))}
    for name, sha in artifacts:
        own |= {f"{FILES_FOLDER}/{name}", *_iter_thumb_paths(sha)}
    for sha in dropped_thumbs:
        own.update(_iter_thumb_paths(sha))
    # Compare without case, because some file systems take both spellings for one file.
    shown = {path.casefold() for path in _iter_report_files(data)}
    stale = {path for path in own if path.casefold() not in shown}
    for folder in (FILES_FOLDER, ACCEPTED_FOLDER, THUMBS_FOLDER):
        for name in _list_files(out, folder):
            path = f"{folder}/{name}"
            if path in stale or (folder == THUMBS_FOLDER and is_sprite_sheet(name) and path not in shown):
                (out / folder / name).unlink(missing_ok=True)


def _list_files(out: Path, folder: str) -> list[str]:
    """The files in a folder of the report; none if the folder is a link, because its target is not the report's."""
    path = out / folder
    if not path.is_dir() or path.resolve() != out.resolve() / folder:
        return []
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _read_previous_data(out: Path) -> Any:
    try:
        return json.loads((out / "data.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None  # there is none, or another program wrote it


def _iter_report_files(data: Any) -> Iterator[str]:
    """The files that a report's data names, relative to its folder. Accepts any JSON value."""
    if not isinstance(data, Mapping):
        return
    files, sprites = data.get("files"), data.get("sprites")
    for entry in files if isinstance(files, list) else ():
        if isinstance(entry, Mapping):
            if isinstance(path := entry.get("path"), str):
                yield path
            if isinstance(thumb := entry.get("thumb"), str):
                yield from _iter_thumb_paths(PurePosixPath(thumb).stem)
    sheets = sprites.get("sheets") if isinstance(sprites, Mapping) else None
    yield from (sheet for sheet in (sheets if isinstance(sheets, list) else ()) if isinstance(sheet, str))


def _iter_thumb_paths(sha: str) -> Iterator[str]:
    return (f"{THUMBS_FOLDER}/{name}" for name in iter_file_names(sha))
