"""Scenarios: limits and random faults of a rehearsed server, read from a file and checked.

`sweeper serve --scenario FILE` rehearses against one: a slow service, a small queue, a share of failing jobs. (Tests
set single faults directly, see `faults.py`.) Each decision depends on the seed and on the number of earlier decisions
of its kind, never on the clock, so that a rehearsal can be repeated.

`scenario.schema.json` has the keys and their values, `README.md` their meanings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.errors import UsageError
from sweeper.model.money import UNKNOWN_AMOUNT, Amount, parse_usd
from sweeper.model.node_classes.price_badge import JsonataError, JsonataExpression, PriceCalculator, parse_price_badge
from sweeper.model.source import Source
from sweeper.schemas import find_schema_problems
from sweeper.schemas.values import KeyPath

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
        wrong: list[tuple[KeyPath, str]] = find_schema_problems("scenario", data)
        values: dict[str, Any] = {}
        for key in data.keys() - {path[0] for path, _ in wrong}:
            try:
                values[key] = _convert(key, data[key])
            except ValueError as problem:
                wrong.append(((key,), f"{problem}, not {data[key]!r}"))
        if "tier" in data and "concurrency" in data:
            wrong.append((("tier",), "`tier` and `concurrency` both say how many jobs run at once; give one"))
        if wrong:
            order = list(data)
            wrong.sort(key=lambda found: order.index(found[0][0]))
            raise UsageError(source.make_problem(path, message) for path, message in wrong)
        return cls(**values)

    @property
    def jobs_at_once(self) -> int | None:
        """The number of jobs that run at once, by `tier` or `concurrency`; None if neither is set."""
        return self.concurrency if self.tier is None else TIERS[self.tier]


def _convert(key: str, value: Any) -> Any:
    """The value of a field from a valid value of its key. Raises ValueError."""
    if key.endswith("_seconds") or key == "latency":
        return _parse_each(value, _parse_span) if isinstance(value, dict) else _parse_span(value)
    if key in {"price_per_second", "balance"}:
        return _parse_sum(value)
    return _parse_each(value, _parse_badge) if key == "prices" else value


def _parse_span(value: Any) -> Span:
    low, high = value if isinstance(value, list) else (value, value)
    if low > high:
        raise ValueError("must be a range [from, to] in seconds")
    return float(low), float(high)


def _parse_each(value: dict[Any, Any], parse: Callable[[Any], Any]) -> dict[str, Any]:
    """Parse the values of a mapping of node classes. Raises ValueError that names the class."""
    parsed = {}
    for name, item in value.items():
        try:
            parsed[str(name)] = parse(item)
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
    return parsed


def _parse_sum(value: Any) -> float:
    try:
        return float(parse_usd(value))
    except UsageError:
        raise ValueError("must be an amount in dollars such as 0.03 USD") from None


def _parse_badge(price: Any) -> Any:
    if not isinstance(price, dict):
        try:
            expr = f'{{"type": "usd", "usd": {_parse_sum(price):.12f}}}'
        except ValueError as problem:
            raise ValueError(f"{problem}, or a badge {{engine, expr, depends_on}}") from None
        return {"engine": "jsonata", "depends_on": {"widgets": [], "inputs": [], "input_groups": []}, "expr": expr}
    badge = parse_price_badge(price)
    assert badge is not None, "it is a mapping"
    if badge.error:
        raise ValueError(str(badge.error))
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
