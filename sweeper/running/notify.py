"""Post one message when a run, search or check has ended. A failure to do so is a warning, and changes nothing else.

A message has names, counts, cost and time: no key, picture, prompt or path, and no text of a server. The URL may hold a
secret, so warnings show its host only. The answer is not read beyond its header, and no redirect is followed.
Formats: https://docs.ntfy.sh/publish, https://api.slack.com/messaging/webhooks,
https://discord.com/developers/docs/resources/webhook#execute-webhook.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from sweeper.comfy.redaction import mute_libraries
from sweeper.comfy.transport import describe_error, make_transport
from sweeper.errors import UsageError
from sweeper.model.money import CURRENCY, NOTHING, to_usd
from sweeper.model.result import FAILED, STATUSES, SUCCEEDED, Run
from sweeper.model.urls import NotifyAddress
from sweeper.running.run_events import Event, Notice
from sweeper.running.stop_control import StopControl, cancel_when, run_sync, stop_on_signals
from sweeper.wording import shorten, to_one_line

if TYPE_CHECKING:
    from sweeper.running.run_answer import SearchResult

T = TypeVar("T")

_SECONDS: Final = 10.0  # for one attempt
_RETRY_SECONDS: Final = 1.0  # before the second and last attempt
_MAX_NAME: Final = 200  # characters; the longest message of Discord has 2,000


@dataclass(frozen=True, slots=True)
class EndNotice:
    """Posts how one run, search or check (`kind`) ended; nothing without `address`. `out`: the results folder."""

    address: NotifyAddress | None
    kind: str
    experiment: str
    out: Path
    report: Callable[[Event], None]
    control: StopControl = field(default_factory=StopControl)
    began_at: float = field(default_factory=time.monotonic)

    async def watch(self, execute: Awaitable[T], post: Callable[[T], Awaitable[None]]) -> T:
        """Wait for the run or search, and post how it ended: by `post_run` or `post_search`, or that it raised."""
        try:
            ended = await execute
        except Exception as error:
            await self.post(None, stopped_by=None, ok=False, reason=type(error).__name__)
            raise
        await post(ended)
        return ended

    async def post_run(self, run: Run) -> None:
        await self.post(run, stopped_by=run.stopped_by, ok=not (run.failed or run.cancelled or run.error))

    async def post_search(self, found: SearchResult) -> None:
        run = found.run
        stopped_by = None if found.has_finished else found.ended_by
        await self.post(run, stopped_by=stopped_by, ok=run is None or not (run.failed or run.cancelled))

    def post_now(self, run: Run | None, **ending: Any) -> None:
        """Call `post` from synchronous code."""

        async def post() -> None:
            async with stop_on_signals(self.control):
                await self.post(run, **ending)

        run_sync(post)

    async def post(self, run: Run | None, *, stopped_by: str | None, ok: bool, reason: str | None = None) -> None:
        """Post unless the user interrupts that. `reason`: a word, not the text of an error, which may have paths."""
        if (address := self.address) is None:
            return
        cost = NOTHING if run is None else run.cost
        message = {
            "name": self.experiment,
            "kind": self.kind,
            "status": "stopped" if stopped_by else SUCCEEDED if ok else FAILED,
            "reason": stopped_by or reason,
            **{name: getattr(run, name) for name in ("trials", "submitted", *STATUSES, "reused") if run is not None},
            **({} if cost == NOTHING else {"cost": to_usd(cost.bound), "currency": CURRENCY}),
            "seconds": round(time.monotonic() - self.began_at, 1),
            "results": self.out.absolute().name,
        }
        interrupted = asyncio.Event()
        with self.control.subscribe(interrupted.set):
            problem = await cancel_when(interrupted.wait(), _post(address, message))
        if problem != "":
            reason = problem or "it was interrupted"
            self.report(Notice(f"the end of this {self.kind} was not posted to {address.host}: {reason}"))


async def _post(address: NotifyAddress, message: dict[str, Any]) -> str:
    """Post a message, at most twice. Returns why that failed; empty if it did not."""
    headers, content = _format(address.format, message)
    problem, may_pass = await _post_once(address.url, headers, content)
    if may_pass:
        await asyncio.sleep(_RETRY_SECONDS)
        problem, _ = await _post_once(address.url, headers, content)
    return problem


async def _post_once(url: str, headers: dict[str, str], content: bytes) -> tuple[str, bool]:
    """Post once. Returns why that failed, empty if it did not, and whether a second attempt may succeed."""
    try:
        with mute_libraries():
            async with (
                asyncio.timeout(_SECONDS),
                httpx.AsyncClient(
                    transport=make_transport(url, httpx.Limits()), headers={"User-Agent": "sweeper"}
                ) as http,
                http.stream("POST", url, headers=headers, content=content) as response,
            ):
                status = response.status_code
    except TimeoutError:
        return f"no answer within {_SECONDS:g} s", True
    except UsageError as error:  # about the proxy
        return str(error), False
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # the text may have what a server sent
        return describe_error(error) if isinstance(error, httpx.ConnectError) else type(error).__name__, True
    if 300 <= status < 400:
        return f"HTTP {status}, a redirect, which sweeper does not follow; give the address where it leads", False
    return ("" if status < 300 else f"HTTP {status}"), status == 429 or status >= 500


def _format(shape: str, message: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """Format a message. Returns its headers and its body."""
    reason = f" ({message['reason']})" if message["reason"] else ""
    name, results = (shorten(to_one_line(message[part]), _MAX_NAME) for part in ("name", "results"))
    title = f"sweeper {message['kind']} {name}: {message['status']}{reason}"
    counts = [f"{message[name]} {name}" for name in ("trials", *STATUSES, "reused", "submitted") if name in message]
    cost = [f"{message['cost']:.2f} {message['currency']}"] if "cost" in message else []
    text = ", ".join([*counts, *cost, f"{message['seconds']:g} s", f"results in {results}"])
    if shape == "ntfy":  # a header has ASCII only
        return {"Title": title.encode("ascii", "replace").decode()}, text.encode("utf-8", "replace")
    body = message
    lines = f"{title}\n{text}".replace("@", "@\u200b")  # a space of no width: nobody is mentioned
    if shape == "slack":  # https://api.slack.com/reference/surfaces/formatting#escaping
        body = {"text": lines.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    elif shape == "discord":
        body = {"content": lines, "allowed_mentions": {"parse": []}}
    return {"Content-Type": "application/json"}, json.dumps(body).encode()
