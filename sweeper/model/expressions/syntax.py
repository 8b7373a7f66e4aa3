"""Which Jinja2 is allowed, told from the syntax tree, and the guards put in: no operation without its price.

Pure: a text goes in, a tree or an ExpressionError comes out. Everything is told before anything runs, and the tree is
walked with a list of our own, as Jinja2's walk climbs the stack.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import meta, nodes

from sweeper.did_you_mean import suggest
from sweeper.model.expressions import jinja_filters
from sweeper.model.expressions.budget import MAX_BITS, STEP
from sweeper.model.expressions.expression_error import ExpressionError
from sweeper.model.expressions.sandbox import get_environment

_MAX_SOURCE: Final = 20_000  # characters of Jinja2 source; longer belongs in the workflow itself
_MAX_NODES: Final = 2_000  # names, operators, constants; Jinja2 compiles some ten thousand in a second
_MAX_DEPTH: Final = 100  # nodes above one another; Jinja2 and Python compile by recursion, three frames for each
_MAX_LOOPS: Final = 2  # loops in one another
_FREE_COMPARISONS: Final = 16  # outside loops: each takes milliseconds at most; beyond these all are paid for
_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict,
    nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.BinExpr, nodes.UnaryExpr, nodes.For, nodes.If,
)  # fmt: skip
_LONE_SURROGATE: Final = "holds half of a character (a lone surrogate), which no file can keep"
_CONTAINERS: Final = (nodes.List, nodes.Tuple, nodes.Dict)


@dataclass(frozen=True, slots=True)
class _NodePosition:
    """A node with what stands above it."""

    node: nodes.Node
    depth: int
    loops: int


def parse(text: str) -> nodes.Template:
    """The tree of a text, allowed as a whole and guarded. Raises ExpressionError, and what Jinja2 raises."""
    if len(text) > _MAX_SOURCE:
        raise ExpressionError(f"has more than {_MAX_SOURCE:,} characters of Jinja2")
    if not _is_encodable(text):
        raise ExpressionError(_LONE_SURROGATE)
    tree = get_environment().parse(text)
    every = []
    for place in _walk(tree):
        _check(place)
        every.append(place)
        if len(every) > _MAX_NODES:
            raise ExpressionError("has too many parts; longer computations belong in a program")
    _guard(every)
    return tree


def find_lone_expression(tree: nodes.Template, *, is_required: bool = False) -> nodes.Expr | None:
    """The expression of a text that is one `{{ ... }}` and nothing else; None, or an error if `needed`, where there is
    more to it. Comments, and white space that `-` removes, are nothing.
    """
    parts = tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
    if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
        return parts[0]
    if is_required:
        raise ExpressionError("is not one expression")
    return None


def find_names(tree: nodes.Template, text: str) -> tuple[str, ...]:
    """The names that it reads and does not bind itself, in the order in which the text has them."""
    tracking = meta.TrackingCodeGenerator(get_environment())  # meta.find_undeclared_variables, but without computing
    tracking.optimizer = None
    tracking.visit(tree)
    return tuple(sorted(tracking.undeclared_identifiers, key=lambda name: (text.find(name), name)))


def find_defaults(tree: nodes.Template) -> Mapping[str, Any]:
    """The constants of `{{ name | default(constant) }}`, by name; the first where a name has several."""
    found: dict[str, Any] = {}
    for node in (place.node for place in _walk(tree)):
        if isinstance(node, nodes.Filter) and node.name in ("default", "d") and isinstance(node.node, nodes.Name):
            given = [*node.args, *(word.value for word in node.kwargs if word.key == "default_value")]
            if given and _is_constant(given[0]):
                found.setdefault(node.node.name, given[0].as_const())
    return found


def _walk(tree: nodes.Node) -> Iterator[_NodePosition]:
    """Every node, as the text has them."""
    waiting = [_NodePosition(tree, 0, 0)]
    while waiting:
        place = waiting.pop()
        yield place
        inner = place.loops + isinstance(place.node, nodes.For)
        below = [_NodePosition(child, place.depth + 1, inner) for child in place.node.iter_child_nodes()]
        waiting += reversed(below)


def _check(position: _NodePosition) -> None:
    """Raise ExpressionError when this node is not allowed where it stands."""
    node = position.node
    if position.depth > _MAX_DEPTH:
        raise RecursionError
    if not isinstance(node, _ALLOWED):
        raise ExpressionError(f"holds a Jinja2 {type(node).__name__.lower()}, which is not allowed here")
    if isinstance(node, nodes.For) and (node.recursive or position.loops >= _MAX_LOOPS):
        raise ExpressionError("nests loops more than two deep, or recursively, which is not allowed here")
    if isinstance(node, nodes.Const):
        _check_constant(node.value)
    elif isinstance(node, nodes.Name):
        _check_name(node.name)
    elif isinstance(node, nodes.Filter):
        _check_known("filter", node.name, get_environment().filters)
    elif isinstance(node, nodes.Test):
        _check_known("test", node.name, get_environment().tests)


def _check_constant(value: Any) -> None:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ExpressionError("holds a number too large to compute here")
    if isinstance(value, str) and not _is_encodable(value):
        raise ExpressionError(_LONE_SURROGATE)


def _check_name(name: str) -> None:
    if name == "self":
        raise ExpressionError("reads 'self', which Jinja2 keeps for itself; give the slot another name")
    if unicodedata.normalize("NFKC", name) != name:  # Python, which it is compiled to, takes both for one name
        raise ExpressionError(
            f"reads '{_shorten(name)}', whose letters have more than one form; write it with plain ones"
        )


def _check_known(what: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        usual = sorted(one for one in known if one.isidentifier())
        raise ExpressionError(
            f"uses the {what} '{_shorten(name)}', which is not known here{suggest(name, usual, what + 's')}"
        )


def _guard(positions: list[_NodePosition]) -> None:
    """Put a guard before everything that may walk or make something large and that no operation pays for itself."""
    for place in positions:
        _guard_texts(place.node)
    comparing = sum(isinstance(place.node, (nodes.Compare, nodes.Test)) for place in positions)
    for place in positions:
        node = place.node
        if isinstance(node, nodes.For):
            node.iter = _apply_filter(node.iter, jinja_filters.ITERATE, nodes.Const(_compute_round_cost(node)))
        elif isinstance(node, nodes.Compare):
            _guard_comparison(node, always=place.loops > 0 or comparing > _FREE_COMPARISONS)
        elif isinstance(node, nodes.Test):
            node.node = _apply_filter(node.node, jinja_filters.CHARGE)
            node.args = [_apply_filter(value, jinja_filters.CHARGE) for value in node.args or []]
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = _apply_filter(node.node, jinja_filters.CHARGE)  # a slice is a copy
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range":
            # Called it is the function; else it is a name like any other, and may be a slot's.
            node.node = nodes.EnvironmentAttribute("short_range", lineno=node.lineno)


def _guard_texts(node: nodes.Node) -> None:
    """Replace each `~` below the node by the guard that joins."""
    for field, value in [*node.iter_fields()]:
        if isinstance(value, nodes.Concat):
            setattr(node, field, _make_concat(value))
        elif isinstance(value, list):
            value[:] = [_make_concat(one) if isinstance(one, nodes.Concat) else one for one in value]


def _guard_comparison(node: nodes.Compare, *, always: bool) -> None:
    def guard(one: nodes.Expr) -> nodes.Expr:
        # A list written out may hold one value many times; one of constants is what `in` is for, and costs nothing.
        below = (place.node for place in _walk(one))
        written = any(isinstance(node, _CONTAINERS) and not _is_constant(node) for node in below)
        return _apply_filter(one, jinja_filters.CHARGE) if written or (always and not _is_constant(one)) else one

    node.expr = guard(node.expr)
    for operand in node.ops:
        operand.expr = guard(operand.expr)


def _compute_round_cost(loop: nodes.For) -> int:
    """Units of one round: its nodes, and the characters it writes."""
    cost = 0
    for part in [*loop.body, *([loop.test] if loop.test is not None else [])]:
        for place in _walk(part):
            cost += STEP + (len(place.node.data) if isinstance(place.node, nodes.TemplateData) else 0)
    return cost


def _make_concat(node: nodes.Concat) -> nodes.Filter:
    return _apply_filter(nodes.List(node.nodes, lineno=node.lineno), jinja_filters.CONCAT)


def _apply_filter(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [*args], [], None, None, lineno=node.lineno)


def _is_constant(node: nodes.Node) -> bool:
    """Whether computing it now takes no time: a constant, with a sign perhaps, or a list of them."""
    if isinstance(node, nodes.UnaryExpr):
        return isinstance(node.node, nodes.Const) and isinstance(node.node.value, (int, float))
    if isinstance(node, (nodes.Pair, *_CONTAINERS)):
        return all(_is_constant(child) for child in node.iter_child_nodes())
    return isinstance(node, nodes.Const)


def _is_encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
