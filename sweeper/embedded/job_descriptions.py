"""Jobs as `/api/jobs` and the history describe them, alike in Comfy Cloud's specification and in a ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.embedded.jobs import ALLOCATED, CANCELLED, ENDED, ERROR, LOST, SUBMITTED, SUCCESS, WAITING, ServerJob

# Raw state -> status; other states are "in_progress".
_STATUS_BY_STATE = {
    **dict.fromkeys((SUBMITTED, WAITING, ALLOCATED), "pending"),
    **dict.fromkeys((ERROR, LOST), "failed"),
    SUCCESS: "completed",
    CANCELLED: "cancelled",
}
STATUS_WORDS = ("pending", "in_progress", "completed", "failed", "cancelled")

MAX_TEXT_PREVIEW = 1024  # characters
_MODEL_SUFFIXES = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_SUFFIXES = (".txt", ".md", ".json")
_PREVIEWABLE_KINDS = frozenset({"images", "video", "audio", "3d", "text"})


def get_status_word(job: ServerJob) -> str:
    """The status of a job: one of STATUS_WORDS."""
    return _STATUS_BY_STATE.get(job.state, "in_progress")


def select_jobs(query: Mapping[str, str], jobs: list[ServerJob]) -> tuple[list[ServerJob], list[str]]:
    """The jobs with one of the `status` words and with the `workflow_id` of a query; and the words that are unknown."""
    words = [word.strip().lower() for word in query.get("status", "").split(",") if word.strip()]
    workflow_id = query.get("workflow_id")
    jobs = [job for job in jobs if not words or get_status_word(job) in words]
    jobs = [job for job in jobs if not workflow_id or _get_workflow_id(job) == workflow_id]
    return jobs, [word for word in words if word not in STATUS_WORDS]


def _get_workflow_id(job: ServerJob) -> str | None:
    """The id of the UI-format workflow of a job, if the client sent that workflow with the graph."""
    value: Any = job.extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def make_row(job: ServerJob) -> dict[str, Any]:
    """The fields of a job that a listing has, without its error. Times are milliseconds since the epoch."""
    row: dict[str, Any] = {"id": job.id, "status": get_status_word(job), "create_time": job.created}
    if (workflow_id := _get_workflow_id(job)) is not None:
        row["workflow_id"] = workflow_id
    if job.state in ENDED:
        if job.started is not None:
            row |= {"execution_start_time": job.started, "execution_end_time": job.ended}
        row |= _summarize_outputs(job.results)
    return row


def describe_end(job: ServerJob) -> dict[str, Any]:
    """The fields that only the details of an ended job have."""
    # `success` or `error`, ComfyUI's only values: an interrupted job is an `error` too.
    succeeded = bool(job.messages) and job.messages[-1][0] == "execution_success"
    words = {"status_str": "success" if succeeded else "error", "completed": succeeded, "messages": job.messages}
    return {"outputs": job.results, "execution_status": words}


def describe_workflow(job: ServerJob) -> dict[str, Any]:
    """The `workflow` of a job's details."""
    return {"prompt": job.graph, "extra_data": job.extra_data}


def _summarize_outputs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Count the output files of a job, and choose its preview.

    The preview is the first saved picture, film, sound or model, else the first temporary one, else the first text
    file, else the first text that a node shows. Such a text is not a file, so it does not count.
    """
    count = 0
    previews: list[tuple[int, dict[str, Any]]] = []
    for source, item in _iter_items(results):
        kind = source["mediaType"]
        if not isinstance(item, dict):
            if kind == "text":
                cut = {"truncated": True} if len(str(item)) > MAX_TEXT_PREVIEW else {}
                previews.append((3, {"content": str(item)[:MAX_TEXT_PREVIEW], **cut, **source}))
            continue
        count += 1
        name = str(item.get("filename", "")).lower()
        is_film_or_sound = str(item.get("format", "")).startswith(("video/", "audio/"))
        if kind in _PREVIEWABLE_KINDS or is_film_or_sound or name.endswith(_MODEL_SUFFIXES + _TEXT_SUFFIXES):
            is_text = kind == "text" or name.endswith(_TEXT_SUFFIXES)
            previews.append((2 if is_text else 0 if item.get("type") == "output" else 1, source | item))
    summary: dict[str, Any] = {"outputs_count": count}
    summary["previewable_outputs_count"] = sum(rank < 3 for rank, _ in previews)
    if previews:
        summary["preview_output"] = min(previews, key=lambda preview: preview[0])[1]
    return summary


def _iter_items(results: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], Any]]:
    for node_id, ui in results.items():
        for kind, items in ui.items():
            if kind != "animated" and isinstance(items, list | tuple):  # `animated` is a flag
                yield from (({"nodeId": node_id, "mediaType": kind}, _as_file(item)) for item in items)


def _as_file(item: Any) -> Any:
    """3D nodes name their file by a string."""
    is_model = isinstance(item, str) and item.lower().endswith(_MODEL_SUFFIXES)
    return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"} if is_model else item
