"""The work that is left, and who gets it next: several targets pull from one plan.

Lazy: the plan is walked as work is taken; several targets take it in shards. Work that a target gives back is next for
any target; work whose job may still stand on a server goes to that server only, because nobody else can look for it.
Where such a server goes for good, its jobs are done elsewhere, unless they outlive it (Comfy Cloud's do, and are paid
for): then they are left for the next run, which looks for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeper.store.records import OPEN

if TYPE_CHECKING:
    from sweeper.running.shards import Supply
    from sweeper.store.records import Job
    from sweeper.trial import Trial


@dataclass(slots=True)
class Work:
    """One digest to be brought to an end: the trial that shows it, and what was tried so far.

    `job`: the last submission, None where there is none that matters. `sent`: submissions in this run. `untried`: the
    store has no submission of it, so it need not be asked.
    """

    trial: Trial
    job: Job | None = None
    sent: int = 0
    out_of_memory: int = 0
    setbacks: int = 0  # times that the target stopped answering over it
    final: bool = False  # its row has got its last word
    untried: bool = False

    @property
    def pinned(self) -> str | None:
        """The target that alone can tell what became of it."""
        return self.job.target if self.job is not None and self.job.state in OPEN else None


class Backlog:
    """`opened`: work with jobs of unknown fate, to be settled first. `fresh`: the rest, taken lazily."""

    def __init__(self, opened: list[Work], fresh: Supply) -> None:
        self._waiting: deque[Work] = deque(opened)
        self._fresh = fresh
        self._gone: dict[str, bool] = {}  # target -> whether its jobs outlive our connection to it
        self._taken = 0
        self._closed = False
        self._changed = asyncio.Event()
        self.left = 0  # works that are left for the next run, because their jobs stand

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._wake()

    @property
    def taken(self) -> int:
        """How much is in somebody's hands now."""
        return self._taken

    @property
    def closed(self) -> bool:
        return self._closed

    async def take(self, target: str) -> Work | None:
        """The next work for that target; waits while others may still give some back. None: there will be no more."""
        while not self._closed:
            work = self._next(target)
            if work is not None:
                self._taken += 1
                return work
            if not self._taken and not self._waiting and self._fresh.empty:
                break
            await self._changed.wait()
        return None

    def done(self) -> None:
        """A work that was taken has come to its end."""
        self._taken -= 1
        self._wake()

    def leave(self) -> None:
        """A work that was taken is left for the next run, with its job."""
        self.left += 1
        self.done()

    def give_back(self, work: Work) -> None:
        """A work that was taken is next again, for its own target or for any."""
        if self._gone.get(work.pinned or "", False):
            self.leave()
            return
        self._taken -= 1
        self._free(work)
        self._waiting.appendleft(work)
        self._wake()

    def release(self, target: str, *, durable: bool) -> None:
        """That target will not come back: what waits for it is free for the others, as new work, or where its jobs
        are `durable`, left for the next run.
        """
        self._gone[target] = durable
        self._fresh.release(target)
        if durable:
            staying = [work for work in self._waiting if work.pinned == target]
            self.left += len(staying)
            self._waiting = deque(work for work in self._waiting if work not in staying)
        for work in self._waiting:
            self._free(work)
        self._wake()

    def _free(self, work: Work) -> None:
        if work.pinned in self._gone:
            work.job = None

    def _next(self, target: str) -> Work | None:
        for work in self._waiting:
            if work.pinned in (None, target):
                self._waiting.remove(work)
                return work
        return self._fresh.take(target)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
