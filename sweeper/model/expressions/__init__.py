"""Jinja2 in texts and expressions, compiled once, with known names and a bounded cost.

The leaves of a template, `derive` and `where` use it. The rules are stricter than those of Jinja2's own sandbox: no
file can hang the planner or fill its memory, and the same file gives the same plan on every machine. So there is no
random filter, no endless loop, and no number or text that explodes. Values are data and are never rendered themselves.

Jinja2 is loaded when the first text is compiled, because it costs 30 ms. `compiler` then decides which Jinja2 is
allowed, adds the guards, and rewrites the errors of Jinja2 and Python. `sandbox` runs it, has the
filters and tests, and counts what an evaluation costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

__all__ = ["Expression", "ExpressionError", "compile_expression", "compile_text", "has_jinja", "quote_jinja"]

MAX_SOURCE: Final = 20_000  # characters of Jinja2 in one text
RAW_START: Final = "{% raw %}"  # between these, a text is not Jinja2
RAW_END: Final = "{% endraw %}"


class ExpressionError(Exception):
    """A text or expression is not valid, uses something forbidden, or fails on its values. The message is for users."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled text or expression.

    `names` are the names that it reads, `defaults` the constants of `{{ name | default(constant) }}` by name.
    `is_text`: the result is always a text. `sole_name` is the name whose unchanged value is the result, as in
    `{{ name }}` and `{{ name | default(constant) }}`; else None.
    """

    text: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    is_text: bool
    sole_name: str | None
    _evaluate: Callable[[Mapping[str, Any]], Any]

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the JSON value for these values of the names. Raises ExpressionError."""
        return self._evaluate(values)


def has_jinja(text: str) -> bool:
    """Whether a text is to be rendered. `{#` alone does not count: prompts contain it, and comments are rare."""
    return "{{" in text or "{%" in text


def quote_jinja(text: str) -> str:
    """Return Jinja2 that renders to this text. It needs `has_jinja`, and no `endraw`."""
    return f"{RAW_START}{text}{RAW_END}"


@cache
def compile_text(text: str) -> Expression:
    """Compile a text with `{{ ... }}`. A text that is one expression and nothing else keeps the type of its value.

    Raises ExpressionError if the text is not valid Jinja2 or uses something forbidden.
    """
    return _compile(text, text, bare=False)


@cache
def compile_expression(text: str) -> Expression:
    """Compile a bare expression such as `steps * width <= 16384`. Raises ExpressionError as `compile_text` does."""
    return _compile(text, "{{ " + text + " }}", bare=True)


def _compile(text: str, source: str, *, bare: bool) -> Expression:
    from sweeper.model.expressions.compiler import compile_source

    return compile_source(text, source, bare=bare)
