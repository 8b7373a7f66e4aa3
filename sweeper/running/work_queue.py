"""The queue of a run's remaining work items, from which all targets take.

The plan is walked lazily, as items are taken; several targets take it in shards. An item that a target returns is next
for any target. An item whose job may still be on a server is pinned to that server, because only it can tell.

If that server is given up, the item is postponed: the next run checks it first. A broken connection does not mean that
the server is dead, so another target must not execute the item meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection

from sweeper.running.sharding import WorkSource
from sweeper.running.work import WorkItem


class WorkQueue:
    """`unresolved`: items whose jobs were submitted earlier with an unknown outcome; they go first.

    `source`: the other items.
    """

    def __init__(self, unresolved: list[WorkItem], source: WorkSource) -> None:
        self._pending: deque[WorkItem] = deque(unresolved)
        self._source = source
        self._in_progress: Counter[str] = Counter()  # by target: how many items it has taken and not yet returned
        self._suspended: set[str] = set()
        self._blocked: set[str] = set()  # targets whose next job does not fit into the budget
        self._dropped: set[str] = set()
        self._closed = False
        self._changed = asyncio.Event()
        self._postponed: dict[str, list[WorkItem]] = {}  # by target

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._wake()

    async def take(self, target: str) -> WorkItem | None:
        """Take the next item for a target, waiting while others may return some. None: there will be no more."""
        while not self._is_exhausted and target not in self._dropped:
            item = self._take_next(target)
            if item is not None:
                self._in_progress[target] += 1
                return item
            await self._changed.wait()
        return None

    async def wait_changed(self) -> None:
        """Wait until an item is returned or completed, or a target is suspended, resumed or dropped."""
        await self._changed.wait()

    async def wait_finished(self) -> None:
        """Wait until no target can get any more work."""
        while not self._is_exhausted:
            await self._changed.wait()

    def is_stuck(self, reachable: Collection[str]) -> bool:
        """Whether none of the `reachable` targets has an item or can get one."""
        if any(self._in_progress[target] for target in reachable):
            return False
        if any(item.pinned_to in reachable for item in self._pending):
            return False
        has_new_work = not self._source.is_empty or any(item.pinned_to is None for item in self._pending)
        return not (set(reachable) - self._blocked and has_new_work)

    def is_over_budget(self, targets: Collection[str]) -> bool:
        """Whether work is left that none of the `targets` gets, because it does not fit into the budget."""
        return bool(self._blocked) and not self._is_exhausted and self.is_stuck(targets)

    def complete(self, target: str) -> None:
        """Note that a target is done with an item that it took."""
        self._in_progress[target] -= 1
        self._wake()

    def postpone(self, item: WorkItem, target: str) -> None:
        """Leave an item that the target took for the next run, with its job."""
        self._postponed.setdefault(target, []).append(item)
        self.complete(target)

    def list_postponed(self) -> dict[str, list[WorkItem]]:
        """By target, the postponed items, and the pinned ones that nobody took."""
        postponed = {target: list(items) for target, items in self._postponed.items()}
        for item in self._pending:
            if item.pinned_to is not None:
                postponed.setdefault(item.pinned_to, []).append(item)
        return postponed

    def requeue(self, item: WorkItem, target: str) -> None:
        """Put an item that the target took back to the front, for its own target if it is pinned, else for any."""
        if item.pinned_to in self._dropped:
            self.postpone(item, target)
            return
        self._pending.appendleft(item)
        self.complete(target)

    def find_pinned(self, target: str) -> list[WorkItem]:
        """The queued items that are pinned to a target."""
        return [item for item in self._pending if item.pinned_to == target]

    def has_our_ids(self, target: str) -> bool:
        """Whether a job pinned to the target has the id that we gave it, so that the target must be a ComfyUI.

        Comfy Cloud gives every job an id of its own.
        """
        jobs = [item.job for item in self.find_pinned(target) if item.job is not None]
        return any(job.id == job.prompt_id for job in jobs)

    def block(self, target: str) -> None:
        """Give a target no new work, because its next job does not fit into the budget. It gets its own items back."""
        self._blocked.add(target)
        self._source.unassign(target)
        self._wake()

    def unblock_all(self) -> None:
        """Give all targets new work again, because more jobs may fit into the budget now."""
        if self._blocked:
            self._blocked.clear()
            self._wake()

    def suspend(self, target: str) -> None:
        """Give a target that does not respond no work, and the items reserved for it to the others."""
        self._suspended.add(target)
        self._source.unassign(target)
        self._wake()

    def resume(self, target: str) -> None:
        """Give a suspended target work again."""
        self._suspended.discard(target)
        self._wake()

    def drop_target(self, target: str) -> None:
        """Give a target no more work in this run: postpone its pinned items, and leave the others to other targets."""
        self._dropped.add(target)
        self._source.unassign(target)
        if pinned := self.find_pinned(target):
            self._postponed.setdefault(target, []).extend(pinned)
            self._pending = deque(item for item in self._pending if item.pinned_to != target)
        self._wake()

    @property
    def _is_exhausted(self) -> bool:
        return self._closed or (not self._in_progress.total() and not self._pending and self._source.is_empty)

    def _take_next(self, target: str) -> WorkItem | None:
        if target in self._suspended:
            return None
        takes = (target,) if target in self._blocked else (None, target)
        for index, item in enumerate(self._pending):
            if item.pinned_to in takes:
                del self._pending[index]
                return item
        return self._source.take(target) if None in takes else None

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
