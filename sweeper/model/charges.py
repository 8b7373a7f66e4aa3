"""What a job was charged: an amount for each partner node that ran, and one for the job itself.

A charge is of one of three kinds. It is `measured` if the server said it, `priced` if it is the price that the class of
a partner node states, and `estimated` if it is the time of the job, times the price of the target.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from sweeper.model.money import NOTHING, Amount

MEASURED: Final = "measured"
PRICED: Final = "priced"
ESTIMATED: Final = "estimated"
KINDS: Final = (MEASURED, PRICED, ESTIMATED)  # the surest first
AT_LEAST: Final = " (at least)"  # ends the kind of a cost that has no upper bound
OF_JOB: Final = ""  # the node of a charge for the job itself: its time, or what the server said for the whole job


@dataclass(frozen=True, slots=True)
class Charge:
    """A part of what a job cost. `node` is the id of a partner node, or `OF_JOB`; `class_type` is empty for the job.

    For a job that has not ended, `amount` is what it costs at most. `amount.high` is None if nobody knows that.
    """

    node: str
    class_type: str
    amount: Amount
    kind: str


class JobCost(NamedTuple):
    """What jobs cost in micro-dollars, as one number: the upper end of a range. `kind` is the least sure.

    If a charge has no upper bound, its lower bound counts and `kind` ends in ` (at least)`.
    """

    micros: int
    kind: str


def sum_charges(charges: Iterable[Charge]) -> Amount:
    return sum((charge.amount for charge in charges), NOTHING)


def find_weakest_kind(kinds: Iterable[str]) -> str | None:
    """Return the least sure of several kinds, which is that of their sum; None if there are none."""
    return max(kinds, key=KINDS.index, default=None)
