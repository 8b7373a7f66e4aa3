"""How long and how often to try again: capped exponential backoff with full jitter, and the waits between two tries.

After "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): each wait is drawn evenly from 0 to the cap.
What a Retry-After header says is read in `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Patience:
    """At most `attempts` tries within `total` seconds; waits drawn from 0 to min(cap, base * 2**n) seconds.

    `asked`: the longest wait that a server gets because it asks for it (Retry-After); it comes on top of `total`.
    `refusals`: tries of a server that takes no connection, where that is less: nobody is there yet, or any more.
    """

    attempts: int = 6
    total: float = 30.0
    base: float = 0.1
    cap: float = 8.0
    asked: float = 600.0
    refusals: int = 6

    def waits(self, random: Random) -> Iterator[float]:
        """The wait before each further try; it ends when patience does. Waits that a server asks for come on top."""
        for number in range(self.attempts - 1):
            yield random.uniform(0, min(self.cap, self.base * 2**number))


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
