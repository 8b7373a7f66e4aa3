"""The trials of a table as numbers, without scipy: who only groups trials need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

LEVEL: Final = 0.05  # the chance of any false claim in a family, such as all that is said about a metric
FEWEST_PROMPTS: Final = 3  # two prompts say nothing about all others

Codes: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Replicates:
    """What rows of matched trials have beside the compared axis, as numbers; None where there is no such axis."""

    settings: Codes
    prompts: Codes | None = None
    seeds: Codes | None = None


def renumber(*codes: Codes) -> Codes:
    """Number the combinations of these codes from 0, without gaps."""
    combined, *others = (np.unique(code, return_inverse=True)[1].astype(np.int64) for code in codes)
    for other in others:
        combined = combined * (int(other.max(initial=0)) + 1) + other
        combined = np.unique(combined, return_inverse=True)[1].astype(np.int64)
    return combined
