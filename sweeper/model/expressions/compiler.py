"""Compile a Jinja2 text into an Expression, and explain what goes wrong at compile time and at run time.

All that is not allowed is refused before anything runs. Guards are added to the tree, so that every operation pays for
its cost. The tree is walked with an explicit list, because Jinja2's own walk recurses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jinja2 import TemplateError, nodes

from sweeper.model.bounded_json import is_encodable
from sweeper.model.expressions import MAX_SOURCE, RAW_END, RAW_START, Expression, ExpressionError
from sweeper.model.expressions.sandbox import (
    CHARGE,
    MAX_BITS,
    PADDING,
    get_environment,
    make_evaluator,
    make_renderer,
)
from sweeper.wording import shorten, suggest

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
_TYPE_NAMES: Final = {
    "int": "a number", "float": "a number", "str": "a text", "bool": "true or false", "NoneType": "nothing",
    "None": "nothing", "list": "a list", "tuple": "a list", "dict": "a mapping",
}  # fmt: skip
_RUNTIME_MESSAGES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"'(?P<sign>.+)' not supported between instances of '(?P<left>\w+)' and '(?P<right>\w+)'",
         "`{sign}` compares {left} with {right}; only two numbers, or two texts, have an order"),
        (r"unsupported operand type\(s\) for (?P<sign>\S+)(?: or pow\(\))?: '(?P<left>\w+)' and '(?P<right>\w+)'",
         "`{sign}` cannot go between {left} and {right}"),
        (r'can only concatenate (?P<left>\w+) \(not "(?P<right>\w+)"\) to \w+',
         "`+` cannot go between {left} and {right}; ~ joins texts"),
        (r"can't multiply sequence by non-int of type '(?P<left>\w+)'",
         "`*` repeats a text or a list a whole number of times, not by {left}"),
        (r"bad operand type for unary (?P<sign>.): '(?P<left>\w+)'", "`{sign}` cannot go before {left}"),
        (r"'(?P<left>\w+)' object is not callable", "{left} cannot be called as a function"),
        (r"(?:argument of type )?'(?P<left>\w+)' (?:object )?is not (?:iterable|a container or iterable)",
         "{left} has no items to go through"),
        (r"(?:access to|'\w+ object' has no) attribute '(?P<sign>format|rjust|zfill)'(?: of 'str' object is unsafe\.)?",
         f"`{{sign}}` is not allowed here; {PADDING} writes leading zeros"),
        (r"'(?P<left>\w+) object' has no attribute '(?P<sign>.*)'", "{left} has nothing that is called '{sign}'"),
        (r"'?(?P<left>\w+)'?(?: object)? has no (?P<sign>(?:element|attribute) .*)", "{left} has no {sign}"),
        (r".*(?:division|modulo) by zero|.*to a negative power", "divides by zero"),
    )
)  # fmt: skip
_MAX_TEXT: Final = 1_000_000  # characters that are not Jinja2, as many as the result may have
_MAX_NODES: Final = 2_000  # names, operators, constants; Jinja2 compiles about ten thousand in a second
_MAX_DEPTH: Final = 100  # levels of the tree; Jinja2 and Python compile by recursion, with three frames for each
_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict,
    nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.BinExpr, nodes.UnaryExpr, nodes.If,
)  # fmt: skip
_LONE_SURROGATE: Final = "contains half of a character (a lone surrogate), which cannot be saved in a file"
_CONTAINERS: Final = (nodes.List, nodes.Tuple, nodes.Dict)


def compile_source(text: str, source: str, *, bare: bool) -> Expression:
    """Compile the Jinja2 of `source`. `text` is what the user wrote: the same, or without braces if `bare`.

    Raises ExpressionError.
    """
    try:
        tree = _parse(source)
        lone = _find_lone_expression(tree, is_required=bare)
        evaluate = make_renderer(tree) if lone is None else make_evaluator(lone)
        names, defaults = _find_names(tree, text), _find_defaults(tree)
        return Expression(text, names, defaults, lone is None, _find_sole_name(lone), _with_plain_errors(evaluate))
    except ExpressionError:
        raise
    except Exception as error:  # from the parser and compiler of Jinja2, or from Python's compiler
        is_deep = isinstance(error, SyntaxError) and "too many" in error.msg
        if is_deep or isinstance(error, (RecursionError, MemoryError)):
            raise ExpressionError("is nested too deeply") from error
        message = getattr(error, "message", None) or getattr(error, "msg", None) or f"{type(error).__name__}: {error}"
        explained = shorten(_explain_syntax_error(str(message), text, bare=bare), 300)
        raise ExpressionError(f"is not Jinja2: {explained}") from error


def _with_plain_errors(evaluate: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    def evaluate_plainly(values: Mapping[str, Any]) -> Any:
        try:
            return evaluate(values)
        except ExpressionError:
            raise
        except Exception as error:  # whatever the user's arithmetic raises: ZeroDivisionError, TypeError, ...
            raise ExpressionError(_explain_evaluation_failure(error)) from error

    return evaluate_plainly


def _find_sole_name(expression: nodes.Expr | None) -> str | None:
    node: nodes.Node | None = expression
    if isinstance(node, nodes.Filter) and node.name in ("d", "default") and len(node.args) == 1 and not node.kwargs:
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


def _explain_evaluation_failure(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    message = str(error.message) if isinstance(error, TemplateError) else str(error)
    for pattern, sentence in _RUNTIME_MESSAGES:
        if (match := pattern.fullmatch(message)) is not None:
            words = {name: part if name == "sign" else _TYPE_NAMES.get(part, part)
                     for name, part in match.groupdict().items()}  # fmt: skip
            return shorten(sentence.format(**words), 300)
    return shorten(message or type(error).__name__, 300)


def _explain_syntax_error(message: str, text: str, *, bare: bool) -> str:
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
        name_or_value = "a name" if unexpected["wanted"] == "name" else "a value"
        wanted = f"a '{unexpected['closing']}'" if unexpected["closing"] else name_or_value
        return f"{wanted} is missing before {end}"
    name = _TOKEN_NAMES.get(token, f"'{token}'")
    return f"{name} is out of place{_SUGGESTIONS.get(token, '')}"


def _parse(text: str) -> nodes.Template:
    """Return the tree of a text, checked and guarded. Raises ExpressionError, and the errors of Jinja2's parser."""
    # One block of text that is not Jinja2 costs nothing to compile.
    is_raw = text.startswith(RAW_START) and text.endswith(RAW_END) and text.count("endraw") == 1
    if len(text) > (_MAX_TEXT if is_raw else MAX_SOURCE):
        raise ExpressionError(f"has more than {_MAX_TEXT if is_raw else MAX_SOURCE:,} characters")
    if not is_encodable(text):
        raise ExpressionError(_LONE_SURROGATE)
    tree = get_environment().parse(text)
    checked = []
    for node, depth in _walk(tree):
        _check(node, depth)
        checked.append(node)
        if len(checked) > _MAX_NODES:
            raise ExpressionError("has too many parts; longer computations belong in a program")
    for node in checked:
        _guard(node)
    return tree


def _find_lone_expression(tree: nodes.Template, *, is_required: bool) -> nodes.Expr | None:
    """Return the expression of a text that is one `{{ ... }}` and nothing else; None for any other text.

    Comments, and white space that `-` removes, do not count. Raises ExpressionError in place of None if `is_required`.
    """
    parts = tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
    if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
        return parts[0]
    if is_required:
        raise ExpressionError("is not one expression")
    return None


def _find_names(tree: nodes.Template, text: str) -> tuple[str, ...]:
    """Return the names that the text reads, in its order. Nothing in a text can define a name."""
    names = {node.name for node, _ in _walk(tree) if isinstance(node, nodes.Name)}
    return tuple(sorted(names, key=lambda name: (text.find(name), name)))


def _find_defaults(tree: nodes.Template) -> Mapping[str, Any]:
    """Return the constants of `{{ name | default(constant) }}` by name; the first if a name has several."""
    constants: dict[str, Any] = {}
    for node, _ in _walk(tree):
        if isinstance(node, nodes.Filter) and node.name in ("default", "d") and isinstance(node.node, nodes.Name):
            arguments = [*node.args, *(keyword.value for keyword in node.kwargs if keyword.key == "default_value")]
            if arguments and _is_constant(arguments[0]):
                constants.setdefault(node.node.name, arguments[0].as_const())
    return constants


def _walk(tree: nodes.Node) -> Iterator[tuple[nodes.Node, int]]:
    """Yield every node with its depth, in the order of the text."""
    pending = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        pending += reversed([(child, depth + 1) for child in node.iter_child_nodes()])


def _check(node: nodes.Node, depth: int) -> None:
    """Raise ExpressionError if the node is not allowed at its depth."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if not isinstance(node, _ALLOWED):
        raise ExpressionError(f"contains a Jinja2 {type(node).__name__.lower()}, which is not allowed here")
    if isinstance(node, nodes.Const):
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            raise ExpressionError("contains a number too large to compute here")
        if isinstance(node.value, str) and not is_encodable(node.value):
            raise ExpressionError(_LONE_SURROGATE)
    elif isinstance(node, nodes.Name):
        _check_name(node.name)
    elif isinstance(node, nodes.Filter):
        _check_known("filter", node.name, get_environment().filters)
    elif isinstance(node, nodes.Test):
        _check_known("test", node.name, get_environment().tests)


def _check_name(name: str) -> None:
    if name == "self":
        raise ExpressionError("reads 'self', which Jinja2 reserves; give the slot another name")
    if unicodedata.normalize("NFKC", name) != name:  # Jinja2 compiles to Python, where both forms are one name
        message = "whose letters have more than one form; write it with plain ones"
        raise ExpressionError(f"reads '{shorten(name)}', {message}")


def _check_known(kind: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        advice = suggest(name, sorted(filter(str.isidentifier, known)), f"{kind}s")
        advice = f"; {PADDING} writes leading zeros" if name in ("format", "rjust", "zfill") else advice
        raise ExpressionError(f"uses the {kind} '{shorten(name)}', which is not known here{advice}")


def _guard(node: nodes.Node) -> None:
    """Add a guard to an operation that may walk or create something large and does not pay itself."""
    if isinstance(node, nodes.Compare):
        node.expr = _charge(node.expr)
        for operand in node.ops:
            operand.expr = _charge(operand.expr)
    elif isinstance(node, nodes.Concat):
        node.nodes = [_apply_charge(value) for value in node.nodes]  # constants too, which are copied
    elif isinstance(node, nodes.Test):
        node.node = _charge(node.node)
        node.args = [_charge(value) for value in node.args or []]
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node.node = _charge(node.node)  # a slice is a copy


def _charge(expression: nodes.Expr) -> nodes.Expr:
    """Guard a value; a constant, or a list of constants as after `in`, costs nothing."""
    return expression if _is_constant(expression) else _apply_charge(expression)


def _apply_charge(node: Any) -> nodes.Filter:
    return nodes.Filter(node, CHARGE, [], [], None, None, lineno=node.lineno)


def _is_constant(node: nodes.Node) -> bool:
    """Whether the node is a constant, perhaps with a sign, or a list of constants."""
    if isinstance(node, nodes.UnaryExpr):
        return isinstance(node.node, nodes.Const) and isinstance(node.node.value, (int, float))
    if isinstance(node, (nodes.Pair, *_CONTAINERS)):
        return all(_is_constant(child) for child in node.iter_child_nodes())
    return isinstance(node, nodes.Const)
