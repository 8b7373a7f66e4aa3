"""Jinja2 in texts and expressions, compiled once, with known names and a bounded cost.

The leaves of a template, `derive` and `where` use it. The rules are stricter than those of Jinja2's own sandbox: no
file can hang the planner or fill its memory, and the same file gives the same plan on every machine. So there is no
random filter, no endless loop, and no number or text that explodes. Values are data and are never rendered themselves.

Jinja2 is loaded when the first text is compiled, because it costs 30 ms. `compiler` then puts the parts together
and rewrites the errors of Jinja2 and Python: `syntax` decides which Jinja2 is allowed and adds the guards, `sandbox`
runs it, `jinja_filters` has the filters and tests, and `budget` counts what an evaluation costs.
"""

from __future__ import annotations

from functools import cache

from sweeper.model.expressions.expression import RAW_END, RAW_START, Expression, ExpressionError

__all__ = ["Expression", "ExpressionError", "compile_expression", "compile_text", "has_jinja", "quote_jinja"]


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
