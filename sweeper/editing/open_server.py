"""`OpenServer` serves the page that builds an experiment: start it, show its `url`, stop it.

Names in requests are looked up among known ones, and never joined to a folder. `AccessControl` has already decided
whether a request is allowed: with the token, under a name of this machine, and for a change as JSON from the own page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from sweeper.answers.render import to_json
from sweeper.editing.cell_actions import CellActions
from sweeper.editing.document import Document, StaleVersionError
from sweeper.editing.find_sources import (
    find_experiments,
    find_server_sources,
    list_target_names,
    read_job_workflow,
    read_server_workflow,
)
from sweeper.editing.input_files import MAX_UPLOAD, add_input_file, decode_upload, list_input_files
from sweeper.editing.node_class_source import NodeClassSource
from sweeper.editing.run_process import KINDS, REHEARSE, Question, Runner
from sweeper.editing.starter_folder import make_experiment, to_file_name
from sweeper.editing.state import Editor
from sweeper.errors import SweeperError, UsageError
from sweeper.model.bounded_json import parse_json
from sweeper.model.target_spec import EMBEDDED
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.live import LiveView
from sweeper.schemas.values import fits_shape
from sweeper.serving.access import NO_STORE, PageServer, make_page_route, read_body, respond_not_found
from sweeper.store import Store
from sweeper.tables.results_folder import REHEARSAL

PAGE_FOLDER: Final = Path(__file__).parent / "page"
_EDIT_BYTES: Final = 16 * 2**20  # of a change
_UPLOAD_BYTES: Final = MAX_UPLOAD * 4 // 3 + 4096  # in base64
_WAIT_SECONDS: Final = 15.0  # until a question for a newer state is answered without one
_MIN_SECONDS: Final = 0.1  # between two states, if nobody edits
_LOOK_SECONDS: Final = 0.5  # between two looks at the disk
_REPORT_SECONDS: Final = 5.0  # until a report that cannot be shown is tried again
_SANDBOX: Final = NO_STORE | {"content-security-policy": "default-src 'none'; sandbox"}
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
        identity = f"open {Path.cwd() if file is None else file.resolve()}"
        super().__init__(host, port, identity, None, needs_token=True, embedder=embedder)
        self._target, self._into, self._at = target, into, (host, embedder)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._is_stopping = False
        self._slow = asyncio.Lock()  # what takes memory or asks a server, one at a time
        self._sources: dict[str, Any] | None = None
        self._report: LiveView | None = None
        self._report_folder: Path | None = None
        self._reported_at = 0.0
        self._seen: Any = None  # of the run, and of files
        self.editor = Editor(target=target, trust=trust, notify=self._notify)
        self.runner = Runner(self.editor.mark_changed)
        self._cells = CellActions(lambda made: OpenServer(made, host=host, embedder=embedder), self.runner)
        try:
            if file is not None:
                self.editor.open(file)
        except BaseException:
            self.editor.close()
            self.close()
            raise

    def __enter__(self) -> Self:
        posts: dict[str, _Handler] = {
            "/edit": self.edit, "/text": self.replace_text, "/undo": self.step, "/redo": self.step, "/run": self.run,
            "/upload": self.upload, "/stop": self.stop_run, "/open": self.open,
        }  # fmt: skip
        gets: dict[str, _Handler] = {
            "/state": self.serve_state, "/choices": self.serve_choices, "/sources": self.serve_sources,
            "/files/{name}": self.serve_file,
        }  # fmt: skip
        routes = [Route(path, self._answer(handler)) for path, handler in gets.items()]
        routes += [Route(path, self._answer(handler), methods=["POST"]) for path, handler in posts.items()]
        app = Starlette(routes=[*routes, make_page_route(PAGE_FOLDER)] if PAGE_FOLDER.is_dir() else routes)
        self.start(app, writable=list(posts), on_loop=self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._notify()
        self.editor.close()
        self.stop()
        if self._report is not None:
            self._report.__exit__()
        self._cells.close_pages()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._looking = loop.create_task(self._look_forever())

    async def _look_forever(self) -> None:
        while not self._is_stopping:
            try:
                await asyncio.to_thread(self._look)
            except Exception as error:  # noqa: BLE001 - the page must show it, and the next look may succeed
                self.editor.problem = f"{type(error).__name__}: {error}"
            await asyncio.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        """See what has changed beside the page: files, runs here and of other processes, and what is trusted."""
        self.editor.look_at_disk()
        run = self.runner.describe(self.editor.check.out)
        seen = run and (run["state"], run["command"]), *map(_get_time, self.editor.list_watched())
        if self._follow_results() or seen != self._seen:
            self._seen = seen
            self.editor.check_again()

    def _follow_results(self) -> bool:
        """Serve the report of the results folder as soon as there are results. Returns whether that changed."""
        folder = self.editor.check.out
        if folder is not None and self.runner.kind == REHEARSE:
            folder /= REHEARSAL
        if folder == self._report_folder or folder is None or not Store.exists(folder):
            return False
        if time.monotonic() < self._reported_at + _REPORT_SECONDS and self._report is None:
            return False
        self._reported_at = time.monotonic()
        host, embedder = self._at
        earlier, self._report = self._report, None
        if earlier is not None:
            earlier.__exit__()
        try:
            view = LiveView(
                folder, host=host, token=self.token, needs_token=True, embedder=embedder, on_cell=self._cells,
                editor=self.url.partition("#")[0],
            )  # fmt: skip
            self._report, self._report_folder, self.editor.problem = view.__enter__(), folder, None
        except SweeperError as error:  # it is not ready yet, or somebody else's
            self.editor.problem = f"no report: {error}"
        return True

    def _notify(self) -> None:
        """Wake those who wait for a newer state; any thread may call this."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    # --- the state

    async def serve_state(self, request: Request) -> None:
        """GET /state?after=N: the state, at once or as soon as it is newer than N."""
        after = request.query_params.get("after", "")
        known = int(after) if after.isdecimal() and after.isascii() and len(after) < 16 else -1
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            if self.editor.number <= known and not self._is_stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), _WAIT_SECONDS)
                    await asyncio.sleep(_MIN_SECONDS)  # a run says much
        finally:
            self._waiting.discard(event)

    def _describe(self) -> dict[str, Any]:
        if self.editor.document is None:
            if self._sources is None:
                self._sources = self._find_sources(None)
            state = {"number": self.editor.number, "mode": "start", "problem": self.editor.problem}
            return state | {"sources": self._sources}
        run = self.runner.describe(self.editor.check.out)
        if self._seen is not None and self._seen[0] != (run and (run["state"], run["command"])):
            self._seen = None  # the page knows of it before `_look` does, which must notice its end
        return self.editor.describe() | {"run": run, "report": None if self._report is None else self._report.url}

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
            except (SweeperError, OSError) as error:
                value, status = {"problem": str(error)}, 422
            return value if isinstance(value, Response) else _respond(value, status)

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
        """The experiments here; with a target, also what that has, which takes as long as the target likes."""
        targets = list_target_names(self._target)
        if target is not None and target not in targets:
            raise UsageError("this is none of the targets; name yours in the targets file, or give it by --target")
        found = {"workflows": [], "jobs": [], "problem": None} if target is None else find_server_sources(target)
        experiments = find_experiments(Path())
        return {"target": target or self._target, "targets": targets, "experiments": experiments, **found}

    async def open(self, request: Request) -> None:
        """POST /open: an experiment from the list, or the folder of a workflow."""
        body = await _read(request, {}, _UPLOAD_BYTES)
        async with self._slow:
            if self.editor.document is not None:
                raise UsageError("an experiment is open already")
            await asyncio.to_thread(self._open, body)

    def _open(self, body: Mapping[str, Any]) -> None:
        text = (None, str)
        shape = {"experiment": text, "workflow": text, "job": text, "target": text}
        if not fits_shape(body, shape | {"upload": (None, {"name": str, "content": str})}):
            raise UsageError("the request does not say what to open")
        target = body.get("target")
        if target is not None and target not in list_target_names(self._target):
            raise UsageError("this is none of the targets; name yours in the targets file, or give it by --target")
        if (experiment := body.get("experiment")) is not None:
            known = {entry["path"]: Path(entry["path"]) for entry in find_experiments(Path())}
            if experiment not in known:
                raise UsageError("this experiment is not in the current folder")
            self.editor.open(known[experiment])
            return
        upload = body.get("upload")
        name, content = "text-to-image.json", None
        if upload is not None:
            name, content = upload["name"], decode_upload(upload["content"])
        elif target is not None and (workflow := body.get("workflow")) is not None:
            name, content = PurePosixPath(workflow).name, read_server_workflow(target, workflow)
        elif target is not None and (job := body.get("job")) is not None:
            name, content = f"job-{job[:8]}.json", read_job_workflow(target, job)
        elif not body.get("example"):
            raise UsageError("the request does not say what to open")
        classes = NodeClassSource(None if target in (None, EMBEDDED) else target)
        with tempfile.TemporaryDirectory() as folder:  # a stranger's workflow, beside which are no files
            path = None if content is None else Path(folder, to_file_name(PurePosixPath(name).name) or "workflow.json")
            if path is not None and content is not None:
                path.write_bytes(content)
            file, notes = make_experiment(path, self._into, classes)
        self.editor.notes = tuple(notes)
        self.editor.open(file)

    # --- the document

    async def edit(self, request: Request) -> None:
        """POST /edit: `version` and `changes`; see `Document.apply`."""
        body = await _read(request, {"version": str, "changes": [dict]})
        await asyncio.to_thread(self.editor.apply, body["version"], body["changes"])

    async def replace_text(self, request: Request) -> None:
        """POST /text: `version` and the whole `text` of the file."""
        body = await _read(request, {"version": str, "text": str})
        await asyncio.to_thread(
            self.editor.change, lambda document: document.replace_text(body["version"], body["text"])
        )

    async def step(self, request: Request) -> None:
        """POST /undo and /redo: `version`."""
        body = await _read(request, {"version": str})
        step = Document.undo if request.url.path == "/undo" else Document.redo
        await asyncio.to_thread(self.editor.change, lambda document: step(document, body["version"]))

    async def upload(self, request: Request) -> Any:
        """POST /upload: a file for the folder `inputs`, by `name`, its `content` in base64."""
        async with self._slow:
            body = await _read(request, {"name": str, "content": str}, _UPLOAD_BYTES)
            folder = self.editor.folder
            path = await asyncio.to_thread(lambda: add_input_file(folder, body["name"], decode_upload(body["content"])))
        self.editor.check_again()
        return {"path": path}

    async def serve_file(self, request: Request) -> Response:
        """GET /files/NAME: a file of `inputs`."""
        known = await asyncio.to_thread(list_input_files, self.editor.folder)
        path = known.get(request.path_params["name"])
        if path is None or path.suffix.lower() not in MEDIA_TYPES:
            return respond_not_found()
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix.lower()], headers=_SANDBOX)

    # --- the run

    async def run(self, request: Request) -> Response | None:
        """POST /run: start a run, or answer 428 with the question about its cost and the token that confirms it."""
        text = (None, str)
        body = await _read(request, {"version": str, "kind": str, "target": text, "budget": text, "confirmed": text})
        if body["kind"] not in KINDS:
            raise UsageError(f"`kind` is one of {', '.join(KINDS)}")
        async with self._slow:
            question = await asyncio.to_thread(self._run, body)
        return question and _respond({"question": question.text, "confirm": question.token}, 428)

    def _run(self, body: Mapping[str, Any]) -> Question | None:
        target = body.get("target")
        specs = self.editor.list_specs()
        if target is not None:
            if target not in self.editor.list_targets():
                raise UsageError("this is none of the targets; name yours in the targets file, or give it by --target")
            specs = [target]
        file = self.editor.check_version(body["version"])
        return self.runner.start(
            file, version=body["version"], kind=body["kind"], specs=specs, budget=body.get("budget"),
            confirmed=body.get("confirmed"), trust=self.editor.trust,
        )  # fmt: skip

    async def stop_run(self, _request: Request) -> None:
        """POST /stop: as Ctrl-C does."""
        if not await asyncio.to_thread(self.runner.stop):
            raise UsageError("no run of this page goes on")


def _get_time(path: Path) -> int | None:
    """When a file or a folder was changed last; None if it is not there."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def _respond(value: Any, status: int = 200) -> Response:
    text = json.dumps(to_json(value), ensure_ascii=False).encode("utf-8", "replace")
    return Response(text, status, NO_STORE, "application/json")


async def _read(request: Request, shape: Mapping[str, Any], limit: int = _EDIT_BYTES) -> Any:
    """The JSON object of a request, whose keys have these types. Raises UsageError."""
    body = await read_body(request, limit)
    if body is None:
        raise UsageError(f"the request is longer than {limit:,} bytes")
    try:
        value = await asyncio.to_thread(parse_json, body)
    except ValueError as error:
        raise UsageError(f"the request is not JSON: {error}") from None
    if not isinstance(value, dict) or not fits_shape(value, dict(shape)):
        raise UsageError(f"the request is no object with {', '.join(shape) or 'what to do'}, each of its type")
    return value
