"""The queue of a run's remaining work items, from which all targets take.

The plan is walked lazily, as items are taken. An item that a target returns is next for any target. An item whose job
may still be on a server is pinned to that server, because only it can tell.

If that server is given up, the item is postponed: the next run checks it first. A broken connection does not mean that
the server is dead, so another target must not execute the item meanwhile.

The plan's order keeps what a server has loaded as long as possible. If several targets took trials one by one, each
would load every model. Instead a target takes a shard, cut where the next trial would be the most expensive anyway. A
target that is done early takes the tail of the most expensive shard left, if that ends the run sooner.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Final, Protocol

from sweeper.comfy.protocol import JobState
from sweeper.errors import OUT_OF_MEMORY
from sweeper.model.trial import Trial
from sweeper.planning.order import TransitionCost
from sweeper.store.records import FAILED, OPEN_STATES, JobRecord


@dataclass(slots=True)
class WorkItem:
    """One digest to execute, by the first trial that has it; trials with the same digest share the result.

    `job`: the last submission that matters, if any. `submissions`: how many this run made. `never_submitted`: the
    store has no submission of this digest, so it need not be queried.
    """

    trial: Trial
    job: JobRecord | None = None
    submissions: int = 0
    memory_failures: int = 0
    consecutive_failures: int = 0  # failed attempts to reach the target about this item
    first_failure_at: float | None = None  # when they began, by the event loop's clock
    ended_job: str | None = None  # the id of the last job that the target was seen to have ended
    finished: bool = False  # its result rows are final for this run
    never_submitted: bool = False
    deaths: list[str] = field(default_factory=list)  # how launched ComfyUIs ended that executed it
    is_unknown: bool = False  # its server cannot say what became of its open job, so the next run cannot either
    known_losses: int = 0  # `Uploads.losses` of the target when the item's files were last uploaded

    @property
    def open_job(self) -> JobRecord | None:
        """The last job, if it may still be on its server."""
        return self.job if self.job is not None and self.job.state in OPEN_STATES else None

    @property
    def pinned_to(self) -> str | None:
        """The target that may still have this item's job, so that no other may execute the item."""
        return self.open_job.target if self.open_job is not None else None

    def reset_failures(self) -> None:
        """Forget earlier failures, because the target was seen to process the job.

        Not if the job had ended before: what fails since then are its files, and no job runs after its end.
        """
        if self.job is None or self.job.id != self.ended_job:
            self.consecutive_failures, self.first_failure_at = 0, None


# Comfy Cloud reports the first five, for its own failures; the others are what Python raises when its network fails.
_TRANSIENT: Final = re.compile(
    r"ModelDownloadError|ImageDownloadError|ServiceError|WebSocketError|DispatcherError|ConnectionError|ConnectionResetError|ConnectionAbortedError|"
    r"BrokenPipeError|ConnectTimeout|ReadTimeout|TimeoutError|RemoteDisconnected|IncompleteRead|ServiceUnavailable"
)


def is_worth_retrying(item: WorkItem, job: JobState | JobRecord) -> bool:
    """Whether to submit the item again after its job ended in this state. Counts the item's memory failures.

    Worth it are failures that may well not repeat: a full memory (once), a broken network connection of the server
    itself. A node that failed on its inputs would fail again, so it is not paid for twice.
    """
    if is_out_of_memory(job):
        item.memory_failures += 1
        return item.memory_failures == 1
    return may_pass(job)


def is_out_of_memory(job: JobState | JobRecord) -> bool:
    """Whether the job ran out of memory. ComfyUI unloads its models then, so one retry may succeed."""
    text = f"{job.error_type or ''} {job.error or ''}"
    return job.state == FAILED and OUT_OF_MEMORY.search(text) is not None


def may_pass(job: JobState | JobRecord) -> bool:
    """Whether a job failed for a reason that may pass: out of memory, or nothing to do with its workflow."""
    return is_out_of_memory(job) or (job.state == FAILED and _TRANSIENT.search(job.error_type or "") is not None)


_MAX_SHARD: Final = 2_000  # items, because a shard is kept in memory


class WorkSource(Protocol):
    @property
    def is_empty(self) -> bool:
        """Whether every item was taken."""

    def take(self, target: str, /) -> WorkItem | None:
        """Take the target's next item; None if there is none for it, now or for good."""

    def unassign(self, target: str, /) -> None:
        """Give the items reserved for a target to the others."""


class Lookahead(deque[WorkItem]):
    """The next `items`, as many as `fill` was asked for. `count` of them are there from the beginning."""

    def __init__(self, items: Iterator[WorkItem], count: int = 0) -> None:
        super().__init__()
        self._items = items
        self.fill(count)

    def fill(self, count: int) -> Lookahead:
        """Hold `count` items, or all that are left."""
        self.extend(islice(self._items, max(0, count - len(self))))
        return self


class SingleQueue:
    """Supplies items one by one, for a single target. `ahead`: the next ones, to which others may be added."""

    def __init__(self, items: Iterator[WorkItem]) -> None:
        self.ahead = Lookahead(items, 1)

    @property
    def is_empty(self) -> bool:
        return not self.ahead

    def take(self, _target: str) -> WorkItem | None:
        item = self.ahead.popleft() if self.ahead else None
        self.ahead.fill(1)
        return item

    def unassign(self, target: str) -> None: ...


class Shard:
    """Consecutive items, each with its cost after the one before it; the first costs a whole graph.

    `cost`: the sum, in the unit of `transition_cost`.
    """

    def __init__(self, items: list[WorkItem], transition_cost: TransitionCost) -> None:
        self._items: deque[tuple[WorkItem, float]] = deque()
        self.cost = 0.0
        previous = None
        for item in items:
            cost = transition_cost.compute(previous, item.trial)
            self._items.append((item, cost))
            self.cost += cost
            previous = item.trial

    def __len__(self) -> int:
        return len(self._items)

    def take(self) -> WorkItem:
        item, cost = self._items.popleft()
        self.cost -= cost
        return item

    def split_tail(self, transition_cost: TransitionCost) -> Shard | None:
        """Take out about the second half, cut at an expensive item; None if splitting would not end the run sooner."""
        costs = [cost for _, cost in self._items]
        if len(costs) < 2:
            return None
        start = find_cut(costs, len(costs) // 4, len(costs) // 2, max(1, 3 * len(costs) // 4))
        if transition_cost.full_cost + sum(costs[start + 1 :]) >= self.cost:
            return None
        tail = [self._items.pop() for _ in range(len(costs) - start)]
        self.cost -= sum(cost for _, cost in tail)
        return Shard([item for item, _ in reversed(tail)], transition_cost)


def find_cut(costs: list[float], lowest: int, preferred: int, highest: int) -> int:
    """The index of the highest cost within `lowest..highest`, at least 1; of equal ones the nearest to `preferred`."""
    indexes = range(max(1, lowest), min(highest, len(costs) - 1) + 1)
    return max(indexes, key=lambda index: (round(costs[index], 6), -abs(index - preferred)))


def find_shard_length(items: Iterable[WorkItem], size: int, transition_cost: TransitionCost) -> int:
    """How many of the first `items` make a shard of about `size`, cut before the most expensive item."""
    highest = size + size // 2
    trials = [item.trial for item in islice(items, highest + 1)]
    if len(trials) <= size:
        return len(trials)
    costs = [transition_cost.compute(before, after) for before, after in pairwise(trials)]
    return find_cut([0.0, *costs], size // 2, size, highest)


class ShardedQueue:
    """Cuts `items`, about `count` in number, into shards for this many `targets`."""

    def __init__(self, items: Iterator[WorkItem], transition_cost: TransitionCost, *, count: int, targets: int) -> None:
        self._transition_cost = transition_cost
        self._shard_size = max(1, min(_MAX_SHARD, -(-count // targets)))
        self._lookahead = Lookahead(items)
        self._assigned: dict[str, Shard] = {}
        self._unassigned: list[Shard] = []

    @property
    def is_empty(self) -> bool:
        return not self._assigned and not self._unassigned and not self._lookahead.fill(1)

    def take(self, target: str) -> WorkItem | None:
        if target not in self._assigned:
            shard = self._unassigned.pop() if self._unassigned else self._cut_shard() or self._steal_shard()
            if shard is None:
                return None
            self._assigned[target] = shard
        shard = self._assigned[target]
        item = shard.take()
        if not len(shard):
            del self._assigned[target]
        return item

    def unassign(self, target: str) -> None:
        shard = self._assigned.pop(target, None)
        if shard is not None:
            self._unassigned.append(shard)

    def _cut_shard(self) -> Shard | None:
        ahead = self._lookahead.fill(self._shard_size + self._shard_size // 2 + 1)
        count = find_shard_length(ahead, self._shard_size, self._transition_cost)
        return Shard([self._lookahead.popleft() for _ in range(count)], self._transition_cost) if count else None

    def _steal_shard(self) -> Shard | None:
        costliest = max(self._assigned.values(), key=lambda shard: shard.cost, default=None)
        return costliest.split_tail(self._transition_cost) if costliest is not None else None


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

    def is_idle(self, target: str) -> bool:
        """Whether a target has no item that it took."""
        return not self._in_progress[target]

    def is_stuck(self, reachable: Collection[str]) -> bool:
        """Whether none of the `reachable` targets has an item or can get one."""
        if not all(map(self.is_idle, reachable)):
            return False
        if any(item.pinned_to in reachable for item in self._pending):
            return False
        has_new_work = not self._source.is_empty or any(item.pinned_to is None for item in self._pending)
        return not (set(reachable) - self._blocked and has_new_work)

    def is_over_budget(self, targets: Collection[str]) -> bool:
        """Whether work is left that none of the `targets` gets, because it does not fit into the budget."""
        return bool(self._blocked) and not self._is_exhausted and self.is_stuck(targets)

    def complete(self, target: str) -> None:
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
