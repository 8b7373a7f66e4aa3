"""How many jobs may be in flight on one target now: its setting, and what the server's 429s have taught us.

A full queue lowers the limit to what was in flight and closes the gate for as long as the server asks; every so many
accepted jobs raise it by one again (additive increase, as TCP does).
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

_SHORT: Final = 0.5  # seconds that a job has its place, below which the time between two jobs matters
_RAISE_AFTER: Final = 8  # accepted jobs, per place, before one more place is tried
_SHORTEST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 30.0  # seconds, where the server does not say


class Gate:
    """`most`: the setting, at least 1. `limit`: what is allowed now."""

    def __init__(self, most: int, random: Random) -> None:
        self.most = most
        self.limit = most
        self.inside = 0
        self._random = random
        self._closed_until = 0.0
        self._turned_away = 0
        self._accepted = 0
        self._changed = asyncio.Event()
        self.full_since: float | None = None
        self.pace: float | None = None  # seconds

    async def enter(self) -> None:
        """Wait for a free place and an open gate, and take the place."""
        await self.vacancy()
        self.inside += 1

    async def vacancy(self) -> None:
        """Wait for a free place and an open gate; the place is there for whoever enters first."""
        loop = asyncio.get_running_loop()
        while True:
            wait = self._closed_until - loop.time()
            if wait <= 0 and self.inside < self.limit:
                return
            try:
                async with asyncio.timeout(wait if wait > 0 else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def leave(self) -> None:
        self.inside -= 1
        self._wake()

    def held(self, seconds: float) -> None:
        """A job had its place for so long: the mean of the latest dozen or so is the pace."""
        self.pace = seconds if self.pace is None else 0.9 * self.pace + 0.1 * seconds

    @property
    def hurried(self) -> bool:
        """Whether jobs are so short that what lies between two of them matters."""
        return self.pace is not None and self.pace < _SHORT

    def accepted(self) -> None:
        """The server took a job."""
        self._turned_away, self.full_since = 0, None
        self._accepted += 1
        if self.limit < self.most and self._accepted >= _RAISE_AFTER * self.limit:
            self.limit += 1
            self._accepted = 0
            self._wake()

    def turned_away(self, retry_after: float | None) -> float:
        """The server took nothing: queue full, or overloaded. Returns the seconds until we ask again."""
        now = asyncio.get_running_loop().time()
        self.limit = max(1, min(self.limit, self.inside - 1))
        self._accepted = 0
        self._turned_away += 1
        self.full_since = now if self.full_since is None else self.full_since
        grown = min(_LONGEST_WAIT, 0.25 * 2**self._turned_away)
        # A server that says 0 is asked again soon, not in a circle.
        wait = max(retry_after, _SHORTEST_WAIT) if retry_after is not None else self._random.uniform(grown / 2, grown)
        self._closed_until = max(self._closed_until, now + wait)
        return wait

    def open(self) -> None:
        """Let everybody waiting look again at once, as when the run stops."""
        self._closed_until = 0.0
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Place:
    """One worker's place in a gate: entered before its job is sent, left when that is over or the worker gives up."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._since: float | None = None

    async def enter(self) -> None:
        """Wait for a place, unless it is held."""
        if self._since is None:
            await self._gate.enter()
            self._since = asyncio.get_running_loop().time()

    def accepted(self) -> None:
        """The server took the job."""
        self._gate.accepted()

    def leave(self) -> None:
        """Give the place free, if it is held, and tell the gate how long it was."""
        if self._since is not None:
            self._gate.held(asyncio.get_running_loop().time() - self._since)
            self._since = None
            self._gate.leave()

    def leave_if_hurried(self) -> None:
        """Give the place free where jobs are short."""
        if self._gate.hurried:
            self.leave()
