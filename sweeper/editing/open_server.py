"""`OpenServer` serves the page that builds an experiment: start it, show its `url`, stop it.

Names in requests are looked up among known ones, and never joined to a folder. `AccessControl` has already decided
whether a request is allowed: with the token, under a name of this machine, and for a change as JSON from the own page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sweeper.answers.render import to_json
from sweeper.editing.document import Document, StaleVersionError
from sweeper.editing.state import Editor
from sweeper.errors import SweeperError
from sweeper.model.bounded_json import parse_json
from sweeper.schemas.values import fits_shape
from sweeper.serving.access import NO_STORE, PageServer, make_page_route, read_body

PAGE_FOLDER: Final = Path(__file__).parent / "page"
_EDIT_BYTES: Final = 16 * 2**20  # of a change
_WAIT_SECONDS: Final = 15.0  # until a question for a newer state is answered without one
_LOOK_SECONDS: Final = 0.5  # between two looks at the disk


class OpenServer(PageServer):
    """Serves the page on an experiment, or on the choice of one; a context manager.

    Args:
        file: the experiment; None: the page offers some.
        target, trust: see `Editor`.
        host, port, embedder: see `PageServer`.

    """

    def __init__(
        self, file: Path | None, *, target: str | None = None, trust: bool = False, host: str = "127.0.0.1",
        port: int = 0, embedder: str | None = None,
    ) -> None:  # fmt: skip
        folder = Path.cwd() if file is None else file.resolve()
        super().__init__(host, port, f"open {folder}", None, needs_token=True, embedder=embedder)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._is_stopping = False
        self.editor = Editor(target=target, trust=trust, notify=self._notify)
        try:
            if file is not None:
                self.editor.open(file)
        except BaseException:
            self.editor.close()
            self.close()
            raise

    def __enter__(self) -> Self:
        posts: dict[str, Callable[[Request], Any]] = {
            "/edit": self.edit, "/text": self.replace_text, "/undo": self.undo, "/redo": self.redo,
        }  # fmt: skip
        routes = [
            Route("/state", self.serve_state),
            Route("/choices", self.serve_choices),
            *(Route(path, function, methods=["POST"]) for path, function in posts.items()),
            *([make_page_route(PAGE_FOLDER)] if PAGE_FOLDER.is_dir() else []),
        ]
        self.start(Starlette(routes=routes), writable=list(posts), on_loop=self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._notify()
        self.stop()
        self.editor.close()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._looking = loop.create_task(self._look_forever())

    async def _look_forever(self) -> None:
        while not self._is_stopping:
            await asyncio.to_thread(self.editor.look_at_disk)
            await asyncio.sleep(_LOOK_SECONDS)

    def _notify(self) -> None:
        """Wake those who wait for a newer state; any thread may call this."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(lambda: [event.set() for event in self._waiting])

    # --- one method for each kind of request

    async def serve_state(self, request: Request) -> Response:
        """GET /state?after=N: the state, at once or as soon as it is newer than N."""
        after = request.query_params.get("after", "")
        known = int(after) if after.isdecimal() and len(after) < 16 else -1
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            if self.editor.number <= known and not self._is_stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), _WAIT_SECONDS)
        finally:
            self._waiting.discard(event)
        return await self._respond_with_state()

    async def _respond_with_state(self, status: int = 200) -> Response:
        return _respond(await asyncio.to_thread(self._describe), status)

    def _describe(self) -> dict[str, Any]:
        if self.editor.document is None:
            return {"number": self.editor.number, "mode": "start", "problem": self.editor.problem, "sources": {}}
        return self.editor.describe() | {"run": None, "report": None}

    async def serve_choices(self, request: Request) -> Response:
        """GET /choices?address=A&filter=WORDS: the choices of an input."""
        wanted = [request.query_params.get(name, "") for name in ("address", "filter")]
        return _respond(self.editor.inputs.find_choices(*wanted))

    async def edit(self, request: Request) -> Response:
        """POST /edit: `version` and `changes`; see `Document.apply`."""
        body = await _read(request, {"version": str, "changes": [dict]})
        return await self._change(body, lambda document: document.apply(body["version"], body["changes"]))

    async def replace_text(self, request: Request) -> Response:
        """POST /text: `version` and the whole `text` of the file."""
        body = await _read(request, {"version": str, "text": str})
        return await self._change(body, lambda document: document.replace_text(body["version"], body["text"]))

    async def undo(self, request: Request) -> Response:
        body = await _read(request, {"version": str})
        return await self._change(body, lambda document: document.undo(body["version"]))

    async def redo(self, request: Request) -> Response:
        body = await _read(request, {"version": str})
        return await self._change(body, lambda document: document.redo(body["version"]))

    async def _change(self, body: Mapping[str, Any] | Response, action: Callable[[Document], object]) -> Response:
        """Change the document, and respond with the state: 409 if somebody else has changed it since."""
        if isinstance(body, Response):
            return body
        try:
            await asyncio.to_thread(self.editor.change, action)
        except StaleVersionError:
            return await self._respond_with_state(409)
        except (SweeperError, OSError) as error:
            return _respond({"problem": str(error)}, 422)
        return await self._respond_with_state()


def _respond(value: Any, status: int = 200) -> Response:
    text = json.dumps(to_json(value), ensure_ascii=False).encode("utf-8", "replace")
    return Response(text, status, NO_STORE, "application/json")


async def _read(request: Request, shape: Mapping[str, Any], limit: int = _EDIT_BYTES) -> Any:
    """The JSON object of a request, whose keys have these types; or the response to a wrong one."""
    body = await read_body(request, limit)
    if body is None:
        return _respond({"problem": f"the request is longer than {limit:,} bytes"}, 413)
    try:
        value = await asyncio.to_thread(parse_json, body)
    except ValueError as error:
        return _respond({"problem": f"the request is not JSON: {error}"}, 400)
    if not fits_shape(value, shape):
        return _respond({"problem": f"the request needs {', '.join(shape)}, each of its type"}, 400)
    return value
