"""`OpenServer` serves the page that builds an experiment: start it, show its `url`, stop it.

Names in requests are looked up among known ones, and never joined to a folder. `AccessControl` has already decided
whether a request is allowed: with the token, under a name of this machine, and for a change as JSON from the own page.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from sweeper.answers.render import to_json
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import Flow, ServerRequest, raise_for_status
from sweeper.comfy.responses import to_seconds
from sweeper.comfy.target import resolve_targets
from sweeper.editing.cell_actions import CellActions
from sweeper.editing.document import StaleVersionError
from sweeper.editing.read_workflow import NodeClassSource
from sweeper.editing.run_process import Runner
from sweeper.editing.starter_folder import (
    INPUTS,
    LOCAL_COMFYUI,
    add_input_file,
    find_input_file,
    make_experiment,
    to_file_name,
)
from sweeper.editing.state import Editor
from sweeper.errors import InputError, SweeperError, UsageError
from sweeper.loading.bounded_files import BoundError, find_matching_files
from sweeper.loading.load import read_name
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.bounded_json import parse_json
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.regression.check import make_live_check
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.live import LiveView
from sweeper.running.stop_control import run_sync
from sweeper.serving.access import NO_STORE, PageServer, make_page_route, read_json, respond_not_found
from sweeper.store import Store
from sweeper.tables.results_folder import REHEARSAL
from sweeper.wording import shorten, to_one_line

T = TypeVar("T")

PAGE_FOLDER: Final = Path(__file__).parent / "page"
_EDIT_BYTES: Final = 16 * 2**20  # of a change
_UPLOAD_BYTES: Final = 86 * 2**20  # of a file of 64 MiB, in base64
_ADVICE: Final = f"put a file of more than 64 MiB into the folder {INPUTS} yourself"
_WAIT_SECONDS: Final = 15.0  # until a question for a newer state is answered without one
_POLL_SECONDS: Final = 0.2  # until it is looked for again
_SANDBOX: Final = NO_STORE | {"content-security-policy": "default-src 'none'; sandbox"}
_TEXT: Final = (None, str)  # in a request
_UPLOAD: Final = {"name": str, "content": str}
_CHANGE: Final = {"version": str, "changes": (None, [dict]), "text": _TEXT, "step": _TEXT}
_REHEARSE: Final = "rehearse"
_PATTERNS: Final = ("*.y*ml", "*/*.y*ml", "*/*/*.y*ml")  # of experiments
_MAX_LISTED: Final = 500
_MAX_NAME: Final = 500  # characters
_MAX_JOBS: Final = 30
_MAX_HEAD: Final = 100_000  # bytes of a file that may be an experiment
_SERVER_SECONDS: Final = 6.0  # for both lists of a server
_TEXT_INPUTS: Final = ("text", "prompt", "text_g", "positive", "value")
_Handler = Callable[[Request], Awaitable[Any]]


class OpenServer(PageServer):
    """Serves the page on an experiment, or on the choice of one; a context manager.

    Args:
        file: the experiment; None: the page offers some.
        target, trust: see `Editor`. into: the folder that is made for a workflow; see `make_experiment`.
        host, port, embedder: see `PageServer`.

    """

    def __init__(
        self, file: Path | None, *, target: str | None = None, trust: bool = False, into: Path | None = None,
        host: str = "127.0.0.1", port: int = 0, embedder: str | None = None,
    ) -> None:  # fmt: skip
        self.editor, self.runner = Editor(target=target, trust=trust), Runner()
        if file is not None:
            self.editor.open(file)
        identity = f"open {Path.cwd() if file is None else os.path.realpath(file)}"
        super().__init__(host, port, identity, None, needs_token=True, embedder=embedder)
        self._target, self._into = target, into
        self._at: dict[str, Any] = {"host": host, "embedder": embedder}
        self._slow = asyncio.Lock()  # what takes memory or asks a server, one at a time
        self._listings: dict[str, dict[str, Any]] = {}  # what targets have, as they said last
        self._report: LiveView | None = None
        self._report_folder: Path | None = None
        self._seen: Any = None  # of the run, and of files
        self._heard: Any = None  # of the run, and whether there is a report
        self._is_stopping, self._looking = False, threading.Lock()
        self._cells = CellActions(lambda made: OpenServer(made, **self._at), self.runner)

    def __enter__(self) -> Self:
        posts: dict[str, _Handler] = {
            "/edit": self.edit, "/run": self.run, "/upload": self.upload, "/stop": self.stop_run, "/open": self.open,
        }  # fmt: skip
        gets: dict[str, _Handler] = {
            "/state": self.serve_state, "/choices": self.serve_choices, "/sources": self.serve_sources,
            "/files/{name}": self.serve_file,
        }  # fmt: skip
        routes = [Route(path, self._answer(handler)) for path, handler in gets.items()]
        routes += [Route(path, self._answer(handler), methods=["POST"]) for path, handler in posts.items()]
        self.start(Starlette(routes=[*routes, make_page_route(PAGE_FOLDER)]), writable=list(posts))
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self.editor.check_again()  # ends a check
        self.stop()
        with self._looking:
            self._close_report()
        self._cells.close()

    def _look(self) -> None:
        """See what has changed beside the page: files, runs here and of other processes, and what is trusted."""
        with self._looking:
            if self._is_stopping or not self.editor.is_open:
                return
            run = self.runner.describe(self.editor.check.out)
            files = [path.stat().st_mtime_ns if path.exists() else None for path in self.editor.list_watched()]
            seen = self.runner.starts, run and (run["state"], run["command"], run["has_begun"]), files
            if seen != self._seen:
                self._seen = seen
                self.editor.check_again()
            self._follow_results()
            if (run, self._report_folder) != self._heard:
                self._heard = run, self._report_folder
                self.editor.number += 1
        self.editor.refresh()

    def _follow_results(self) -> None:
        """Serve the report of the results folder as soon as there are results."""
        folder, is_rehearsal = self.editor.check.out, self.runner.kind == _REHEARSE
        folder = folder and (folder / REHEARSAL if is_rehearsal else folder)
        if folder == self._report_folder or folder is None or not Store.exists(folder):
            return
        self._close_report()
        try:
            view = LiveView(
                folder, token=self.token, needs_token=True, on_cell=self._cells, editor=self.url.partition("#")[0],
                check=None if is_rehearsal else make_live_check(folder, None, None), **self._at,
            )  # fmt: skip
            self._report, self._report_folder = view.__enter__(), folder
            self.editor.show_problem(None)
        except SweeperError as error:  # it is not ready yet, or somebody else's
            self.editor.show_problem(f"no report: {error}")

    def _close_report(self) -> None:
        if self._report is not None:
            self._report.__exit__()
        self._report = self._report_folder = None

    # --- the state

    async def serve_state(self, request: Request) -> None:
        """GET /state?after=N: the state, at once or as soon as it is newer than N."""
        after = request.query_params.get("after", "")
        known = int(after) if after.isdecimal() and after.isascii() and len(after) < 16 else -1
        end = time.monotonic() + _WAIT_SECONDS
        while self.editor.number <= known and time.monotonic() < end and not self._is_stopping:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(_POLL_SECONDS if self.editor.number <= known else 0)

    def _describe(self) -> dict[str, Any]:
        number = self.editor.number
        if not self.editor.is_open:
            return {"number": number, "mode": "start", "problem": None, "sources": self._find_sources(None)}
        run = self.runner.describe(self.editor.check.out)
        report = None if self._report is None else self._report.url
        return self.editor.describe() | {"number": number, "run": run, "report": report}

    def _answer(self, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        """Answer with what the handler returns: a response, a value for JSON, or None for the state.

        422 says what is wrong with a request, and 409 with the state that somebody else has changed the files since.
        """

        async def respond(request: Request) -> Response:
            status = 200
            try:
                try:
                    value = await handler(request)
                except StaleVersionError:
                    value, status = None, 409
                value = await asyncio.to_thread(self._describe) if value is None else value
            except (SweeperError, OSError, HTTPException) as error:
                value, status = {"problem": getattr(error, "detail", str(error))}, 422
            if isinstance(value, Response):
                return value
            text = json.dumps(to_json(value), ensure_ascii=False).encode("utf-8", "replace")
            return Response(text, status, NO_STORE, "application/json")

        return respond

    async def serve_choices(self, request: Request) -> Any:
        """GET /choices?address=A&filter=WORDS: the choices of an input."""
        address, words = (request.query_params.get(name, "") for name in ("address", "filter"))
        return await asyncio.to_thread(self.editor.check.inputs.find_choices, address, words[:1000])

    # --- what to open

    async def serve_sources(self, request: Request) -> Any:
        """GET /sources?target=T: what a target has, besides the experiments here."""
        async with self._slow:
            return await asyncio.to_thread(self._find_sources, request.query_params.get("target"))

    def _find_sources(self, target: str | None) -> dict[str, Any]:
        """The experiments here; with a target, also what that has."""
        given = [] if self._target is None else [self._target]
        targets = list(dict.fromkeys([*given, EMBEDDED, CLOUD, *load_named_targets(), LOCAL_COMFYUI]))
        found: dict[str, Any] = {"workflows": [], "jobs": [], "problem": None}
        if target is not None:
            if target not in targets:
                raise UsageError("this is none of the targets; name yours in the targets file, or give it by --target")
            found = self._listings[target] = find_server_sources(target)
        jobs = [{key: job[key] for key in ("id", "title", "when")} for job in found["jobs"]]
        here = {"target": target or self._target, "targets": targets, "experiments": find_experiments(Path())}
        return found | here | {"jobs": jobs}

    async def open(self, request: Request) -> None:
        """POST /open: an experiment from the list, or the folder of a workflow."""
        shape = {"experiment": _TEXT, "workflow": _TEXT, "job": _TEXT, "target": _TEXT, "upload": (None, _UPLOAD)}
        body = await read_json(request, shape, _UPLOAD_BYTES, advice=_ADVICE)
        async with self._slow:
            if self.editor.is_open:
                raise UsageError("an experiment is open already")
            await asyncio.to_thread(self._open, body)

    def _open(self, body: Mapping[str, Any]) -> None:
        notes: list[str] = []
        if (experiment := body.get("experiment")) is not None:
            file = {entry["path"]: Path(entry["path"]) for entry in find_experiments(Path())}.get(experiment)
            if file is None:
                raise UsageError("this experiment is not in the current folder")
        elif body.get("example"):
            file, notes = make_experiment(None, self._into, NodeClassSource())
        else:
            file, notes = self._make_experiment(body)
        self.editor.notes = tuple(notes)
        self.editor.open(file)

    def _make_experiment(self, body: Mapping[str, Any]) -> tuple[Path, list[str]]:
        """Make the folder for an uploaded workflow, or for one that a target has listed."""
        target = body.get("target")
        if (upload := body.get("upload")) is not None:
            name, content = Path(upload["name"]).name, _decode(upload["content"])
        elif target in self._listings:
            name, content = read_source(target, self._listings[target], body.get("workflow"), body.get("job"))
        else:
            raise UsageError("the request does not say what to open")
        with tempfile.TemporaryDirectory() as folder:  # a stranger's workflow, alone in its folder
            path = Path(folder, to_file_name(name) or "workflow.json")
            path.write_bytes(content)
            classes = NodeClassSource(None if upload or target == EMBEDDED else target)
            try:
                return make_experiment(path, self._into, classes, is_moved=True)
            except InputError as error:
                raise UsageError([replace(problem, file=name) for problem in error.problems]) from None

    # --- the document

    async def edit(self, request: Request) -> None:
        """POST /edit: `version`, and `changes`, the whole `text`, or the `step` "undo" or "redo"."""
        body = await read_json(request, _CHANGE, _EDIT_BYTES)
        is_one = sum(body.get(name) is not None for name in ("changes", "text", "step")) == 1
        if not is_one or body.get("step") not in (None, "undo", "redo"):
            raise UsageError("the request has one of `changes`, `text` and `step`, which is undo or redo")
        await asyncio.to_thread(self.editor.change, **{name: body.get(name) for name in _CHANGE})

    async def upload(self, request: Request) -> Any:
        """POST /upload: a file for the folder `inputs`, by `name`, its `content` in base64."""
        async with self._slow:
            body = await read_json(request, _UPLOAD, _UPLOAD_BYTES, advice=_ADVICE)
            folder = self.editor.document.file.parent
            path = await asyncio.to_thread(lambda: add_input_file(folder, body["name"], _decode(body["content"])))
        self.editor.check_again()
        return {"path": path}

    async def serve_file(self, request: Request) -> Response:
        """GET /files/NAME: a file of `inputs`."""
        name, folder = request.path_params["name"], self.editor.document.file.parent
        path = await asyncio.to_thread(find_input_file, folder, name)
        if path is None or path.suffix.lower() not in MEDIA_TYPES:
            return respond_not_found()
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix.lower()], headers=_SANDBOX)

    # --- the run

    async def run(self, request: Request) -> None:
        """POST /run: start a run. `confirmed`: its question about money that the user answered with yes."""
        body = await read_json(request, {"version": str, "kind": str, "confirmed": _TEXT}, _EDIT_BYTES)
        if body["kind"] not in ("run", _REHEARSE):
            raise UsageError(f"`kind` is run or {_REHEARSE}")
        async with self._slow:
            await asyncio.to_thread(self._run, body["version"], body["kind"], body.get("confirmed") or "")

    def _run(self, version: str, kind: str, confirmed: str) -> None:
        self.editor.look_at_disk()
        self.editor.document.check_version(version)
        out, problems = self.editor.check.out, self.editor.check.problems
        if problems and self.editor.check.version == version:
            raise UsageError(f"the experiment has mistakes: {problems[0]}")
        words = [*self.editor.list_words(), *(["--rehearse"] if kind == _REHEARSE else [])]
        words += ["--trust"] if self.editor.trust else []
        self.runner.start(words, out, kind=kind, confirmed=confirmed)

    async def stop_run(self, _request: Request) -> None:
        """POST /stop: as Ctrl-C does; or the answer no to the question of a run."""
        if not await asyncio.to_thread(self.runner.stop):
            raise UsageError("no run of this page goes on")


def _decode(content: str) -> bytes:
    """The bytes of an upload in base64. Raises UsageError if it is something else."""
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise UsageError("the content of the upload is not base64") from None


# --- what the page can open
# A server may lie. `comfy/` bounds its answers; of its names only those are kept that a ComfyUI can have, and a name is
# only sent back to the server that listed it.


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
            is_own = Path(os.path.realpath(path)) == Path(os.path.realpath(folder)) / path
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
    """Perform a flow with a target that the user named. Raises SweeperError, also after `_SERVER_SECONDS`."""
    resolved, *_ = resolve_targets([target], named=load_named_targets(), environ=os.environ)

    async def perform() -> T:
        async with asyncio.timeout(_SERVER_SECONDS), ComfyClient(resolved, patience=_SERVER_SECONDS) as client:
            await client.connect()
            return await client.run_flow(make_flow())

    try:
        return run_sync(perform)
    except TimeoutError:
        raise UsageError(f"{target} does not respond within {_SERVER_SECONDS:g} s") from None


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
