"""The filters and tests that texts may use, and what an evaluation costs at most.

An operation that creates or walks something large pays before it starts. A unit is about ten nanoseconds or one
character: a character costs 1, a list item 8, a step of a loop body 4. Every filter and method pays for its value and
arguments by one rule, `charge_call`, whatever it does with them. The counter is on Jinja2's context, which is new for
every evaluation. Time is not measured: a file is refused on every machine or on none.

Some filters of Jinja2 are left out: `random`, because it would make plans differ; `center`, `format`, `indent` and
`batch`, because they can make a huge text of a short one (`pad` writes leading zeros); `attr`, because it gets around
the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from functools import cache
from itertools import chain
from typing import Any, Final

from jinja2 import Environment, Undefined, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS

from sweeper.model.expressions import ExpressionError

MAX_TEXT: Final = 1_000_000  # characters of a rendered text
MAX_BITS: Final = 1_024  # of an integer in a computation: as large as the largest float
BUDGET: Final = 1_000_000  # units of one evaluation
STEP: Final = 4  # units for one node of a loop body
ITEM: Final = 8  # units for one item of a list, which is a reference
# What a call costs: `sort`, the slowest, takes 300 ns for an item, which are 4 times its 8 units. Searching, stripping,
# replacing and joining take or give at most the product of the value and the arguments, at about 16 characters a unit.
_CALL: Final = 4
_CALL_ARGUMENTS: Final = 16
# The guards that `compiler` adds to the tree. No text can use them: after `|` a name has no parentheses, and
# `Sandbox.call_filter` refuses them behind `map`.
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
_MAX_PAD_DIGITS: Final = 100
PADDING: Final = "`epoch | pad(6)`"  # the example of messages
_MAX_ROUND_DIGITS: Final = 100  # of `round`: a float has 17 that mean something


class BudgetContext(Context):
    """Jinja2's context with the remaining budget of the evaluation."""

    remaining = BUDGET

    def charge(self, units: int) -> None:
        """Pay `units`. Raises ExpressionError if the budget is exceeded."""
        self.remaining -= units
        if self.remaining < 0:
            raise ExpressionError(f"takes too much work: more than {BUDGET:,} characters and steps")

    def charge_for(self, *values: Any, times: int = 1) -> None:
        for value in values:
            self.charge(compute_cost(value, self.remaining) * times)

    def charge_call(self, value: Any, *args: Any, **kwargs: Any) -> None:
        """Pay for a call of a filter or method of `value` with these arguments."""
        arguments = sum(compute_cost(argument, self.remaining) for argument in (*args, *kwargs.values()))
        rounds = 1 + arguments // _CALL_ARGUMENTS
        self.charge(arguments + _CALL * rounds * compute_cost(value, self.remaining))


def compute_cost(value: Any, limit: int = BUDGET) -> int:
    """Return the units that it costs to walk or print a value. Counting stops soon after `limit`.

    A list that another list contains twice counts twice, because it is printed twice. Raises ExpressionError if the
    value is not a JSON value: the text of a method, for example, contains a memory address and differs in every run.
    """
    if type(value) is str:
        return len(value)
    if isinstance(value, Undefined):  # `default` and `is defined` accept it; any other use raises
        return ITEM
    total = ITEM
    pending = [value]
    while pending and total <= limit:
        cost, parts = _split_value(pending.pop())
        total += cost
        if total <= limit:
            pending += parts
    return total


def _split_value(item: Any) -> tuple[int, Iterable[Any]]:
    """Return the units of a value without its parts, and its parts."""
    if isinstance(item, str):
        return len(item), ()
    if isinstance(item, int):  # booleans too; printing a long integer takes the square of its length
        bits = item.bit_length()
        return (bits // 3 if bits <= MAX_BITS else bits**2 // 1024), ()  # its digits, or the time to print it
    if item is None or isinstance(item, float):
        return 0, ()
    if isinstance(item, dict):
        return ITEM * (1 + 2 * len(item)), chain(item.keys(), item.values())
    if isinstance(item, (list, tuple, KeysView, ValuesView, ItemsView)):
        return ITEM * (1 + len(item)), item
    if isinstance(item, range):
        return ITEM * (1 + len(item)), ()
    if isinstance(item, Undefined):
        str(item)  # raises an error with the name; in a list it would be printed as `Undefined`
    raise make_type_error(item)


def make_type_error(value: Any) -> ExpressionError:
    return ExpressionError(f"gives a {type(value).__name__}, which is not a JSON value")


def make_filters() -> dict[str, Any]:
    all_filters: dict[str, Any] = {name: FILTERS[name] for name in _CONSTANT_TIME}
    all_filters |= {name: _make_charged_filter(name) for name in _CHARGED}
    all_filters |= {"int": _int, "pad": _pad, "round": _round, "sum": _sum}
    return all_filters | {ITERATE: _iterate, CHARGE: _charge}


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
def _pad(context: BudgetContext, value: Any, digits: Any = None) -> str:
    """Write a number with leading zeros: `7 | pad(3)` is `007`. The only filter that Jinja2 does not have."""
    if isinstance(value, Undefined):
        str(value)  # raises an error with the name
    is_width = isinstance(digits, int) and 0 <= digits <= _MAX_PAD_DIGITS
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or not is_width:
        raise ExpressionError(f"`pad` takes a number and a width of at most {_MAX_PAD_DIGITS}, as in {PADDING}")
    context.charge_for(value)
    return str(value).zfill(digits)


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
