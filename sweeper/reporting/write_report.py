"""Writes the report's folder: the page's own files, the data beside it, thumbnails, and every artifact.

The folder stands alone: it can be moved, mailed or put on a web server. Artifacts are hard-linked into it where the
file system can, so that a report costs little disk, and copied elsewhere. What an earlier report left there is removed
(`earlier`). Nothing outside the folder is touched, and in it nothing that is no report's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ResultsError
from sweeper.model.result import Result
from sweeper.reporting.check_findings import ACCEPTED, Checked, accepted_entry, accepted_pictures, check_data
from sweeper.reporting.cleanup import remove_earlier
from sweeper.reporting.contents import FILES, about, artifacts, brought_files, file_entries, record_of
from sweeper.reporting.dataset import as_json, as_script, dataset, places, places_of
from sweeper.reporting.sprites import make_sprites
from sweeper.reporting.thumbnails import Thumbnails, wanted
from sweeper.store import Store
from sweeper.store.remote_artifacts import place_here
from sweeper.tables.export import why_unwritable

PAGE: Final = Path(__file__).parent / "page"


@dataclass(frozen=True, slots=True)
class Report:
    """What was written: the page, how many trials it shows, and how many artifacts were not there any more."""

    page: Path
    trials: int
    missing: int


def write_report(
    results: Path, out: Path | None = None, *, run: str | None = None, checked: Checked | None = None
) -> Report:
    """Write the page of a results folder to `out`, by default `<results>/report/`; `checked`: what a check found.

    Raises ResultsError when the results cannot be read or the folder cannot be written.
    """
    out = results / "report" if out is None else out
    with Store.open(results, readonly=True) as store:
        layout = store.layout(run)
        outcomes = list(store.outcomes(run))
        record, began = record_of(store, run), store.runs()[0].started
        rows = [outcome.result for outcome in outcomes]
        brought = brought_files(store, rows)
        known = [(place_here(results, path, sha).name, sha) for path, sha in store.files()]
    data = dataset(rows, layout) | {"places": places(places_of(one.files) for one in outcomes)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = artifacts(rows, results)
        thumbnails = Thumbnails(out)
        pictures = wanted((sha, path) for path, sha in found.values() if path is not None)
        thumbs = thumbnails.make(pictures)
        sprites = make_sprites(out, list(thumbs), thumbnails.sprites)
        data["files"], data["outputs"] = file_entries(rows, found, thumbs, sprites.places)
        data["sprites"] = sprites.as_data()
        _bring({path: path.name for path, _ in found.values() if path is not None}, out / FILES)
        if checked is not None:
            data["check"] = _bring_accepted(checked, rows, data["files"], out)
        data |= about(record, results, rows, layout, brought, began=began)
        remove_earlier(out, data, known, thumbnails.keep(pictures))
        _write(out / "data.json", as_json(data))
        _write(out / "data.js", as_script(data))
        for source in sorted(PAGE.rglob("*")):
            if source.suffix in (".html", ".js", ".css"):
                place = out / source.relative_to(PAGE)
                place.parent.mkdir(parents=True, exist_ok=True)
                _write(place, source.read_text("utf-8"))
    except OSError as error:
        reason = why_unwritable(out / "index.html", error)
        raise ResultsError(f"{out}: the report cannot be written: {reason}") from error
    return Report(out / "index.html", len(rows), sum(path is None for path, _ in found.values()))


def _bring_accepted(checked: Checked, rows: Sequence[Result], files: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Bring the accepted pictures too, and tell what the check found of each trial."""
    pictures = accepted_pictures(checked)
    # Their own folder's names: an accepted picture is replaced in place, so its size alone would not tell.
    names = {path: f"{sha256(path.read_bytes()).hexdigest()[:20]}{path.suffix.lower()}" for path in pictures}
    _bring(names, out / ACCEPTED)
    places = {path: len(files) + place for place, path in enumerate(pictures)}
    files += [accepted_entry(path, names[path]) for path in pictures]
    return check_data(rows, checked, places)


def _bring(sources: Mapping[Path, str], folder: Path) -> None:
    """Link or copy files into the report under these names; what is there with the same size stays: neither artifacts
    nor what is named by its content ever change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in sources.items():
        place = folder / name
        if place.exists():
            if place.samefile(source) or place.stat().st_size == source.stat().st_size:
                continue
            place.unlink()
        try:
            os.link(source, place)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, place)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
