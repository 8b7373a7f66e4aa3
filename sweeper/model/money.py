"""Amounts of money in whole micro-dollars, the rates that a target states for the time of its GPU, and charges.

An amount is a range, because a forecast seldom is one number. Whoever computes one multiplies exactly, with fractions,
and then rounds up once, so that a sum never falls short by what floats lose. Prices in credits become dollars where
they are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from sweeper.errors import UsageError
from sweeper.schemas.values import format_value, is_number
from sweeper.wording import suggest

CURRENCY: Final = "USD"
MICROS: Final = 1_000_000  # micro-dollars in a dollar
# How many credits one dollar buys: comfyCredits.ts in Comfy-Org/ComfyUI_frontend, and comfy_api_nodes/util in ComfyUI.
COMFY_CREDITS_PER_USD: Final = 211
_MAX_MICROS: Final = 10**15  # a billion dollars, which stands for all larger sums: they must fit into the store
_CREDITS_PER_USD: Final = "credits_per_usd"
_NODES: Final = "nodes"
_RATES: Final = {"per_second": 1, "per_hour": 3600, "per_job": 1}  # the unit, in seconds or jobs
_PRICE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?) *(USD|credits)")
_SUM: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{0,12})?")
_EXAMPLE: Final = "`0.0013 USD` or `0.27 credits`"

Number = float | str | Decimal | Fraction


def to_fraction(number: Number) -> Fraction:
    """Return what the digits of a number say: 0.1 is a tenth. A computed float has noise after its 12th decimal."""
    return Fraction(f"{number:.12f}" if isinstance(number, float) else number)


def to_micros(usd: Number) -> int:
    """Return dollars as micro-dollars, rounded up."""
    return round_up(to_fraction(usd) * MICROS)


def round_up(micros: Fraction) -> int:
    """Return a fraction of micro-dollars as whole ones."""
    return min(math.ceil(micros), _MAX_MICROS)


def to_usd(micros: int) -> float:
    """Return micro-dollars as dollars, for people and other programs: a number with at most 6 decimals."""
    return micros / MICROS


def from_usd(usd: float) -> int:
    """Return the micro-dollars of which `to_usd` made dollars."""
    return round(usd * MICROS)


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum of money in micro-dollars that is at least `low` and at most `high`; `high` is None if it has no limit."""

    low: int = 0
    high: int | None = 0

    @classmethod
    def exactly(cls, usd: Number) -> Amount:
        return cls.between(usd, usd)

    @classmethod
    def between(cls, low: Number, high: Number | None) -> Amount:
        return cls(to_micros(low), None if high is None else to_micros(high))

    @property
    def at_most(self) -> float:
        """The upper end for comparisons: infinite if the amount has no limit."""
        return math.inf if self.high is None else self.high

    @property
    def bound(self) -> int:
        """The upper end; the lower one if the amount has no limit."""
        return self.low if self.high is None else self.high

    def __add__(self, other: Amount) -> Amount:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Amount(self.low + other.low, high)

    def scale(self, low: int | Fraction, high: int | Fraction | None = None) -> Amount:
        """Return the amount for a quantity from `low` to `high`, which is `low` if it is not given."""
        most = low if high is None else high
        ceiling = None if self.high is None and most else round_up(Fraction((self.high or 0) * most))
        return Amount(round_up(Fraction(self.low * low)), ceiling)

    def join(self, other: Amount) -> Amount:
        return Amount(min(self.low, other.low), max(self, other, key=lambda amount: amount.at_most).high)

    def to_dict(self) -> dict[str, float | None]:
        """Return the amount for JSON, in dollars. `high` is null if it has no limit."""
        return {"low": to_usd(self.low), "high": None if self.high is None else to_usd(self.high)}

    def __str__(self) -> str:
        if self == UNKNOWN_AMOUNT:
            return "unknown"
        low = format_usd(self.low)
        if self.high is None:
            return f"at least {low} {CURRENCY}"
        high = format_usd(self.high)
        return f"{low} {CURRENCY}" if low == high else f"{low}-{high} {CURRENCY}"


NOTHING: Final = Amount()
UNKNOWN_AMOUNT: Final = Amount(0, None)


def format_usd(micros: int) -> str:
    """Return dollars as `14.40` or `0.0375`: two decimals, and below one dollar up to two significant digits more."""
    decimals = 2 if abs(micros) >= MICROS else min(max(4, 8 - len(str(abs(micros)))), 6)
    whole, _, fraction = f"{Decimal(micros).scaleb(-6):.{decimals}f}".partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


@dataclass(frozen=True, slots=True)
class TargetPrice:
    """What a target costs, in micro-dollars: for each second in which a job runs, and for each job.

    `nodes` has by class what one execution of a node costs at most, in place of the price that the class states. None:
    the user says nothing about nodes. `credits_per_usd`: how many credits one dollar buys, for what the server says in
    credits.
    """

    per_second: Fraction = Fraction(0)
    per_job: int = 0
    nodes: Mapping[str, int] | None = field(default=None, hash=False)
    credits_per_usd: Fraction = Fraction(COMFY_CREDITS_PER_USD)

    @property
    def has_rate(self) -> bool:
        """Whether every job costs something, whatever its nodes are."""
        return bool(self.per_second or self.per_job)

    def price_jobs(self, jobs: int, seconds: tuple[float, float]) -> Amount:
        """Return what jobs cost that take these seconds together, at least and at most. At most may be infinite."""
        limits = seconds if self.per_second else (0, 0)
        low, high = (None if math.isinf(limit) else round_up(self.per_second * to_fraction(limit)) for limit in limits)
        return Amount(low or 0, high) + Amount(self.per_job, self.per_job).scale(jobs)


def find_stated_price(rates: Iterable[TargetPrice], class_type: str) -> Amount | None:
    """Return what users state for one execution of a class, from the cheapest target to the dearest; None: nothing."""
    stated = [rate.nodes[class_type] for rate in rates if rate.nodes is not None and class_type in rate.nodes]
    return Amount(min(stated), max(stated)) if stated else None


def parse_target_price(value: Any) -> TargetPrice:
    """Parse the `price` of a target, such as `{per_second: 0.0013 USD}`. Raises UsageError with what is wrong."""
    keys = (*_RATES, _NODES, _CREDITS_PER_USD)
    if not isinstance(value, Mapping):
        example = "{per_second: 0.0013 USD}"
        raise UsageError(f"{format_value(value)} is not a mapping such as {example}, with {_list(keys[:-1])}")
    for key in value:
        if key not in keys:
            raise UsageError(f"unknown key {str(key)!r}{suggest(str(key), keys)}")
    given = [key for key in _RATES if key in value]
    if not given and _NODES not in value:
        raise UsageError(f"give at least one of {_list(keys[:-1])}")
    if "per_second" in value and "per_hour" in value:
        raise UsageError("give `per_second` or `per_hour`, not both")
    rates = {key: MICROS * _parse_price(key, value[key], value) / _RATES[key] for key in given}
    per_second = rates.get("per_second", rates.get("per_hour", Fraction(0)))
    per_job = round_up(rates.get("per_job", Fraction(0)))
    nodes = _parse_node_prices(value) if _NODES in value else None
    credits_per_usd = _parse_credits_per_usd(value, "") if _CREDITS_PER_USD in value else COMFY_CREDITS_PER_USD
    return TargetPrice(per_second, per_job, nodes, Fraction(credits_per_usd))


def parse_usd(value: Any) -> Decimal:
    """Parse a sum such as `20 USD`, `20` or 20 as US dollars. Raises UsageError."""
    text = f"{value:.12f}" if isinstance(value, float) else str(value).strip().removesuffix(CURRENCY).rstrip()
    if isinstance(value, bool) or not _SUM.fullmatch(text):
        raise UsageError(f"{format_value(value)} is not a sum in US dollars such as `20 USD`")
    return Decimal(text)


def floor_micros(usd: Decimal) -> int:
    """Return a limit in dollars as micro-dollars, rounded down."""
    return math.floor(usd * MICROS)


def _parse_node_prices(settings: Mapping[str, Any]) -> dict[str, int]:
    nodes = settings[_NODES]
    if not isinstance(nodes, Mapping) or not all(isinstance(name, str) for name in nodes):
        example = "{Name: 0.05 USD}"
        raise UsageError(f"`{_NODES}` is {format_value(nodes)}, not a mapping of node classes such as {example}")
    return {name: to_micros(_parse_price(f"{_NODES}.{name}", text, settings)) for name, text in nodes.items()}


def _parse_price(key: str, text: Any, settings: Mapping[str, Any]) -> Fraction:
    match = _PRICE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"`{key}` is {format_value(text)}, but a price is needed, such as {_EXAMPLE}")
    rate = 1 if match[2] == CURRENCY else _parse_credits_per_usd(settings, f"`{key}` is in credits and ")
    return Fraction(match[1]) / rate


def _parse_credits_per_usd(settings: Mapping[str, Any], cause: str) -> Fraction:
    rate = settings.get(_CREDITS_PER_USD)
    if not is_number(rate) or rate <= 0:
        found = "is missing" if rate is None else f"is {rate!r}"
        advice = f"write how many credits one dollar buys, such as `{_CREDITS_PER_USD}: {COMFY_CREDITS_PER_USD}`"
        raise UsageError(f"{cause}`{_CREDITS_PER_USD}` {found}; {advice}")
    return Fraction(str(rate))


def _list(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


# --- what a job was charged

MEASURED: Final = "measured"
PRICED: Final = "priced"
ESTIMATED: Final = "estimated"
KINDS: Final = (MEASURED, PRICED, ESTIMATED)  # the surest first
AT_LEAST: Final = " (at least)"  # ends the kind of a cost that has no upper bound
OF_JOB: Final = ""  # the node of a charge for the job itself: its time, or what the server said for the whole job


@dataclass(frozen=True, slots=True)
class Charge:
    """A part of what a job cost. `node` is the id of a partner node, or `OF_JOB`; `class_type` is empty for the job.

    `kind`: `measured` if the server said it, `priced` if it is the price that the class of a partner node states, and
    `estimated` if it is the time of the job, times the price of the target.

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
