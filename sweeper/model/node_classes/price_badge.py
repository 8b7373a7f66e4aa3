"""What one execution of a partner node costs, from the `price_badge` of its class.

A badge is `{engine: "jsonata", expr, depends_on: {widgets: [{name, type}], inputs, input_groups}}`. ComfyUI's editor is
the reference for the values that `expr` receives: `useNodePricing.ts` and `nodePricing.ts` in the repository
Comfy-Org/ComfyUI_frontend. The expression computes one of

- `{type: "usd", usd}`, `{type: "range_usd", min_usd, max_usd}`, `{type: "list_usd", usd: [...]}`, each with an optional
  `format: {approximate, suffix, note}`, or
- `{type: "text", text}`, which names no price.

A suffix such as `/second` makes it the price of one unit. The number of units comes from the inputs of the node, if one
of them says it. If a badge cannot be understood, the price is unknown and the reason says why; it is not an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from sweeper.model.money import MICROS, UNKNOWN_AMOUNT, Amount, round_up, to_fraction
from sweeper.model.node_classes.jsonata_expression import JsonataError, JsonataExpression
from sweeper.model.workflow import is_link
from sweeper.schemas.values import is_number
from sweeper.wording import shorten

_SECONDS: Final = ("duration", "duration_seconds", "seconds", "video_length")
_FRAMES: Final = ("num_frames", "frames", "length", "frame_count")
_RATES: Final = ("fps", "frame_rate")
_IMAGES: Final = ("n", "num_images", "number_of_images", "image_count", "batch_size")
_MOST_IMAGES: Final = ("max_images",)
_TEXTS: Final = ("text",)
_QUANTITIES: Final = frozenset((*_SECONDS, *_FRAMES, *_RATES, *_IMAGES, *_MOST_IMAGES))
_SUFFIX: Final = re.compile(
    r" *(?:/|per|x) *(?P<count>[0-9]{1,6})? *(?:(?P<run>run)|(?P<second>s|secs?|seconds?)|(?P<minute>min|minutes?)|"
    r"(?P<frame>frames?)|(?P<image>images?(?:/run)?)|(?P<character>k chars)|(?P<byte>k bytes))(?: *\(.*\))? *",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r" *([0-9]+(?:\.[0-9]+)?) *(?:s|sec|seconds)? *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PriceBadge:
    """The parsed badge of a class. `widgets` maps names to declared types; `error` says why it cannot be used."""

    expr: str = ""
    widgets: tuple[tuple[str, str], ...] = ()
    inputs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    error: str = ""

    def reads(self, name: str) -> bool:
        """Whether the price may depend on the value of this input."""
        if any(name == widget or widget.startswith(f"{name}.") for widget, _ in self.widgets):
            return True
        if "suffix" not in self.expr:
            return False
        last = name.rpartition(".")[2]
        return last in _QUANTITIES or (last in _TEXTS and re.search("chars|bytes", self.expr) is not None)


@dataclass(frozen=True, slots=True)
class NodePrice:
    """The price of one execution of a node. `reason` says why it is unknown or only a lower bound, if it is."""

    amount: Amount
    is_approximate: bool = False
    reason: str = ""


def parse_price_badge(declared: Any) -> PriceBadge | None:
    """Parse the `price_badge` of a class; None if it has none."""
    if declared is None:
        return None
    if not isinstance(declared, Mapping) or not isinstance(declared.get("expr"), str):
        return PriceBadge(error="its price badge has no expression")
    if declared.get("engine") != "jsonata":
        return PriceBadge(error=f"its price badge is written for {shorten(repr(declared.get('engine')))}, not jsonata")
    depends_on = declared.get("depends_on")
    depends_on = {} if depends_on is None else depends_on
    try:
        return PriceBadge(
            declared["expr"],
            tuple((str(widget["name"]), str(widget["type"])) for widget in depends_on.get("widgets", ())),
            tuple(map(str, depends_on.get("inputs", ()))),
            tuple(map(str, depends_on.get("input_groups", ()))),
        )
    except (AttributeError, KeyError, TypeError):
        return PriceBadge(error="its price badge does not say what it depends on")


class PriceCalculator:
    """Computes prices, each combination of the values that matter once. One instance serves one plan."""

    def __init__(self) -> None:
        self._expressions: dict[str, JsonataExpression | JsonataError] = {}
        self._prices: dict[str, NodePrice] = {}

    def compute(self, badge: PriceBadge, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> NodePrice:
        """Return the price of one execution of a node.

        `values` are the literals of its inputs by name, as far as they are known; `inputs` are the inputs as in the
        workflow, for what is linked.
        """
        if badge.error:
            return NodePrice(UNKNOWN_AMOUNT, reason=badge.error)
        context = make_context(badge, values, inputs)
        quantities = {name: value for name, value in values.items() if badge.reads(name)}
        key = json.dumps([badge.expr, context, quantities], sort_keys=True, default=str)
        if key not in self._prices:
            try:
                self._prices[key] = _read_result(self._compile(badge.expr).evaluate(context), quantities)
            except JsonataError as error:
                reason = f"its price expression cannot be used: {error}"
                self._prices[key] = NodePrice(UNKNOWN_AMOUNT, reason=reason)
        return self._prices[key]

    def _compile(self, expr: str) -> JsonataExpression:
        if expr not in self._expressions:
            try:
                self._expressions[expr] = JsonataExpression(expr)
            except JsonataError as error:
                self._expressions[expr] = error
        found = self._expressions[expr]
        if isinstance(found, JsonataError):
            raise found
        return found


def make_context(badge: PriceBadge, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the expression reads: `buildJsonataContext` of the editor."""
    return {
        "widgets": {name: normalise_widget(values.get(name), kind) for name, kind in badge.widgets},
        "inputs": {name: {"connected": is_link(inputs.get(name))} for name in badge.inputs},
        "inputGroups": {
            group: sum(is_link(value) for name, value in inputs.items() if name.startswith(f"{group}."))
            for group in badge.groups
        },
    }


def normalise_widget(value: Any, kind: str) -> str | int | float | bool | None:
    """Return the value of a widget as the expression gets it: `normalizeWidgetValue` of the editor."""
    kind = kind.upper()
    if value is None:
        return None
    if kind in ("INT", "FLOAT"):
        return _to_number(value)
    if isinstance(value, bool):
        return value if kind in ("BOOLEAN", "COMBO") else str(value).lower()
    if kind == "BOOLEAN":
        return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None
    if kind == "COMBO" and isinstance(value, (int, float)):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


def _to_number(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
    return value if is_number else None


def _read_result(result: Any, values: Mapping[str, Any]) -> NodePrice:
    result = result if isinstance(result, Mapping) else {}
    kind = result.get("type", "usd")  # older badges have only `usd`
    if kind == "text" and isinstance(result.get("text"), str):
        if result["text"].strip().lower() == "free":
            return NodePrice(Amount())
        return NodePrice(UNKNOWN_AMOUNT, reason=f"its price is given as {shorten(result['text'])!r}")
    usd = {"usd": [result.get("usd")], "range_usd": [result.get("min_usd"), result.get("max_usd")]}
    numbers = result.get("usd") if kind == "list_usd" else usd.get(str(kind))
    if not isinstance(numbers, list) or not numbers or not all(is_number(price) and price >= 0 for price in numbers):
        return NodePrice(UNKNOWN_AMOUNT, reason="its price expression gives no price for these values")
    each = to_fraction(min(numbers)), to_fraction(max(numbers))
    text_format = result.get("format")
    text_format = text_format if isinstance(text_format, Mapping) else {}
    is_approximate = text_format.get("approximate") is True
    amount, reason = _multiply_by_units(each, str(text_format.get("suffix") or "/Run"), values)
    if "input" in str(text_format.get("note") or ""):  # "(input + output)": of the input, nothing says how long it is
        reason = f"it is charged for its input too, at {Amount.between(*each)} a unit"
        amount = Amount(amount.low, None)
    return NodePrice(amount, is_approximate, reason)


def _is_price(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _multiply_by_units(each: tuple[Fraction, Fraction], suffix: str, values: Mapping[str, Any]) -> tuple[Amount, str]:
    """Return the price of one execution, and why it is only a lower bound. `each`: dollars for a unit, as a range."""
    price = Amount.between(*each)
    match = _SUFFIX.fullmatch(suffix)
    suffix = shorten(suffix, 30)
    if match is None:
        return UNKNOWN_AMOUNT, f"it costs {price}{suffix}, and nothing says how much it will use"
    unit, size = str(match.lastgroup), int(match["count"] or 1) or 1
    size *= {"minute": 60, "character": 1000, "byte": 1000}.get(unit, 1)
    found = _find_quantity(unit, values)
    if found is None:
        least = Fraction(0) if unit in ("character", "byte") else each[0]
        reason = f"it costs {price}{suffix}, and no input says how much it will use"
        return Amount(round_up(least * MICROS / size), None), reason
    low, high = (round_up(price * count * MICROS / size) for price, count in zip(each, found, strict=True))
    return Amount(low, high), ""


def _find_quantity(unit: str, values: Mapping[str, Any]) -> tuple[Fraction | int, Fraction | int] | None:
    """Return how many seconds, frames, images or letters one execution is charged for, as a range; None if unknown."""
    seconds, frames, rate = (_find_number(values, names) for names in (_SECONDS, _FRAMES, _RATES))
    found: Fraction | int | None
    if unit == "run":
        found = 1
    elif unit == "image":  # one, if no input counts them
        found = _find_number(values, _IMAGES) or 1
        return found, max(found, _find_number(values, _MOST_IMAGES) or 1)
    elif unit == "frame":
        found = seconds * rate if frames is None and seconds and rate else frames
    elif unit in ("second", "minute"):
        found = frames / rate if seconds is None and frames and rate else seconds
    else:
        texts = [text for name in _TEXTS for text in _iter_values(values, name) if isinstance(text, str)]
        sizes = [len(text.encode("utf-8", "replace") if unit == "byte" else text) for text in texts]
        found = sum(sizes) if sizes else None
    return None if found is None else (found, found)


def _find_number(values: Mapping[str, Any], names: tuple[str, ...]) -> Fraction | None:
    """Return the number in the first input of these names, which may stand in a branch: `model.duration`, `"5s"`."""
    for name in names:
        for value in _iter_values(values, name):
            match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
            number = to_fraction(_to_number(match[1] if match else value) or 0)
            if number > 0:
                return number
    return None


def _iter_values(values: Mapping[str, Any], last: str) -> Iterator[Any]:
    return (value for name, value in values.items() if name.rpartition(".")[2] == last)
