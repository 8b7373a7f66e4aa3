"""Jinja2 in the immutable sandbox: texts and expressions compiled once, their names known, their cost bounded.

Used for the leaves of a template, `derive` and `where`. The rules are stricter than Jinja2's own sandbox, so that no
file can hang or fill the machine that plans it, and so that the same file gives the same plan everywhere: no random
filter, no endless loop, no number or text that explodes. Values are data: they are never rendered themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sweeper.nearest import hint

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT: Final = 1_000_000  # characters a rendered text may have
_MAX_SOURCE: Final = 20_000  # characters of Jinja2 source; longer belongs in the workflow itself
_MAX_RANGE: Final = 1_000  # two nested loops of this length are the longest work a text can ask for
_MAX_BITS: Final = 10_000  # an integer of 3,000 digits
_MAX_REPEAT: Final = 10_000  # characters or items that `*` may make

# What a prompt or a rule may need; `random` would make plans differ, `center` and `batch` can fill a memory.
_FILTERS: Final = frozenset(
    {"abs", "capitalize", "count", "d", "default", "first", "float", "int", "join", "last", "length", "list", "lower"}
    | {"map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr", "sort"}
    | {"string", "sum", "title", "trim", "truncate", "unique", "upper", "wordcount"}
)
_UNSAFE_METHODS: Final = frozenset(
    {"center", "expandtabs", "format", "format_map", "ljust", "rjust", "to_bytes", "translate", "zfill"}
)
_BANNED: Final = ("Macro", "CallBlock", "Include", "Import", "FromImport", "Extends", "Block", "Assign", "AssignBlock")


class ExpressionError(Exception):
    """A text or expression does not parse, is forbidden, or failed on these values. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled text or expression: `names` are what it reads, `evaluate(values)` gives a JSON value.

    `defaults` are the constants of `{{ name | default(constant) }}`.
    """

    text: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    _render: Callable[[Mapping[str, Any]], Any]

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value for these names. Raises ExpressionError when it cannot be computed or is no JSON value."""
        from jinja2 import TemplateError  # noqa: PLC0415 - as below

        try:
            return _plain(self._render(values))
        except ExpressionError:
            raise
        except TemplateError as error:
            raise ExpressionError(str(error.message)) from error
        except Exception as error:  # whatever the user's arithmetic raises: ZeroDivisionError, TypeError, ...
            raise ExpressionError(f"{type(error).__name__}: {error}") from error


def has_jinja(text: str) -> bool:
    """Whether a string leaf is to be rendered. A lone `{#` is not: prompts hold it, comments there are rare."""
    return "{{" in text or "{%" in text


@cache
def compile_text(text: str) -> Expression:
    """Compile a text with `{{ ... }}`. A text that is one expression and nothing else keeps the value's own type."""
    tree = _parse(text)
    parts = getattr(tree.body[0], "nodes", []) if len(tree.body) == 1 else []
    if len(parts) == 1 and type(parts[0]).__name__ != "TemplateData":
        inner = text.strip()[2:-2].strip().removeprefix("-").removesuffix("-").strip()
        return Expression(text, *_names(tree, text), _expression(inner))
    template = _environment().from_string(text)
    return Expression(text, *_names(tree, text), lambda values: _bounded(template.render(values)))


@cache
def compile_expression(text: str) -> Expression:
    """Compile a bare expression such as `steps * width <= 16384`."""
    tree = _parse("{{ " + text + " }}")
    if len(tree.body) != 1 or len(getattr(tree.body[0], "nodes", [])) != 1:
        raise ExpressionError("is not one expression")
    return Expression(text, *_names(tree, text), _expression(text))


def unknown_names(expression: Expression, known: Iterable[str]) -> list[str]:
    """A sentence for each name that the expression reads and nobody gives."""
    names = set(known)
    return [
        f"'{name}' is neither a slot nor a variable{hint(name, sorted(names), 'known')}"
        for name in expression.names
        if name not in names
    ]


def _expression(text: str) -> Callable[[Mapping[str, Any]], Any]:
    compiled = _environment().compile_expression(text, undefined_to_none=False)
    return lambda values: compiled(values)  # noqa: PLW0108 - mypy knows jinja2's own signature as something else


def _parse(text: str) -> nodes.Template:
    from jinja2 import TemplateSyntaxError, nodes  # noqa: PLC0415 - jinja2 costs 30 ms that `--help` must not pay

    if len(text) > _MAX_SOURCE:
        raise ExpressionError(f"has more than {_MAX_SOURCE:,} characters of Jinja2")
    try:
        tree = _environment().parse(text)
        _environment().compile(tree)  # knows unknown filters, which the parser does not
        tree = _environment().parse(text)  # compiling optimises the tree in place
    except TemplateSyntaxError as error:
        raise ExpressionError(f"is not Jinja2: {error.message}") from error
    except (RecursionError, MemoryError) as error:
        raise ExpressionError("is nested too deeply") from error
    for name in _BANNED:
        if any(tree.find_all(getattr(nodes, name))):
            raise ExpressionError(f"holds a Jinja2 {name.lower()}, which is not allowed here")
    for loop in tree.find_all(nodes.For):
        if loop.recursive or any(any(inner.find_all(nodes.For)) for inner in loop.find_all(nodes.For)):
            raise ExpressionError("nests loops more than two deep, or recursively, which is not allowed here")
    return tree


def _names(tree: nodes.Template, text: str) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    from jinja2 import meta, nodes  # noqa: PLC0415 - as above

    names = meta.find_undeclared_variables(tree) - {"range"}
    defaults: dict[str, Any] = {}
    for node in tree.find_all(nodes.Filter):
        value = node.args[0] if node.args else None
        if node.name in ("default", "d") and isinstance(node.node, nodes.Name) and isinstance(value, nodes.Const):
            defaults.setdefault(node.node.name, value.value)
    return tuple(sorted(names, key=lambda name: (text.find(name), name))), defaults


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"gives a text of more than {MAX_TEXT:,} characters")
    return text


def _plain(value: Any) -> Any:
    from jinja2 import Undefined  # noqa: PLC0415 - as above

    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises with the name in it
    if isinstance(value, str):
        return _bounded(str(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    raise ExpressionError(f"gives a {type(value).__name__}, which is no JSON value")


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined  # noqa: PLC0415 - as above
    from jinja2.exceptions import SecurityError  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"**", "*", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right, SecurityError)
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            return attr not in _UNSAFE_METHODS and super().is_safe_attribute(obj, attr, value)

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.globals = {"range": _short_range}
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    return environment


def _short_range(*limits: int) -> range:
    numbers = range(*limits)
    if len(numbers) > _MAX_RANGE:
        raise ExpressionError(f"range gives more than {_MAX_RANGE:,} numbers")
    return numbers


def _check_size(operator: str, left: Any, right: Any, error: type[Exception]) -> None:
    """Refuse what makes a small text cost hours or gigabytes: 9**9**9, 'a' * 10**9, '%999999d' % 1."""
    if operator == "%":
        if isinstance(left, str):
            raise error("`%` on a text is not allowed here; use ~ to join texts")
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MAX_BITS:
            raise error(f"`{operator}` gives a number too large to compute here")
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, (str, list, tuple)) and isinstance(times, int) and len(many) * times > _MAX_REPEAT:
                raise error("`*` repeats a text or list too often")
