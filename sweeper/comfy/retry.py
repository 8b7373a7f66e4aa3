"""Retrying: capped exponential backoff with jitter, how often one request is retried, and the waits in between.

`RetryPolicy` also says how long an answer may make no progress. The waits follow "Exponential Backoff And Jitter" (AWS
Architecture Blog, 2015). `protocol` reads Retry-After headers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Self

# The least time in seconds for an answer, whatever a run's `patience` is: an honest server is busy for a moment.
MIN_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Random waits that grow with each failure. All times in seconds.

    After n failures, the longest possible wait is min(max_wait, base_wait * 2**n). The wait is drawn evenly between
    `jitter_from` times that and all of it. 0.0 is full jitter; 0.5 never waits less than half.
    """

    base_wait: float
    max_wait: float
    jitter_from: float = 0.0

    def draw(self, failures: int, random: Random) -> float:
        """The wait in seconds after `failures` earlier failures."""
        longest = min(self.max_wait, self.base_wait * 2 ** min(failures, 64))  # 2**1024 is no float
        return random.uniform(self.jitter_from * longest, longest)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How one request is retried: at most `attempts` tries within `total_seconds`, with full jitter in between.

    `max_retry_after`: how long, in seconds, a server's Retry-After can make one request wait; it does not count towards
    `total_seconds`. `connect_attempts`: a lower limit of tries while the server accepts no connection.
    `stall_seconds`: how long one answer may make no progress (see `transport`). ComfyUI cannot respond while a
    model load holds the interpreter. `idle_seconds`: how long a download is retried that makes no progress.
    """

    attempts: int = 6
    total_seconds: float = 30.0
    base_wait: float = 0.1
    max_wait: float = 8.0
    max_retry_after: float = 600.0
    connect_attempts: int = 6
    stall_seconds: float = 60.0
    idle_seconds: float = 300.0

    def limit_to(self, patience: float) -> Self:
        """The policy for a run that waits `patience` seconds for a target without progress."""
        longest = max(patience, MIN_PATIENCE)
        names = ("total_seconds", "max_retry_after", "stall_seconds", "idle_seconds")
        return replace(self, **{name: min(getattr(self, name), longest) for name in names})

    def draw_waits(self, random: Random) -> Iterator[float]:
        """Yield the wait in seconds before each further try, `attempts - 1` in all."""
        backoff = Backoff(self.base_wait, self.max_wait)
        for failures in range(self.attempts - 1):
            yield backoff.draw(failures, random)


# How sweeper tries again: `sweeper/running/README.md` says under "Retries" which applies when. One HTTP request has
# `RetryPolicy()`.
JUDGE_POLICY: Final = RetryPolicy(total_seconds=120.0, base_wait=1.0, max_wait=30.0, max_retry_after=120.0)
SUBMIT_AGAIN: Final = Backoff(base_wait=0.25, max_wait=30.0, jitter_from=0.5)
RECONNECT: Final = Backoff(base_wait=0.1, max_wait=10.0, jitter_from=0.5)


class RetryWaiter:
    """Waits between two tries of one client: the client's own backoff, and longer waits that the server asks for.

    `on_wait(seconds, reason)` is called when a wait for the server begins; concurrent waits that end at about the same
    time are reported once. `max_after_cut`: the longest wait for a server, in seconds, after `cut_short`.
    """

    def __init__(self, max_after_cut: float) -> None:
        self.on_wait: Callable[[float, str], None] | None = None
        self._max_after_cut = max_after_cut
        self._cut = asyncio.Event()
        self._reported_until = 0.0

    async def wait(
        self, own_wait: float, retry_after: float | None, reason: str, *, max_retry_after: float = float("inf")
    ) -> float:
        """Wait `own_wait` seconds, or `retry_after` seconds (at most `max_retry_after`) if that is longer.

        Returns the seconds that were waited because the server asked for it; 0.0 after the client's own wait.
        """
        is_cut = self._cut.is_set()
        server_wait = min(retry_after or 0.0, max_retry_after, self._max_after_cut if is_cut else max_retry_after)
        if server_wait <= own_wait:
            await asyncio.sleep(own_wait)
            return 0.0
        now = asyncio.get_running_loop().time()
        if self.on_wait is not None and now + server_wait > self._reported_until + 1.0:
            self._reported_until = now + server_wait
            self.on_wait(server_wait, reason)
        if is_cut:
            await asyncio.sleep(server_wait)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(server_wait):
                    await self._cut.wait()
        return server_wait

    def cut_short(self) -> None:
        """End all current waits for the server and limit later ones, because the run is being cancelled."""
        self._cut.set()
