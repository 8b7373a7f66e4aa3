"""Running what `syntax` has let pass: Jinja2's immutable sandbox, with fewer methods and with sizes checked first.

Nothing here reads a text; trees come in, functions from values to a JSON value go out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import BuiltinFunctionType, MethodType
from typing import Any, Final

from jinja2 import StrictUndefined, Template, Undefined, nodes, pass_context
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sweeper.model.expressions import jinja_filters
from sweeper.model.expressions.budget import MAX_BITS, MAX_TEXT, BudgetContext, make_not_json_error
from sweeper.model.expressions.expression_error import ExpressionError

_MAX_RANGE: Final = 1_000  # numbers that `range` may give
_MAX_REPEAT: Final = 10_000  # characters or items that `*` may make
_RESULT: Final = "result"  # what a lone expression's value is kept under

# What each type may be asked for. Left out is what makes a long text of a short one (`center`, `format`, `zfill`),
# what is no JSON value (`encode`), and what changes a value (`append`).
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
    """Python's range. Raises ExpressionError when it is long."""
    numbers = range(*limits)
    if numbers[_MAX_RANGE:]:  # len() fails beyond 2**63
        raise ExpressionError(f"range gives more than {_MAX_RANGE:,} numbers")
    return numbers


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox as it is wanted here."""

    intercepted_binops = frozenset({"+", "-", "*", "//", "%", "**"})
    context_class = BudgetContext
    short_range = staticmethod(short_range)  # what `syntax` makes of a call of `range`

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`left operator right`, its size checked first."""
        if isinstance(left, int) and isinstance(right, int):
            if operator not in ("+", "-"):
                _check_integers(operator, left, right)
        elif not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            _check_sequences(context, operator, left, right)
        return self.binop_table[operator](left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002 - Jinja2's signature
        """Whether a text may read it: an attribute that is listed above."""
        return any(isinstance(obj, kind) and attr in allowed for kind, allowed in _METHODS)

    def wrap_str_format(self, value: Any) -> None:
        """Nothing: `format` is refused like any method that is not listed."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call `range`, or a method of a value that may be read."""
        kwargs.pop("_loop_vars", None)  # what Jinja2 gives to every call in a loop, for functions that take a context
        if isinstance(obj, Undefined):
            return obj()  # raises with its name
        if obj is short_range:
            if kwargs:
                raise TypeError("range() takes no keyword arguments")
            return short_range(*args)
        owner = getattr(obj, "__self__", None)
        if not isinstance(obj, (BuiltinFunctionType, MethodType)) or not self.is_safe_attribute(
            owner, obj.__name__, obj
        ):
            raise TypeError(f"'{type(obj).__name__}' object is not callable")
        if isinstance(owner, str):
            context.charge(jinja_filters.compute_method_cost(owner, obj.__name__, args, kwargs))
        elif isinstance(owner, (list, tuple)):
            context.charge_for(owner, *args, *kwargs.values())
        else:
            context.charge_for(*args, *kwargs.values())
        return obj(*args, **kwargs)


def make_renderer(tree: nodes.Template) -> Callable[[Mapping[str, Any]], str]:
    """A function from values to the text."""
    root = _compile(tree)
    sandbox = get_environment()

    def render(values: Mapping[str, Any]) -> str:
        # The pieces are bounded, as all that makes them has been paid for; so is what joins them, before it is made.
        pieces = list(root(BudgetContext(sandbox, values, None, {})))  # type: ignore[arg-type] # any mapping will do
        if sum(map(len, pieces)) > MAX_TEXT:
            raise _make_length_error()
        return "".join(pieces)

    return render


def make_evaluator(expression: nodes.Expr) -> Callable[[Mapping[str, Any]], Any]:
    """A function from values to the value of one expression."""
    body: list[nodes.Node] = [nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)]
    root = _compile(nodes.Template(body, lineno=1))
    sandbox = get_environment()

    def compute(values: Mapping[str, Any]) -> Any:
        context = BudgetContext(sandbox, values, None, {})  # type: ignore[arg-type] # as above
        for _ in root(context):
            pass  # nothing is printed; the generator has to be run
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
    """The one sandbox. It folds no constants: that would compute before anything is counted."""
    made = Sandbox(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        optimized=False,
        finalize=_charge_printed,
    )
    made.globals.clear()
    made.filters = jinja_filters.make_filters()
    made.tests = jinja_filters.make_tests()
    return made


@pass_context
def _charge_printed(context: BudgetContext, value: Any) -> Any:
    """What stands in a text for a value: whatever may become long is paid for, what is no JSON value is refused."""
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
        str(value)  # StrictUndefined raises with the name in it
    raise make_not_json_error(value)


def _make_length_error() -> ExpressionError:
    return ExpressionError(f"gives a text of more than {MAX_TEXT:,} characters")


def _check_integers(operator: str, left: int, right: int) -> None:
    """Refuse 9**9**9, and what takes long on numbers that are long already."""
    bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
    if bits > MAX_BITS:
        raise ExpressionError(f"`{operator}` gives a number too large to compute here")


def _check_sequences(context: BudgetContext, operator: str, left: Any, right: Any) -> None:
    """Texts and lists: `+` and `*` pay for what they make, all else has no meaning or a surprising one."""
    if isinstance(left, Undefined) or isinstance(right, Undefined):
        return  # the operation raises with its name
    if operator == "+":
        context.charge_for(left, right)
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, (str, list, tuple)) and isinstance(times, int):
                if len(many) * times > _MAX_REPEAT:
                    raise ExpressionError("`*` repeats a text or list too often")
                context.charge_for(many, times=max(times, 1))
    elif operator == "%" and isinstance(left, str):
        raise ExpressionError("`%` on a text is not allowed here; use ~ to join texts")
    else:  # among them the difference of two mappings' keys: a set, which has no order that lasts
        kinds = f"'{type(left).__name__}' and '{type(right).__name__}'"
        raise TypeError(f"unsupported operand type(s) for {operator}: {kinds}")
