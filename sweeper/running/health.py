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

from sweeper.errors import RefusedError, UnreachableError
from sweeper.running.async_tools import before
from sweeper.running.run_events import TargetDown, TargetUp

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.running.run_context import Shared

T = TypeVar("T")

_FIRST: Final = 0.1  # seconds before the first question; every further wait is twice as long
_LONGEST: Final = 10.0
_SOON: Final = 5.0  # seconds
_GONE_FOR: Final = 30.0  # seconds with nobody at a port until its process counts as gone: a tunnel may come back
_LATE_AFTER: Final = 5.0  # seconds that those who answer wait for the others


@dataclass(slots=True)
class Met:
    """`servers`: whom the clients, in their order, have met. `late`: clients that nobody answered yet, and why."""

    servers: list[tuple[ComfyClient, Server]] = field(default_factory=list)
    late: list[tuple[ComfyClient, str]] = field(default_factory=list)


async def meet(clients: Sequence[ComfyClient]) -> Met:
    """Ask every target who it is. One that says nothing, as a machine that hangs, holds up no other for long.

    Raises RefusedError for one that refuses us, and UnreachableError when nobody answers.
    """
    asking = [asyncio.ensure_future(client.connect()) for client in clients]
    try:
        await _first_words(asking)
        met = Met()
        for client, task in zip(clients, asking, strict=True):
            name = client.target.name
            try:
                if task.done():
                    met.servers.append((client, task.result()))
                else:
                    met.late.append((client, f"does not answer within {_LATE_AFTER:g} s"))
            except UnreachableError as error:
                met.late.append((client, str(error).removeprefix(f"{name}: ")))
            except RefusedError as error:
                raise RefusedError(f"{name}: {error}", account=error.account) from None
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if not met.servers:
        raise UnreachableError("; ".join(f"{client.target.name}: {reason}" for client, reason in met.late))
    return met


async def _first_words(asking: Sequence[asyncio.Future[Server]]) -> None:
    """Return when all have answered, when one refuses us, or when one has answered and the others had their time."""
    loop, waiting = asyncio.get_running_loop(), set(asking)
    deadline = loop.time() + _LATE_AFTER
    while waiting:
        over = [task.exception() for task in asking if task.done()]
        if any(error is not None and not isinstance(error, UnreachableError) for error in over):
            return
        left = deadline - loop.time()
        if left <= 0 and None in over:
            return
        _, waiting = await asyncio.wait(
            waiting, timeout=left if left > 0 else None, return_when=asyncio.FIRST_COMPLETED
        )


class Presence:
    """`names`: the targets that answer at the start."""

    def __init__(self, shared: Shared, names: Iterable[str]) -> None:
        self._shared = shared
        self._answering = set(names)
        self._silent: dict[str, float] = {}  # since when, by the loop's clock
        self._unattended: dict[str, float] = {}  # of these, since when nothing listens at their ports

    def silent(self, target: str) -> bool:
        """Whether that target is being waited for."""
        return target in self._silent

    def gone(self, target: str) -> None:
        """That target gets no more work in this run."""
        self._answering.discard(target)

    async def there(self, client: ComfyClient) -> bool:
        """Whether a target answers a question now. Raises RefusedError."""
        try:
            async with asyncio.timeout(_SOON):
                await client.connect()
        except (UnreachableError, TimeoutError):
            return False
        return True

    async def back(self, client: ComfyClient, reason: str) -> Server | None:
        """Wait until a target that fell silent answers; None where there is nothing left for it to do.

        Raises UnreachableError when it is given up (its `trouble` is `nobody` where its process is gone), and
        RefusedError when it refuses us.
        """
        shared, name, began = self._shared, client.target.name, asyncio.get_running_loop().time()
        self._silent[name] = began
        self._answering.discard(name)
        shared.backlog.suspend(name)
        shared.report(TargetDown(name, reason, final=False, patience=shared.settings.patience))
        try:
            server = await self.wanted(self._asked(client, reason))
        finally:
            del self._silent[name]
            self._unattended.pop(name, None)
            shared.backlog.resume(name)
        if server is not None:
            self._answering.add(name)
            shared.report(TargetUp(name, asyncio.get_running_loop().time() - began))
        return server

    async def wanted(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` gives; None, and it is let go, once nobody gets any more work in this run."""
        return await before(self._shared.backlog.finished(), work)

    async def _asked(self, client: ComfyClient, reason: str) -> Server:
        said = [reason]
        server = await before(self._outlasted(client), self._ask(client, said))
        if server is None:
            raise UnreachableError(said[-1], trouble="silent" if self._gone_since(client) is None else "nobody")
        return server

    async def _ask(self, client: ComfyClient, said: list[str]) -> Server:
        wait = _FIRST
        while True:
            await asyncio.sleep(self._shared.random.uniform(wait / 2, wait))
            try:
                return await client.connect()
            except UnreachableError as error:
                said[:] = [str(error)]
                if error.trouble == "nobody":
                    self._unattended.setdefault(client.target.name, asyncio.get_running_loop().time())
                else:
                    self._unattended.pop(client.target.name, None)
            wait = min(2 * wait, _LONGEST)

    async def _outlasted(self, client: ComfyClient) -> None:
        """Return when patience is over."""
        loop, backlog = asyncio.get_running_loop(), self._shared.backlog
        while True:
            left = self._until(client) - loop.time()
            stuck = backlog.stuck(self._answering)
            if stuck and left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LONGEST) if stuck else None):
                    await backlog.changed()

    def _until(self, client: ComfyClient) -> float:
        """When patience with a silent target is over, by the loop's clock."""
        patience, gone = self._shared.settings.patience, self._gone_since(client)
        return max(self._silent.values()) + patience if gone is None else gone + min(_GONE_FOR, patience)

    def _gone_since(self, client: ComfyClient) -> float | None:
        """Since when a target's process seems to be gone, its jobs with it, where there are others to do them.

        That may be wrong where a tunnel ended, so not where a job is paid for.
        """
        name = client.target.name
        forgetful = client.forgetful or self._shared.backlog.took_our_ids(name)
        return self._unattended.get(name) if forgetful and not client.extra_data and self._answering else None
