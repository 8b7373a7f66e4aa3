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
class RetryPolicy:
    """At most `attempts` tries within `total` seconds; waits drawn from 0 to min(cap, base * 2**n) seconds.

    `asked`: the longest wait that a server gets because it asks for it (Retry-After); it comes on top of `total`.
    `refusals`: tries of a server that takes no connection, where that is less: nobody is there yet, or any more.
    """

    attempts: int = 6
    total_seconds: float = 30.0
    base_wait: float = 0.1
    max_wait: float = 8.0
    max_retry_after: float = 600.0
    connect_attempts: int = 6

    def draw_waits(self, random: Random) -> Iterator[float]:
        """The wait before each further try; it ends when patience does. Waits that a server asks for come on top."""
        for number in range(self.attempts - 1):
            yield random.uniform(0, min(self.max_wait, self.base_wait * 2**number))


class RetryWaiter:
    """`told(seconds, reason)` is called for each wait that the server asks for, once for all who wait beside another.

    `hurried`: seconds, the most that is waited at the server's wish after `hurry`.
    """

    def __init__(self, max_after_cut: float) -> None:
        self.on_wait: Callable[[float, str], None] | None = None
        self._max_after_cut = max_after_cut
        self._cut = asyncio.Event()
        self._reported_until = 0.0

    async def wait(
        self, own_wait: float, retry_after: float | None, reason: str, *, max_retry_after: float = float("inf")
    ) -> float:
        """Wait for `ours` seconds, or longer, up to `longest`, where the server asks for it.

        Returns the seconds of a wait at the server's wish.
        """
        hurried = self._cut.is_set()
        wished = min(retry_after or 0.0, max_retry_after, self._max_after_cut if hurried else max_retry_after)
        if wished <= own_wait:
            await asyncio.sleep(own_wait)
            return 0.0
        self._report_wait(wished, reason)
        if hurried:
            await asyncio.sleep(wished)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wished):
                    await self._cut.wait()
        return wished

    def cut_short(self) -> None:
        """Somebody wants the end now: who waits at the server's wish asks again, and nobody waits for long any more."""
        self._cut.set()

    def _report_wait(self, seconds: float, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if self.on_wait is not None and now + seconds > self._reported_until + 1.0:
            self._reported_until = now + seconds
            self.on_wait(seconds, reason)
