"""The work that no worker has: fresh trials in run order, what came back, and what must be looked for at its place.

Runs of consecutive trials share the expensive prefix, so a group is a piece of that order, cut where the next trial
costs most anyway; it is smaller the less is left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sweeper.running.sharding import Shard, find_shard_length

if TYPE_CHECKING:
    from sweeper.planning.transition_cost import TransitionCost
    from sweeper.running.work import WorkItem

MAX_BATCH_SIZE: Final = 64  # trials of one group: what a dead worker leaves to be looked for, and what a task carries
_BATCHES_PER_WORKER: Final = (
    2  # groups per worker that the rest is cut into; what waits on one goes to idle ones at the end
)


class WorkPool:
    """`todo`: how many works there are in all, those in `opened` included. `reruns`: what one costs after another."""

    def __init__(self, fresh: Iterator[WorkItem], total: int, transition_cost: TransitionCost) -> None:
        self._fresh: Iterator[WorkItem] | None = fresh
        self._transition_cost = transition_cost
        self._lookahead: deque[WorkItem] = deque()  # taken from `fresh` to see where it is best cut
        self._returned: deque[WorkItem] = deque()
        self.open_by_server: dict[str, list[WorkItem]] = {}
        self.delayed = 0  # works that wait for their next try
        self.remaining = total
        self.closed = False
        self.on_change: Callable[[], None] = lambda: None  # called when there is something to hand out

    def batch_size(self, workers: int) -> int:
        """How many trials the next group should have."""
        return max(1, min(MAX_BATCH_SIZE, math.ceil(self.remaining / (_BATCHES_PER_WORKER * max(1, workers)))))

    def take(self, size: int) -> list[WorkItem]:
        """A group of about `size` works to submit, what came back first; none: there are none now."""
        if self.closed:
            return []
        source = self._returned or self._look_ahead(size + size // 2 + 1)
        count = find_shard_length(source, size, self._transition_cost)
        found = [source.popleft() for _ in range(count)]
        self._look_ahead(1)
        return found

    def count_to_steal(self, sent: list[WorkItem], pending: list[WorkItem]) -> int:
        """How many of `works`, which wait in this order on one worker behind `sent`, another should rather have: the
        last so many.
        """
        if len(pending) == 1 and sent:
            cost = self._transition_cost.compute(sent[-1].trial, pending[0].trial)
            return int(self._transition_cost.full_cost < cost * (len(sent) + 1))
        far = Shard(pending, self._transition_cost).split_tail(self._transition_cost)
        return 0 if far is None else len(far)

    def _look_ahead(self, count: int) -> deque[WorkItem]:
        while self._fresh is not None and len(self._lookahead) < count:
            work = next(self._fresh, None)
            if work is None:
                self._fresh = None
            else:
                self._lookahead.append(work)
        return self._lookahead

    def requeue(self, item: WorkItem) -> None:
        """A work that is to be submitted, by anybody."""
        self._returned.append(item)
        self.on_change()

    def add_open_item(self, server_id: str, item: WorkItem) -> None:
        """A work whose job may stand on the server at that place; once closed, it stays open on record instead."""
        if self.closed:
            return
        self.open_by_server.setdefault(server_id, []).append(item)
        self.on_change()

    def complete(self) -> None:
        """A work has come to its end."""
        self.remaining -= 1

    @property
    def idle(self) -> bool:
        """Whether nothing is known to wait here; `take` has then shown that the plan is at its end."""
        return self._fresh is None and not self._lookahead and not self._returned

    @property
    def empty(self) -> bool:
        return (self.closed or (self.idle and not self.delayed)) and not self.open_by_server
