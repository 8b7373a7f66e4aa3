"""Amounts of money, in US dollars, and the rates that a target states for the time of its GPU.

An amount is a range, because a forecast seldom is one number. Prices in credits become dollars where they are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.did_you_mean import suggest
from sweeper.errors import UsageError
from sweeper.schemas.values import format_value

CURRENCY: Final = "USD"
# How many credits one dollar buys: comfyCredits.ts in Comfy-Org/ComfyUI_frontend, and comfy_api_nodes/util in ComfyUI.
COMFY_CREDITS_PER_USD: Final = 211.0
_CREDITS: Final = "credits"
_CREDITS_PER_USD: Final = "credits_per_usd"
_NODES: Final = "nodes"
_RATES: Final = {"per_second": 1.0, "per_hour": 3600.0, "per_job": 1.0}  # the unit, in seconds or jobs
_PRICE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?) *(USD|credits)")
_SUM: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{0,12})?")
_EXAMPLE: Final = "`0.0013 USD` or `0.27 credits`"


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum of money in US dollars that is at least `low` and at most `high`; `high` is infinite if it has no limit."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def exactly(cls, usd: float) -> Amount:
        """Return the amount of one known number."""
        return cls(usd, usd)

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known about the amount."""
        return self.low == 0 and math.isinf(self.high)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.low + other.low, self.high + other.high)

    def scale(self, low: float, high: float | None = None) -> Amount:
        """Return the amount for a quantity from `low` to `high`, which is `low` if it is not given."""
        most = low if high is None else high
        return Amount(self.low * low, self.high * most if self.high and most else 0.0)

    def join(self, other: Amount) -> Amount:
        """Return the range from the smaller to the larger of both."""
        return Amount(min(self.low, other.low), max(self.high, other.high))

    def to_dict(self) -> dict[str, float | None]:
        """Return the amount for JSON. `high` is null if it has no limit."""
        return {"low": round(self.low, 9), "high": None if math.isinf(self.high) else round(self.high, 9)}

    def __str__(self) -> str:
        if self.is_unknown:
            return "unknown"
        low, high = format_usd(self.low), format_usd(self.high)
        if math.isinf(self.high):
            return f"at least {low} {CURRENCY}"
        return f"{low} {CURRENCY}" if low == high else f"{low}-{high} {CURRENCY}"


NOTHING: Final = Amount()
UNKNOWN_AMOUNT: Final = Amount(0.0, math.inf)


def format_usd(usd: float) -> str:
    """Return `14.40` or `0.0375`: two decimals, and for less than one dollar up to two significant digits more."""
    if usd >= 1 or usd == 0 or math.isinf(usd):
        return f"{usd:.2f}"
    decimals = max(4, 1 - math.floor(math.log10(usd)))
    whole, _, fraction = f"{usd:.{decimals}f}".partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


@dataclass(frozen=True, slots=True)
class TargetPrice:
    """What a target costs, in US dollars: for each second in which a job runs, and for each job.

    `nodes` has by class what one execution of a node costs at most, in place of the price that the class states. None:
    the user says nothing about nodes. `credits_per_usd`: how many credits one dollar buys, for what the server says in
    credits.
    """

    per_second: float = 0.0
    per_job: float = 0.0
    nodes: Mapping[str, float] | None = field(default=None, hash=False)
    credits_per_usd: float = COMFY_CREDITS_PER_USD

    @property
    def has_rate(self) -> bool:
        """Whether every job costs something, whatever its nodes are."""
        return bool(self.per_second or self.per_job)

    def get_node_price(self, class_type: str) -> float | None:
        """Return what one execution of a node of that class costs at most; None if the user does not say that."""
        return None if self.nodes is None else self.nodes.get(class_type)


def parse_target_price(value: Any) -> TargetPrice:
    """Parse the `price` of a target, such as `{per_second: 0.0013 USD}`. Raises UsageError with what is wrong."""
    keys = (*_RATES, _NODES, _CREDITS_PER_USD)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{format_value(value)} is not a mapping such as {{per_second: 0.0013 USD}}, with {_list(keys[:-1])}"
        )
    for key in value:
        if key not in keys:
            raise UsageError(f"unknown key {str(key)!r}{suggest(str(key), keys)}")
    given = [key for key in _RATES if key in value]
    if not given and _NODES not in value:
        raise UsageError(f"give at least one of {_list(keys[:-1])}")
    if "per_second" in value and "per_hour" in value:
        raise UsageError("give `per_second` or `per_hour`, not both")
    rates = {key: _parse_price(key, value[key], value) / _RATES[key] for key in given}
    return TargetPrice(
        rates.get("per_second", rates.get("per_hour", 0.0)),
        rates.get("per_job", 0.0),
        _parse_node_prices(value) if _NODES in value else None,
        _parse_credits_per_usd(value, "") if _CREDITS_PER_USD in value else COMFY_CREDITS_PER_USD,
    )


def parse_usd(value: Any) -> float:
    """Parse a sum such as `20 USD`, `20` or 20 as US dollars. Raises UsageError."""
    text = str(value).strip().removesuffix(CURRENCY).rstrip()
    if isinstance(value, bool) or not _SUM.fullmatch(text):
        raise UsageError(f"{format_value(value)} is not a sum in US dollars such as `20 USD`")
    return float(text)


def _parse_node_prices(settings: Mapping[str, Any]) -> dict[str, float]:
    nodes = settings[_NODES]
    if not isinstance(nodes, Mapping) or not all(isinstance(name, str) for name in nodes):
        raise UsageError(
            f"`{_NODES}` is {format_value(nodes)}, not a mapping of node classes such as {{Name: 0.05 USD}}"
        )
    return {name: _parse_price(f"{_NODES}.{name}", text, settings) for name, text in nodes.items()}


def _parse_price(key: str, text: Any, settings: Mapping[str, Any]) -> float:
    match = _PRICE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"`{key}` is {format_value(text)}, but a price is needed, such as {_EXAMPLE}")
    if match[2] == CURRENCY:
        return float(match[1])
    return float(match[1]) / _parse_credits_per_usd(settings, f"`{key}` is in credits and ")


def _parse_credits_per_usd(settings: Mapping[str, Any], cause: str) -> float:
    rate = settings.get(_CREDITS_PER_USD)
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
        found = "is missing" if rate is None else f"is {rate!r}"
        raise UsageError(
            f"{cause}`{_CREDITS_PER_USD}` {found}; write how many credits one dollar buys, such as "
            f"`{_CREDITS_PER_USD}: {COMFY_CREDITS_PER_USD:g}`"
        )
    return float(rate)


def _list(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
