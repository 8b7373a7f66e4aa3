"""`LiveView` serves the page of a results folder: its files, the run's data and artifacts, and a stream of changes.

The name in a request is looked up among known names; it is never joined to a folder. `AccessControl` has already
decided whether the request is allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sweeper.errors import InputError, ResultsError, SweeperError, UsageError
from sweeper.model.experiment import Experiment
from sweeper.reporting.check_findings import ACCEPTED_FOLDER, CheckFunction
from sweeper.reporting.contact_sheet import write_sheets
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.dataset import iter_json, iter_script, to_json
from sweeper.reporting.live.follower import Follower
from sweeper.reporting.one_file import write_one_file
from sweeper.reporting.page_answers import find_answers
from sweeper.reporting.thumbnails import THUMB_NAME, THUMBS_FOLDER
from sweeper.reporting.write_report import PAGE_FOLDER, write_report
from sweeper.serving.access import (
    HAS_SESSION,
    NO_STORE,
    PageServer,
    is_loopback,
    make_page_route,
    read_json,
    respond_not_found,
)
from sweeper.store import Store
from sweeper.store.records import RunRecord
from sweeper.store.votes import parse_marks

_TRIAL_NUMBER: Final = re.compile("[0-9]{1,15}")
_KEEPALIVE_SECONDS: Final = 15.0  # seconds without a change after which a comment keeps the connection open
_MIN_INTERVAL_SECONDS: Final = 0.2  # between two messages
_IMMUTABLE: Final = {"cache-control": "private, max-age=31536000, immutable"}  # for files that never change
_ACCEPT_SHAPE: Final = {"trial": int, "seen": [str]}
_SHARE_SHAPE: Final = dict.fromkeys(("file", "x", "y", "trials", "address"), str)
# What the menu `Share` saves: the trials that are shown, as one file or as a contact sheet.
_SHARED_TYPES: Final = {".html": "text/html", ".png": "image/png"}
_MAX_BYTES: Final = 25_000_000  # of one file, as by default of `sweeper report --max-mb`
_MAX_SHEET_MEGAPIXELS: Final = 200.0  # a download is one picture, so it is not split before that
_RANGES: Final = re.compile(r"(\d{1,9}(-\d{1,9})?(,(?!$)|$))*")
_MAX_TRIALS: Final = 1_000_000  # in the ranges of a request
_CELL_SHAPE: Final = {
    "trial": int, "kind": str, "digest": (None, str), "set": (None, {...: object}), "confirmed": (None, str)
}  # fmt: skip
_CELL_BYTES: Final = 100_000  # a prompt may be long
# A file from a server may run no scripts when it is opened by itself.
_SANDBOX: Final = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}

T = TypeVar("T")


class CellRequest(NamedTuple):
    """What a person wants of a trial: others like it (`kind` is "more"), or itself with some `changes` ("revise").

    `record` is its run, `options` are the words of the command that goes on with that (None: no command can), and
    `settings` all values of the trial by name. `confirmed`: the token of the question that the person answered.
    """

    kind: str
    results: Path
    record: RunRecord
    options: list[str] | None
    settings: Mapping[str, Any]
    changes: Mapping[str, Any]
    confirmed: str | None


class LiveView(PageServer):
    """Serves the page of a results folder and keeps it up to date; a context manager.

    Args:
        results: the folder; `experiment`: its plan is shown as long as nothing has run there.
        run: an earlier run instead of the latest.
        host, port, token, needs_token, embedder: see `PageServer`.
        check: compares trials with the baseline, if there is one.
        stores_marks: whether visitors may write marks into the folder.
        on_cell: does what a person wants of a trial, and returns `url`, `file` and `command`, or `question` and
            `confirm`. Only people at this machine with the token can ask for it.
        editor: the address of the page that edits the experiment, if this report belongs to one.

    Raises:
        ResultsError, InputError: there is nothing to show.
        UsageError: the address cannot be used.

    """

    def __init__(
        self,
        results: Path,
        *,
        experiment: Experiment | None = None,
        run: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        check: CheckFunction | None = None,
        stores_marks: bool = True,
        needs_token: bool = False,
        embedder: str | None = None,
        on_cell: Callable[[CellRequest], dict[str, Any]] | None = None,
        editor: str | None = None,
    ) -> None:
        self._on_cell, self._editor = on_cell if is_loopback(host) else None, editor
        guarded = ["/cell"] if self._on_cell is not None else []
        super().__init__(
            host, port, str(results.resolve()), token, needs_token=needs_token, guarded=guarded, embedder=embedder
        )
        self._loop: asyncio.AbstractEventLoop | None = None  # of the streams, if there ever was one
        self._streams: set[asyncio.Event] = set()  # one for each open stream; set on every change
        self._is_stopping = False
        self._results, self._run, self._stores_marks = results, run, stores_marks
        self._sharing = asyncio.Lock()
        # A token lets others mark, but only people at this machine may change a baseline.
        self._can_accept = is_loopback(host) and check is not None
        try:
            self._follower = Follower(results, self._notify, run=run, experiment=experiment, check=check)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self._follower.start()
        app = Starlette(
            routes=[
                Route("/data.js", self.serve_data),
                Route("/data.json", self.serve_data),
                Route("/events", self.serve_events),
                Route("/marks", self.store_marks, methods=["POST"]),
                Route("/share", self.share, methods=["POST"]),
                Route("/accept", self.accept, methods=["POST"]),
                Route("/cell", self.act_on_cell, methods=["POST"]),
                Route("/files/{name}", self.serve_artifact),
                Route(f"/{ACCEPTED_FOLDER}/{{name}}", self.serve_accepted),
                Route(f"/{THUMBS_FOLDER}/{{name}}", self.serve_thumb),
                Route("/preview/{trial}", self.serve_preview),
                make_page_route(PAGE_FOLDER),
            ],
            exception_handlers=dict.fromkeys((SweeperError, OSError), _explain),
        )
        writable = ["/marks", "/share", *(["/accept"] if self._can_accept else [])]
        writable += ["/cell"] if self._on_cell is not None else []
        self.start(app, writable=writable)
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.stop()
        self._is_stopping = True
        self._notify()
        self.stop()

    def _notify(self) -> None:
        """Wake the streams; any thread may call this."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._wake_streams)

    def _wake_streams(self) -> None:
        for event in self._streams:
            event.set()

    # --- one method for each kind of request

    async def serve_data(self, request: Request) -> Response:
        data = await asyncio.to_thread(self._follower.build_data)
        can_act = self._on_cell is not None and request.scope.get(HAS_SESSION, False)
        data["live"] |= {"can_accept": self._can_accept, "has_cells": self._on_cell is not None, "can_act": can_act}
        data["live"]["editor"] = self._editor
        if request.url.path.endswith(".js"):
            return StreamingResponse(iter_script(data), headers=NO_STORE, media_type="text/javascript")
        return StreamingResponse(iter_json(data), headers=NO_STORE, media_type="application/json")

    async def serve_artifact(self, request: Request) -> Response:
        return _respond_with_file(self._follower.files.get(request.path_params["name"]))

    async def serve_accepted(self, request: Request) -> Response:
        return _respond_with_file(await asyncio.to_thread(self._follower.find_accepted, request.path_params["name"]))

    async def serve_thumb(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._follower.thumbs.report / THUMBS_FOLDER / name
        if not THUMB_NAME.fullmatch(name) or not path.is_file():
            return respond_not_found()
        return FileResponse(path, media_type="image/webp", headers=_IMMUTABLE)

    async def serve_preview(self, request: Request) -> Response:
        number = request.path_params["trial"]
        if not _TRIAL_NUMBER.fullmatch(number):
            return respond_not_found()
        trial = int(number)
        image = await asyncio.to_thread(self._follower.live_folder.read_preview, trial)
        if image is None:
            # A trial may end before the page requests the preview it heard of. That is not an error, so the browser's
            # console must not report one.
            return (
                Response(status_code=204, headers=NO_STORE) if self._follower.has_trial(trial) else respond_not_found()
            )
        media = "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"
        return Response(image, headers=NO_STORE | _SANDBOX, media_type=media)

    async def store_marks(self, request: Request) -> Response:
        """POST /marks: a mapping of digests to marks."""
        if not self._stores_marks:
            return PlainTextResponse("this server stores no marks", 403)
        if not Store.exists(self._results):
            return PlainTextResponse(
                f"{self._results.name} has no results any more, so nothing was stored; put the folder back", 410
            )
        try:
            marks = parse_marks(await read_json(request))
        except ValueError as problem:
            raise HTTPException(400, str(problem)) from None
        await asyncio.to_thread(self._follower.store_marks, marks)
        return Response(status_code=204)

    async def accept(self, request: Request) -> Response:
        """POST /accept: `trial` and what the page shows of it; see `Follower.accept`."""
        value = await read_json(request, _ACCEPT_SHAPE, advice="use `sweeper accept` for so many files")
        await asyncio.to_thread(self._follower.accept, value["trial"], value["seen"])
        return Response(status_code=204)

    async def act_on_cell(self, request: Request) -> Response:
        """POST /cell: `kind`, `trial`, the `digest` that the page shows of it, and to revise it `set`."""
        value = await read_json(request, _CELL_SHAPE, _CELL_BYTES, advice="its values are too long; use the file")
        if value["kind"] not in ("more", "revise"):
            return PlainTextResponse('`kind` is "more" or "revise"', 400)
        answer = await asyncio.to_thread(self._act_on_cell, value)
        return JSONResponse(answer, 428 if "question" in answer else 200, NO_STORE)

    def _act_on_cell(self, value: Mapping[str, Any]) -> dict[str, Any]:
        assert self._on_cell is not None
        record, options, row = self._follower.find_trial(value["trial"])
        if value.get("digest") not in (None, row.digest):
            raise UsageError("this trial has changed since the page showed it; load the page again")
        changes, confirmed = value.get("set") or {}, value.get("confirmed")
        settings = {**row.columns, **row.params}
        return self._on_cell(CellRequest(value["kind"], self._results, record, options, settings, changes, confirmed))

    async def share(self, request: Request) -> Response:
        """POST /share: a file to save, see `_make_shared_file`. One at a time, because each takes all cores."""
        wish = await read_json(request, _SHARE_SHAPE, advice="narrow the filter: its trials have too many gaps")
        async with self._sharing:
            content, media_type = await asyncio.to_thread(_make_shared_file, self._results, self._run, wish)
        return Response(content, headers=NO_STORE | _SANDBOX, media_type=media_type)

    async def serve_events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id") or request.query_params.get("since", "")
        match = re.fullmatch("([0-9]{1,15})[.]([0-9]{1,15})", last)
        if match is None:
            return PlainTextResponse("the parameter since=GENERATION.NUMBER is missing", 400)
        stream = self._stream_changes(int(match[1]), int(match[2]))
        return StreamingResponse(stream, media_type="text/event-stream", headers=NO_STORE)

    async def _stream_changes(self, generation: int, number: int) -> AsyncIterator[str]:
        """Send events: `change` with the changes, `anew` if the page must reload, `over` when the server stops."""
        event, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._streams.add(event)
        try:
            while not self._is_stopping:
                event.clear()
                changes = await asyncio.to_thread(self._follower.get_changes, number, generation)
                if changes is None:
                    yield "event: anew\ndata: {}\n\n"
                    return
                if changes["number"] != number:
                    number = changes["number"]
                    yield f"event: change\nid: {generation}.{number}\ndata: {to_json(changes)}\n\n"
                    await asyncio.sleep(_MIN_INTERVAL_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_KEEPALIVE_SECONDS):
                        await event.wait()
                        continue
                yield ": still here\n\n"
            yield "event: over\ndata: {}\n\n"
        finally:
            self._streams.discard(event)


async def _explain(_request: Request, problem: Exception) -> Response:
    """Say what went wrong: 422 for what the visitor or the experiment says, 503 for what may go away by itself."""
    return PlainTextResponse(str(problem), 422 if isinstance(problem, InputError) else 503)


def _respond_with_file(path: Path | None) -> Response:
    """Send a file that came from a server, or 404."""
    if path is None or not path.is_file():
        return respond_not_found()
    media = MEDIA_TYPES.get(path.suffix.lower())
    shown = {} if media else {"content-disposition": "attachment"}
    return FileResponse(path, media_type=media or "application/octet-stream", headers=_IMMUTABLE | _SANDBOX | shown)


def _make_shared_file(results: Path, run: str | None, wish: Mapping[str, str]) -> tuple[bytes, str]:
    """Make a file as the page asks for it, and its media type.

    `wish` has `file` (a name whose suffix says the kind), `x` and `y` (axes of a sheet), `trials` (ranges such as
    `0-99,120`; empty: all) and `address` (the view, as it stands behind `#`).

    Raises UsageError if that is not what the page asks for, and ResultsError if the file cannot be made.
    """
    suffix = Path(wish["file"]).suffix
    if suffix not in _SHARED_TYPES:
        raise UsageError(f"file: {suffix!r} cannot be made; use one of {', '.join(_SHARED_TYPES)}")
    trials = _parse_ranges(wish["trials"])
    with tempfile.TemporaryDirectory(prefix="sweeper-share-") as folder:
        file = Path(folder, f"shared{suffix}")
        if suffix == ".html":
            answers = find_answers(results, run) if trials is None else {}
            write_page = partial(write_report, results, run=run, trials=trials, answers=answers)
            write_one_file(results, file, _MAX_BYTES, write_page, address=wish["address"])
        else:
            x, y = wish["x"] or None, wish["y"] or None
            pages = write_sheets(results, file, x=x, y=y, megapixels=_MAX_SHEET_MEGAPIXELS, run=run, trials=trials)
            if len(pages) > 1:
                raise ResultsError("the sheet is too large for one picture; show fewer trials, or use --sheet")
        return file.read_bytes(), _SHARED_TYPES[suffix]


def _parse_ranges(text: str) -> frozenset[int] | None:
    """The trials of ranges; None for an empty text. Raises UsageError."""
    if text == "":
        return None
    if not _RANGES.fullmatch(text):
        raise UsageError("trials: expected ranges such as 0-99,120")
    ranges = [tuple(map(int, part.split("-"))) for part in text.split(",")]
    if sum(max(0, part[-1] - part[0] + 1) for part in ranges) > _MAX_TRIALS:
        raise UsageError(f"trials: more than {_MAX_TRIALS:,}")
    return frozenset(trial for part in ranges for trial in range(part[0], part[-1] + 1))
