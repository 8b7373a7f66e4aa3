"""The work that is left, and who gets it next: several targets pull from one plan.

Lazy: the plan is walked as work is taken; several targets take it in shards. Work that a target gives back is next for
any target; work whose job may still stand on a server goes to that server only, because nobody else can look for it.
Where such a server is given up, what may stand there is left for the next run, which looks for it: a connection that
broke says nothing of a server that lives on and does the job.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.running.sharding import Supply
    from sweeper.running.work import Work


class Backlog:
    """`opened`: work with jobs of unknown fate, to be settled first. `fresh`: the rest, taken lazily."""

    def __init__(self, opened: list[Work], fresh: Supply) -> None:
        self._waiting: deque[Work] = deque(opened)
        self._fresh = fresh
        self._taken: Counter[str] = Counter()  # by target: how much is in its hands now
        self._suspended: set[str] = set()
        self._gone: set[str] = set()
        self._closed = False
        self._changed = asyncio.Event()
        self._left: dict[str, list[Work]] = {}  # target -> works left for the next run, because their jobs may stand

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._wake()

    async def take(self, target: str) -> Work | None:
        """The next work for that target; waits while others may still give some back. None: there will be no more."""
        while not self._over and target not in self._gone:
            work = self._next(target)
            if work is not None:
                self._taken[target] += 1
                return work
            await self._changed.wait()
        return None

    async def changed(self) -> None:
        """Return when something was taken back, came to its end, or when who takes work has changed."""
        await self._changed.wait()

    async def finished(self) -> None:
        """Return when nobody gets any more work."""
        while not self._over:
            await self._changed.wait()

    def stuck(self, answering: Collection[str]) -> bool:
        """Whether none of those targets has work or can have any of what is left."""
        if any(self._taken[target] for target in answering):
            return False
        free = not self._fresh.empty or any(work.pinned is None or work.pinned in answering for work in self._waiting)
        return not (answering and free)

    def done(self, target: str) -> None:
        """A work that the target took has come to its end."""
        self._taken[target] -= 1
        self._wake()

    def leave(self, work: Work, target: str) -> None:
        """A work that the target took is left for the next run, with its job."""
        self._left.setdefault(target, []).append(work)
        self.done(target)

    def left(self) -> dict[str, list[Work]]:
        """By target, the works that nobody gets in this run any more and whose jobs may stand there."""
        found = {target: list(works) for target, works in self._left.items()}
        for work in self._waiting:
            if work.pinned is not None:
                found.setdefault(work.pinned, []).append(work)
        return found

    def give_back(self, work: Work, target: str) -> None:
        """A work that the target took is next again, for its own target or for any."""
        if work.pinned in self._gone:
            self.leave(work, target)
            return
        self._waiting.appendleft(work)
        self.done(target)

    def pinned(self, target: str) -> list[Work]:
        """The waiting works that only that target can bring to an end."""
        return [work for work in self._waiting if work.pinned == target]

    def took_our_ids(self, target: str) -> bool:
        """Whether that target is known for a ComfyUI by the waiting works it has: that alone takes a client's ids."""
        ids = [(work.job.id, work.job.prompt_id) for work in self.pinned(target) if work.job is not None]
        return any(ours == theirs for ours, theirs in ids)

    def suspend(self, target: str) -> None:
        """That target does not answer now: it gets nothing, and what it was to have of the fresh work is anybody's."""
        self._suspended.add(target)
        self._fresh.release(target)
        self._wake()

    def resume(self, target: str) -> None:
        """That target answers again."""
        self._suspended.discard(target)
        self._wake()

    def release(self, target: str) -> None:
        """That target gets no more work: what was never sent is the others', what may stand there is left."""
        self._gone.add(target)
        self._fresh.release(target)
        if staying := self.pinned(target):
            self._left.setdefault(target, []).extend(staying)
            self._waiting = deque(work for work in self._waiting if work.pinned != target)
        self._wake()

    @property
    def _over(self) -> bool:
        return self._closed or (not self._taken.total() and not self._waiting and self._fresh.empty)

    def _next(self, target: str) -> Work | None:
        if target in self._suspended:
            return None
        for place, work in enumerate(self._waiting):
            if work.pinned in (None, target):
                del self._waiting[place]
                return work
        return self._fresh.take(target)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
