"""The work that no worker has: fresh trials in run order, what came back, and what must be looked for at its place.

Runs of consecutive trials share the expensive prefix, so a group is a piece of that order; it is smaller the less is
left, and so the last groups are single trials.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sweeper.running.backlog import Work

MOST: Final = 64  # trials of one group: what a dead worker leaves to be looked for, and what a task carries
_SHARES: Final = 2  # groups per worker that the rest is cut into; what waits on one goes to idle ones at the end


class Pool:
    """`todo`: how many works there are in all, those in `opened` included."""

    def __init__(self, fresh: Iterator[Work], todo: int) -> None:
        self._fresh: Iterator[Work] | None = fresh
        self._returned: deque[Work] = deque()
        self.opened: dict[str, list[Work]] = {}
        self.later = 0  # works that wait for their next try
        self.left = todo
        self.closed = False
        self.wake: Callable[[], None] = lambda: None  # called when there is something to hand out

    def size(self, workers: int) -> int:
        """How many trials the next group should have."""
        return max(1, min(MOST, math.ceil(self.left / (_SHARES * max(1, workers)))))

    def take(self, count: int) -> list[Work]:
        """Up to `count` works to submit; none: there are none now."""
        found: list[Work] = []
        while not self.closed and len(found) < count:
            if self._returned:
                found.append(self._returned.popleft())
            elif self._fresh is not None and (work := next(self._fresh, None)) is not None:
                found.append(work)
            else:
                self._fresh = None
                break
        return found

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
        return self._fresh is None and not self._returned

    @property
    def empty(self) -> bool:
        return (self.closed or (self.idle and not self.later)) and not self.opened
