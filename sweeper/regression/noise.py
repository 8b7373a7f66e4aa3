"""How much the pictures of one case differ from time to time, as `calibrate` measured it."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.regression.cases import Case
from sweeper.regression.thresholds import Bound


@dataclass(frozen=True, slots=True)
class Noise:
    """What one measure says of one case: `mean` and `worst` over all pairs of its repeats, and `effect`, the least it
    says between this case and its neighbours (None without any). `bound` keeps the noise out with a margin; None, with
    the `reason`, where it would let a neighbour's picture pass too.
    """

    measure: str
    mean: float
    worst: float
    effect: float | None
    bound: Bound | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One case: how many repeats were compared, whether all were equal to the pixel, and the noise by measure."""

    case: Case
    repeats: int
    steady: bool
    noise: tuple[Noise, ...]
    reason: str = ""

    @property
    def gated(self) -> bool:
        """Whether some check can tell a change of this case from its noise."""
        return self.steady or any(one.bound is not None for one in self.noise)
