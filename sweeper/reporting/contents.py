"""The page's data about files and about the run itself; `dataset` has the data about its trials.

The report (`write_report`) and the live view (`sweeper.reporting.live`) share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.errors import InputError
from sweeper.loading.load import load_recorded
from sweeper.model.charges import AT_LEAST
from sweeper.model.money import CURRENCY, format_usd, from_usd
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan, plan
from sweeper.planning.searching.search_plan import SearchPlan, SearchSpace
from sweeper.planning.searching.search_state import group_points
from sweeper.reporting.dataset import encode_values
from sweeper.reporting.excluded_reasons import encode_exclusions
from sweeper.reporting.run_again import describe_rerun
from sweeper.reporting.thumbnails import THUMBS_FOLDER
from sweeper.store import Store
from sweeper.store.records import RunRecord, TableLayout
from sweeper.store.remote_artifacts import download_artifacts, local_path
from sweeper.store.trial_marks import Mark
from sweeper.tables.export import replace_surrogates

FILES_FOLDER: Final = "files"
MEDIA_TYPES: Final = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".bmp": "image/bmp", ".avif": "image/avif", ".apng": "image/apng", ".svg": "image/svg+xml",
    ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".opus": "audio/ogg",
    ".m4a": "audio/mp4", ".aac": "audio/aac",
}  # fmt: skip
"""The files that browsers can show, by suffix. The part before the slash is the kind of file on the page."""
UploadedInputs = Mapping[str, Mapping[str, Any]]
"""By target, then by the file's content: the value that a workflow needs for an input file on that target."""
_ABSENT: Final = {"$absent": True}


def find_run_record(store: Store, run: str | None) -> RunRecord:
    """Find a run, by default the latest. Raises ResultsError if it does not exist."""
    store.layout(run)
    wanted_id = store.latest_run_id() if run is None else run
    return next(record for record in store.runs() if str(record.id) == str(wanted_id))


def collect_artifacts(rows: Sequence[Result], results: Path) -> dict[str, tuple[Path | None, str]]:
    """Locate the outputs of all rows: recorded path -> (file, or None if it is gone; SHA-256).

    Downloads artifacts that are stored at a URL. Raises ResultsError if that storage cannot be reached.
    """
    home = results.resolve()
    download_artifacts(results, (pair for row in rows for pair in zip(row.outputs, row.sha256, strict=True)))
    artifacts: dict[str, tuple[Path | None, str]] = {}
    for row in rows:
        for name, sha in zip(row.outputs, row.sha256, strict=True):
            if name not in artifacts:
                path = local_path(home, name, sha)  # the store has checked it; `artifacts/` may be a link of the user
                artifacts[name] = (path if path.is_file() else None, sha)
    return artifacts


def build_file_entries(
    rows: Sequence[Result],
    artifacts: Mapping[str, tuple[Path | None, str]],
    thumbs: Mapping[str, Any],
    sprite_indices: Mapping[str, int] | None = None,
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Build the page's `files` and `outputs`: an entry for each artifact, and for each row the indices of its entries.

    `sprite_indices`: the index on the sprite sheets by SHA-256. A picture without one appears when its thumbnail loads.
    """
    sprite_indices = sprite_indices or {}
    indices = {name: index for index, name in enumerate(artifacts)}
    files = []
    for name, (path, sha) in artifacts.items():
        suffix = PurePosixPath(name).suffix.lower()
        kind = MEDIA_TYPES.get(suffix, "other").partition("/")[0]
        entry: dict[str, Any] = {"kind": kind if path is not None else "missing", "sha256": sha, "was": name}
        if path is not None:
            entry |= {"path": f"{FILES_FOLDER}/{path.name}", "bytes": path.stat().st_size}
        thumb = thumbs.get(sha)
        if thumb is not None:
            entry |= {"thumb": f"{THUMBS_FOLDER}/{sha}.webp", "width": thumb.width, "height": thumb.height}
            entry |= {"colour": thumb.colour, "frames": thumb.frames, "workflow": thumb.workflow}
            entry["kind"] = "image" if kind in ("image", "other") else kind
            if sha in sprite_indices:
                entry["sprite"] = sprite_indices[sha]
        files.append(entry)
    return files, [[indices[name] for name in row.outputs] for row in rows]


def describe_run(
    record: RunRecord,
    results: Path,
    rows: Sequence[Result],
    layout: TableLayout,
    uploaded: UploadedInputs,
    *,
    first_started: float | None = None,
) -> dict[str, Any]:
    """Build the page's data about the run. If its experiment can still be read, that includes workflows and exclusions.

    `uploaded`: see `UploadedInputs`. `first_started`: when the first run of this results folder started (Unix
    seconds), or None if none has. It identifies the folder, even after the folder moves or its sweep grows.
    """
    data: dict[str, Any] = {
        "run": record.id, "file": record.file, "targets": list(record.targets), "started": record.started,
        "ended": record.ended, "stopped_by": record.stopped_by, "results": str(results), "workflow": None,
        "template": None, "description": "", "began": first_started,
    }  # fmt: skip
    experiment = None
    try:
        experiment = load_recorded(record.file, record.overrides, results=results)
        data["description"] = experiment.description
        value = experiment.source.value if experiment.source is not None else {}
        data["template"] = value.get("template") if isinstance(value, dict) else None
        if layout.search is None:
            planned = plan(experiment)
            data["workflow"] = _encode_workflows(planned, rows, uploaded)
            data["left_out"] = encode_exclusions(planned, rows, layout)
        elif experiment.search is not None:
            data |= _describe_search(SearchSpace(experiment, experiment.search), rows, uploaded)
    except (InputError, OSError) as error:
        data["workflow_missing"] = f"the experiment can no longer be read: {str(error).splitlines()[0]}"
    else:
        if data["workflow"] is None:
            data["workflow_missing"] = "the experiment has changed since this run"
    return data | {"asked": describe_rerun(record, layout, experiment)}


def _describe_search(space: SearchSpace, rows: Sequence[Result], uploaded: UploadedInputs) -> dict[str, Any]:
    """Build the workflows of the rows whose points are in the space, and `wanted`: how many trials each point gets.

    `where` may leave out some combinations of a point. A row whose point is not in the space any more has null.
    """
    points = [space.read_point(row.params, row.columns) for row in rows]
    combinations = [space.read_combination(row.params, row.columns) for row in rows]
    cells = [(0, *one) for one in zip(points, combinations, strict=True) if None not in one]
    if not cells:
        return {}
    distinct = list(dict.fromkeys(point for point in points if point is not None))
    wanted = dict(zip(distinct, map(len, space.find_allowed(distinct)), strict=True))
    plan_again = SearchPlan(space, group_points(cells))  # type: ignore[arg-type]  # none of them is None
    return {
        "workflow": _encode_workflows(plan_again, rows, uploaded),
        "wanted": [None if point is None else wanted[point] for point in points],
    }


def _encode_workflows(planned: Plan, rows: Sequence[Result], uploaded: UploadedInputs) -> dict[str, Any] | None:
    """Return `{base, changes: [{node, input, values, of}], known: [0 or 1 per row]}`, or None if no workflow is known.

    That is little space: the first workflow in full, and for each trial only its differences, from which the page makes
    the others. A row has a workflow only if the experiment still makes exactly that trial, by its digest.

    Input files have the names that they have on the row's target, so that the target accepts the workflow unchanged.
    If those are unknown, they keep their names on this machine.
    """
    digests = [row.digest for row in rows]
    target_of = {row.digest: row.target or "" for row in rows}
    graphs: dict[str, Mapping[str, Any]] = {}
    for trial in planned.written():
        if trial.digest in target_of and trial.digest not in graphs:
            graphs[trial.digest] = _build_run_graph(planned, trial, uploaded.get(target_of[trial.digest], {}))
    if not graphs:
        return None
    base = next(iter(graphs.values()))
    flat = {digest: dict(_iter_inputs(graph)) for digest, graph in graphs.items()}
    start = dict(_iter_inputs(base))
    # Slots change inputs and never nodes, so all graphs have the same inputs.
    varying = [key for key in start if any(inputs.get(key, _ABSENT) != start[key] for inputs in flat.values())]
    changes = []
    for node, name in varying:
        values, of = encode_values(flat[digest].get((node, name)) if digest in flat else None for digest in digests)
        changes.append({"node": node, "input": name, "values": values, "of": of})
    (base_coded,), _ = encode_values([dict(base)])
    return {"base": base_coded, "changes": changes, "known": [int(digest in flat) for digest in digests]}


def _build_run_graph(planned: Plan, trial: Trial, uploaded: Mapping[str, Any]) -> dict[str, Any]:
    graph: dict[str, Any] = planned.workflow(trial)
    for file in planned.files(trial):
        graph[file.node]["inputs"][file.input] = uploaded.get(file.content_key, file.value)
    return graph


def _iter_inputs(graph: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], Any]]:
    for node, content in graph.items():
        for name, value in content.get("inputs", {}).items():
            yield (node, name), value


def encode_marks(marks: Iterable[Mark]) -> dict[str, Any]:
    """Build the page's `marks`: digest -> mark."""
    return {mark.digest: {**mark.to_json(), "comment": replace_surrogates(mark.comment)} for mark in marks}


def describe_spending(store: Store, rows: Sequence[Result]) -> str:
    """What the results of these rows cost, of what all runs of the folder cost; empty if nothing has a price."""
    spent = store.charges.load_whole_cost()
    if spent is None:
        return ""
    shown = [row for row in rows if row.status == SUCCEEDED and row.cost is not None]
    is_bounded = not any((row.cost_kind or "").endswith(AT_LEAST) for row in shown)
    kept = _format_cost(sum(from_usd(row.cost or 0) for row in shown), is_bounded=is_bounded)
    return f"kept {kept} of {_format_cost(spent.micros, is_bounded=not spent.kind.endswith(AT_LEAST))} spent"


def _format_cost(micros: int, *, is_bounded: bool) -> str:
    return f"{'' if is_bounded else 'at least '}{format_usd(micros)} {CURRENCY}"


def load_uploaded_inputs(store: Store, rows: Sequence[Result]) -> UploadedInputs:
    """Load the recorded names of input files on the targets of these rows. Raises ResultsError."""
    targets = {row.target for row in rows if row.target is not None}
    return {
        name: {content: value for content, (value, _) in store.servers.load_uploads(name).items()} for name in targets
    }
