"""Writes the report's folder: the page's own files, the data beside it, thumbnails, and every artifact.

The folder stands alone: it can be moved, mailed or put on a web server. Artifacts are hard-linked into it where the
file system can, so that a report costs little disk, and copied elsewhere. Nothing outside the folder is touched.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ResultsError
from sweeper.reporting.contents import FILES, about, artifacts, file_entries, record_of
from sweeper.reporting.dataset import as_json, as_script, dataset
from sweeper.reporting.thumbnails import Thumbnails, wanted
from sweeper.store import Store

PAGE: Final = Path(__file__).parent / "page"


@dataclass(frozen=True, slots=True)
class Report:
    """What was written: the page, how many trials it shows, and how many artifacts were not there any more."""

    page: Path
    trials: int
    missing: int


def write_report(results: Path, out: Path | None = None, *, run: str | None = None) -> Report:
    """Write the page of a results folder to `out`, by default `<results>/report/`.

    Raises ResultsError when the results cannot be read or the folder cannot be written.
    """
    out = results / "report" if out is None else out
    with Store.open(results, readonly=True) as store:
        layout = store.layout(run)
        rows = list(store.results(run))
        record = record_of(store, run)
    data = dataset(rows, layout)
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = artifacts(rows, results)
        thumbs = Thumbnails(out).make(wanted((sha, path) for path, sha in found.values() if path is not None))
        data["files"], data["outputs"] = file_entries(rows, found, thumbs)
        _bring((path for path, _ in found.values() if path is not None), out / FILES)
        data |= about(record, results, rows)
        text = as_json(data)
        _write(out / "data.json", text)
        _write(out / "data.js", as_script(text))
        for source in sorted(PAGE.rglob("*")):
            if source.suffix in (".html", ".js", ".css"):
                place = out / source.relative_to(PAGE)
                place.parent.mkdir(parents=True, exist_ok=True)
                _write(place, source.read_text("utf-8"))
    except OSError as error:
        raise ResultsError(f"{out}: the report cannot be written: {error.strerror or error}") from error
    return Report(out / "index.html", len(rows), sum(path is None for path, _ in found.values()))


def _bring(sources: Any, folder: Path) -> None:
    """Link or copy files into the report; what is there with the same size stays: artifacts never change."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        place = folder / source.name
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
