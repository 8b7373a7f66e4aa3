"""Compile a Jinja2 text into an Expression, and explain what goes wrong at compile time and at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import TemplateError, nodes

from sweeper.model.expressions.error_text import explain_runtime_error, explain_syntax_error
from sweeper.model.expressions.expression import Expression, ExpressionError
from sweeper.model.expressions.sandbox import make_evaluator, make_renderer
from sweeper.model.expressions.syntax import find_defaults, find_lone_expression, find_names, parse
from sweeper.wording import shorten


def compile_source(text: str, source: str, *, bare: bool) -> Expression:
    """Compile the Jinja2 of `source`. `text` is what the user wrote: the same, or without braces if `bare`.

    Raises ExpressionError.
    """
    try:
        tree = parse(source)
        lone = find_lone_expression(tree, is_required=bare)
        evaluate = make_renderer(tree) if lone is None else make_evaluator(lone)
        names, defaults = find_names(tree, text), find_defaults(tree)
        return Expression(text, names, defaults, lone is None, _find_sole_name(lone), _with_plain_errors(evaluate))
    except ExpressionError:
        raise
    except Exception as error:  # from the parser and compiler of Jinja2, or from Python's compiler
        raise ExpressionError(_explain_compile_failure(error, text, bare=bare)) from error


def _with_plain_errors(evaluate: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Make a function raise nothing but ExpressionError."""

    def evaluate_plainly(values: Mapping[str, Any]) -> Any:
        try:
            return evaluate(values)
        except ExpressionError:
            raise
        except Exception as error:  # whatever the user's arithmetic raises: ZeroDivisionError, TypeError, ...
            raise ExpressionError(_explain_evaluation_failure(error)) from error

    return evaluate_plainly


def _find_sole_name(expression: nodes.Expr | None) -> str | None:
    """Return the name of `{{ name }}` or `{{ name | default(constant) }}`, else None."""
    node: nodes.Node | None = expression
    if isinstance(node, nodes.Filter) and node.name in ("d", "default") and len(node.args) == 1 and not node.kwargs:
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


def _explain_compile_failure(error: Exception, text: str, *, bare: bool) -> str:
    if isinstance(error, (RecursionError, MemoryError)) or (isinstance(error, SyntaxError) and "too many" in error.msg):
        return "is nested too deeply"
    message = getattr(error, "message", None) or getattr(error, "msg", None) or f"{type(error).__name__}: {error}"
    return "is not Jinja2: " + shorten(explain_syntax_error(str(message), text, bare=bare), 300)


def _explain_evaluation_failure(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    message = str(error.message) if isinstance(error, TemplateError) else str(error)
    return shorten(explain_runtime_error(message) or type(error).__name__, 300)
