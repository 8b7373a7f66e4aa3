"""Compile a Jinja2 text into an Expression, and explain what goes wrong at compile time and at run time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import TemplateError, nodes

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


_UNEXPECTED_CHARACTER: Final = re.compile(
    r"unexpected char (?:'(?P<plain>.*)'|\"(?P<quoted>.*)\") at (?P<at>\d+)", re.DOTALL
)
_UNEXPECTED_TOKEN: Final = re.compile(
    r"(?P<how>unexpected|expected token '(?P<wanted>[^']+)', got|Expected an expression, got)"
    r" '(?P<found>.+?)'(?:, expected '(?P<closing>.)')?"
)
_PREFIX_LENGTH: Final = len("{{ ")
_END_TOKENS: Final = {"end of print statement": "}}", "end of statement block": "%}"}
_TOKEN_NAMES: Final = {"integer": "a number", "float": "a number", "string": "a text in quotes"}
_SUGGESTIONS: Final = {
    "=": "; to compare, write == or !=", "&": "; write `and`", "!": "; write `not`, or != to compare",
    "?": "; write `a if test else b`", "AND": "; write `and`", "OR": "; write `or`", "NOT": "; write `not`",
}  # fmt: skip


def explain_syntax_error(message: str, text: str, *, bare: bool) -> str:
    """Rewrite a message of Jinja2's parser about `text`. `bare`: sweeper added `{{ ` and ` }}` around the text."""
    if bare and not text.strip():
        return "is empty, and a value is needed"
    if bare and "{{" in text:
        return "write the expression without '{{' and '}}' here"
    if message.startswith("unexpected end of template"):
        return "a '{{' has no '}}'"
    if (character := _UNEXPECTED_CHARACTER.fullmatch(message)) is not None:
        token = character["plain"] or character["quoted"]
        position = int(character["at"]) + 1 - (_PREFIX_LENGTH if bare else 0)
        if token in ("'", '"'):
            return f"the text that begins with {token} at character {position} has no closing {token}"
        return f"'{token}' at character {position} is out of place{_SUGGESTIONS.get(token, '')}"
    unexpected = _UNEXPECTED_TOKEN.match(message)
    if unexpected is None:
        return message
    token = unexpected["found"]
    end = f"'{_END_TOKENS[token]}'" if token in _END_TOKENS else ""
    if bare and token in ("}", "end of print statement"):
        end = "its end"
    if end:
        wanted = (
            f"a '{unexpected['closing']}'"
            if unexpected["closing"]
            else "a name"
            if unexpected["wanted"] == "name"
            else "a value"
        )
        return f"{wanted} is missing before {end}"
    name = _TOKEN_NAMES.get(token, f"'{token}'")
    return f"{name} is out of place{_SUGGESTIONS.get(token, '')}"


_TYPE_NAMES: Final = {
    "int": "a number", "float": "a number", "str": "a text", "bool": "true or false", "NoneType": "nothing",
    "None": "nothing", "list": "a list", "tuple": "a list", "dict": "a mapping",
}  # fmt: skip
_RUNTIME_MESSAGES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"'(?P<sign>.+)' not supported between instances of '(?P<one>\w+)' and '(?P<other>\w+)'",
         "`{sign}` compares {one} with {other}; only two numbers, or two texts, have an order"),
        (r"unsupported operand type\(s\) for (?P<sign>\S+)(?: or pow\(\))?: '(?P<one>\w+)' and '(?P<other>\w+)'",
         "`{sign}` cannot go between {one} and {other}"),
        (r'can only concatenate (?P<one>\w+) \(not "(?P<other>\w+)"\) to \w+',
         "`+` cannot go between {one} and {other}; ~ joins texts"),
        (r"can't multiply sequence by non-int of type '(?P<one>\w+)'",
         "`*` repeats a text or a list a whole number of times, not by {one}"),
        (r"bad operand type for unary (?P<sign>.): '(?P<one>\w+)'", "`{sign}` cannot go before {one}"),
        (r"'(?P<one>\w+)' object is not callable", "{one} cannot be called as a function"),
        (r"(?:argument of type )?'(?P<one>\w+)' (?:object )?is not (?:iterable|a container or iterable)",
         "{one} has no items to go through"),
        (r"'(?P<one>\w+) object' has no attribute '(?P<sign>.*)'", "{one} has nothing that is called '{sign}'"),
        (r"'?(?P<one>\w+)'?(?: object)? has no (?P<sign>(?:element|attribute) .*)", "{one} has no {sign}"),
        (r".*(?:division|modulo) by zero|.*to a negative power", "divides by zero"),
    )
)  # fmt: skip


def explain_runtime_error(message: str) -> str:
    """Rewrite a message of Python or Jinja2 about values that an operation does not accept."""
    for pattern, sentence in _RUNTIME_MESSAGES:
        if (match := pattern.fullmatch(message)) is not None:
            words_by_group = {
                name: _TYPE_NAMES.get(part, part) if name != "sign" else part
                for name, part in match.groupdict().items()
            }
            return sentence.format(**words_by_group)
    return message
