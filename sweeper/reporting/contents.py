"""What the page shows of a run beside its rows: which files there are, of what kind, and where the run came from.

Shared by the report's folder (`write_report`) and the live view (`sweeper.reporting.live`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.errors import InputError
from sweeper.model.result import Result
from sweeper.reporting.excluded_reasons import encode_exclusions
from sweeper.reporting.run_again import describe_rerun
from sweeper.reporting.thumbnails import THUMBS_FOLDER as THUMBS
from sweeper.reporting.workflows import UploadedInputs, encode_workflows
from sweeper.store import Store
from sweeper.store.records import RunRecord, TableLayout
from sweeper.store.remote_artifacts import download_artifacts, local_path

FILES_FOLDER: Final = "files"
MEDIA_TYPES: Final = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".bmp": "image/bmp", ".avif": "image/avif", ".apng": "image/apng", ".svg": "image/svg+xml",
    ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".opus": "audio/ogg",
    ".m4a": "audio/mp4", ".aac": "audio/aac",
}  # fmt: skip
"""What browsers show, by suffix; the part before the slash is the kind of cell."""


def find_run_record(store: Store, run: str | None) -> RunRecord:
    """The record of a run, by default of the latest. Raises ResultsError for one that is not there."""
    store.layout(run)
    wanted_id = store.latest_run_id() if run is None else run
    return next(record for record in store.runs() if str(record.id) == str(wanted_id))


def collect_artifacts(rows: Sequence[Result], results: Path) -> dict[str, tuple[Path | None, str]]:
    """Every output of the rows by its path on record: the file (None where it is gone), and its SHA-256. What lies at
    a URL is fetched. Raises ResultsError where its storage cannot be asked.
    """
    home = results.resolve()
    download_artifacts(results, (pair for row in rows for pair in zip(row.outputs, row.sha256, strict=True)))
    found: dict[str, tuple[Path | None, str]] = {}
    for row in rows:
        for name, sha in zip(row.outputs, row.sha256, strict=True):
            if name not in found:
                path = local_path(home, name, sha).resolve()
                inside = path.is_relative_to(home) and path.is_file()
                found[name] = (path if inside else None, sha)
    return found


def build_file_entries(
    rows: Sequence[Result],
    artifacts: Mapping[str, tuple[Path | None, str]],
    thumbs: Mapping[str, Any],
    sprite_indices: Mapping[str, int] | None = None,
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """What the page knows of each file that was found, and for each row the places of its files among them.

    `sprites`: the place on the sprite sheets by SHA-256; a picture without one is shown when its thumbnail is there.
    """
    sprite_indices = sprite_indices or {}
    places = {name: place for place, name in enumerate(artifacts)}
    files = []
    for name, (path, sha) in artifacts.items():
        suffix = PurePosixPath(name).suffix.lower()
        kind = MEDIA_TYPES.get(suffix, "other").partition("/")[0]
        entry: dict[str, Any] = {"kind": kind if path is not None else "missing", "sha256": sha, "was": name}
        if path is not None:
            entry |= {"path": f"{FILES_FOLDER}/{path.name}", "bytes": path.stat().st_size}
        thumb = thumbs.get(sha)
        if thumb is not None:
            entry |= {"thumb": f"{THUMBS}/{sha}.webp", "width": thumb.width, "height": thumb.height}
            entry |= {"colour": thumb.colour, "frames": thumb.frames, "workflow": thumb.workflow}
            entry["kind"] = "image" if kind in ("image", "other") else kind
            if sha in sprite_indices:
                entry["sprite"] = sprite_indices[sha]
        files.append(entry)
    return files, [[places[name] for name in row.outputs] for row in rows]


def describe_run(
    record: RunRecord,
    results: Path,
    rows: Sequence[Result],
    layout: TableLayout,
    uploaded: UploadedInputs,
    *,
    first_started: float | None = None,
) -> dict[str, Any]:
    """What the page says of the run; where the experiment can still be read, the workflows and what its rules drop.

    `brought`: see `workflows`. `began`: when the first run of this results folder did, which tells it from others
    wherever it is moved to, and however its sweep grows; None before there is one.
    """
    from sweeper.loading.load import load  # noqa: PLC0415 - Jinja2 and jsonschema, only for this
    from sweeper.planning.plan import plan  # noqa: PLC0415

    told: dict[str, Any] = {
        "run": record.id, "file": record.file, "targets": list(record.targets), "started": record.started,
        "ended": record.ended, "stopped_by": record.stopped_by, "results": str(results), "workflow": None,
        "template": None, "description": "", "began": first_started,
    }  # fmt: skip
    experiment = None
    try:
        experiment = load(record.file, overrides=record.overrides)
        told["description"] = experiment.description
        value = experiment.source.value if experiment.source is not None else {}
        told["template"] = value.get("template") if isinstance(value, dict) else None
        planned = plan(experiment)
        told["workflow"] = encode_workflows(planned, rows, uploaded)
        told["left_out"] = encode_exclusions(planned, rows, layout)
    except (InputError, OSError) as error:
        told["workflow_missing"] = f"the experiment cannot be read any more: {str(error).splitlines()[0]}"
    else:
        if told["workflow"] is None:
            told["workflow_missing"] = "the experiment has changed since this run"
    return told | {"asked": describe_rerun(record, layout, experiment)}


def load_uploaded_inputs(store: Store, rows: Sequence[Result]) -> UploadedInputs:
    """What the targets of these rows have of input files, as far as runs noted it. Raises ResultsError."""
    targets = {row.target for row in rows if row.target is not None}
    return {
        name: {content: value for content, (value, _) in store.servers.load_uploads(name).items()} for name in targets
    }
