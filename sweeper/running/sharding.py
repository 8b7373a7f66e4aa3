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
    from sweeper.planning.transition_cost import Reruns
    from sweeper.running.work import Work

_MOST: Final = 2_000  # trials in a shard: what is handed out stands in memory


class Supply(Protocol):
    """Where fresh work comes from."""

    @property
    def empty(self) -> bool:
        """Whether every work was taken."""

    def take(self, target: str) -> Work | None:
        """The target's next work; None where there is none for it, now or for ever."""

    def release(self, target: str) -> None:
        """That target takes no more."""


class Line:
    """Works one by one, whoever asks: for a single target."""

    def __init__(self, fresh: Iterator[Work]) -> None:
        self._fresh = fresh
        self._next = next(fresh, None)

    @property
    def empty(self) -> bool:
        return self._next is None

    def take(self, target: str) -> Work | None:  # noqa: ARG002 - as Supply has it
        work, self._next = self._next, next(self._fresh, None)
        return work

    def release(self, target: str) -> None:
        """Nobody holds anything."""


class Shard:
    """Works in order, each with what it costs after the one before it; the first costs a fresh start."""

    def __init__(self, works: list[Work], reruns: Reruns) -> None:
        self._works: deque[tuple[Work, float]] = deque()
        self.cost = 0.0
        before = None
        for work in works:
            cost = reruns.between(before, work.trial)
            self._works.append((work, cost))
            self.cost += cost
            before = work.trial

    def __len__(self) -> int:
        return len(self._works)

    def take(self) -> Work:
        """The next work."""
        work, cost = self._works.popleft()
        self.cost -= cost
        return work

    def far_half(self, reruns: Reruns) -> Shard | None:
        """The works from a break near the middle on, taken out; None where the whole ends as soon without that."""
        costs = [cost for _, cost in self._works]
        if len(costs) < 2:
            return None
        start = best_break(costs, len(costs) // 4, len(costs) // 2, max(1, 3 * len(costs) // 4))
        if reruns.whole + sum(costs[start + 1 :]) >= self.cost:
            return None
        taken = [self._works.pop() for _ in range(len(costs) - start)]
        self.cost -= sum(cost for _, cost in taken)
        return Shard([work for work, _ in reversed(taken)], reruns)


def best_break(costs: list[float], least: int, wanted: int, most: int) -> int:
    """The place in `least..most`, at least 1, before the costliest work; of several the one nearest to `wanted`."""
    places = range(max(1, least), min(most, len(costs) - 1) + 1)
    return max(places, key=lambda place: (round(costs[place], 6), -abs(place - wanted)))


def piece(works: Iterable[Work], size: int, reruns: Reruns) -> int:
    """How many of the first of `works` make a piece of about `size`: it ends where the next work costs most anyway."""
    most = size + size // 2
    trials = [work.trial for work in islice(works, most + 1)]
    if len(trials) <= size:
        return len(trials)
    costs = [reruns.between(before, after) for before, after in pairwise(trials)]
    return best_break([0.0, *costs], size // 2, size, most)


class Shards:
    """Cuts `fresh`, about `count` works, into shards for so many targets."""

    def __init__(self, fresh: Iterator[Work], reruns: Reruns, *, count: int, targets: int) -> None:
        self._fresh = fresh
        self._reruns = reruns
        self._size = max(1, min(_MOST, -(-count // targets)))
        self._ahead: deque[Work] = deque()
        self._held: dict[str, Shard] = {}
        self._left: list[Shard] = []

    @property
    def empty(self) -> bool:
        return not self._held and not self._left and not self._look_ahead(1)

    def take(self, target: str) -> Work | None:
        if target not in self._held:
            shard = self._left.pop() if self._left else self._cut() or self._steal()
            if shard is None:
                return None
            self._held[target] = shard
        shard = self._held[target]
        work = shard.take()
        if not len(shard):
            del self._held[target]
        return work

    def release(self, target: str) -> None:
        shard = self._held.pop(target, None)
        if shard is not None:
            self._left.append(shard)

    def _look_ahead(self, count: int) -> int:
        """Have up to so many works at hand; returns how many there are."""
        while len(self._ahead) < count:
            work = next(self._fresh, None)
            if work is None:
                break
            self._ahead.append(work)
        return len(self._ahead)

    def _cut(self) -> Shard | None:
        """The next shard, about as long as a target's share."""
        self._look_ahead(self._size + self._size // 2 + 1)
        count = piece(self._ahead, self._size, self._reruns)
        return Shard([self._ahead.popleft() for _ in range(count)], self._reruns) if count else None

    def _steal(self) -> Shard | None:
        richest = max(self._held.values(), key=lambda shard: shard.cost, default=None)
        return richest.far_half(self._reruns) if richest is not None else None


def supply(fresh: Iterator[Work], reruns: Reruns, *, count: int, answering: int, targets: int) -> Supply:
    """One by one for a single target; in shards for several of which so many answer now, and are to share `count`."""
    return Line(fresh) if targets == 1 else Shards(fresh, reruns, count=count, targets=answering)
