"""How targets are supplied with fresh work: one by one, or in shards that keep what a server has loaded.

Trials come in the order in which a server re-runs least. Handing them out one by one would have every target load every
model; so a target takes a shard, cut where the next trial costs most anyway, and whoever is done early takes the far
half of the costliest shard left, where that ends the run sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from sweeper.planning.transition_cost import TransitionCost
    from sweeper.running.work import WorkItem

_MAX_SHARD: Final = 2_000  # trials in a shard: what is handed out stands in memory


class WorkSource(Protocol):
    """Where fresh work comes from."""

    @property
    def is_empty(self) -> bool:
        """Whether every work was taken."""

    def take(self, target: str) -> WorkItem | None:
        """The target's next work; None where there is none for it, now or for ever."""

    def unassign(self, target: str) -> None:
        """That target takes no more."""


class SingleQueue:
    """Works one by one, whoever asks: for a single target."""

    def __init__(self, items: Iterator[WorkItem]) -> None:
        self._items = items
        self._next_item = next(items, None)

    @property
    def is_empty(self) -> bool:
        return self._next_item is None

    def take(self, target: str) -> WorkItem | None:  # noqa: ARG002 - as Supply has it
        work, self._next_item = self._next_item, next(self._items, None)
        return work

    def unassign(self, target: str) -> None:
        """Nobody holds anything."""


class Shard:
    """Works in order, each with what it costs after the one before it; the first costs a fresh start."""

    def __init__(self, items: list[WorkItem], reruns: TransitionCost) -> None:
        self._items: deque[tuple[WorkItem, float]] = deque()
        self.cost = 0.0
        before = None
        for work in items:
            cost = reruns.compute(before, work.trial)
            self._items.append((work, cost))
            self.cost += cost
            before = work.trial

    def __len__(self) -> int:
        return len(self._items)

    def take(self) -> WorkItem:
        """The next work."""
        work, cost = self._items.popleft()
        self.cost -= cost
        return work

    def split_tail(self, reruns: TransitionCost) -> Shard | None:
        """The works from a break near the middle on, taken out; None where the whole ends as soon without that."""
        costs = [cost for _, cost in self._items]
        if len(costs) < 2:
            return None
        start = find_cut(costs, len(costs) // 4, len(costs) // 2, max(1, 3 * len(costs) // 4))
        if reruns.full_cost + sum(costs[start + 1 :]) >= self.cost:
            return None
        taken = [self._items.pop() for _ in range(len(costs) - start)]
        self.cost -= sum(cost for _, cost in taken)
        return Shard([work for work, _ in reversed(taken)], reruns)


def find_cut(costs: list[float], lowest: int, preferred: int, highest: int) -> int:
    """The place in `least..most`, at least 1, before the costliest work; of several the one nearest to `wanted`."""
    places = range(max(1, lowest), min(highest, len(costs) - 1) + 1)
    return max(places, key=lambda place: (round(costs[place], 6), -abs(place - preferred)))


def find_shard_length(items: Iterable[WorkItem], size: int, reruns: TransitionCost) -> int:
    """How many of the first of `works` make a piece of about `size`: it ends where the next work costs most anyway."""
    most = size + size // 2
    trials = [work.trial for work in islice(items, most + 1)]
    if len(trials) <= size:
        return len(trials)
    costs = [reruns.compute(before, after) for before, after in pairwise(trials)]
    return find_cut([0.0, *costs], size // 2, size, most)


class ShardedQueue:
    """Cuts `fresh`, about `count` works, into shards for so many targets."""

    def __init__(self, items: Iterator[WorkItem], reruns: TransitionCost, *, count: int, targets: int) -> None:
        self._items = items
        self._reruns = reruns
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
        work = shard.take()
        if not len(shard):
            del self._assigned[target]
        return work

    def unassign(self, target: str) -> None:
        shard = self._assigned.pop(target, None)
        if shard is not None:
            self._unassigned.append(shard)

    def _look_ahead(self, count: int) -> int:
        """Have up to so many works at hand; returns how many there are."""
        while len(self._lookahead) < count:
            work = next(self._items, None)
            if work is None:
                break
            self._lookahead.append(work)
        return len(self._lookahead)

    def _cut_shard(self) -> Shard | None:
        """The next shard, about as long as a target's share."""
        self._look_ahead(self._shard_size + self._shard_size // 2 + 1)
        count = find_shard_length(self._lookahead, self._shard_size, self._reruns)
        return Shard([self._lookahead.popleft() for _ in range(count)], self._reruns) if count else None

    def _steal_shard(self) -> Shard | None:
        richest = max(self._assigned.values(), key=lambda shard: shard.cost, default=None)
        return richest.split_tail(self._reruns) if richest is not None else None


def make_work_source(
    items: Iterator[WorkItem], reruns: TransitionCost, *, count: int, reachable: int, targets: int
) -> WorkSource:
    """One by one for a single target; in shards for several of which so many answer now, and are to share `count`."""
    return SingleQueue(items) if targets == 1 else ShardedQueue(items, reruns, count=count, targets=reachable)
