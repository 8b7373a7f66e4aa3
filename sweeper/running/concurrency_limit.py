"""Limits the jobs in flight on one target, and adapts the limit when the server's queue is full.

A full queue (HTTP 429) lowers the limit below the number of jobs in flight and pauses submissions for as long as the
server asks. After a number of accepted jobs the limit rises by one again (additive increase, as in TCP).
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from sweeper.comfy.retry import SUBMIT_AGAIN
from sweeper.running.stop_control import wait_at_most

_SHORT_JOB: Final = 0.5  # seconds: with jobs shorter than this, the time between two jobs matters
_RAISE_AFTER: Final = 8  # accepted jobs per permit before the limit rises by one
_MIN_WAIT: Final = 0.05  # seconds, also if the server asks for 0, so that we do not retry in a busy loop


class ConcurrencyLimit:
    """A semaphore whose size adapts. `maximum`: the configured size, at least 1; `current`: the size now.

    `full_since`: the loop's time since when the server has accepted nothing; None after an accepted job.
    """

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
        self.mean_duration: float | None = None  # seconds, of about the last ten jobs

    async def acquire(self) -> None:
        await self.wait_available()
        self.in_use += 1

    async def wait_available(self) -> None:
        """Wait for a free permit without taking it: another waiter may take it first."""
        loop = asyncio.get_running_loop()
        while True:
            wait = self._paused_until - loop.time()
            if wait <= 0 and self.in_use < self.current:
                return
            await wait_at_most(wait if wait > 0 else None, self._changed.wait())

    def release(self) -> None:
        self.in_use -= 1
        self._wake()

    @property
    def has_short_jobs(self) -> bool:
        """Whether jobs are so short that the time between two of them matters."""
        return self.mean_duration is not None and self.mean_duration < _SHORT_JOB

    def record_accepted(self) -> None:
        """Note that the server accepted a job; this may raise the limit."""
        self._queue_full_count, self.full_since = 0, None
        self._accepted_count += 1
        if self.current < self.maximum and self._accepted_count >= _RAISE_AFTER * self.current:
            self.current += 1
            self._accepted_count = 0
            self._wake()

    def record_queue_full(self, retry_after: float | None) -> float:
        """Lower the limit and pause, because the server's queue is full. Returns the pause in seconds.

        `retry_after`: the pause that the server asks for, in seconds; None if it names none.
        """
        now = asyncio.get_running_loop().time()
        self.current = max(1, min(self.current, self.in_use - 1))
        self._accepted_count = 0
        self._queue_full_count += 1
        self.full_since = now if self.full_since is None else self.full_since
        if retry_after is None:
            wait = SUBMIT_AGAIN.draw(self._queue_full_count, self._random)
        else:
            wait = max(retry_after, _MIN_WAIT)
        self._paused_until = max(self._paused_until, now + wait)
        return wait

    def record_death(self) -> None:
        """Note that the server died, so that the next jobs run one at a time, and show which of them kills it."""
        self.current, self._accepted_count = 1, 0

    def wake_all(self) -> None:
        """End the pause and let all waiters check again, for example because the run stops."""
        self._paused_until = 0.0
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Permit:
    """One permit of a ConcurrencyLimit, held from before a job is submitted until it ends; reusable."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit = limit
        self._acquired_at: float | None = None

    async def acquire(self) -> None:
        """Wait for a permit; returns at once if it is held already."""
        if self._acquired_at is None:
            await self.limit.acquire()
            self._acquired_at = asyncio.get_running_loop().time()

    def release(self) -> None:
        """Release the permit, if it is held, and record how long it was."""
        if self._acquired_at is not None:
            seconds, mean = asyncio.get_running_loop().time() - self._acquired_at, self.limit.mean_duration
            self.limit.mean_duration = seconds if mean is None else 0.9 * mean + 0.1 * seconds
            self._acquired_at = None
            self.limit.release()

    def release_if_short(self) -> None:
        if self.limit.has_short_jobs:
            self.release()
