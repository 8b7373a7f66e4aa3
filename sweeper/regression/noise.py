"""The noise of a case: how much its pictures differ from one run to the next, as `calibrate` measured it."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.regression.cases import Case
from sweeper.regression.thresholds import Threshold


@dataclass(frozen=True, slots=True)
class MeasureNoise:
    """The noise of one case by one measure.

    `mean` and `worst` are over all pairs of its repeats. `effect` is the smallest difference to a neighbouring case in
    the sweep (None without neighbours). `threshold` allows the noise with a margin. It is None, with a `reason`, if it
    would also accept a neighbour's picture.
    """

    measure: str
    mean: float
    worst: float
    effect: float | None
    threshold: Threshold | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CaseNoise:
    """The noise of one case: the number of repeats, whether all have identical pixels (`stable`), and the noise."""

    case: Case
    repeats: int
    stable: bool
    noise: tuple[MeasureNoise, ...]
    reason: str = ""

    @property
    def is_checkable(self) -> bool:
        """Whether a check can distinguish a change of this case from its noise."""
        return self.stable or any(noise.threshold is not None for noise in self.noise)
