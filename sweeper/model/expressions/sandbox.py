"""Run the syntax trees that `compiler` allows: Jinja2's immutable sandbox with fewer methods and with size checks.

An operation that creates or walks something large pays before it starts. A unit is about ten nanoseconds or one
character: a character costs 1, a list item 8. Every filter and method pays for its value and arguments by one rule,
`charge_call`, whatever it does with them. The counter is on Jinja2's context, which is new for every evaluation. Time
is not measured: a file is refused on every machine or on none.

Some filters of Jinja2 are left out: `random`, because it would make plans differ; `center`, `format`, `indent` and
`batch`, because they can make a huge text of a short one (`pad` writes leading zeros); `map`, `select` and the like,
because they call another filter or test for each item, as a loop does; `sum`, because it adds lists too; `attr`,
because it gets around the sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from functools import cache
from itertools import chain
from types import BuiltinFunctionType, MethodType
from typing import Any, Final

from jinja2 import StrictUndefined, Template, Undefined, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from sweeper.model.expressions import ExpressionError

MAX_TEXT: Final = 1_000_000  # characters of a rendered text
MAX_BITS: Final = 1_024  # of an integer in a computation: as large as the largest float
BUDGET: Final = 1_000_000  # units of one evaluation
ITEM: Final = 8  # units for one item of a list, which is a reference
# What a call costs: `sort`, the slowest, takes 300 ns for an item, which are 4 times its 8 units. Searching, stripping,
# replacing and joining take or give at most the product of the value and the arguments, at about 16 characters a unit.
_CALL: Final = 4
_CALL_ARGUMENTS: Final = 16
# The guard that `compiler` adds to the tree, and Jinja2's own filters behind ours. No text can use them, because after
# `|` a name has no parentheses.
CHARGE: Final = "(weigh)"
_ORIGINAL: Final = "({})"
# These take the same short time for any value.
_CONSTANT_TIME: Final = ("abs", "count", "d", "default", "first", "last", "length")
_CHARGED: Final = (
    "capitalize", "float", "join", "list", "lower", "max", "min", "replace", "reverse", "sort", "string", "title",
    "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
# `sameas` is left out, because it depends on the interpreter which equal values are the same object; `even`, `odd` and
# `divisibleby`, because they use `%`, which formats a text.
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
    if isinstance(item, Undefined):
        str(item)  # raises an error with the name; in a list it would be printed as `Undefined`
    raise make_type_error(item)


def make_type_error(value: Any) -> ExpressionError:
    return ExpressionError(f"gives a {type(value).__name__}, which is not a JSON value")


def _call_original(context: BudgetContext, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
    return context.environment.call_filter(_ORIGINAL.format(name), value, args, kwargs, context)


def _make_charged_filter(name: str) -> Callable[..., Any]:
    def call_filter(context: BudgetContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        context.charge_call(value, *args, **kwargs)
        result = _call_original(context, name, value, *args, **kwargs)
        return list(result) if isinstance(result, Iterator) else result  # a generator is not a JSON value

    return pass_context(call_filter)


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


_MAX_REPEAT: Final = 10_000  # characters or items that `*` may create
_RESULT: Final = "result"  # the variable that receives the value of a lone expression

# The attributes of each type that a text may use. Left out are methods that make a long text of a short one (`center`,
# `format`, `zfill`), that do not return a JSON value (`encode`), and that change a value (`append`).
_METHODS: Final[tuple[tuple[type, frozenset[str]], ...]] = (
    (str, frozenset((
        "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal",
        "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
        "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    ))),
    (list, frozenset(("count", "index"))),
    (tuple, frozenset(("count", "index"))),
    (dict, frozenset(("get", "items", "keys", "values"))),
    (float, frozenset(("is_integer",))),
)  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox with fewer attributes and with checks of the size of results."""

    intercepted_binops = frozenset({"+", "-", "*", "//", "%", "**"})
    context_class = BudgetContext

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            # Refuse a large result such as 9**9**9, and slow operations on large integers.
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if operator not in ("+", "-") and bits > MAX_BITS:
                raise ExpressionError(f"`{operator}` gives a number too large to compute here")
        elif not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            _check_sequences(context, operator, left, right)
        return self.binop_table[operator](left, right)

    def is_safe_attribute(self, obj: Any, attr: str, _value: Any) -> bool:
        return any(isinstance(obj, kind) and attr in allowed for kind, allowed in _METHODS)

    def wrap_str_format(self, value: Any) -> None:
        """Return None, because `format` is refused like any method that is not listed."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj()  # raises an error with the name
        owner = getattr(obj, "__self__", None)
        if not isinstance(obj, (BuiltinFunctionType, MethodType)) or not self.is_safe_attribute(
            owner, obj.__name__, obj
        ):
            raise TypeError(f"'{type(obj).__name__}' object is not callable")
        walked = owner if isinstance(owner, (str, list, tuple)) else None  # a mapping is not searched
        context.charge_call(walked, *args, **kwargs)
        return obj(*args, **kwargs)


def make_renderer(tree: nodes.Template) -> Callable[[Mapping[str, Any]], str]:
    root = _compile(tree)
    sandbox = get_environment()

    def render(values: Mapping[str, Any]) -> str:
        # Every operation has paid for its piece, so the pieces are bounded. Check the total before they are joined.
        pieces = list(root(BudgetContext(sandbox, values, None, {})))  # type: ignore[arg-type] # any mapping will do
        if sum(map(len, pieces)) > MAX_TEXT:
            raise _make_length_error()
        return "".join(pieces)

    return render


def make_evaluator(expression: nodes.Expr) -> Callable[[Mapping[str, Any]], Any]:
    body: list[nodes.Node] = [nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)]
    root = _compile(nodes.Template(body, lineno=1))
    sandbox = get_environment()

    def compute(values: Mapping[str, Any]) -> Any:
        context = BudgetContext(sandbox, values, None, {})  # type: ignore[arg-type] # as above
        for _ in root(context):
            pass  # the template prints nothing, but its generator must run
        value = context.vars[_RESULT]
        if type(value) is str:
            if len(value) > MAX_TEXT:
                raise _make_length_error()
            return value
        if isinstance(value, (list, tuple, dict)):
            context.charge_for(value)
        return _to_json_value(value)

    return compute


def _compile(tree: nodes.Template) -> Callable[[BudgetContext], Any]:
    tree.set_environment(get_environment())
    code = get_environment().compile(tree)
    return Template.from_code(get_environment(), code, {}).root_render_func


@cache
def get_environment() -> Sandbox:
    """Return the shared sandbox. It does not fold constants, because that would compute before anything is counted."""
    environment = Sandbox(
        undefined=StrictUndefined, keep_trailing_newline=True, optimized=False, finalize=_charge_printed
    )
    environment.globals.clear()
    environment.filters = {name: FILTERS[name] for name in _CONSTANT_TIME}
    environment.filters |= {name: _make_charged_filter(name) for name in _CHARGED}
    environment.filters |= {_ORIGINAL.format(name): FILTERS[name] for name in (*_CHARGED, "int", "round")}
    environment.filters |= {"int": _int, "pad": _pad, "round": _round, CHARGE: _charge}
    environment.tests = {name: TESTS[name] for name in _SAFE_TESTS}
    return environment


@pass_context
def _charge_printed(context: BudgetContext, value: Any) -> Any:
    """Pay for a value that is printed into a text. Raises ExpressionError if it is not a JSON value."""
    if type(value) is not str:
        context.charge_for(value)
    return value


def _to_json_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionError(f"gives {value}, but a finite number is needed")
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_to_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_json_value(item) for key, item in value.items()}
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises an error with the name
    raise make_type_error(value)


def _make_length_error() -> ExpressionError:
    return ExpressionError(f"gives a text of more than {MAX_TEXT:,} characters")


def _check_sequences(context: BudgetContext, operator: str, left: Any, right: Any) -> None:
    """Pay for `+` and `*` of texts and lists; refuse other operators, which mean nothing or something surprising."""
    if isinstance(left, Undefined) or isinstance(right, Undefined):
        return  # the operation raises an error with the name
    if operator == "+":
        context.charge_for(left, right)
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                if len(sequence) * times > _MAX_REPEAT:
                    raise ExpressionError("`*` repeats a text or list too often")
                context.charge_for(sequence, times=max(times, 1))
    elif operator == "%" and isinstance(left, str):
        raise ExpressionError(f"`%` on a text is not allowed here; ~ joins texts, and {PADDING} writes leading zeros")
    else:  # for example the difference of the keys of two mappings: a set, which has no stable order
        types = f"'{type(left).__name__}' and '{type(right).__name__}'"
        raise TypeError(f"unsupported operand type(s) for {operator}: {types}")
