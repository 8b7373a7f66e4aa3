"""Descriptions of jobs for `/api/jobs`: what Comfy Cloud and a ComfyUI answer alike.

The names and rules are those of ComfyUI 0.33.0 (measured) and of Comfy Cloud's published specification of August 2026.
`cloud_jobs.py` and `local_jobs.py` add what only one of them has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.embedded.jobs import ALLOCATED, CANCELLED, ENDED, ERROR, LOST, SUBMITTED, SUCCESS, WAITING, ServerJob

# Raw state -> status; other states are "in_progress".
_STATUS_BY_STATE = {
    SUBMITTED: "pending",
    WAITING: "pending",
    ALLOCATED: "pending",
    SUCCESS: "completed",
    ERROR: "failed",
    LOST: "failed",
    CANCELLED: "cancelled",
}
STATUS_WORDS = ("pending", "in_progress", "completed", "failed", "cancelled")

MAX_TEXT_PREVIEW = 1024  # characters
_PREVIEWABLE_KINDS = frozenset({"images", "video", "audio", "3d", "text"})
_MODEL_SUFFIXES = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_SUFFIXES = (".txt", ".md", ".json")


def status_word(job: ServerJob) -> str:
    """The status of a job: one of STATUS_WORDS."""
    return _STATUS_BY_STATE.get(job.state, "in_progress")


def get_workflow_id(job: ServerJob) -> str | None:
    """The id of the UI-format workflow of a job, if the client sent that workflow with the graph."""
    info = job.extra_data.get("extra_pnginfo")
    workflow = info.get("workflow") if isinstance(info, dict) else None
    workflow_id = workflow.get("id") if isinstance(workflow, dict) else None
    return workflow_id if isinstance(workflow_id, str) else None


def make_row(job: ServerJob) -> dict[str, Any]:
    """The fields of a job that a listing has, without its error. Times are milliseconds since the epoch."""
    row: dict[str, Any] = {"id": job.id, "status": status_word(job), "create_time": job.created}
    workflow_id = get_workflow_id(job)
    if workflow_id is not None:
        row["workflow_id"] = workflow_id
    if job.state in ENDED:
        if job.started is not None:
            row |= {"execution_start_time": job.started, "execution_end_time": job.ended}
        row |= summarize_outputs(job.results)
    return row


def describe_end(job: ServerJob) -> dict[str, Any]:
    """The fields that only the details of an ended job have."""
    # `success` or `error`, ComfyUI's only values: an interrupted job is an `error` too.
    succeeded = bool(job.messages) and job.messages[-1][0] == "execution_success"
    words = {"status_str": "success" if succeeded else "error", "completed": succeeded, "messages": job.messages}
    return {"outputs": job.results, "execution_status": words}


def describe_history(job: ServerJob) -> dict[str, Any]:
    """The history entry of a job without its `prompt`."""
    end = describe_end(job)
    return {"outputs": end["outputs"], "status": end["execution_status"], "meta": job.meta}


def describe_workflow(job: ServerJob) -> dict[str, Any]:
    """The `workflow` of a job's details."""
    return {"prompt": job.graph, "extra_data": job.extra_data}


def summarize_outputs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Count the output files of a job, and choose its preview.

    The preview is the first saved picture, film, sound or model, else the first temporary one, else the first text
    file, else the first text that a node shows. Such a text is not a file, so it does not count.
    """
    count, previews = 0, []
    previewable = 0
    for node_id, kind, item in _iterate_items(results):
        source = {"nodeId": node_id, "mediaType": kind}
        file = _as_file(item)
        if file is None:
            if kind == "text":
                previews.append((3, _shorten(str(item)) | source))
            continue
        count += 1
        name = str(file.get("filename", "")).lower()
        film_or_sound = str(file.get("format", "")).startswith(("video/", "audio/"))
        if kind in _PREVIEWABLE_KINDS or film_or_sound or name.endswith(_MODEL_SUFFIXES + _TEXT_SUFFIXES):
            previewable += 1
            text = kind == "text" or name.endswith(_TEXT_SUFFIXES)
            rank = 2 if text else 0 if file.get("type") == "output" else 1
            previews.append((rank, source | file))
    summary: dict[str, Any] = {"outputs_count": count, "previewable_outputs_count": previewable}
    if previews:
        summary["preview_output"] = min(previews, key=lambda preview: preview[0])[1]
    return summary


def _iterate_items(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for node_id, ui in results.items():
        for kind, items in ui.items():
            if kind != "animated" and isinstance(items, list | tuple):  # `animated` is a flag
                yield from ((node_id, kind, item) for item in items)


def _as_file(item: Any) -> dict[str, Any] | None:
    if isinstance(item, str) and item.lower().endswith(_MODEL_SUFFIXES):  # 3D nodes name their file by a string
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return item if isinstance(item, dict) else None


def _shorten(text: str) -> dict[str, Any]:
    short: dict[str, Any] = {"content": text[:MAX_TEXT_PREVIEW]}
    return short | {"truncated": True} if len(text) > MAX_TEXT_PREVIEW else short
