"""How long and how often to try again: capped exponential back-off with full jitter. Pure: randomness is an argument.

After "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): each wait is drawn evenly from 0 to the cap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Patience:
    """At most `attempts` tries within `total` seconds; waits drawn from 0 to min(cap, base * 2**n) seconds.

    `asked`: the longest wait that a server gets because it asks for it (Retry-After); it comes on top of `total`.
    `refusals`: tries of a server that takes no connection, where that is less: nobody is there yet, or any more.
    """

    attempts: int = 6
    total: float = 30.0
    base: float = 0.1
    cap: float = 8.0
    asked: float = 600.0
    refusals: int = 6

    def waits(self, random: Random) -> Iterator[float]:
        """The wait before each further try; it ends when patience does. Waits that a server asks for come on top."""
        for number in range(self.attempts - 1):
            yield random.uniform(0, min(self.cap, self.base * 2**number))
