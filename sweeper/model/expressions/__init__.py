"""Jinja2 in texts and expressions, compiled once, with known names and a bounded cost.

The leaves of a template, `derive` and `where` use it. The rules are stricter than those of Jinja2's own sandbox: no
file can hang the planner or fill its memory, and the same file gives the same plan on every machine. So there is no
random filter, no loop, and no number or text that explodes. Values are data and are never rendered themselves.

Jinja2 is loaded when the first text is compiled, because it costs 30 ms. `compiler` then decides which Jinja2 is
allowed, adds the guards, and rewrites the errors of Jinja2 and Python. `sandbox` runs it, has the filters and tests,
and counts what an evaluation costs.

In an expression over the columns of a table, `style.label`, `scene.1` and `mymetrics:glow` are written as they are,
other names (`lora-a`, `in`) between backticks, as in the filter of the page. Jinja2 would read `scene.1` as the second
letter of `scene` and silently find nothing. So the text after a column and a dot must be part of a column name or a
method call; otherwise it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

from sweeper.schemas.values import format_value
from sweeper.wording import suggest

MAX_SOURCE: Final = 20_000  # characters of Jinja2 in one text
RAW_START: Final = "{% raw %}"  # between these, a text is not Jinja2
RAW_END: Final = "{% endraw %}"
# Each takes linear time: a text without its second quote ends with the whole, and a name has at most 21 parts.
# Unchanged: texts, numbers, filters (after a `|`), and attributes of anything but a name, as in `x[0].upper()`.
_TOKEN: Final = re.compile(
    r"""'[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z) | "[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z) | \d[\w.]* | \|\s*\w+ | \.\s*\w+
    | `(?P<quoted>[^`]*)` | (?P<name>[^\W\d]\w*(?:[.:]\w+){0,20})""",
    re.VERBOSE | re.DOTALL,
)
_BARE_NAME: Final = re.compile(r"[^\W\d]\w*(?:[.:]\w+)*")
_PREFIX: Final = re.compile("c(_*)")
_NAME_END: Final = re.compile(r"(?=[.:])|\Z")
_METHOD_CALL: Final = re.compile(r"\.\w+\s*\(")
_JINJA_WORDS: Final = frozenset(("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "self"))


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


class UnknownColumnError(ExpressionError):
    """An expression uses names that are not columns. `messages` has a sentence for each."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


def compile_column_expression(text: str, columns: Collection[str], *, others: bool = False) -> Expression:
    """Compile an expression over these columns, for the cells of rows, which its errors quote.

    `others`: it may read other names too, of which one with a dot is what Jinja2 makes of it: an attribute of a
    mapping, or a method. The errors then quote nothing. Raises ExpressionError, or UnknownColumnError.
    """
    if len(text) > MAX_SOURCE:
        raise ExpressionError(f"has more than {MAX_SOURCE:,} characters")
    parser = _ColumnParser(text, columns, keeps_others=others)
    try:
        expression = compile_expression(parser.source)
    except ExpressionError as error:
        if quoting := parser.explain_quoting():
            raise UnknownColumnError(quoting) from error
        raise ExpressionError(_restore_columns(str(error), parser.columns_by_name)) from error
    names = {name: parser.columns_by_name.get(name, name) for name in expression.names}
    unknown = dict.fromkeys((*parser.unknown, *(name for name in names.values() if name not in columns)))
    if unknown and not others:
        sentences = [f"there is no column {format_value(name)}{suggest(name, columns, 'columns')}" for name in unknown]
        raise UnknownColumnError(parser.explain_quoting() or sentences)
    read = tuple(dict.fromkeys(names.values()))

    def evaluate(row: Mapping[str, Any]) -> Any:
        try:
            return expression.evaluate({name: row[column] for name, column in names.items() if column in row})
        except ExpressionError as error:
            cells = "" if others else ", ".join(f"{column} = {format_value(row[column], 40)}" for column in read)
            message = _restore_columns(str(error), names)
            raise ExpressionError(f"{message} (with {cells})" if cells else message) from error

    return Expression(text, read, {}, is_text=False, sole_name=None, _evaluate=evaluate)


class _ColumnParser:
    """Replaces the column names in a text that Jinja2 cannot read by plain names.

    `source` is the new text, `columns_by_name` the column of each plain name, `unknown` the names that are not columns,
    which stay as they are if it `keeps_others`.
    """

    def __init__(self, text: str, columns: Collection[str], *, keeps_others: bool = False) -> None:
        self.text, self.columns, self.keeps_others = text, columns, keeps_others
        self.columns_by_name: dict[str, str] = {}
        self.unknown: list[str] = []
        pieces, position = [], 0
        while (match := _TOKEN.search(text, position)) is not None:
            pieces.append(text[position : match.start()])
            piece, position = self._substitute_token(match)
            pieces.append(piece)
        self.source = "".join((*pieces, text[position:]))

    @cached_property
    def _prefix(self) -> str:
        """The beginning of the plain names: a letter and more underscores than any name has after that letter."""
        found = (match for name in (self.text, *self.columns) for match in _PREFIX.findall(name))
        return "c_" + "_" * max(map(len, found), default=0)

    def explain_quoting(self) -> list[str]:
        """Return a sentence for each column that the text names without the backticks that it needs."""
        unquoted = [
            name for name in self.columns if name in self.text and not _is_bare(name) and f"`{name}`" not in self.text
        ]
        mentioned = [name for name in unquoted if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self.text)]
        return [f"write the column '{name}' between backticks here: `{name}`" for name in mentioned]

    def _substitute_token(self, match: re.Match[str]) -> tuple[str, int]:
        if (quoted := match["quoted"]) is not None:
            return self._add_name(quoted, match[0]), match.end()
        word = match["name"]
        if word is None:
            return match[0], match.end()
        head, *longer = [word[: end.start()] for end in _NAME_END.finditer(word)]
        name = next((part for part in reversed((head, *longer)) if part in self.columns), None)
        if name is None and (not longer or head.lower() in _JINJA_WORDS or self.keeps_others):
            return head, match.start() + len(head)  # a word of Jinja2, or an unknown name
        rest = word[len(name or "") :]
        if name is None or (rest.startswith(".") and not _METHOD_CALL.match(self.text, match.start() + len(name))):
            return self._add_name(word, word), match.end()
        return (name if name == head else self._add_name(name, name)), match.start() + len(name)

    def _add_name(self, column: str, written: str) -> str:
        """Return a plain name for a column, as long as what was `written`, to keep the positions in error messages."""
        if column not in self.columns:
            self.unknown.append(column)
        name = f"{self._prefix}{len(self.columns_by_name)}".ljust(len(written), "_")
        self.columns_by_name[name] = column
        return name


def _is_bare(name: str) -> bool:
    return _BARE_NAME.fullmatch(name) is not None and re.split("[.:]", name)[0].lower() not in _JINJA_WORDS


def _restore_columns(message: str, columns_by_name: Mapping[str, str]) -> str:
    for name, column in columns_by_name.items():
        message = message.replace(name, column)
    return message
