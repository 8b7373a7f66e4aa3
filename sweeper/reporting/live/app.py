"""What the live view answers: the page's own files, the run's data and artifacts, and a stream of what changes.

Paths of requests are names looked up among what is known, and never joined to a folder. Who may ask at all is decided
before (`guard`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sweeper.reporting.check_findings import ACCEPTED
from sweeper.reporting.contents import MEDIA
from sweeper.reporting.dataset import as_json, as_script
from sweeper.reporting.live.access import ENTRANCE
from sweeper.reporting.thumbnails import FOLDER as THUMBS
from sweeper.reporting.write_report import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

    from sweeper.reporting.live.follower import Follower
    from sweeper.reporting.live.notifier import Bell

_PAGES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_THUMB: Final = re.compile(r"([0-9a-f]{64}(-\d+)?|sprites-[0-9a-f]{20})\.webp")
_QUIET: Final = 15.0  # seconds without a change after which a word keeps the connection open
_BETWEEN: Final = 0.2  # seconds between two messages: a page needs no more
_FRESH: Final = {"cache-control": "no-store"}
_FOREVER: Final = {"cache-control": "private, max-age=31536000, immutable"}  # named by their content, or never changed
# A file that came from a server is looked at inside the page; opened by itself it may do nothing.
_FOREIGN: Final = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


def live_app(follower: Follower, bell: Bell) -> Starlette:
    """The application; `bell` rings after every change."""
    answers = _Answers(follower, bell)
    return Starlette(
        routes=[
            Route("/data.js", answers.data),
            Route("/data.json", answers.data),
            Route("/events", answers.events),
            Route("/files/{name}", answers.artifact),
            Route(f"/{ACCEPTED}/{{name}}", answers.accepted),
            Route(f"/{THUMBS}/{{name}}", answers.thumb),
            Route("/preview/{trial:int}", answers.preview),
            Route("/{name:path}", answers.page),
        ]
    )


class _Answers:
    """One method for each kind of request."""

    def __init__(self, follower: Follower, bell: Bell) -> None:
        self._follower = follower
        self._bell = bell
        self._own = _own_files()

    async def page(self, request: Request) -> Response:
        found = self._own.get(request.path_params["name"] or "index.html")
        if found is None:
            return _unknown()
        return Response(found[0], headers=_FRESH, media_type=f"{found[1]}; charset=utf-8")

    async def data(self, request: Request) -> Response:
        data = await asyncio.to_thread(self._follower.snapshot)
        if request.url.path.endswith(".js"):
            return Response(as_script(data), headers=_FRESH, media_type="text/javascript")
        return Response(as_json(data), headers=_FRESH, media_type="application/json")

    async def artifact(self, request: Request) -> Response:
        return _given(self._follower.file(request.path_params["name"]))

    async def accepted(self, request: Request) -> Response:
        return _given(await asyncio.to_thread(self._follower.accepted, request.path_params["name"]))

    async def thumb(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._follower.thumbs / THUMBS / name
        if not _THUMB.fullmatch(name) or not path.is_file():
            return _unknown()
        return FileResponse(path, media_type="image/webp", headers=_FOREVER)

    async def preview(self, request: Request) -> Response:
        trial = request.path_params["trial"]
        image = await asyncio.to_thread(self._follower.live.preview, trial)
        if image is None:
            # A trial may end before a page asks that was told of its preview: nothing went wrong, and a console is to
            # say of nothing that it did.
            return Response(status_code=204, headers=_FRESH) if self._follower.has(trial) else _unknown()
        media = "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"
        return Response(image, headers=_FRESH | _FOREIGN, media_type=media)

    async def events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id") or request.query_params.get("since", "")
        match = re.fullmatch(r"(\d{1,15})\.(\d{1,15})", last)
        if match is None:
            return PlainTextResponse("since=GENERATION.NUMBER is missing", 400)
        stream = _changes(self._follower, self._bell, int(match[1]), int(match[2]))
        return StreamingResponse(stream, media_type="text/event-stream", headers=_FRESH)


async def _changes(follower: Follower, bell: Bell, generation: int, number: int) -> AsyncIterator[str]:
    """Server-sent events: `change` with what is new, `anew` when the page must be loaded again."""
    with bell.heard() as ring:
        while not bell.over:
            ring.clear()
            found: dict[str, Any] | None = await asyncio.to_thread(follower.since, number, generation)
            if found is None:
                yield "event: anew\ndata: {}\n\n"
                return
            if found["number"] != number:
                number = found["number"]
                text = json.dumps(found, separators=(",", ":"), allow_nan=False)
                yield f"event: change\nid: {generation}.{number}\ndata: {text}\n\n"
                await asyncio.sleep(_BETWEEN)
            try:
                async with asyncio.timeout(_QUIET):
                    await ring.wait()
            except TimeoutError:
                yield ": still here\n\n"
        yield "event: over\ndata: {}\n\n"


def _own_files() -> dict[str, tuple[bytes, str]]:
    """The page's files, and those of its entrance, by their place below it."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), _PAGES[path.suffix])
        for root in (PAGE, ENTRANCE.parent)
        for path in root.rglob("*")
        if path.suffix in _PAGES
    }


def _given(path: Path | None) -> Response:
    """A file that came from a server, or nothing."""
    if path is None or not path.is_file():
        return _unknown()
    media = MEDIA.get(path.suffix.lower())
    shown = {} if media else {"content-disposition": "attachment"}
    return FileResponse(path, media_type=media or "application/octet-stream", headers=_FOREVER | _FOREIGN | shown)


def _unknown() -> Response:
    return PlainTextResponse("not here", 404)
