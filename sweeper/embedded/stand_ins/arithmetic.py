"""Computes arithmetic that a workflow writes into a node, such as `max(a, b) // 8 * 8`: the numbers are often sizes.

Everything is bounded: a hostile expression raises ValueError and computes nothing large.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

_MAX_LENGTH, _MAX_DEPTH, _MAX_SIZE = 500, 20, 2.0**64
_OPERATORS: Final[Mapping[type, Callable[..., Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.inv,
    ast.Not: operator.not_, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Pow: math.pow,
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
    except (ArithmeticError, SyntaxError, TypeError, RecursionError, MemoryError) as problem:
        raise ValueError(f"{expression!r} is not arithmetic: {problem}") from problem


def _compute(node: ast.expr, names: Mapping[str, float], depth: int) -> float:
    if depth > _MAX_DEPTH:
        raise ValueError(f"the expression nests deeper than {_MAX_DEPTH} levels")
    value: Any = None
    if isinstance(node, ast.Constant):
        value = node.value
    elif isinstance(node, ast.Name):
        value = names.get(node.id)
    else:
        function, parts = _split(node)
        if function is not None:
            value = function(*(_compute(part, names, depth + 1) for part in parts))
    if not isinstance(value, int | float) or not abs(value) <= _MAX_SIZE:
        raise ValueError(f"{ast.unparse(node)!r} is not a number of at most 2^64")
    return value


def _split(node: ast.expr) -> tuple[Callable[..., Any] | None, list[ast.expr]]:
    """The function that a part of an expression applies, and its arguments; None if it is not arithmetic."""
    match node:
        case ast.BinOp(left=left, op=sign, right=right) | ast.Compare(left=left, ops=[sign], comparators=[right]):
            return _OPERATORS.get(type(sign)), [left, right]
        case ast.UnaryOp(op=sign, operand=operand):
            return _OPERATORS.get(type(sign)), [operand]
        case ast.BoolOp(op=sign, values=parts):
            return (lambda *values: all(values)) if isinstance(sign, ast.And) else (lambda *values: any(values)), parts
        case ast.IfExp(test=test, body=body, orelse=other):
            return (lambda condition, yes, no: yes if condition else no), [test, body, other]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _FUNCTIONS.get(name), arguments
    return None, []
