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
    from sweeper.running.sharding import WorkSource
    from sweeper.running.work import WorkItem


class WorkQueue:
    """`opened`: work with jobs of unknown fate, to be settled first. `fresh`: the rest, taken lazily."""

    def __init__(self, unresolved: list[WorkItem], source: WorkSource) -> None:
        self._pending: deque[WorkItem] = deque(unresolved)
        self._source = source
        self._in_progress: Counter[str] = Counter()  # by target: how much is in its hands now
        self._suspended: set[str] = set()
        self._dropped: set[str] = set()
        self._closed = False
        self._changed = asyncio.Event()
        self._postponed: dict[
            str, list[WorkItem]
        ] = {}  # target -> works left for the next run, because their jobs may stand

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._wake()

    async def take(self, target: str) -> WorkItem | None:
        """The next work for that target; waits while others may still give some back. None: there will be no more."""
        while not self._is_exhausted and target not in self._dropped:
            work = self._take_next(target)
            if work is not None:
                self._in_progress[target] += 1
                return work
            await self._changed.wait()
        return None

    async def wait_changed(self) -> None:
        """Return when something was taken back, came to its end, or when who takes work has changed."""
        await self._changed.wait()

    async def wait_finished(self) -> None:
        """Return when nobody gets any more work."""
        while not self._is_exhausted:
            await self._changed.wait()

    def is_stuck(self, reachable: Collection[str]) -> bool:
        """Whether none of those targets has work or can have any of what is left."""
        if any(self._in_progress[target] for target in reachable):
            return False
        free = not self._source.is_empty or any(
            work.pinned_to is None or work.pinned_to in reachable for work in self._pending
        )
        return not (reachable and free)

    def complete(self, target: str) -> None:
        """A work that the target took has come to its end."""
        self._in_progress[target] -= 1
        self._wake()

    def postpone(self, item: WorkItem, target: str) -> None:
        """A work that the target took is left for the next run, with its job."""
        self._postponed.setdefault(target, []).append(item)
        self.complete(target)

    def list_postponed(self) -> dict[str, list[WorkItem]]:
        """By target, the works that nobody gets in this run any more and whose jobs may stand there."""
        found = {target: list(works) for target, works in self._postponed.items()}
        for work in self._pending:
            if work.pinned_to is not None:
                found.setdefault(work.pinned_to, []).append(work)
        return found

    def requeue(self, item: WorkItem, target: str) -> None:
        """A work that the target took is next again, for its own target or for any."""
        if item.pinned_to in self._dropped:
            self.postpone(item, target)
            return
        self._pending.appendleft(item)
        self.complete(target)

    def find_pinned(self, target: str) -> list[WorkItem]:
        """The waiting works that only that target can bring to an end."""
        return [work for work in self._pending if work.pinned_to == target]

    def has_our_ids(self, target: str) -> bool:
        """Whether that target is known for a ComfyUI by the waiting works it has: that alone takes a client's ids."""
        ids = [(work.job.id, work.job.prompt_id) for work in self.find_pinned(target) if work.job is not None]
        return any(ours == theirs for ours, theirs in ids)

    def suspend(self, target: str) -> None:
        """That target does not answer now: it gets nothing, and what it was to have of the fresh work is anybody's."""
        self._suspended.add(target)
        self._source.unassign(target)
        self._wake()

    def resume(self, target: str) -> None:
        """That target answers again."""
        self._suspended.discard(target)
        self._wake()

    def drop_target(self, target: str) -> None:
        """That target gets no more work: what was never sent is the others', what may stand there is left."""
        self._dropped.add(target)
        self._source.unassign(target)
        if staying := self.find_pinned(target):
            self._postponed.setdefault(target, []).extend(staying)
            self._pending = deque(work for work in self._pending if work.pinned_to != target)
        self._wake()

    @property
    def _is_exhausted(self) -> bool:
        return self._closed or (not self._in_progress.total() and not self._pending and self._source.is_empty)

    def _take_next(self, target: str) -> WorkItem | None:
        if target in self._suspended:
            return None
        for place, work in enumerate(self._pending):
            if work.pinned_to in (None, target):
                del self._pending[place]
                return work
        return self._source.take(target)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
