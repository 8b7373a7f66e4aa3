"""`VoteServer` serves the vote page of a results folder: start it, show its `url`, stop it.

Pictures go out without the settings that made them: ComfyUI writes its workflow into the files that it saves.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sweeper.errors import ImageError, SweeperError, UsageError
from sweeper.images.decoding import decode_frames, open_bytes, read_bytes
from sweeper.serving.access import NO_STORE, PageServer, make_page_route, read_json, respond_not_found
from sweeper.voting.ballot import Ballot, check_voter

_PNG: Final = b"\x89PNG\r\n\x1a\n"
# The chunks that a browser needs: pixels, transparency, colour spaces and the frames of an animation.
_SHOWN_CHUNKS: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP acTL fcTL fdAT".split()  # PNG specification, 5.6
)


def read_plain_picture(path: Path) -> tuple[bytes, str]:
    """The picture in a file and its media type, without texts and other data about it.

    A PNG keeps its pixels as they are stored. Any other picture is stored again without loss, as PNG, or as WebP if it
    is an animation. Raises ImageError if it cannot be read.
    """
    data, name = read_bytes(path), path.name
    if data.startswith(_PNG):
        return _PNG + b"".join(_iter_shown_chunks(data, name)), "image/png"
    image = open_bytes(data, name)
    first, *more = (Image.fromarray(pixels.squeeze()) for pixels in decode_frames(image, name))
    plain = io.BytesIO()
    if not more:
        first.save(plain, "PNG", compress_level=1, icc_profile=image.info.get("icc_profile"))
        return plain.getvalue(), "image/png"
    duration = image.info.get("duration", 100)
    first.save(plain, "WEBP", save_all=True, append_images=more, duration=duration, loop=0, lossless=True, method=0)
    return plain.getvalue(), "image/webp"


def _iter_shown_chunks(data: bytes, name: str) -> Iterator[memoryview]:
    offset = len(_PNG)
    while offset + 12 <= len(data):
        kind, end = data[offset + 4 : offset + 8], offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if kind in _SHOWN_CHUNKS:
            yield memoryview(data)[offset:end]
        if kind == b"IEND":  # some programs write about the picture behind its end
            return
        offset = end
    raise ImageError(f"{name}: cannot be read as a picture: the PNG ends before its last chunk")


PAGE_FOLDER: Final = Path(__file__).parent / "page"
_PICTURE_HEADERS: Final = {
    "cache-control": "private, max-age=31536000, immutable",
    "content-security-policy": "default-src 'none'; sandbox",
}

_SHAPE: Final = {**dict.fromkeys(("voter", "vote", "answer", "broken"), (None, str)), "again": (None, bool)}

T = TypeVar("T")


class VoteServer(PageServer):
    """Serves the page on which people vote; a context manager.

    Args:
        results, between, select: see `Ballot`.
        voter: the name of everybody who votes; None: the page asks for it.
        host, port, token: see `PageServer`.
        hides_ranking: whether voters do not see the ranking when they have finished.

    `report_url` is the address of the report, which voters see with the ranking; None if nobody serves it.

    Raises:
        UsageError, ResultsError: there is nothing to vote on, or the address cannot be used.

    """

    def __init__(
        self,
        results: Path,
        *,
        between: Sequence[str] = (),
        select: Callable[[], Collection[int] | None] = lambda: None,
        voter: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        hides_ranking: bool = False,
    ) -> None:
        super().__init__(host, port, f"vote {results.resolve()}", token)
        self._results, self._hides_ranking = results, hides_ranking
        self.report_url: str | None = None
        # SQLite's connections belong to one thread.
        self._ballot_thread = ThreadPoolExecutor(1, thread_name_prefix="sweeper-vote")
        try:
            self._ballot = self._ballot_thread.submit(lambda: Ballot(results, between=between, select=select)).result()
            self.summary: dict[str, Any] = self._ballot_thread.submit(lambda: self._ballot.summary).result()
        except BaseException:
            self._ballot_thread.shutdown()
            self.close()
            raise
        self._voter = voter

    def __enter__(self) -> Self:
        routes = [
            Route("/start", self.serve_start),
            Route("/ranking", self.serve_ranking, methods=["POST"]),
            Route("/next", self.serve_next, methods=["POST"]),
            Route("/undo", self.serve_undo, methods=["POST"]),
            Route("/picture/{vote}/{side}", self.serve_picture),
            make_page_route(PAGE_FOLDER),
        ]
        self.start(Starlette(routes=routes), writable=["/next", "/undo", "/ranking"])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._ballot_thread.submit(self._ballot.close)
        self._ballot_thread.shutdown()

    # --- one method for each kind of request

    async def serve_start(self, _request: Request) -> Response:
        summary = await self._run(lambda: self._ballot.summary)
        shown = {"voter": self._voter, "results": self._results.name, "hides_ranking": self._hides_ranking, **summary}
        return JSONResponse(shown, headers=NO_STORE)

    async def serve_ranking(self, request: Request) -> Response:
        if self._hides_ranking:
            return respond_not_found()
        return await self._respond(
            request, lambda voter, _body: {"rankings": self._ballot.rank(voter), "report": self.report_url}
        )

    async def serve_next(self, request: Request) -> Response:
        """Store the answer of the body, if it has one, and answer with the next pair."""

        def serve(voter: str, body: dict[str, Any]) -> dict[str, Any]:
            vote, answer, broken = map(body.get, ("vote", "answer", "broken"))
            answered = None if vote is None or answer is None else (vote, answer)
            return self._ballot.serve_next(voter, answered=answered, broken=broken, again=body.get("again") is True)

        return await self._respond(request, serve)

    async def serve_undo(self, request: Request) -> Response:
        return await self._respond(request, lambda voter, body: self._ballot.undo(voter, body.get("vote") or ""))

    async def serve_picture(self, request: Request) -> Response:
        vote, side = request.path_params["vote"], request.path_params["side"]
        try:
            path = await self._run(lambda: self._ballot.find_picture(vote, side))
            if path is None:
                return respond_not_found()
            content, media_type = await asyncio.to_thread(read_plain_picture, path)
        except ImageError:  # its text has the name of the file, which may tell the settings
            return PlainTextResponse("the picture cannot be read", 422)
        except SweeperError:
            return PlainTextResponse("the picture cannot be loaded", 503)
        return Response(content, headers=_PICTURE_HEADERS, media_type=media_type)

    async def _respond(self, request: Request, serve: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Response:
        try:
            value = await read_json(request, _SHAPE)
            voter = self._voter or check_voter(value.get("voter") or "")
            answer = await self._run(lambda: serve(voter, value))
        except (UsageError, HTTPException) as refusal:
            return JSONResponse({"problem": getattr(refusal, "detail", str(refusal))}, 400)
        except SweeperError as problem:
            return JSONResponse({"problem": str(problem)}, 503)  # the page keeps its vote and sends it again
        if (vote := value.get("vote")) is not None:
            # After the answer, because the voter waits for that. If it fails, the next start of the server does it.
            self._ballot_thread.submit(self._ballot.write_metric, vote)
        return JSONResponse(answer, headers=NO_STORE)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._ballot_thread, call)
