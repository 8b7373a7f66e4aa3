"""Small faults in the source, of the kinds that people make: an operator, a constant, a lost statement.

A fault is found again in later versions of a file by the text of its statement, not by its line, so that the same
faults can be planted before and after a change of the tests.
"""

from __future__ import annotations

import ast
import copy
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path

_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OTHER_SIGN: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
_KINDS = ("operator", "constant", "condition", "removed statement", "swapped arguments")


@dataclass(frozen=True)
class Fault:
    """One change of one expression or statement.

    `function` is the qualified name, `statement` the text of the statement as `ast.unparse` writes it, or of its head
    for a statement with a body. `number` counts equal changes of equal statements in one function, from 0.
    """

    path: str
    function: str
    statement: str
    kind: str
    before: str
    after: str
    number: int


@dataclass(frozen=True)
class Place:
    """Where a fault lies in one version of its file: its line, from 1, and the bytes that it replaces."""

    fault: Fault
    line: int
    start: int
    end: int


@dataclass(frozen=True)
class _Change:
    """One change of one node, before it is counted."""

    kind: str
    node: ast.expr | ast.stmt
    after: str


def draw_faults(root: Path, covered: Mapping[str, AbstractSet[int]], count: int, seed: int) -> list[Fault]:
    """Draw faults in the covered lines of files, the kinds in equal parts. `covered` has paths relative to `root`."""
    by_kind: dict[str, list[Fault]] = {kind: [] for kind in _KINDS}
    for path in sorted(covered):
        for place in list_places(path, (root / path).read_bytes()):
            if place.line in covered[path]:
                by_kind[place.fault.kind].append(place.fault)
    chooser = random.Random(seed)
    drawn: list[Fault] = []
    for index in range(count):
        faults = by_kind[_KINDS[index % len(_KINDS)]]
        drawn.append(faults.pop(chooser.randrange(len(faults))))
    return drawn


def find_place(root: Path, fault: Fault) -> Place | None:
    """Return where a fault lies now, or None where its file or its statement is gone."""
    path = root / fault.path
    if not path.is_file():
        return None
    places = list_places(fault.path, path.read_bytes())
    return next((place for place in places if place.fault == fault), None)


def plant(source: bytes, place: Place) -> bytes:
    """Return a source with the fault in it."""
    return source[: place.start] + place.fault.after.encode() + source[place.end :]


def list_places(path: str, source: bytes) -> Iterator[Place]:
    """Yield every fault that can be planted in a file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: Counter[tuple[str, ...]] = Counter()
    for function, statement in _walk_statements(ast.parse(source), ""):
        text = _write_head(statement)
        for change in _list_changes(statement):
            start = starts[change.node.lineno - 1] + change.node.col_offset
            end = starts[(change.node.end_lineno or 0) - 1] + (change.node.end_col_offset or 0)
            before = source[start:end].decode()
            key = (function, text, change.kind, before, change.after)
            fault = Fault(path, function, text, change.kind, before, change.after, seen[key])
            seen[key] += 1
            yield Place(fault, change.node.lineno, start, end)


def to_json(fault: Fault) -> dict[str, object]:
    """Return a fault as a row of a table."""
    return asdict(fault)


def _walk_statements(node: ast.AST, function: str) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each statement inside a function, with the qualified name of that function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _walk_statements(child, f"{function}.{child.name}".lstrip("."))
            continue
        if isinstance(child, ast.stmt) and function:
            yield function, child
        yield from _walk_statements(child, function)


def _write_head(statement: ast.stmt) -> str:
    """Return the normal text of a statement without its body."""
    head = copy.copy(statement)
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        if hasattr(head, name):
            setattr(head, name, [])
    return ast.unparse(head)


def _list_changes(statement: ast.stmt) -> Iterator[_Change]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a docstring
    yield from _remove_statement(statement)
    if isinstance(statement, ast.If | ast.While):
        yield _Change("condition", statement.test, f"(not ({ast.unparse(statement.test)}))")
    for node in _walk_expressions(statement):
        yield from _change_operator(node)
        yield from _change_constant(node)
        yield from _swap_arguments(node)


def _remove_statement(statement: ast.stmt) -> Iterator[_Change]:
    is_call = isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Yield)
    is_stored = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute | ast.Subscript)
    if is_call or is_stored or isinstance(statement, ast.AugAssign | ast.Raise | ast.Continue):
        yield _Change("removed statement", statement, "pass")
    elif isinstance(statement, ast.Return) and ast.unparse(statement) not in {"return", "return None"}:
        yield _Change("removed statement", statement, "return None")


def _walk_expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions of a statement itself: not those of its body, of annotations, or inside f-strings.

    Python before 3.12 knows no places inside f-strings.
    """
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr | ast.stmt | ast.ExceptHandler | ast.match_case):
                continue
            if isinstance(child, ast.expr):
                yield child
            if isinstance(child, ast.AST):
                yield from _walk_expressions(child)


def _change_operator(node: ast.expr) -> Iterator[_Change]:
    changed = copy.deepcopy(node)
    if isinstance(changed, ast.Compare):
        changed.ops[0] = _OPPOSITE[type(changed.ops[0])]()
    elif isinstance(changed, ast.BinOp) and type(changed.op) in _OTHER_SIGN:
        changed.op = _OTHER_SIGN[type(changed.op)]()
    elif isinstance(changed, ast.BoolOp):
        changed.op = ast.Or() if isinstance(changed.op, ast.And) else ast.And()
    elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
        changed = changed.operand
    else:
        return
    yield _Change("operator", node, f"({ast.unparse(changed)})")


def _change_constant(node: ast.expr) -> Iterator[_Change]:
    if not isinstance(node, ast.Constant):
        return
    match node.value:
        case bool(value):
            yield _Change("constant", node, repr(not value))
        case int(value) | float(value):
            yield _Change("constant", node, repr(value + 1))
        case str(value):
            yield _Change("constant", node, repr(value + "_"))


def _swap_arguments(node: ast.expr) -> Iterator[_Change]:
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return
    first, second = node.args[:2]
    if isinstance(first, ast.Starred) or isinstance(second, ast.Starred):
        return
    if ast.dump(first) == ast.dump(second):
        return
    changed = copy.deepcopy(node)
    changed.args[:2] = [second, first]
    yield _Change("swapped arguments", node, ast.unparse(changed))
