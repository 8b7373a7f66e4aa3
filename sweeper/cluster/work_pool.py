"""The work that no worker has: fresh trials in run order, returned ones, and open jobs to search for.

Consecutive trials share expensive nodes. A batch is therefore a piece of the run order, cut where the next trial costs
most anyway. Batches get smaller as the remaining work does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from sweeper.planning.order import TransitionCost
from sweeper.running.work_queue import Lookahead, Shard, WorkItem, find_shard_length

MAX_BATCH_SIZE: Final = 64  # trials; a dead worker leaves at most that many jobs to search for
BATCHES_PER_WORKER: Final = 2  # parts into which the remaining work is cut; idle workers steal the rest at the end


class WorkPool:
    """Hands out batches. `total`: the number of all items, including those in `open_by_server`."""

    def __init__(self, fresh: Iterator[WorkItem], total: int, transition_cost: TransitionCost) -> None:
        self._transition_cost = transition_cost
        self._fresh = Lookahead(fresh, 1)
        self._returned: deque[WorkItem] = deque()
        self.open_by_server: dict[str, list[WorkItem]] = {}  # items whose job may be on that server
        self.delayed = 0  # items that wait for their retry
        self.remaining = total
        self.closed = False
        self.on_change: Callable[[], None] = lambda: None  # called when there is something to hand out

    def batch_size(self, workers: int) -> int:
        """How many trials the next batch should have."""
        return max(1, min(MAX_BATCH_SIZE, math.ceil(self.remaining / (BATCHES_PER_WORKER * max(1, workers)))))

    def take(self, size: int) -> list[WorkItem]:
        """Take about `size` items for a batch, returned ones first; an empty list if there are none now."""
        if self.closed:
            return []
        source = self._returned or self._fresh.fill(size + size // 2 + 1)
        count = find_shard_length(source, size, self._transition_cost)
        items = [source.popleft() for _ in range(count)]
        self._fresh.fill(1)
        return items

    def count_to_steal(self, submitted: list[WorkItem], pending: list[WorkItem]) -> int:
        """How many of the last `pending` items, queued on one worker behind `submitted`, an idle worker should take."""
        if len(pending) == 1 and submitted:
            cost = self._transition_cost.compute(submitted[-1].trial, pending[0].trial)
            return int(self._transition_cost.full_cost < cost * (len(submitted) + 1))
        tail = Shard(pending, self._transition_cost).split_tail(self._transition_cost)
        return 0 if tail is None else len(tail)

    def requeue(self, item: WorkItem) -> None:
        """Return an item that any worker may submit."""
        self._returned.append(item)
        self.on_change()

    def put_back(self, items: list[WorkItem]) -> None:
        """Put items back that were taken, to be taken next."""
        self._returned.extendleft(reversed(items))

    def add_open_item(self, server_id: str, item: WorkItem) -> None:
        """Add an item whose job may be on that server. In a closed pool, it stays open on record instead."""
        if self.closed:
            return
        self.open_by_server.setdefault(server_id, []).append(item)
        self.on_change()

    def complete(self) -> None:
        self.remaining -= 1

    @property
    def idle(self) -> bool:
        """Whether no item waits to be submitted."""
        return not self._fresh and not self._returned

    @property
    def is_waiting(self) -> bool:
        """Whether items wait for their retry, or for a worker that can reach the server of their job."""
        return bool(self.delayed or self.open_by_server)

    @property
    def empty(self) -> bool:
        """Whether no item waits at all, and none will."""
        return (self.closed or (self.idle and not self.delayed)) and not self.open_by_server
