"""How many jobs may be in flight on one target now: its setting, and what the server's 429s have taught us.

A full queue lowers the limit to what was in flight and closes the gate for as long as the server asks; every so many
accepted jobs raise it by one again (additive increase, as TCP does).
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

_SHORT_JOB: Final = 0.5  # seconds that a job has its place, below which the time between two jobs matters
_RAISE_AFTER: Final = 8  # accepted jobs, per place, before one more place is tried
_MIN_WAIT: Final = 0.05
_MAX_WAIT: Final = 30.0  # seconds, where the server does not say


class ConcurrencyLimit:
    """`most`: the setting, at least 1. `limit`: what is allowed now."""

    def __init__(self, maximum: int, random: Random) -> None:
        self.maximum = maximum
        self.current = maximum
        self.in_use = 0
        self._random = random
        self._paused_until = 0.0
        self._queue_full_count = 0
        self._accepted_count = 0
        self._changed = asyncio.Event()
        self.full_since: float | None = None
        self.mean_duration: float | None = None  # seconds

    async def acquire(self) -> None:
        """Wait for a free place and an open gate, and take the place."""
        await self.wait_available()
        self.in_use += 1

    async def wait_available(self) -> None:
        """Wait for a free place and an open gate; the place is there for whoever enters first."""
        loop = asyncio.get_running_loop()
        while True:
            wait = self._paused_until - loop.time()
            if wait <= 0 and self.in_use < self.current:
                return
            try:
                async with asyncio.timeout(wait if wait > 0 else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def release(self) -> None:
        self.in_use -= 1
        self._wake()

    def record_duration(self, seconds: float) -> None:
        """A job had its place for so long: the mean of the latest dozen or so is the pace."""
        self.mean_duration = seconds if self.mean_duration is None else 0.9 * self.mean_duration + 0.1 * seconds

    @property
    def has_short_jobs(self) -> bool:
        """Whether jobs are so short that what lies between two of them matters."""
        return self.mean_duration is not None and self.mean_duration < _SHORT_JOB

    def record_accepted(self) -> None:
        """The server took a job."""
        self._queue_full_count, self.full_since = 0, None
        self._accepted_count += 1
        if self.current < self.maximum and self._accepted_count >= _RAISE_AFTER * self.current:
            self.current += 1
            self._accepted_count = 0
            self._wake()

    def record_queue_full(self, retry_after: float | None) -> float:
        """The server took nothing: queue full, or overloaded. Returns the seconds until we ask again."""
        now = asyncio.get_running_loop().time()
        self.current = max(1, min(self.current, self.in_use - 1))
        self._accepted_count = 0
        self._queue_full_count += 1
        self.full_since = now if self.full_since is None else self.full_since
        grown = min(_MAX_WAIT, 0.25 * 2**self._queue_full_count)
        # A server that says 0 is asked again soon, not in a circle.
        wait = max(retry_after, _MIN_WAIT) if retry_after is not None else self._random.uniform(grown / 2, grown)
        self._paused_until = max(self._paused_until, now + wait)
        return wait

    def wake_all(self) -> None:
        """Let everybody waiting look again at once, as when the run stops."""
        self._paused_until = 0.0
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Permit:
    """One worker's place in a gate: entered before its job is sent, left when that is over or the worker gives up."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._limit = limit
        self._acquired_at: float | None = None

    async def acquire(self) -> None:
        """Wait for a place, unless it is held."""
        if self._acquired_at is None:
            await self._limit.acquire()
            self._acquired_at = asyncio.get_running_loop().time()

    def record_accepted(self) -> None:
        """The server took the job."""
        self._limit.record_accepted()

    def release(self) -> None:
        """Give the place free, if it is held, and tell the gate how long it was."""
        if self._acquired_at is not None:
            self._limit.record_duration(asyncio.get_running_loop().time() - self._acquired_at)
            self._acquired_at = None
            self._limit.release()

    def release_if_short(self) -> None:
        """Give the place free where jobs are short."""
        if self._limit.has_short_jobs:
            self.release()
