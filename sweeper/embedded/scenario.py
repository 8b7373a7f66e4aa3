"""Scenarios: limits and random faults of a rehearsed server, read from a file and checked.

`sweeper serve --scenario FILE` rehearses against one: a slow service, a small queue, a share of failing jobs. (Tests
set single faults directly, see `faults.py`.) Each decision depends on the seed and on the number of earlier decisions
of its kind, never on the clock, so that a rehearsal can be repeated.

`README.md` has the keys with their meanings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from sweeper.errors import UsageError
from sweeper.model.money import UNKNOWN_AMOUNT, Amount, parse_usd
from sweeper.model.node_classes.price_badge import JsonataError, JsonataExpression, PriceCalculator, parse_price_badge
from sweeper.model.source import Source
from sweeper.schemas.values import is_integer, is_number
from sweeper.wording import suggest

# Subscription -> number of jobs that run at once, by Cloud's documentation.
TIERS = {"free": 1, "standard": 1, "creator": 3, "pro": 5}

# How Comfy Cloud refuses a submission for other reasons than its graph: `error.type` -> (status, message), as in its
# published specification (the `openapi.yaml` of Comfy-Org/ComfyUI, November 2026), which names no type for the 413.
QUEUE_LIMIT = "QUEUE_LIMIT"
REFUSALS = {
    "PAYMENT_REQUIRED": (402, "Payment required: no active subscription or no funds."),
    "CLOUD_SUBSCRIPTION_REQUIRED": (402, "Payment required: this needs a Comfy Cloud subscription."),
    "FREE_TIER_EXHAUSTED": (402, "The free jobs of this period are used up."),
    "PARTNER_NODE_PAYMENT_REQUIRED": (402, "Payment required: the workflow has partner nodes."),
    "MODEL_PAYMENT_REQUIRED": (402, "Payment required: the workflow names a model that the plan excludes."),
    "PARTNER_NODE_DISABLED": (403, "The workspace does not allow these partner nodes."),
    "WORKFLOW_TOO_LARGE": (413, "The workflow is too large."),
    QUEUE_LIMIT: (429, "Too many jobs are queued; try again later."),
    "FREE_TIER_UNAVAILABLE": (429, "The free tier is switched off for now."),
    "BILLING_UNAVAILABLE": (429, "Billing does not respond; nothing was queued."),
}

DEFAULT = "default"  # in `node_seconds` by class: all other classes
Span = tuple[float, float]  # seconds, from and to


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario. `README.md` has the fields. Rates are shares from 0 to 1. `Scenario()` has no faults."""

    seed: int = 0
    latency: Span = (0.0, 0.0)
    node_seconds: Span | Mapping[str, Span] = (0.0, 0.0)  # for all nodes, or by class with `default` for the others
    job_seconds: Span = (0.0, 0.0)
    model_seconds: Span = (0.0, 0.0)
    tier: str | None = None
    credits: int | None = None
    concurrency: int | None = None
    queue_bound: int | None = None
    capacity_seconds: Span = (0.0, 0.0)
    failure_rate: float = 0.0
    failure_type: str = "RuntimeError"
    error_rate: float = 0.0
    drop_rate: float = 0.0
    refusal_rate: float = 0.0
    refusal: str = "BILLING_UNAVAILABLE"
    cancel_rate: float = 0.0
    noise: float = 0.0
    prices: Mapping[str, Any] = field(default_factory=dict)  # class -> `price_badge`
    price_per_second: float = 0.0  # USD
    balance: float | None = None  # USD
    tells_charges: bool = False

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Scenario:
        """Make a scenario from a mapping. Raises UsageError that lists every mistake."""
        return cls.from_source(Source("scenario", data, dict))

    @classmethod
    def from_source(cls, source: Source) -> Scenario:
        """Make a scenario from a parsed file. Raises UsageError that lists every wrong key and value, with its line."""
        data = {} if source.value is None else source.value
        if not isinstance(data, Mapping):
            message = f"is not a scenario: give a mapping such as 'latency: 0.1', not {type(data).__name__}"
            raise UsageError(source.make_problem((), message))
        names = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        wrong: list[tuple[str, str]] = []
        for key, value in data.items():
            if key not in names:
                wrong.append((str(key), f"unknown key '{key}'{suggest(str(key), names)}"))
                continue
            try:
                values[key] = _PARSERS[key](value)
            except ValueError as problem:
                wrong.append((key, f"{problem}, not {value!r}"))
        if "tier" in data and "concurrency" in data:
            wrong.append(("tier", "`tier` and `concurrency` both say how many jobs run at once; give one"))
        if wrong:
            raise UsageError(source.make_problem((key,), message) for key, message in wrong)
        return cls(**values)

    @property
    def jobs_at_once(self) -> int | None:
        """The number of jobs that run at once, by `tier` or `concurrency`; None if neither is set."""
        return self.concurrency if self.tier is None else TIERS[self.tier]


def _require(value: Any, is_valid: bool, rule: str) -> Any:
    if not is_valid:
        raise ValueError(rule)
    return value


def _parse_number(value: Any, maximum: float, rule: str) -> float:
    """Parse a number from 0 to `maximum`. Raises ValueError with the rule."""
    return float(_require(value, is_number(value) and 0 <= value <= maximum, rule))


def _parse_span(value: Any) -> Span:
    rule = "must be a number of seconds, 0 or more, or a range such as [0.1, 0.5]"
    spans = value if isinstance(value, list) else [value, value]
    seconds = [_parse_number(part, sys.float_info.max, rule) for part in spans]
    is_range = len(seconds) == 2 and seconds[0] <= seconds[1]
    return tuple(_require(seconds, is_range, "must be a range [from, to] in seconds"))


def _parse_node_seconds(value: Any) -> Span | Mapping[str, Span]:
    return _parse_each(value, _parse_span) if isinstance(value, dict) else _parse_span(value)


def _parse_each(value: dict[Any, Any], parse: Callable[[Any], Any]) -> dict[str, Any]:
    """Parse the values of a mapping of node classes. Raises ValueError that names the class."""
    parsed = {}
    for name, item in value.items():
        try:
            parsed[str(name)] = parse(item)
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
    return parsed


def _parse_integer(value: Any, minimum: int) -> int:
    number: int = _require(value, is_integer(value) and value >= minimum, f"must be a whole number, {minimum} or more")
    return number


def _parse_word(value: Any, words: Collection[str]) -> str:
    return str(_require(value, isinstance(value, str) and value in words, f"must be one of {', '.join(words)}"))


def _parse_exception_name(value: Any) -> str:
    is_name = isinstance(value, str) and value.isidentifier()
    return str(_require(value, is_name, "must be the name of an exception, such as OOMError"))


def _parse_sum(value: Any) -> float:
    try:
        return float(parse_usd(value))
    except UsageError:
        raise ValueError("must be an amount in dollars such as 0.03 USD") from None


def _parse_prices(value: Any) -> dict[str, Any]:
    """Parse the `prices` of a scenario: class -> badge, from amounts and badges."""
    is_mapping = isinstance(value, dict) and all(isinstance(name, str) for name in value)
    _require(value, is_mapping, "must be a mapping of node classes such as {Flux2ProImageNode: 0.03 USD}")
    return _parse_each(value, _parse_badge)


def _parse_badge(price: Any) -> Any:
    if not isinstance(price, dict):
        try:
            expr = f'{{"type": "usd", "usd": {_parse_sum(price):.12f}}}'
        except ValueError as problem:
            raise ValueError(f"{problem}, or a badge {{engine, expr, depends_on}}") from None
        return {"engine": "jsonata", "depends_on": {"widgets": [], "inputs": [], "input_groups": []}, "expr": expr}
    badge = parse_price_badge(price)
    assert badge is not None, "it is a mapping"
    _require(badge, not badge.error, str(badge.error))
    try:
        JsonataExpression(badge.expr)
    except JsonataError as problem:
        raise ValueError(f"its price expression cannot be used: {problem}") from None
    return price


def compute_price(badge: Any, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> Amount:
    """What one execution of a node costs. `values`: what it gets, by input; `inputs`: its inputs in the graph."""
    parsed = parse_price_badge(badge)
    if parsed is None:
        return UNKNOWN_AMOUNT
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool)}
    return PriceCalculator().compute(parsed, plain, inputs).amount


_parse_share = partial(_parse_number, maximum=1, rule="must be a share from 0 to 1")
_parse_count = partial(_parse_integer, minimum=0)
_PARSERS: Mapping[str, Any] = {
    **dict.fromkeys(("latency", "job_seconds", "model_seconds", "capacity_seconds"), _parse_span),
    **dict.fromkeys(("failure_rate", "error_rate", "drop_rate", "refusal_rate", "cancel_rate"), _parse_share),
    **dict.fromkeys(("seed", "credits", "queue_bound"), _parse_count),
    **dict.fromkeys(("price_per_second", "balance"), _parse_sum),
    "node_seconds": _parse_node_seconds,
    "tier": partial(_parse_word, words=TIERS),
    "concurrency": partial(_parse_integer, minimum=1),
    "failure_type": _parse_exception_name,
    "refusal": partial(_parse_word, words=REFUSALS),
    "noise": partial(_parse_number, maximum=255, rule="must be a standard deviation from 0 to 255, such as 0.5"),
    "prices": _parse_prices,
    "tells_charges": lambda value: _require(value, isinstance(value, bool), "must be true or false"),
}


def make_refusal(kind: str, graph: Any, retry_after: float) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The body, status and headers for an `error.type` of REFUSALS.

    `retry_after`: seconds, sent with the types for which the specification tells clients to wait.
    """
    status, message = REFUSALS[kind]
    error: dict[str, Any] = {"type": kind, "message": message, "details": "", "extra_info": {}}
    if kind == "PARTNER_NODE_DISABLED":
        nodes = graph.values() if isinstance(graph, dict) else ()
        classes = sorted({str(node.get("class_type")) for node in nodes if isinstance(node, dict)})
        error |= {"class_types": classes, "providers": ["embedded"]}
    if kind == "BILLING_UNAVAILABLE":
        error["reason"] = "funds_unavailable"
    code = "queue_full" if kind == QUEUE_LIMIT else kind.lower()
    waits = kind in {QUEUE_LIMIT, "BILLING_UNAVAILABLE"}
    headers = {"retry-after": f"{retry_after:.0f}"} if waits else {}
    return {"error": error, "node_errors": {}, "code": code, "message": message}, status, headers
