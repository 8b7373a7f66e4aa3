"""Supplies targets with new work items: one by one to a single target, in shards to several.

The plan's order keeps what a server has loaded as long as possible. If several targets took trials one by one, each
would load every model. Instead a target takes a shard, cut where the next trial would be the most expensive anyway. A
target that is done early takes the tail of the most expensive shard left, if that ends the run sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Final, Protocol

from sweeper.planning.order import TransitionCost
from sweeper.running.work import WorkItem

_MAX_SHARD: Final = 2_000  # items, because a shard is kept in memory


class WorkSource(Protocol):
    """Supplies new work items."""

    @property
    def is_empty(self) -> bool:
        """Whether every item was taken."""

    def take(self, target: str, /) -> WorkItem | None:
        """Take the target's next item; None if there is none for it, now or for good."""

    def unassign(self, target: str, /) -> None:
        """Give the items reserved for a target to the others."""


class SingleQueue:
    """Supplies items one by one, for a single target."""

    def __init__(self, items: Iterator[WorkItem]) -> None:
        self._items = items
        self._next_item = next(items, None)

    @property
    def is_empty(self) -> bool:
        return self._next_item is None

    def take(self, _target: str) -> WorkItem | None:
        item, self._next_item = self._next_item, next(self._items, None)
        return item

    def unassign(self, target: str) -> None:
        """Do nothing, because no item is reserved for a target."""


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
        """Take the next item out."""
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
        self._items = items
        self._transition_cost = transition_cost
        self._shard_size = max(1, min(_MAX_SHARD, -(-count // targets)))
        self._lookahead: deque[WorkItem] = deque()
        self._assigned: dict[str, Shard] = {}
        self._unassigned: list[Shard] = []

    @property
    def is_empty(self) -> bool:
        return not self._assigned and not self._unassigned and not self._look_ahead(1)

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

    def _look_ahead(self, count: int) -> int:
        """Fill the lookahead with up to `count` items. Returns how many it holds."""
        while len(self._lookahead) < count:
            item = next(self._items, None)
            if item is None:
                break
            self._lookahead.append(item)
        return len(self._lookahead)

    def _cut_shard(self) -> Shard | None:
        self._look_ahead(self._shard_size + self._shard_size // 2 + 1)
        count = find_shard_length(self._lookahead, self._shard_size, self._transition_cost)
        return Shard([self._lookahead.popleft() for _ in range(count)], self._transition_cost) if count else None

    def _steal_shard(self) -> Shard | None:
        costliest = max(self._assigned.values(), key=lambda shard: shard.cost, default=None)
        return costliest.split_tail(self._transition_cost) if costliest is not None else None


def make_work_source(
    items: Iterator[WorkItem], transition_cost: TransitionCost, *, count: int, reachable: int, targets: int
) -> WorkSource:
    """A source of `count` items: one queue if there is one target, else shards for the `reachable` ones."""
    if targets == 1:
        return SingleQueue(items)
    return ShardedQueue(items, transition_cost, count=count, targets=reachable)
