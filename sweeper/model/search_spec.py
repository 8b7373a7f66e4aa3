"""The `search` section of an experiment as a checked, frozen value: what is optimised, over what, and until when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sweeper.model.expressions import Expression
from sweeper.model.search_columns import VOTES_METRIC, Objective
from sweeper.model.sweep_block import Axis, Block
from sweeper.schemas.values import KeyPath

_DIGITS: Final = 4  # significant digits of the width of a range, so that values stay readable


@dataclass(frozen=True, slots=True)
class NumberRange:
    """A continuous range: all numbers, or all integers, from `low` to `high`.

    `is_log`: ratios count, and not differences. Both ends are above 0 then.
    """

    low: float
    high: float
    is_integer: bool = False
    is_log: bool = False

    @property
    def step(self) -> float:
        """The distance between two numbers that are worth telling apart: 1 for integers, 0.01 for 1 to 12."""
        if self.is_integer:
            return 1
        return float(Decimal(10) ** (math.floor(math.log10(self.high - self.low)) - _DIGITS + 1))

    def round(self, number: float) -> int | float:
        """Return the nearest number of the range that is written with few digits."""
        if self.is_integer:
            return int(min(max(round(number), self.low), self.high))
        if self.is_log:
            rounded = float(f"{number:.{_DIGITS - 1}g}")
        else:
            step = Decimal(repr(self.step))
            rounded = float(round(Decimal(number) / step) * step)
        return min(max(rounded, self.low), self.high)


@dataclass(frozen=True, slots=True)
class SpaceAxis:
    """An axis of the space: the options of `axis`, or if there is a range, all its numbers.

    With a range, the options of `axis` are its two ends.
    """

    axis: Axis
    numbers: NumberRange | None = None

    @property
    def name(self) -> str:
        return self.axis.name


@dataclass(frozen=True, slots=True)
class Search:
    """What `sweeper search` does.

    `trials`: how many rows it may ask for. `budget`: US dollars that the results folder may cost. `patience`: after how
    many trials without a better point it ends. At least one of the three is given. `batch`: points of a round; None: as
    many as the targets run jobs at once. `path` is the location in the file.
    """

    objectives: tuple[Objective, ...]
    space: tuple[SpaceAxis, ...]
    over: tuple[Axis, ...] = ()
    where: Expression | None = None
    trials: int | None = None
    budget: Decimal | None = None
    patience: int | None = None
    batch: int | None = None
    method: str = "auto"
    seed: int = 0
    stop_early: bool = False
    path: KeyPath = ("search",)

    @property
    def is_by_votes(self) -> bool:
        """Whether people's votes are an objective, so that each round waits for them."""
        return any(objective.metric == VOTES_METRIC for objective in self.objectives)

    @property
    def block(self) -> Block:
        """The product of all options; of a range, only its ends. It serves to check values, and is too large to run."""
        return Block(tuple([(item.axis,) for item in self.space] + [(axis,) for axis in self.over]), path=self.path)
