"""The work that no worker has: fresh trials in run order, what came back, and what must be looked for at its place.

Runs of consecutive trials share the expensive prefix, so a group is a piece of that order, cut where the next trial
costs most anyway; it is smaller the less is left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sweeper.running.sharding import Shard, piece

if TYPE_CHECKING:
    from sweeper.planning.transition_cost import Reruns
    from sweeper.running.work import Work

MOST: Final = 64  # trials of one group: what a dead worker leaves to be looked for, and what a task carries
_SHARES: Final = 2  # groups per worker that the rest is cut into; what waits on one goes to idle ones at the end


class Pool:
    """`todo`: how many works there are in all, those in `opened` included. `reruns`: what one costs after another."""

    def __init__(self, fresh: Iterator[Work], todo: int, reruns: Reruns) -> None:
        self._fresh: Iterator[Work] | None = fresh
        self._reruns = reruns
        self._ahead: deque[Work] = deque()  # taken from `fresh` to see where it is best cut
        self._returned: deque[Work] = deque()
        self.opened: dict[str, list[Work]] = {}
        self.later = 0  # works that wait for their next try
        self.left = todo
        self.closed = False
        self.wake: Callable[[], None] = lambda: None  # called when there is something to hand out

    def size(self, workers: int) -> int:
        """How many trials the next group should have."""
        return max(1, min(MOST, math.ceil(self.left / (_SHARES * max(1, workers)))))

    def take(self, size: int) -> list[Work]:
        """A group of about `size` works to submit, what came back first; none: there are none now."""
        if self.closed:
            return []
        source = self._returned or self._look_ahead(size + size // 2 + 1)
        count = piece(source, size, self._reruns)
        found = [source.popleft() for _ in range(count)]
        self._look_ahead(1)
        return found

    def far_half(self, sent: list[Work], works: list[Work]) -> int:
        """How many of `works`, which wait in this order on one worker behind `sent`, another should rather have: the
        last so many.
        """
        if len(works) == 1 and sent:
            cost = self._reruns.between(sent[-1].trial, works[0].trial)
            return int(self._reruns.whole < cost * (len(sent) + 1))
        far = Shard(works, self._reruns).far_half(self._reruns)
        return 0 if far is None else len(far)

    def _look_ahead(self, count: int) -> deque[Work]:
        while self._fresh is not None and len(self._ahead) < count:
            work = next(self._fresh, None)
            if work is None:
                self._fresh = None
            else:
                self._ahead.append(work)
        return self._ahead

    def give_back(self, work: Work) -> None:
        """A work that is to be submitted, by anybody."""
        self._returned.append(work)
        self.wake()

    def seek(self, place: str, work: Work) -> None:
        """A work whose job may stand on the server at that place; once closed, it stays open on record instead."""
        if self.closed:
            return
        self.opened.setdefault(place, []).append(work)
        self.wake()

    def done(self) -> None:
        """A work has come to its end."""
        self.left -= 1

    @property
    def idle(self) -> bool:
        """Whether nothing is known to wait here; `take` has then shown that the plan is at its end."""
        return self._fresh is None and not self._ahead and not self._returned

    @property
    def empty(self) -> bool:
        return (self.closed or (self.idle and not self.later)) and not self.opened
