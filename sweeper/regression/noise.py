"""How much the pictures of one case differ from time to time, as `calibrate` measured it."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.regression.cases import Case
from sweeper.regression.thresholds import Threshold


@dataclass(frozen=True, slots=True)
class MeasureNoise:
    """What one measure says of one case: `mean` and `worst` over all pairs of its repeats, and `effect`, the least it
    says between this case and its neighbours (None without any). `bound` keeps the noise out with a margin; None, with
    the `reason`, where it would let a neighbour's picture pass too.
    """

    measure: str
    mean: float
    worst: float
    effect: float | None
    threshold: Threshold | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CaseNoise:
    """One case: how many repeats were compared, whether all were equal to the pixel, and the noise by measure."""

    case: Case
    repeats: int
    stable: bool
    noise: tuple[MeasureNoise, ...]
    reason: str = ""

    @property
    def is_checkable(self) -> bool:
        """Whether some check can tell a change of this case from its noise."""
        return self.stable or any(one.threshold is not None for one in self.noise)
