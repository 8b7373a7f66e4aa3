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
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Final

import re2

from sweeper.model.money import MICROS, UNKNOWN_AMOUNT, Amount, round_up, to_fraction
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
_MAX_LENGTH: Final = 10_000  # characters of an expression; the longest of ComfyUI 0.33.0 has 4,205
_MAX_STEPS: Final = 20_000  # of one evaluation, about half a second; the longest of ComfyUI 0.33.0 takes a few hundred
_MAX_TOTAL_STEPS: Final = 300_000  # of all evaluations of one expression
_MAX_DEPTH: Final = 60  # nested steps, about six Python frames each
_MAX_NESTING: Final = 200  # of brackets and operators in the text
_MAX_ITEMS: Final = 1_000  # items of a value, with everything inside
_MAX_CHARACTERS: Final = 10_000  # of a text
_MAX_NUMBER: Final = 1e15  # integers of Python have no limit of their own
_ALLOWED_TYPES: Final = frozenset((
    "binary", "bind", "block", "condition", "filter", "function", "index", "lambda", "name", "number", "path", "regex",
    "string", "unary", "value", "variable",
))  # fmt: skip
_ALLOWED_FUNCTIONS: Final = frozenset((
    "abs", "average", "boolean", "ceil", "contains", "count", "exists", "floor", "join", "keys", "length", "lookup",
    "lowercase", "match", "max", "min", "not", "number", "power", "round", "sqrt", "string", "substring",
    "substringAfter", "substringBefore", "sum", "trim", "type", "uppercase",
))  # fmt: skip


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
    if declared is None:
        return None
    if not isinstance(declared, Mapping) or not isinstance(declared.get("expr"), str):
        return PriceBadge(error="its price badge has no expression")
    if declared.get("engine") != "jsonata":
        return PriceBadge(error=f"its price badge is written for {shorten(repr(declared.get('engine')))}, not jsonata")
    depends_on = declared.get("depends_on")
    try:
        return PriceBadge(
            declared["expr"],
            tuple((str(widget["name"]), str(widget["type"])) for widget in (depends_on or {}).get("widgets", ())),
            tuple(map(str, (depends_on or {}).get("inputs", ()))),
            tuple(map(str, (depends_on or {}).get("input_groups", ()))),
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
    links = [name for name, value in inputs.items() if is_link(value)]
    return {
        "widgets": {name: normalise_widget(values.get(name), kind) for name, kind in badge.widgets},
        "inputs": {name: {"connected": name in links} for name in badge.inputs},
        "inputGroups": {group: sum(name.startswith(f"{group}.") for name in links) for group in badge.groups},
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
    return value if is_number(value) else None


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


class JsonataError(Exception):
    """The expression cannot be parsed or evaluated, or goes beyond a bound."""


class JsonataExpression:
    """A parsed expression. Raises JsonataError if it is invalid or uses what is not allowed here.

    It comes from a server, so it must neither hang nor exhaust this process. No clock is needed for that: every step of
    the evaluation is counted, and every value that a step makes is measured. Only what computes a small value from
    small values is allowed: no ranges, no wildcards, no sorting, no `$eval`, and none of the functions that make a long
    text or list of a short argument.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise JsonataError(f"it has more than {_MAX_LENGTH:,} characters")
        if sum(map(text.count, "([{")) > _MAX_NESTING * 10:
            raise JsonataError("it has too many brackets")
        self._parsed = _call_engine(_load_engine(), text, _compile_pattern)
        self._environment = self._parsed.environment
        self._steps_left = _MAX_TOTAL_STEPS
        functions = _load_engine().static_frame.bindings
        for symbol in _iter_symbols(self._parsed.ast):
            kind, value = getattr(symbol, "type", None), str(getattr(symbol, "value", ""))
            if kind not in _ALLOWED_TYPES or (kind == "binary" and value == ".."):
                raise JsonataError(f"it uses {value or kind!r}, which is not allowed here")
            if kind == "variable" and value in functions and value not in _ALLOWED_FUNCTIONS:
                raise JsonataError(f"it uses ${value}, which is not allowed here")

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the result as JSON values; None if there is none. Raises JsonataError."""
        if self._steps_left <= 0:
            raise JsonataError(f"all its evaluations take more than {_MAX_TOTAL_STEPS:,} steps")
        budget = _Budget()
        self._parsed.environment = self._environment
        bindings = {"__evaluate_entry": budget.enter, "__evaluate_exit": budget.leave}
        try:
            return _call_engine(self._parsed.evaluate, _mark_nulls(values), bindings)
        finally:
            self._steps_left -= budget.steps


class _Budget:
    """Counts the steps of one evaluation. The engine calls `enter` before and `leave` after each."""

    def __init__(self) -> None:
        self.steps = 0
        self._depth = 0

    def enter(self, *_: object) -> None:
        self.steps += 1
        self._depth += 1
        if self.steps > _MAX_STEPS:
            raise JsonataError(f"it takes more than {_MAX_STEPS:,} steps")
        if self._depth > _MAX_DEPTH:
            raise JsonataError(f"it nests more than {_MAX_DEPTH} steps")

    def leave(self, _expression: object, _values: object, _environment: object, result: object) -> None:
        self._depth -= 1
        _check_size(result)


def _check_size(result: object) -> None:
    """Measure a value and all values in it; one that appears twice counts twice. Raises JsonataError."""
    if result is None or type(result) is bool:
        return
    waiting, count = [result], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, str):
            if len(value) > _MAX_CHARACTERS:
                raise JsonataError(f"it makes a text of more than {_MAX_CHARACTERS:,} characters")
        elif isinstance(value, (int, float)):
            if not abs(value) <= _MAX_NUMBER:
                raise JsonataError("it makes a number that is too large")
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        if count + len(waiting) > _MAX_ITEMS:
            raise JsonataError(f"it makes a value of more than {_MAX_ITEMS:,} items")


@cache
def _load_engine() -> Any:
    """Import the engine, which takes a tenth of a second, and restore the recursion limit, which it raises."""
    limit = sys.getrecursionlimit()
    from jsonata import Jsonata

    sys.setrecursionlimit(limit)
    return Jsonata


def _call_engine(function: Any, *arguments: Any) -> Any:
    """Call the engine. Raises JsonataError for whatever it raises, because its errors have no common class."""
    try:
        return function(*arguments)
    except JsonataError:
        raise
    except RecursionError:
        raise JsonataError("it is nested too deeply") from None
    except Exception as error:  # noqa: BLE001 - an AttributeError or KeyError of the engine is an invalid expression too
        text = " ".join(str(error).split())[:200]
        raise JsonataError(f"it fails: {text or type(error).__name__}") from None


def _compile_pattern(pattern: str, flags: Any) -> Any:
    """Compile a pattern in linear time, in place of the engine's default, Python's `re`."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    options.case_sensitive = not flags.case_insensitive
    return re2.compile(f"(?m){pattern}" if flags.multiline else pattern, options)


def _iter_symbols(root: object) -> Iterator[Any]:
    """Yield every symbol of a syntax tree once, wherever the parser has put it."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif hasattr(value, "lbp"):  # a symbol of the parser
            yield value
            waiting += [part for name, part in vars(value).items() if not name.startswith("_")]


def _mark_nulls(value: Any) -> Any:
    """Replace None by the engine's null, because it takes None for a value that does not exist."""
    if isinstance(value, Mapping):
        return {key: _mark_nulls(item) for key, item in value.items()}
    if value is None:
        from jsonata.utils import Utils

        return Utils.NULL_VALUE
    return int(value) if isinstance(value, float) and value.is_integer() else value
