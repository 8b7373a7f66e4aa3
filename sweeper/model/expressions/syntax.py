"""Parse a Jinja2 text, refuse what is not allowed, and add guards so that every operation pays for its cost.

All errors are found before anything runs. The tree is walked with an explicit list, because Jinja2's own walk recurses.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import meta, nodes

from sweeper.model.expressions import jinja_filters
from sweeper.model.expressions.budget import MAX_BITS, STEP
from sweeper.model.expressions.expression import MAX_SOURCE, RAW_END, RAW_START, ExpressionError
from sweeper.model.expressions.sandbox import get_environment
from sweeper.wording import shorten, suggest

_MAX_TEXT: Final = 1_000_000  # characters, as many as the result may have; outside of Jinja2 they cost nothing
_MAX_NODES: Final = 2_000  # names, operators, constants; Jinja2 compiles about ten thousand in a second
_MAX_DEPTH: Final = 100  # levels of the tree; Jinja2 and Python compile by recursion, with three frames for each
_MAX_LOOPS: Final = 2  # nested loops
_FREE_COMPARISONS: Final = 16  # outside loops: each takes milliseconds at most; with more of them, all pay
_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict,
    nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.BinExpr, nodes.UnaryExpr, nodes.For, nodes.If,
)  # fmt: skip
_LONE_SURROGATE: Final = "contains half of a character (a lone surrogate), which cannot be saved in a file"
_CONTAINERS: Final = (nodes.List, nodes.Tuple, nodes.Dict)


@dataclass(frozen=True, slots=True)
class _NodePosition:
    """A node of the tree, its depth, and the number of loops around it."""

    node: nodes.Node
    depth: int
    loops: int


def parse(text: str) -> nodes.Template:
    """Return the tree of a text, checked and guarded. Raises ExpressionError, and the errors of Jinja2's parser."""
    if len(text) > MAX_SOURCE and not _is_raw(text):
        _check_length(text)
    if not _is_encodable(text):
        raise ExpressionError(_LONE_SURROGATE)
    tree = get_environment().parse(text)
    positions = []
    for position in _walk(tree):
        _check(position)
        positions.append(position)
        if len(positions) > _MAX_NODES:
            raise ExpressionError("has too many parts; longer computations belong in a program")
    _guard(positions)
    return tree


def _check_length(text: str) -> None:
    """Refuse a text that is too long, or that has too much Jinja2 in it. The lexer stops where the limit is reached."""
    if len(text) > _MAX_TEXT:
        raise ExpressionError(f"has more than {_MAX_TEXT:,} characters")
    length = 0
    for _, kind, value in get_environment().lexer.tokeniter(text, None):
        length += len(value) if kind != "data" else 0
        if length > MAX_SOURCE:
            raise ExpressionError(f"has more than {MAX_SOURCE:,} characters of Jinja2")


def _is_raw(text: str) -> bool:
    """Whether the text is one block of text that is not Jinja2, which costs nothing to compile."""
    return text.startswith(RAW_START) and text.endswith(RAW_END) and text.count("endraw") == 1


def find_lone_expression(tree: nodes.Template, *, is_required: bool = False) -> nodes.Expr | None:
    """Return the expression of a text that is one `{{ ... }}` and nothing else; None for any other text.

    Comments, and white space that `-` removes, do not count. Raises ExpressionError in place of None if `is_required`.
    """
    parts = tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
    if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
        return parts[0]
    if is_required:
        raise ExpressionError("is not one expression")
    return None


def find_names(tree: nodes.Template, text: str) -> tuple[str, ...]:
    """Return the names that the text reads and does not define itself, in the order of the text."""
    tracking = meta.TrackingCodeGenerator(
        get_environment()
    )  # as meta.find_undeclared_variables, but folds no constants
    tracking.optimizer = None
    tracking.visit(tree)
    return tuple(sorted(tracking.undeclared_identifiers, key=lambda name: (text.find(name), name)))


def find_defaults(tree: nodes.Template) -> Mapping[str, Any]:
    """Return the constants of `{{ name | default(constant) }}` by name; the first if a name has several."""
    constants: dict[str, Any] = {}
    for node in (position.node for position in _walk(tree)):
        if isinstance(node, nodes.Filter) and node.name in ("default", "d") and isinstance(node.node, nodes.Name):
            arguments = [*node.args, *(keyword.value for keyword in node.kwargs if keyword.key == "default_value")]
            if arguments and _is_constant(arguments[0]):
                constants.setdefault(node.node.name, arguments[0].as_const())
    return constants


def _walk(tree: nodes.Node) -> Iterator[_NodePosition]:
    """Yield every node in the order of the text."""
    pending = [_NodePosition(tree, 0, 0)]
    while pending:
        position = pending.pop()
        yield position
        loops = position.loops + isinstance(position.node, nodes.For)
        children = [_NodePosition(child, position.depth + 1, loops) for child in position.node.iter_child_nodes()]
        pending += reversed(children)


def _check(position: _NodePosition) -> None:
    """Raise ExpressionError if the node is not allowed at its position."""
    node = position.node
    if position.depth > _MAX_DEPTH:
        raise RecursionError
    if not isinstance(node, _ALLOWED):
        raise ExpressionError(f"contains a Jinja2 {type(node).__name__.lower()}, which is not allowed here")
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
        raise ExpressionError("contains a number too large to compute here")
    if isinstance(value, str) and not _is_encodable(value):
        raise ExpressionError(_LONE_SURROGATE)


def _check_name(name: str) -> None:
    if name == "self":
        raise ExpressionError("reads 'self', which Jinja2 reserves; give the slot another name")
    if unicodedata.normalize("NFKC", name) != name:  # Jinja2 compiles to Python, where both forms are one name
        raise ExpressionError(
            f"reads '{shorten(name)}', whose letters have more than one form; write it with plain ones"
        )


def _check_known(kind: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        usual_names = sorted(known_name for known_name in known if known_name.isidentifier())
        raise ExpressionError(
            f"uses the {kind} '{shorten(name)}', which is not known here{suggest(name, usual_names, kind + 's')}"
        )


def _guard(positions: list[_NodePosition]) -> None:
    """Add a guard to every operation that may walk or create something large and does not pay itself."""
    for position in positions:
        _guard_texts(position.node)
    comparisons = sum(isinstance(position.node, (nodes.Compare, nodes.Test)) for position in positions)
    for position in positions:
        node = position.node
        if isinstance(node, nodes.For):
            node.iter = _apply_filter(node.iter, jinja_filters.ITERATE, nodes.Const(_compute_round_cost(node)))
        elif isinstance(node, nodes.Compare):
            _guard_comparison(node, always=position.loops > 0 or comparisons > _FREE_COMPARISONS)
        elif isinstance(node, nodes.Test):
            node.node = _apply_filter(node.node, jinja_filters.CHARGE)
            node.args = [_apply_filter(value, jinja_filters.CHARGE) for value in node.args or []]
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = _apply_filter(node.node, jinja_filters.CHARGE)  # a slice is a copy
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range":
            # A call means the function. Elsewhere `range` is an ordinary name, perhaps that of a slot.
            node.node = nodes.EnvironmentAttribute("short_range", lineno=node.lineno)


def _guard_texts(node: nodes.Node) -> None:
    """Replace each `~` in the fields of the node by the guarded filter that joins texts."""
    for field, value in [*node.iter_fields()]:
        if isinstance(value, nodes.Concat):
            setattr(node, field, _make_concat(value))
        elif isinstance(value, list):
            value[:] = [_make_concat(item) if isinstance(item, nodes.Concat) else item for item in value]


def _guard_comparison(node: nodes.Compare, *, always: bool) -> None:
    def guard(expression: nodes.Expr) -> nodes.Expr:
        # A list in the text may repeat a large value. A list of constants, as after `in`, costs nothing.
        nodes_below = (position.node for position in _walk(expression))
        is_written = any(isinstance(node, _CONTAINERS) and not _is_constant(node) for node in nodes_below)
        return (
            _apply_filter(expression, jinja_filters.CHARGE)
            if is_written or (always and not _is_constant(expression))
            else expression
        )

    node.expr = guard(node.expr)
    for operand in node.ops:
        operand.expr = guard(operand.expr)


def _compute_round_cost(loop: nodes.For) -> int:
    """Return the units of one iteration: its nodes, and the characters that it writes."""
    cost = 0
    for part in [*loop.body, *([loop.test] if loop.test is not None else [])]:
        for position in _walk(part):
            cost += STEP + (len(position.node.data) if isinstance(position.node, nodes.TemplateData) else 0)
    return cost


def _make_concat(node: nodes.Concat) -> nodes.Filter:
    return _apply_filter(nodes.List(node.nodes, lineno=node.lineno), jinja_filters.CONCAT)


def _apply_filter(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [*args], [], None, None, lineno=node.lineno)


def _is_constant(node: nodes.Node) -> bool:
    """Whether the node is a constant, perhaps with a sign, or a list of constants."""
    if isinstance(node, nodes.UnaryExpr):
        return isinstance(node.node, nodes.Const) and isinstance(node.node.value, (int, float))
    if isinstance(node, (nodes.Pair, *_CONTAINERS)):
        return all(_is_constant(child) for child in node.iter_child_nodes())
    return isinstance(node, nodes.Const)


def _is_encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
