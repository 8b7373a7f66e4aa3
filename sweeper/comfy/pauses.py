"""Waits between two tries of one client: our own, and those that the server asks for, which are told and can be cut.

How long our own are is `patience`'s affair; what a Retry-After says is `wire`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Pauses:
    """`told(seconds, reason)` is called for each wait that the server asks for, once for all who wait beside another.

    `hurried`: seconds, the most that is waited at the server's wish after `hurry`.
    """

    def __init__(self, hurried: float) -> None:
        self.told: Callable[[float, str], None] | None = None
        self._hurried = hurried
        self._hurry = asyncio.Event()
        self._told_until = 0.0

    async def pause(self, ours: float, asked: float | None, reason: str, *, longest: float = float("inf")) -> float:
        """Wait for `ours` seconds, or longer, up to `longest`, where the server asks for it.

        Returns the seconds of a wait at the server's wish.
        """
        hurried = self._hurry.is_set()
        wished = min(asked or 0.0, longest, self._hurried if hurried else longest)
        if wished <= ours:
            await asyncio.sleep(ours)
            return 0.0
        self._tell(wished, reason)
        if hurried:
            await asyncio.sleep(wished)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wished):
                    await self._hurry.wait()
        return wished

    def hurry(self) -> None:
        """Somebody wants the end now: who waits at the server's wish asks again, and nobody waits for long any more."""
        self._hurry.set()

    def _tell(self, seconds: float, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if self.told is not None and now + seconds > self._told_until + 1.0:
            self._told_until = now + seconds
            self.told(seconds, reason)
