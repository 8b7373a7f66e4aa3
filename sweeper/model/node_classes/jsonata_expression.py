"""Evaluate the JSONata expressions of a server, with bounds on steps, depth and sizes.

`jsonata-python` parses and evaluates. An expression comes from a server, so it must neither hang nor exhaust this
process. No clock is needed for that: every step of the evaluation is counted, and every value that a step makes is
measured. Of the language, only what computes a small value from small values is allowed: no ranges, no wildcards, no
sorting, no `$eval`, and none of the functions that make a long text or list of a short argument. Patterns run in RE2.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import re2

_MAX_LENGTH: Final = 10_000  # characters of an expression; the longest of ComfyUI 0.33.0 has 4,205
_MAX_STEPS: Final = 20_000  # of one evaluation, about half a second; the longest of ComfyUI 0.33.0 takes a few hundred
_MAX_TOTAL_STEPS: Final = 300_000  # of all evaluations of one expression
_MAX_DEPTH: Final = 60  # nested steps, about six Python frames each
_MAX_NESTING: Final = 200  # of brackets and operators in the text
_MAX_ITEMS: Final = 1_000  # items of a value, with everything inside
_MAX_CHARACTERS: Final = 10_000  # of a text
_MAX_NUMBER: Final = 1e15  # integers of Python have no limit of their own

_ALLOWED_TYPES: Final = frozenset(
    {"binary", "bind", "block", "condition", "filter", "function", "index", "lambda", "name", "number", "path"}
    | {"regex", "string", "unary", "value", "variable"}
)
_ALLOWED_FUNCTIONS: Final = frozenset(
    {"abs", "average", "boolean", "ceil", "contains", "count", "exists", "floor", "join", "keys", "length", "lookup"}
    | {"lowercase", "match", "max", "min", "not", "number", "power", "round", "sqrt", "string", "substring"}
    | {"substringAfter", "substringBefore", "sum", "trim", "type", "uppercase"}
)


class JsonataError(Exception):
    """The expression cannot be parsed or evaluated, or goes beyond a bound."""


class JsonataExpression:
    """A parsed expression. Raises JsonataError if it is invalid or uses what is not allowed here."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise JsonataError(f"it has more than {_MAX_LENGTH:,} characters")
        if sum(map(text.count, "([{")) > _MAX_NESTING * 10:
            raise JsonataError("it has too many brackets")
        self._parsed = _call_engine(_load_engine(), text, _compile_pattern)
        self._environment = self._parsed.environment
        self._steps_left = _MAX_TOTAL_STEPS
        functions = _load_engine().static_frame.bindings
        for symbol in _iter_symbols(self._parsed.ast):
            kind, value = getattr(symbol, "type", None), str(getattr(symbol, "value", ""))
            if kind not in _ALLOWED_TYPES or (kind == "binary" and value == ".."):
                raise JsonataError(f"it uses {value or kind!r}, which is not allowed here")
            if kind == "variable" and value in functions and value not in _ALLOWED_FUNCTIONS:
                raise JsonataError(f"it uses ${value}, which is not allowed here")

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the result as JSON values; None if there is none. Raises JsonataError."""
        if self._steps_left <= 0:
            raise JsonataError(f"all its evaluations take more than {_MAX_TOTAL_STEPS:,} steps")
        budget = _Budget()
        self._parsed.environment = self._environment
        bindings = {"__evaluate_entry": budget.enter, "__evaluate_exit": budget.leave}
        try:
            return _call_engine(self._parsed.evaluate, _mark_nulls(values), bindings)
        finally:
            self._steps_left -= budget.steps


class _Budget:
    """Counts the steps of one evaluation. The engine calls `enter` before and `leave` after each."""

    def __init__(self) -> None:
        self.steps = 0
        self._depth = 0

    def enter(self, *_: object) -> None:
        self.steps += 1
        self._depth += 1
        if self.steps > _MAX_STEPS:
            raise JsonataError(f"it takes more than {_MAX_STEPS:,} steps")
        if self._depth > _MAX_DEPTH:
            raise JsonataError(f"it nests more than {_MAX_DEPTH} steps")

    def leave(self, _expression: object, _values: object, _environment: object, result: object) -> None:
        self._depth -= 1
        _check_size(result)


def _check_size(result: object) -> None:
    """Measure a value and all values in it; one that appears twice counts twice. Raises JsonataError."""
    if result is None or type(result) is bool:
        return
    waiting, count = [result], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, str):
            if len(value) > _MAX_CHARACTERS:
                raise JsonataError(f"it makes a text of more than {_MAX_CHARACTERS:,} characters")
        elif isinstance(value, (int, float)):
            if not abs(value) <= _MAX_NUMBER:
                raise JsonataError("it makes a number that is too large")
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        if count + len(waiting) > _MAX_ITEMS:
            raise JsonataError(f"it makes a value of more than {_MAX_ITEMS:,} items")


@cache
def _load_engine() -> Any:
    """Import the engine, which takes a tenth of a second, and restore the recursion limit, which it raises."""
    limit = sys.getrecursionlimit()
    from jsonata import Jsonata

    sys.setrecursionlimit(limit)
    return Jsonata


def _call_engine(function: Any, *arguments: Any) -> Any:
    """Call the engine. Raises JsonataError for whatever it raises, because its errors have no common class."""
    try:
        return function(*arguments)
    except JsonataError:
        raise
    except RecursionError:
        raise JsonataError("it is nested too deeply") from None
    except Exception as error:  # noqa: BLE001 - an AttributeError or KeyError of the engine is an invalid expression too
        text = " ".join(str(error).split())[:200]
        raise JsonataError(f"it fails: {text or type(error).__name__}") from None


def _compile_pattern(pattern: str, flags: Any) -> Any:
    """Compile a pattern in linear time, in place of the engine's default, Python's `re`."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    options.case_sensitive = not flags.case_insensitive
    return re2.compile(f"(?m){pattern}" if flags.multiline else pattern, options)


def _iter_symbols(root: object) -> Iterator[Any]:
    """Yield every symbol of a syntax tree once, wherever the parser has put it."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif hasattr(value, "lbp"):  # a symbol of the parser
            yield value
            waiting += [part for name, part in vars(value).items() if not name.startswith("_")]


def _mark_nulls(value: Any) -> Any:
    """Replace None by the engine's null, because it takes None for a value that does not exist."""
    if isinstance(value, Mapping):
        return {key: _mark_nulls(item) for key, item in value.items()}
    if value is None:
        from jsonata.utils import Utils

        return Utils.NULL_VALUE
    return value if not isinstance(value, float) or not value.is_integer() or math.isinf(value) else int(value)
