"""Which targets of a run answer now; one that does not is asked again for as long as that may be of use.

Others go on without it, and it is used again whenever it is back. It is given up once nobody who answers can bring on
what is left, and it, and every other silent target, has said nothing for `patience` seconds; sooner where its process
is gone, and with it the jobs that were waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sweeper.errors import RefusedError, Trouble, UnreachableError
from sweeper.running.async_tools import cancel_when
from sweeper.running.run_events import TargetDown, TargetUp

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.running.run_context import RunContext

T = TypeVar("T")

_FIRST_DELAY: Final = 0.1  # seconds before the first question; every further wait is twice as long
_MAX_DELAY: Final = 10.0
_PING_TIMEOUT: Final = 5.0  # seconds
_GONE_AFTER: Final = 30.0  # seconds with nobody at a port until its process counts as gone: a tunnel may come back
_CONNECT_WAIT: Final = 5.0  # seconds that those who answer wait for the others


@dataclass(slots=True)
class Connections:
    """`servers`: whom the clients, in their order, have met. `late`: clients that nobody answered yet, and why."""

    servers: list[tuple[ComfyClient, Server]] = field(default_factory=list)
    pending: list[tuple[ComfyClient, str]] = field(default_factory=list)


async def connect_all(clients: Sequence[ComfyClient]) -> Connections:
    """Ask every target who it is. One that says nothing, as a machine that hangs, holds up no other for long.

    Raises RefusedError for one that refuses us, and UnreachableError when nobody answers.
    """
    asking = [asyncio.ensure_future(client.connect()) for client in clients]
    try:
        await _wait_for_answers(asking)
        met = Connections()
        for client, task in zip(clients, asking, strict=True):
            name = client.target.name
            try:
                if task.done():
                    met.servers.append((client, task.result()))
                else:
                    met.pending.append((client, f"does not answer within {_CONNECT_WAIT:g} s"))
            except UnreachableError as error:
                met.pending.append((client, str(error).removeprefix(f"{name}: ")))
            except RefusedError as error:
                raise RefusedError(f"{name}: {error}", is_account_problem=error.is_account_problem) from None
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if not met.servers:
        raise UnreachableError("; ".join(f"{client.target.name}: {reason}" for client, reason in met.pending))
    return met


async def _wait_for_answers(tasks: Sequence[asyncio.Future[Server]]) -> None:
    """Return when all have answered, when one refuses us, or when one has answered and the others had their time."""
    loop, waiting = asyncio.get_running_loop(), set(tasks)
    deadline = loop.time() + _CONNECT_WAIT
    while waiting:
        over = [task.exception() for task in tasks if task.done()]
        if any(error is not None and not isinstance(error, UnreachableError) for error in over):
            return
        left = deadline - loop.time()
        if left <= 0 and None in over:
            return
        _, waiting = await asyncio.wait(
            waiting, timeout=left if left > 0 else None, return_when=asyncio.FIRST_COMPLETED
        )


class HealthMonitor:
    """`names`: the targets that answer at the start."""

    def __init__(self, context: RunContext, reachable: Iterable[str]) -> None:
        self._context = context
        self._reachable = set(reachable)
        self._down_since: dict[str, float] = {}  # since when, by the loop's clock
        self._refusing_since: dict[str, float] = {}  # of these, since when nothing listens at their ports

    def is_down(self, target: str) -> bool:
        """Whether that target is being waited for."""
        return target in self._down_since

    def mark_dead(self, target: str) -> None:
        """That target gets no more work in this run."""
        self._reachable.discard(target)

    async def ping(self, client: ComfyClient) -> bool:
        """Whether a target answers a question now. Raises RefusedError."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await client.connect()
        except (UnreachableError, TimeoutError):
            return False
        return True

    async def wait_until_up(self, client: ComfyClient, reason: str) -> Server | None:
        """Wait until a target that fell silent answers; None where there is nothing left for it to do.

        Raises UnreachableError when it is given up (its `trouble` is `REFUSED` where its process is gone), and
        RefusedError when it refuses us.
        """
        shared, name, began = self._context, client.target.name, asyncio.get_running_loop().time()
        self._down_since[name] = began
        self._reachable.discard(name)
        shared.work_queue.suspend(name)
        shared.report(TargetDown(name, reason, final=False, patience=shared.settings.patience))
        try:
            server = await self.run_unless_finished(self._reconnect(client, reason))
        finally:
            del self._down_since[name]
            self._refusing_since.pop(name, None)
            shared.work_queue.resume(name)
        if server is not None:
            self._reachable.add(name)
            shared.report(TargetUp(name, asyncio.get_running_loop().time() - began))
        return server

    async def run_unless_finished(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """What `work` gives; None, and it is let go, once nobody gets any more work in this run."""
        return await cancel_when(self._context.work_queue.wait_finished(), coroutine)

    async def _reconnect(self, client: ComfyClient, reason: str) -> Server:
        said = [reason]
        server = await cancel_when(self._wait_for_patience(client), self._connect_with_backoff(client, said))
        if server is None:
            trouble = Trouble.TIMEOUT if self._find_gone_since(client) is None else Trouble.REFUSED
            raise UnreachableError(said[-1], trouble=trouble)
        return server

    async def _connect_with_backoff(self, client: ComfyClient, last_reason: list[str]) -> Server:
        wait = _FIRST_DELAY
        while True:
            await asyncio.sleep(self._context.random.uniform(wait / 2, wait))
            try:
                return await client.connect()
            except UnreachableError as error:
                last_reason[:] = [str(error)]
                if error.trouble is Trouble.REFUSED:
                    self._refusing_since.setdefault(client.target.name, asyncio.get_running_loop().time())
                else:
                    self._refusing_since.pop(client.target.name, None)
            wait = min(2 * wait, _MAX_DELAY)

    async def _wait_for_patience(self, client: ComfyClient) -> None:
        """Return when patience is over."""
        loop, backlog = asyncio.get_running_loop(), self._context.work_queue
        while True:
            left = self._get_deadline(client) - loop.time()
            stuck = backlog.is_stuck(self._reachable)
            if stuck and left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _MAX_DELAY) if stuck else None):
                    await backlog.wait_changed()

    def _get_deadline(self, client: ComfyClient) -> float:
        """When patience with a silent target is over, by the loop's clock."""
        patience, gone = self._context.settings.patience, self._find_gone_since(client)
        return max(self._down_since.values()) + patience if gone is None else gone + min(_GONE_AFTER, patience)

    def _find_gone_since(self, client: ComfyClient) -> float | None:
        """Since when a target's process seems to be gone, its jobs with it, where there are others to do them.

        That may be wrong where a tunnel ended, so not where a job is paid for.
        """
        name = client.target.name
        forgetful = client.loses_jobs_on_exit or self._context.work_queue.has_our_ids(name)
        return self._refusing_since.get(name) if forgetful and not client.extra_data and self._reachable else None
