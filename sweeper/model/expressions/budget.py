"""The cost limit of one evaluation. An operation that creates or walks something large pays before it starts.

A unit is about ten nanoseconds or one character: a character costs 1, a list item 8, a step of a loop body 4. Every
filter and method pays for its value and arguments by one rule, `charge_call`, whatever it does with them.

The counter is on Jinja2's context, which is new for every evaluation and which every guarded operation receives. So an
expression without such operations has no overhead. Time is not measured: a file is refused on every machine or on none.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, KeysView, ValuesView
from itertools import chain
from typing import Any, Final

from jinja2 import Undefined
from jinja2.runtime import Context

from sweeper.model.expressions.expression import ExpressionError

MAX_TEXT: Final = 1_000_000  # characters of a rendered text
MAX_BITS: Final = 1_024  # of an integer in a computation: as large as the largest float
BUDGET: Final = 1_000_000  # units of one evaluation
STEP: Final = 4  # units for one node of a loop body
ITEM: Final = 8  # units for one item of a list, which is a reference
# What a call costs: `sort`, the slowest, takes 300 ns for an item, which are 4 times its 8 units. Searching, stripping,
# replacing and joining take or give at most the product of the value and the arguments, at about 16 characters a unit.
_CALL: Final = 4
_CALL_ARGUMENTS: Final = 16


class BudgetContext(Context):
    """Jinja2's context with the remaining budget of the evaluation."""

    remaining = BUDGET

    def charge(self, units: int) -> None:
        """Pay `units`. Raises ExpressionError if the budget is exceeded."""
        self.remaining -= units
        if self.remaining < 0:
            raise ExpressionError(f"takes too much work: more than {BUDGET:,} characters and steps")

    def charge_for(self, *values: Any, times: int = 1) -> None:
        """Pay for walking these values `times` times."""
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
    raise make_not_json_error(item)


def make_not_json_error(value: Any) -> ExpressionError:
    """Make the error for a result that is not a JSON value."""
    return ExpressionError(f"gives a {type(value).__name__}, which is not a JSON value")
