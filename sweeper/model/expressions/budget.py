"""What one evaluation may cost. Every operation that can make or walk something large pays before it does.

A unit is about ten nanoseconds or one character: a character costs 1, an item of a list 8, a step of a loop's body 4.
The counter lives on Jinja2's context, which every guarded operation is handed and every evaluation makes anew, so
that an expression without such operations pays nothing. No clock is asked: the same file is refused everywhere alike.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, KeysView, ValuesView
from itertools import chain
from typing import Any, Final

from jinja2 import Undefined
from jinja2.runtime import Context

from sweeper.model.expressions.expression_error import ExpressionError

MAX_TEXT: Final = 1_000_000  # characters a rendered text may have
MAX_BITS: Final = 1_024  # of an integer that is computed with: as large as the largest float
BUDGET: Final = 1_000_000  # units
STEP: Final = 4  # units of one node of a loop's body
ITEM: Final = 8  # units of one item of a list, which is a reference
_MAX_INTEGER: Final = 1 << MAX_BITS


class BudgetContext(Context):
    """Jinja2's context, with what is left of the budget."""

    remaining = BUDGET

    def charge(self, units: int) -> None:
        """Pay. Raises ExpressionError when nothing is left."""
        self.remaining -= units
        if self.remaining < 0:
            raise ExpressionError(f"is too much work: more than {BUDGET:,} characters and steps")

    def charge_for(self, *values: Any, times: int = 1) -> None:
        """Pay for walking these values `times` times."""
        for value in values:
            self.charge(compute_cost(value, self.remaining) * times)


def compute_cost(value: Any, limit: int = BUDGET) -> int:
    """The units that walking or printing a value costs; counting stops soon beyond `limit`.

    A list that stands in another one twice counts twice, as its text would have it. Raises ExpressionError for what
    is no JSON value: a method's text, for one, holds an address in memory and is never the same.
    """
    if type(value) is str:
        return len(value)
    if isinstance(value, Undefined):  # `default` and `is defined` take it, whatever else touches it raises
        return ITEM
    total = ITEM
    waiting = [value]
    while waiting and total <= limit:
        own, parts = _split_value(waiting.pop())
        total += own
        if total <= limit:
            waiting += parts
    return total


def _split_value(item: Any) -> tuple[int, Iterable[Any]]:
    """The units of a value without its parts, and its parts."""
    if isinstance(item, str):
        return len(item), ()
    if isinstance(item, int):  # true and false too; printing a long one takes the square of its length
        return (0 if -_MAX_INTEGER < item < _MAX_INTEGER else (item.bit_length() // 32) ** 2), ()
    if item is None or isinstance(item, float):
        return 0, ()
    if isinstance(item, dict):
        return ITEM * (1 + 2 * len(item)), chain(item.keys(), item.values())
    if isinstance(item, (list, tuple, KeysView, ValuesView, ItemsView)):
        return ITEM * (1 + len(item)), item
    if isinstance(item, range):
        return ITEM * (1 + len(item)), ()
    if isinstance(item, Undefined):
        str(item)  # raises with its name; inside a list it would be printed as `Undefined`
    raise make_not_json_error(item)


def make_not_json_error(value: Any) -> ExpressionError:
    """The error that says so."""
    return ExpressionError(f"gives a {type(value).__name__}, which is no JSON value")
