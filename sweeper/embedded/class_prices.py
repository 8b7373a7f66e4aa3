"""The prices of node classes: those of a scenario, and the `price_badge` that the description of a class has.

A badge is evaluated for the values that a node really gets, also those that arrive over links. The server keeps nothing
of an evaluation, because the values come from its clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.errors import UsageError
from sweeper.model.money import UNKNOWN_AMOUNT, Amount, parse_usd
from sweeper.model.node_classes.jsonata_expression import JsonataError, JsonataExpression
from sweeper.model.node_classes.price_badge import PriceCalculator, parse_price_badge

_NO_DEPENDENCIES: dict[str, list[str]] = {"widgets": [], "inputs": [], "input_groups": []}


def parse_sum(value: Any) -> float:
    """Parse an amount such as `0.03 USD`. Raises ValueError."""
    try:
        return float(parse_usd(value))
    except UsageError:
        raise ValueError("must be an amount in dollars such as 0.03 USD") from None


def parse_class_prices(value: Any) -> dict[str, Any]:
    """Parse the `prices` of a scenario: class -> badge, from amounts and badges. Raises ValueError."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a mapping of node classes such as {Flux2ProImageNode: 0.03 USD}")
    return {name: _parse_badge(name, price) for name, price in value.items()}


def _parse_badge(name: str, price: Any) -> Any:
    if not isinstance(price, dict):
        try:
            expr = f'{{"type": "usd", "usd": {parse_sum(price):.12f}}}'
        except ValueError:
            message = f"{name}: must be an amount in dollars such as 0.03 USD, or a badge {{engine, expr, depends_on}}"
            raise ValueError(message) from None
        return {"engine": "jsonata", "depends_on": _NO_DEPENDENCIES, "expr": expr}
    badge = parse_price_badge(price)
    assert badge is not None, "it is a mapping"
    if badge.error:
        raise ValueError(f"{name}: {badge.error}")
    try:
        JsonataExpression(badge.expr)
    except JsonataError as problem:
        raise ValueError(f"{name}: its price expression cannot be used: {problem}") from None
    return price


def compute_price(badge: Any, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> Amount:
    """What one execution of a node costs. `values`: what it gets, by input; `inputs`: its inputs in the graph."""
    parsed = parse_price_badge(badge)
    if parsed is None:
        return UNKNOWN_AMOUNT
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool)}
    return PriceCalculator().compute(parsed, plain, inputs).amount
