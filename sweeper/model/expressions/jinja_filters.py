"""The filters and tests that texts may use: those of Jinja2, each of which pays for its work first.

Some are left out: `random`, because it would make plans differ; `center`, `format`, `indent` and `batch`, because they
can make a huge text of a short one; `attr`, because it gets around the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
_CHARGED: Final = (
    "capitalize", "float", "join", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse",
    "select", "selectattr", "sort", "string", "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
# `sameas` is left out, because it depends on the interpreter which equal values are the same object.
_SAFE_TESTS: Final = (
    "!=", "<", "<=", "==", ">", ">=", "boolean", "defined", "eq", "equalto", "false", "float", "ge", "greaterthan",
    "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "sequence",
    "string", "true", "undefined", "upper",
)  # fmt: skip
_MAX_ROUND_DIGITS: Final = 100  # of `round`: a float has 17 that mean something


def make_filters() -> dict[str, Any]:
    """Return every filter by name."""
    all_filters: dict[str, Any] = {name: FILTERS[name] for name in _CONSTANT_TIME}
    all_filters |= {name: _make_charged_filter(name) for name in _CHARGED}
    all_filters |= {"int": _int, "round": _round, "sum": _sum}
    return all_filters | {CONCAT: _concat, ITERATE: _iterate, CHARGE: _charge}


def make_tests() -> dict[str, Any]:
    """Return every test by name. Tests that use `%` accept numbers only, because `%` on a text formats it."""
    numeric = {name: _make_numeric_test(name, TESTS[name]) for name in ("divisibleby", "even", "odd")}
    return {name: TESTS[name] for name in _SAFE_TESTS} | numeric


@cache
def _with_original_filters(environment: Environment) -> Environment:
    """Return the environment with Jinja2's own filters. `map` does not see it, so a text cannot name them."""
    overlay = environment.overlay()
    overlay.filters = FILTERS
    return overlay


def _call_original(context: BudgetContext, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
    return _with_original_filters(context.environment).call_filter(name, value, args, kwargs, context)


def _make_charged_filter(name: str) -> Callable[..., Any]:
    def call_filter(context: BudgetContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        context.charge_call(value, *args, **kwargs)
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
def _round(context: BudgetContext, value: Any, precision: Any = 0, method: Any = "common") -> Any:
    context.charge_for(value)
    if isinstance(precision, int) and abs(precision) > _MAX_ROUND_DIGITS:
        raise ExpressionError(f"`round` takes at most {_MAX_ROUND_DIGITS} digits")
    return _call_original(context, "round", value, precision, method)


@pass_context
def _sum(context: BudgetContext, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise ExpressionError("`sum` adds numbers; its start must be a number")
    context.charge_call(iterable, attribute)
    return _call_original(context, "sum", iterable, attribute, start)


def _make_numeric_test(name: str, test: Any) -> Callable[..., bool]:
    def run_test(*numbers: Any, **named: Any) -> bool:
        for number in (*numbers, *named.values()):
            if isinstance(number, Undefined):
                str(number)  # raises an error with the name
            if not isinstance(number, (int, float)) or (isinstance(number, int) and number.bit_length() > MAX_BITS):
                raise ExpressionError(f"`is {name}` takes a number of at most {MAX_BITS} bits")
        return bool(test(*numbers, **named))

    return run_test
