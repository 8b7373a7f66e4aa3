"""Jinja2 in texts and expressions: compiled once, their names known, their cost bounded.

Used for the leaves of a template, `derive` and `where`. The rules are stricter than Jinja2's own sandbox, so that no
file can hang or fill the machine that plans it, and so that the same file gives the same plan everywhere: no random
filter, no endless loop, no number or text that explodes. Values are data: they are never rendered themselves.

Here is the door, which does without Jinja2 until something is compiled (it costs 30 ms that `--help` must not pay).
Behind it: `syntax` decides which Jinja2 is allowed and puts the guards in, `sandbox` runs it, `filters` holds the
filters and tests, `budget` counts what an evaluation costs, `wording` says what is wrong with a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sweeper.did_you_mean import suggest
from sweeper.model.expressions.error_text import explain_runtime_error, explain_syntax_error
from sweeper.model.expressions.expression_error import ExpressionError

__all__ = ["Expression", "ExpressionError", "compile_expression", "compile_text", "explain_unknown_names", "has_jinja"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled text or expression: `names` are what it reads, `evaluate(values)` gives a JSON value.

    `defaults` are the constants of `{{ name | default(constant) }}`.
    """

    text: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    _evaluate: Callable[[Mapping[str, Any]], Any]

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value for these names. Raises ExpressionError when it cannot be computed or is no JSON value."""
        try:
            return self._evaluate(values)
        except ExpressionError:
            raise
        except Exception as error:  # whatever the user's arithmetic raises: ZeroDivisionError, TypeError, ...
            raise ExpressionError(_explain_evaluation_failure(error)) from error


def has_jinja(text: str) -> bool:
    """Whether a string leaf is to be rendered. A lone `{#` is not: prompts hold it, comments there are rare."""
    return "{{" in text or "{%" in text


@cache
def compile_text(text: str) -> Expression:
    """Compile a text with `{{ ... }}`. A text that is one expression and nothing else keeps the value's own type.

    Raises ExpressionError when the text is no Jinja2 or holds what is not allowed.
    """
    return _compile(text, text, bare=False)


@cache
def compile_expression(text: str) -> Expression:
    """Compile a bare expression such as `steps * width <= 16384`. Raises ExpressionError as `compile_text` does."""
    return _compile(text, "{{ " + text + " }}", bare=True)


def explain_unknown_names(expression: Expression, known: Iterable[str]) -> list[str]:
    """A sentence for each name that the expression reads and nobody gives."""
    names = set(known)
    return [
        f"'{_shorten(name, 80)}' is neither a slot nor a variable{suggest(name, sorted(names), 'known')}"
        for name in expression.names
        if name not in names
    ]


def _compile(text: str, source: str, *, bare: bool) -> Expression:
    from sweeper.model.expressions.sandbox import make_evaluator, make_renderer  # noqa: PLC0415 - Jinja2, as above
    from sweeper.model.expressions.syntax import find_defaults, find_lone_expression, find_names, parse  # noqa: PLC0415

    try:
        tree = parse(source)
        lone = find_lone_expression(tree, is_required=bare)
        run = make_renderer(tree) if lone is None else make_evaluator(lone)
        return Expression(text, find_names(tree, text), find_defaults(tree), run)
    except ExpressionError:
        raise
    except Exception as error:  # of Jinja2's parser and compiler, and of Python's behind them
        raise ExpressionError(_explain_compile_failure(error, text, bare=bare)) from error


def _explain_compile_failure(error: Exception, text: str, *, bare: bool) -> str:
    """Why a text cannot be compiled."""
    if isinstance(error, (RecursionError, MemoryError)) or (isinstance(error, SyntaxError) and "too many" in error.msg):
        return "is nested too deeply"
    message = getattr(error, "message", None) or getattr(error, "msg", None) or f"{type(error).__name__}: {error}"
    return "is not Jinja2: " + _shorten(explain_syntax_error(str(message), text, bare=bare))


def _explain_evaluation_failure(error: Exception) -> str:
    """What happened to these values."""
    from jinja2 import TemplateError  # noqa: PLC0415 - as above

    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    said = str(error.message) if isinstance(error, TemplateError) else str(error)
    return _shorten(explain_runtime_error(said) or type(error).__name__)


def _shorten(message: str, limit: int = 300) -> str:
    """In a line: the text of an error may hold the whole value that caused it, or the whole name."""
    return message if len(message) <= limit else message[: limit - 3] + "..."
