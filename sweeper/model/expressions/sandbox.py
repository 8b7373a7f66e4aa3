"""Run the syntax trees that `compiler` allows: Jinja2's immutable sandbox with fewer methods and with size checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import BuiltinFunctionType, MethodType
from typing import Any, Final

from jinja2 import StrictUndefined, Template, Undefined, nodes, pass_context
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sweeper.model.expressions import ExpressionError
from sweeper.model.expressions.budget import (
    MAX_BITS,
    MAX_TEXT,
    PADDING,
    BudgetContext,
    make_filters,
    make_tests,
    make_type_error,
)
from sweeper.wording import shorten

_MAX_RANGE: Final = 1_000  # numbers of one `range`
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
    (LoopContext, frozenset((
        "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem",
        "revindex", "revindex0",
    ))),
)  # fmt: skip


def short_range(*limits: int) -> range:
    """Python's range. Raises ExpressionError if it has more than 1,000 numbers."""
    numbers = range(*limits)
    if numbers[_MAX_RANGE:]:  # not len(), which fails beyond 2**63
        raise ExpressionError(f"range gives more than {_MAX_RANGE:,} numbers")
    return numbers


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox with fewer attributes and with checks of the size of results."""

    intercepted_binops = frozenset({"+", "-", "*", "//", "%", "**"})
    context_class = BudgetContext
    short_range = staticmethod(short_range)  # `compiler` replaces a call of `range` by a call of this

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            if operator not in ("+", "-"):
                _check_integers(operator, left, right)
        elif not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            _check_sequences(context, operator, left, right)
        return self.binop_table[operator](left, right)

    def is_safe_attribute(self, obj: Any, attr: str, _value: Any) -> bool:
        return any(isinstance(obj, kind) and attr in allowed for kind, allowed in _METHODS)

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the filter that `map` names. The guards of `budget` are not for texts."""
        if not str(name).isidentifier():
            raise ExpressionError(f"uses the filter '{shorten(str(name))}', which is not known here")
        return super().call_filter(name, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> None:
        """Return None, because `format` is refused like any method that is not listed."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("_loop_vars", None)  # Jinja2 adds it to every call in a loop, for functions that take a context
        if isinstance(obj, Undefined):
            return obj()  # raises an error with the name
        if obj is short_range:
            if kwargs:
                raise TypeError("range() takes no keyword arguments")
            return short_range(*args)
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
    environment.filters = make_filters()
    environment.tests = make_tests()
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


def _check_integers(operator: str, left: int, right: int) -> None:
    """Refuse a large result such as 9**9**9, and slow operations on large integers."""
    bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
    if bits > MAX_BITS:
        raise ExpressionError(f"`{operator}` gives a number too large to compute here")


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
