"""The filters and tests that texts may use: those of Jinja2, each of which pays for its work first.

Some are left out: `random`, because it would make plans differ; `center`, `format`, `indent` and `batch`, because they
can make a huge text of a short one; `attr`, because it gets around the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from jinja2 import Environment, Undefined, pass_context
from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from sweeper.model.expressions.budget import ITEM, MAX_BITS, BudgetContext, compute_cost
from sweeper.model.expressions.expression import ExpressionError

# The guards that `syntax` adds to the tree. No text can use them: after `|` a name has no parentheses, and
# `Sandbox.call_filter` refuses them behind `map`.
CONCAT: Final = "(concat)"
ITERATE: Final = "(each)"
CHARGE: Final = "(weigh)"

# These take the same short time for any value.
_CONSTANT_TIME: Final = ("abs", "count", "d", "default", "first", "last", "length")
# How many passes over its value each filter costs, with the result and Python's work for each item.
_PASSES: Final = {
    "capitalize": 1, "float": 1, "list": 4, "lower": 1, "map": 12, "max": 4, "min": 4, "reject": 8, "rejectattr": 8,
    "reverse": 2, "select": 8, "selectattr": 8, "sort": 20, "string": 1, "title": 4, "truncate": 1, "unique": 4,
    "upper": 1,
}  # fmt: skip
# `sameas` is left out, because it depends on the interpreter which equal values are the same object.
_SAFE_TESTS: Final = (
    "!=", "<", "<=", "==", ">", ">=", "boolean", "defined", "eq", "equalto", "false", "float", "ge", "greaterthan",
    "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "sequence",
    "string", "true", "undefined", "upper",
)  # fmt: skip
_MAX_ROUND_DIGITS: Final = 100  # of `round`: a float has 17 that mean something
_WORD: Final = re.compile(r"\w+")


def make_filters() -> dict[str, Any]:
    """Return every filter by name."""
    all_filters: dict[str, Any] = {name: FILTERS[name] for name in _CONSTANT_TIME}
    all_filters |= {name: _make_charged_filter(name, passes) for name, passes in _PASSES.items()}
    own_filters = {"int": _int, "join": _join, "replace": _replace, "round": _round, "sum": _sum, "trim": _trim}
    own_filters |= {"wordcount": _wordcount, CONCAT: _concat, ITERATE: _iterate, CHARGE: _charge}
    return all_filters | own_filters


def make_tests() -> dict[str, Any]:
    """Return every test by name. Tests that use `%` accept numbers only, because `%` on a text formats it."""
    numeric = {name: _make_numeric_test(name, TESTS[name]) for name in ("divisibleby", "even", "odd")}
    return {name: TESTS[name] for name in _SAFE_TESTS} | numeric


def compute_replace_growth(text: str, old: str, new: str, count: int) -> int:
    """Return how many characters a replacement adds at most. `count` below 0 means all occurrences."""
    occurrences = text.count(old)
    return (occurrences if count < 0 else min(occurrences, count)) * len(new)


def compute_search_cost(text: str, part: Any, *, backwards: bool = False) -> int:
    """Return the units to find `part`. CPython's search is linear only for long parts and forwards (fastsearch.h)."""
    length = len(part) if isinstance(part, str) else 0
    return len(text) * (1 + (length if backwards else min(length, 128)) // 16)


def compute_strip_cost(text: str, letters: Any) -> int:
    """Return the units to strip `letters`: each character of the text is compared with all of them."""
    return len(text) * (1 + (len(letters) if isinstance(letters, str) else 0) // 32)


@cache
def _with_original_filters(environment: Environment) -> Environment:
    """Return the environment with Jinja2's own filters. `map` does not see it, so a text cannot name them."""
    overlay = environment.overlay()
    overlay.filters = FILTERS
    return overlay


def _call_original(context: BudgetContext, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
    return _with_original_filters(context.environment).call_filter(name, value, args, kwargs, context)


def _make_charged_filter(name: str, passes: int) -> Callable[..., Any]:
    def call_filter(context: BudgetContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        context.charge_for(value, times=passes)
        if args or kwargs:  # the filter walks its arguments once for each item
            item_count = len(value) if passes > 1 and hasattr(value, "__len__") else 1
            context.charge_for(*args, *kwargs.values(), times=max(item_count, 1))
        result = _call_original(context, name, value, *args, **kwargs)
        return list(result) if isinstance(result, Iterator) else result  # a generator is not a JSON value

    return pass_context(call_filter)


@pass_context
def _concat(context: BudgetContext, values: list[Any]) -> str:
    context.charge_for(*values)
    return "".join([str(value) for value in values])


@pass_context
def _iterate(context: BudgetContext, values: Any, cost: int) -> Any:
    """Return the values that a loop iterates over. `cost` is the units of one iteration."""
    if isinstance(values, Undefined):
        return values
    compute_cost(values, 0)  # refuses anything but a JSON value
    iter(values)  # raises if the value is not iterable; all iterable JSON values have a length
    context.charge((ITEM + cost) * len(values))
    return values


@pass_context
def _charge(context: BudgetContext, value: Any) -> Any:
    context.charge_for(value)
    return value


@pass_context
def _int(context: BudgetContext, value: Any, default: Any = 0, base: Any = 10) -> Any:
    context.charge_for(value)
    number = _call_original(context, "int", value, default, base)
    if isinstance(number, int) and number is not value and number.bit_length() > MAX_BITS:
        raise ExpressionError("`int` gives a number too large to compute here")
    return number


@pass_context
def _join(context: BudgetContext, value: Any, d: Any = "", attribute: Any = None) -> Any:
    context.charge_for(value, attribute)
    if hasattr(value, "__len__"):
        context.charge_for(d, times=len(value) + 1)
    return _call_original(context, "join", value, d, attribute)


@pass_context
def _replace(context: BudgetContext, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    context.charge_for(s, old, new)
    text, old, new = str(s), str(old), str(new)
    context.charge(compute_search_cost(text, old))
    context.charge(compute_replace_growth(text, old, new, -1 if count is None else count))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def _round(context: BudgetContext, value: Any, precision: Any = 0, method: Any = "common") -> Any:
    context.charge_for(value)
    if isinstance(precision, int) and abs(precision) > _MAX_ROUND_DIGITS:
        raise ExpressionError(f"`round` takes at most {_MAX_ROUND_DIGITS} digits")
    return _call_original(context, "round", value, precision, method)


@pass_context
def _sum(context: BudgetContext, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise ExpressionError("`sum` adds numbers; its start must be a number")
    context.charge_for(iterable, attribute, times=4)
    return _call_original(context, "sum", iterable, attribute, start)


@pass_context
def _trim(context: BudgetContext, value: Any, chars: str | None = None) -> str:
    context.charge_for(value, chars)
    text = str(value)
    context.charge(compute_strip_cost(text, chars))
    return text.strip(chars)


@pass_context
def _wordcount(context: BudgetContext, s: Any) -> int:
    context.charge_for(s, times=4)
    return sum(1 for _ in _WORD.finditer(str(s)))  # without Jinja2's list of the words


def _make_numeric_test(name: str, test: Any) -> Callable[..., bool]:
    def run_test(*numbers: Any, **named: Any) -> bool:
        for number in (*numbers, *named.values()):
            if isinstance(number, Undefined):
                str(number)  # raises an error with the name
            if not isinstance(number, (int, float)) or (isinstance(number, int) and number.bit_length() > MAX_BITS):
                raise ExpressionError(f"`is {name}` takes a number of at most {MAX_BITS} bits")
        return bool(test(*numbers, **named))

    return run_test


def compute_method_cost(text: str, name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> int:
    """Return the units of a call of a text's method, with the cost of its result."""
    first: Any = args[0] if args else named.get("sep")
    cost = len(text) + sum(compute_cost(value) for value in (*args, *named.values()))
    if name in ("strip", "lstrip", "rstrip"):
        return cost + compute_strip_cost(text, first)
    if name == "join":
        return cost + (len(text) * len(first) if hasattr(first, "__len__") else 0)
    cost += compute_search_cost(text, first, backwards=name in ("rfind", "rindex", "rsplit", "rpartition"))
    if name in ("split", "rsplit", "splitlines"):
        return cost + ITEM * (text.count(first) if isinstance(first, str) and first else len(text) // 2)
    if name == "replace" and len(args) > 1 and isinstance(first, str) and isinstance(args[1], str):
        count = args[2] if len(args) > 2 and isinstance(args[2], int) else -1
        return cost + compute_replace_growth(text, first, args[1], count)
    return cost
