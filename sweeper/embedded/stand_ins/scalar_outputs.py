"""Texts, numbers and choices that a stand-in gives: upstream values go on unless the class makes new ones."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sweeper.embedded.stand_ins.drawing import find_sides, project
from sweeper.embedded.stand_ins.histories import MAX_TEXT, SIDE_NAMES, digest_history
from sweeper.embedded.stand_ins.node_reading import is_switch

if TYPE_CHECKING:
    from sweeper.embedded.stand_ins.node_reading import NodeReading, OutputRequest

_WORDS: Final = (
    "calm", "bright", "soft", "golden", "quiet", "wide", "distant", "vivid", "pale", "warm", "cool", "clear", "old",
    "new", "fine", "bold",
)  # fmt: skip
_USUAL_SIZE: Final = {"width": 512, "height": 512, "batch": 1, "frames": 33}
_SIDES: Final = {"width": "width", "height": "height", "batch": "batch", "count": "batch", "frames": "frames"}
_PYTHON_TYPES: Final[dict[str, type]] = {"STRING": str, "INT": int, "FLOAT": float, "BOOLEAN": bool, "COMBO": str}
_OPERATIONS: Final[Mapping[str, str]] = {
    "add": "a + b", "subtract": "a - b", "multiply": "a * b", "divide": "a / b", "modulo": "a % b", "power": "a ** b",
    **{sign: f"a {sign} b" for sign in ("+", "-", "*", "/", "//", "%", "**")},
}  # fmt: skip


def make_scalar(reading: NodeReading, request: OutputRequest) -> Any:
    """Make a STRING, INT, FLOAT, BOOLEAN or COMBO."""
    if request.type == "STRING":
        return _make_text(reading, request)
    found = None if request.type == "COMBO" else _compute_expression(reading)
    found = _find_same(reading, request) if found is None else found
    if found is not None:
        return _PYTHON_TYPES[request.type](found)
    if request.type == "COMBO":
        return request.choices[0] if request.choices else reading.merge().text
    return _measure(reading, request)


def _compute_expression(reading: NodeReading) -> float | None:
    """The value of the node's `expression` over its other numbers; None if it has none that is arithmetic."""
    values = reading.values
    names = ("expression", "formula", "operation", "value")
    expression = next((values[name] for name in names if name in values), None)
    if not isinstance(expression, str):
        return None
    numbers = {name.rpartition(".")[2]: value for name, value in values.items() if isinstance(value, int | float)}
    try:
        return compute(_OPERATIONS.get(expression.lower(), expression), numbers)
    except ValueError:
        return None


def _find_same(reading: NodeReading, request: OutputRequest) -> Any:
    """The input of the output's name or else of its type, upstream ones first; None if there is none."""
    wanted = _PYTHON_TYPES[request.type]
    linked = {linked.name: linked.value for linked in reading.linked}
    fitting = {name: value for name, value in {**linked, **reading.widgets}.items() if _is_of(value, wanted)}
    for name, value in fitting.items():
        if name.rpartition(".")[2].lower() == request.name.lower():
            return value
    if request.type == "COMBO":
        return next((value for value in fitting.values() if value in request.choices or not request.choices), None)
    chosen = reading.choose({name: value for name, value in fitting.items() if not is_switch(name)})
    if chosen is not None:
        return fitting[chosen]
    if request.type == "INT" and _find_size_name(request) is not None:
        return None  # other numbers of the node are not sizes
    numbers = [value for name, value in linked.items() if name in fitting]
    if len(numbers) > 1 and wanted in {int, float}:
        mean = sum(numbers) / len(numbers)
        return round(mean) if wanted is int else mean
    return next(iter(fitting.values()), None)


def _is_of(value: Any, wanted: type) -> bool:
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, int | float) and math.isfinite(value) if wanted is float else isinstance(value, wanted)


def _measure(reading: NodeReading, request: OutputRequest) -> Any:
    """A number of what is upstream: the size of a picture, or one between 0 and 1."""
    history = reading.merge()
    size = _find_size_name(request)
    share = 0.5 + 0.5 * float(project(history)[0])
    if request.type == "BOOLEAN":
        return share > 0.5
    if request.type == "FLOAT":
        return float(history.sizes.get("fps", share)) if "fps" in request.name.lower() else share
    if size in {"width", "height"} and SIDE_NAMES & history.sizes.keys():
        multiple = reading.widgets.get("multiple", 8)
        side = find_sides(history.sizes)[size == "height"]
        step = multiple if isinstance(multiple, int) and 0 < multiple <= 256 else 8
        return round(side) if size in history.sizes else max(round(side / step), 1) * step
    if size is not None:
        return int(history.sizes.get(size, _USUAL_SIZE[size]))
    return max(1, round(8 * share))  # it may be a count or a length


def _find_size_name(request: OutputRequest) -> str | None:
    return next((size for word, size in _SIDES.items() if word in request.name.lower()), None)


def _make_text(reading: NodeReading, request: OutputRequest) -> str:
    """The texts that come in, joined; a class that writes (it has a seed, or reads a picture) adds words of its own."""
    given = {name: value for name, value in reading.values.items() if isinstance(value, str)}
    chosen = None if reading.is_seeded else reading.choose(given)
    if chosen is not None:
        return str(given[chosen])
    texts = [linked.value for linked in reading.linked if isinstance(linked.value, str)]
    own = [text for text in (reading.prompt,) if text and text not in texts]
    same = reading.widgets.get(request.name)
    if isinstance(same, str) and not reading.is_seeded:
        return same
    joined = ", ".join(text for text in [*texts, *own] if text)
    others = [linked for linked in reading.linked if not isinstance(linked.value, str | int | float)]
    if not joined and not others:
        joined = ", ".join(str(value) for value in reading.widgets.values() if isinstance(value, str | int | float))
    if reading.is_seeded or others or not joined:
        subject = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reading.class_type)
        words = " ".join(_WORDS[int(digit, 16)] for digit in digest_history(reading.merge())[:6])
        joined = f"{joined or reading.merge().text or subject}, {words}"
    return joined[: MAX_TEXT * 4]


# --- expressions -----------------------------------------------------------------------------------------------------

_MAX_LENGTH, _MAX_DEPTH, _MAX_SIZE = 500, 20, 2.0**64
_OPERATORS: Final[Mapping[type, Callable[..., Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.inv,
    ast.Not: operator.not_, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Pow: math.pow,
    ast.And: lambda *values: all(values), ast.Or: lambda *values: any(values),
}  # fmt: skip
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs, "ceil": math.ceil, "cos": math.cos, "float": float, "floor": math.floor, "int": int, "log": math.log,
    "log10": math.log10, "log2": math.log2, "max": max, "min": min, "pow": math.pow, "round": round, "sin": math.sin,
    "sqrt": math.sqrt, "sum": lambda *numbers: sum(numbers), "tan": math.tan,
}  # fmt: skip


def compute(expression: str, names: Mapping[str, float]) -> float:
    """The value of an expression over named numbers. Raises ValueError if it is not arithmetic, or too large."""
    if len(expression) > _MAX_LENGTH:
        raise ValueError(f"the expression has {len(expression)} characters; at most {_MAX_LENGTH} are allowed")
    try:
        return _compute(ast.parse(expression.strip(), mode="eval").body, names, 0)
    except (ArithmeticError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as problem:
        raise ValueError(f"{expression!r} is not arithmetic: {problem}") from problem


def _compute(node: ast.expr, names: Mapping[str, float], depth: int) -> float:
    if depth > _MAX_DEPTH:
        raise ValueError(f"the expression nests deeper than {_MAX_DEPTH} levels")
    value: Any = None
    if isinstance(node, ast.Constant):
        value = node.value
    elif isinstance(node, ast.Name):
        value = names[node.id]
    else:
        function, parts = _split(node)
        value = function(*(_compute(part, names, depth + 1) for part in parts))
    if not isinstance(value, int | float) or not abs(value) <= _MAX_SIZE:
        raise ValueError(f"{ast.unparse(node)!r} is not a number of at most 2^64")
    return value


def _split(node: ast.expr) -> tuple[Callable[..., Any], list[ast.expr]]:
    """The function that a part of an expression applies, and its arguments. Raises KeyError for anything else."""
    match node:
        case ast.BinOp(left=left, op=sign, right=right) | ast.Compare(left=left, ops=[sign], comparators=[right]):
            return _OPERATORS[type(sign)], [left, right]
        case ast.UnaryOp(op=sign, operand=operand):
            return _OPERATORS[type(sign)], [operand]
        case ast.BoolOp(op=sign, values=parts):
            return _OPERATORS[type(sign)], parts
        case ast.IfExp(test=test, body=body, orelse=other):
            return (lambda condition, yes, no: yes if condition else no), [test, body, other]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _FUNCTIONS[name], arguments
    raise KeyError(ast.unparse(node))
