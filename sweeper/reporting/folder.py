"""Writes the report's folder: the page's own files, the data beside it, thumbnails, and every artifact.

The folder stands alone: it can be moved, mailed or put on a web server. Artifacts are hard-linked into it where the
file system can, so that a report costs little disk, and copied elsewhere. Nothing outside the folder is touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.errors import InputError, ResultsError
from sweeper.reporting.dataset import as_json, as_script, dataset
from sweeper.reporting.thumbnails import FOLDER as THUMBS
from sweeper.reporting.thumbnails import Thumbnails, wanted
from sweeper.reporting.workflows import workflows
from sweeper.result import Result
from sweeper.store import Store
from sweeper.store.records import RunRecord

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = "files"
_KINDS: Final = {
    "image": {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif", ".apng", ".svg"},
    "video": {".mp4", ".webm", ".mov", ".m4v", ".mkv"},
    "audio": {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"},
}


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
        record = _record(store, run)
    data = dataset(rows, layout)
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = _artifacts(rows, results)
        thumbs = Thumbnails(out).make(wanted((sha, path) for path, sha in found.values() if path is not None))
        data["files"], data["outputs"] = _files(rows, found, thumbs)
        _bring((path for path, _ in found.values() if path is not None), out / FILES)
        data |= _about(record, results, rows)
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


def _record(store: Store, run: str | None) -> RunRecord:
    wanted_id = store.latest() if run is None else run
    return next(record for record in store.runs() if str(record.id) == str(wanted_id))


def _artifacts(rows: Sequence[Result], results: Path) -> dict[str, tuple[Path | None, str]]:
    """Every output of the rows by its relative path: the file (None where it is gone), and its SHA-256."""
    home = results.resolve()
    found: dict[str, tuple[Path | None, str]] = {}
    for row in rows:
        for name, sha in zip(row.outputs, row.sha256, strict=True):
            if name not in found:
                path = (home / name).resolve()
                inside = path.is_relative_to(home) and path.is_file()
                found[name] = (path if inside else None, sha)
    return found


def _files(
    rows: Sequence[Result], found: Mapping[str, tuple[Path | None, str]], thumbs: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    places = {name: place for place, name in enumerate(found)}
    files = []
    for name, (path, sha) in found.items():
        suffix = PurePosixPath(name).suffix.lower()
        kind = next((kind for kind, suffixes in _KINDS.items() if suffix in suffixes), "other")
        entry: dict[str, Any] = {"kind": kind if path is not None else "missing", "sha256": sha, "was": name}
        if path is not None:
            entry |= {"path": f"{FILES}/{path.name}", "bytes": path.stat().st_size}
        thumb = thumbs.get(sha)
        if thumb is not None:
            entry |= {"thumb": f"{THUMBS}/{sha}.webp", "width": thumb.width, "height": thumb.height}
            entry |= {"colour": thumb.colour, "frames": thumb.frames}
            entry["kind"] = "image" if kind in ("image", "other") else kind
        files.append(entry)
    return files, [[places[name] for name in row.outputs] for row in rows]


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


def _about(record: RunRecord, results: Path, rows: Sequence[Result]) -> dict[str, Any]:
    """What the page says of the run, and the workflows where the experiment can still be read."""
    from sweeper.loading import load  # noqa: PLC0415 - Jinja2 and jsonschema, only for this
    from sweeper.planner import plan  # noqa: PLC0415

    about: dict[str, Any] = {
        "run": record.id, "file": record.file, "targets": list(record.targets), "started": record.started,
        "ended": record.ended, "stopped_by": record.stopped_by, "results": str(results), "workflow": None,
        "template": None, "description": "",
    }  # fmt: skip
    try:
        experiment = load(record.file)
        about["description"] = experiment.description
        value = experiment.source.value if experiment.source is not None else {}
        about["template"] = value.get("template") if isinstance(value, dict) else None
        about["workflow"] = workflows(plan(experiment), [row.digest for row in rows])
    except (InputError, OSError) as error:
        about["workflow_missing"] = f"the experiment cannot be read any more: {str(error).splitlines()[0]}"
    else:
        if about["workflow"] is None:
            about["workflow_missing"] = "the experiment has changed since this run"
    return about


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
