"""The first words with the targets of a run, all at once: who answers, who refuses us, and who may come later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sweeper.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.wire import Server

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
