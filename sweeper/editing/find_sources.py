"""Find what the page can open: experiments in a folder, and the saved workflows and last jobs of a ComfyUI.

A server may lie. Its answers are bounded by `comfy/`; of its names only those are kept that a ComfyUI can have, and a
name is only sent back to the server that listed it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar
from urllib.parse import quote

from sweeper.comfy.protocol import Flow, ServerRequest, raise_for_status
from sweeper.comfy.responses import to_seconds
from sweeper.comfy.target import resolve_targets
from sweeper.editing.starter_folder import LOCAL_COMFYUI
from sweeper.errors import SweeperError, UsageError
from sweeper.loading.bounded_files import BoundError, find_matching_files
from sweeper.loading.load import read_name
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.bounded_json import parse_json
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.running.stop_control import run_sync
from sweeper.wording import shorten, to_one_line

T = TypeVar("T")

_PATTERNS: Final = ("*.y*ml", "*/*.y*ml", "*/*/*.y*ml")  # of experiments
_MAX_LISTED: Final = 500
_MAX_NAME: Final = 500  # characters
_MAX_JOBS: Final = 30
_MAX_HEAD: Final = 100_000  # bytes of a file that may be an experiment
_SECONDS: Final = 6.0  # for both lists of a server
_TEXT_INPUTS: Final = ("text", "prompt", "text_g", "positive", "value")


def list_target_names(given: str | None) -> list[str]:
    """The targets that the page offers: `given` on the command line, our own, the user's, and a ComfyUI's address."""
    return list(dict.fromkeys([*([given] if given else []), EMBEDDED, CLOUD, *load_named_targets(), LOCAL_COMFYUI]))


def find_experiments(folder: Path) -> list[dict[str, Any]]:
    """The experiments in a folder and near below it, the latest first, without links and what is hidden."""
    paths: set[Path] = set()
    for pattern in _PATTERNS:
        with suppress(BoundError):  # then only those that are nearer
            paths |= find_matching_files(folder, pattern, lambda _: None)
    found: list[dict[str, Any]] = []
    for path in paths:
        is_other = path.name.lower().endswith(".slots.yaml") or any(part.startswith(".") for part in path.parts)
        with suppress(SweeperError, OSError, ValueError):
            is_own = path.resolve() == folder.resolve() / path
            if is_own and not is_other and path.stat().st_size <= _MAX_HEAD and b"template" in path.read_bytes():
                found.append({"path": str(path), "name": read_name(path)[0], "modified": path.stat().st_mtime})
    return sorted(found, key=lambda entry: -entry["modified"])[:_MAX_LISTED]


def find_server_sources(target: str) -> dict[str, Any]:
    """The saved workflows and the last jobs (with their `graph`) of a target, and why there are none.

    Sends the target its own key.
    """
    found: dict[str, Any] = {"workflows": [], "jobs": [], "problem": None}

    def list_both() -> Flow[None]:
        found["jobs"] = yield from _list_jobs()
        found["workflows"] = yield from _list_workflows()

    try:
        if target == EMBEDDED:
            raise UsageError("sweeper's own server keeps no workflows; choose a ComfyUI")
        _ask(target, list_both)
    except SweeperError as error:
        found["problem"] = shorten(to_one_line(str(error)), 300)
    return found


def read_source(target: str, found: Mapping[str, Any], workflow: str | None, job: str | None) -> tuple[str, bytes]:
    """The name and content of a file with a workflow or a job that `find_server_sources` found on a target.

    Raises UsageError if it is not among them, and TargetError.
    """
    if workflow is not None and any(entry["name"] == workflow for entry in found["workflows"]):
        return PurePosixPath(workflow).name, _ask(target, partial(_read_workflow, workflow))
    graph = next((entry["graph"] for entry in found["jobs"] if entry["id"] == job), None)
    if graph is None:
        raise UsageError(f"{target} has not listed {shorten(repr(workflow or job))}; list its workflows again")
    return f"job-{job[:8] if job else ''}.json", json.dumps(graph).encode()


def _ask(target: str, make_flow: Callable[[], Flow[T]]) -> T:
    """Perform a flow with a target that the user named. Raises SweeperError, also after `_SECONDS`."""
    from sweeper.comfy.client import ComfyClient

    resolved, *_ = resolve_targets([target], named=load_named_targets(), environ=os.environ)

    async def perform() -> T:
        async with asyncio.timeout(_SECONDS), ComfyClient(resolved, patience=_SECONDS) as client:
            await client.connect()
            return await client.run_flow(make_flow())

    try:
        return run_sync(perform)
    except TimeoutError:
        raise UsageError(f"{target} does not respond within {_SECONDS:g} s") from None


def _list_workflows() -> Flow[list[dict[str, Any]]]:
    """The names of the saved workflows of a ComfyUI, the latest first."""
    query = {"dir": "workflows", "recurse": "true", "split": "false", "full_info": "true"}
    response = raise_for_status((yield ServerRequest("GET", "/userdata", query=query)), 404)
    try:
        answer = parse_json(response.content) if response.status != 404 else []
    except ValueError:
        answer = None
    if not isinstance(answer, list):
        raise UsageError("its list of saved workflows is not JSON, so it is not a ComfyUI")
    entries = [entry for entry in answer if isinstance(entry, Mapping) and _is_workflow_name(entry.get("path"))]
    found = [{"name": entry["path"], "modified": to_seconds(entry.get("modified"))} for entry in entries]
    return sorted(found, key=lambda entry: -(entry["modified"] or 0))[:_MAX_LISTED]


def _is_workflow_name(name: Any) -> bool:
    """Whether a server's name is a path below its folder of workflows."""
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        return False
    parts = name.split("/")
    return name.lower().endswith(".json") and "\\" not in name and not {"", ".", ".."} & set(parts)


def _read_workflow(name: str) -> Flow[bytes]:
    path = f"/userdata/{quote(f'workflows/{name}', safe='')}"
    return raise_for_status((yield ServerRequest("GET", path))).content


def _list_jobs() -> Flow[list[dict[str, Any]]]:
    """The last jobs of a ComfyUI's history: their ids, a text of their workflow, when they were made, the workflow."""
    query = {"max_items": str(_MAX_JOBS)}
    history = raise_for_status((yield ServerRequest("GET", "/history", query=query))).json_object()
    found = []
    for job, entry in reversed(list(history.items())[-_MAX_JOBS:]):
        prompt = entry.get("prompt") if isinstance(entry, Mapping) else None
        graph, extra = (*prompt[2:4], None, None)[:2] if isinstance(prompt, list) else (None, None)
        if len(job) <= _MAX_NAME and isinstance(graph, dict) and graph:
            when = to_seconds(extra.get("create_time")) if isinstance(extra, Mapping) else None
            found.append({"id": job, "title": _find_title(graph), "when": when, "graph": graph})
    return found


def _find_title(graph: Mapping[str, Any]) -> str:
    """The longest text of a job's prompts, or how many nodes it has."""
    inputs = [node.get("inputs") for node in graph.values() if isinstance(node, Mapping)]
    values = [each.get(name) for each in inputs if isinstance(each, Mapping) for name in _TEXT_INPUTS]
    text = max((value for value in values if isinstance(value, str)), key=len, default="")
    text = shorten(to_one_line(text[:_MAX_NAME]), 100)
    return text or f"{len(graph)} nodes"
