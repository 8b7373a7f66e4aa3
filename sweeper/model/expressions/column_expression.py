"""Expressions over the columns of a table, whose names need not be names of Jinja2: `style.label`, `scene.1` and
`mymetrics:glow` are written as they are, any other (`lora-a`, `in`) between backticks, as in the page's filter.

Jinja2 would take `scene.1` for the second letter of `scene`, and find nothing without a word; so what follows a column
and a dot is part of a column's name, or calls a method, or there is no such column. Nothing is read or printed here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeper.did_you_mean import suggest
from sweeper.model.expressions import Expression, ExpressionError, compile_expression
from sweeper.schemas import format_value

# Left alone: texts, numbers, what follows a `|` (a filter), and attributes of what is no name, as in `x[0].upper()`.
_TOKEN: Final = re.compile(
    r"""'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | \d[\w.]* | \|\s*\w+ | \.\s*\w+
    | `(?P<quoted>[^`]*)` | (?P<name>[^\W\d]\w*(?:[.:]\w+)*)""",
    re.VERBOSE | re.DOTALL,
)
_BARE_NAME: Final = re.compile(r"[^\W\d]\w*(?:[.:]\w+)*")
_NAME_END: Final = re.compile(r"(?=[.:])|\Z")
_METHOD_CALL: Final = re.compile(r"\.\w+\s*\(")
_JINJA_WORDS: Final = frozenset(("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "self"))


class UnknownColumnError(ExpressionError):
    """Names that are no columns; `sentences` says it of each."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


@dataclass(frozen=True, slots=True)
class ColumnExpression:
    """A compiled expression: `columns` are those that it reads, `evaluate(row)` gives its value for a row."""

    columns: tuple[str, ...]
    _expression: Expression
    _columns_by_name: Mapping[str, str]

    def evaluate(self, row: Mapping[str, Any]) -> Any:
        """The value for the cells of this row. Raises ExpressionError, with the cells, where it cannot be computed."""
        try:
            return self._expression.evaluate({name: row[column] for name, column in self._columns_by_name.items()})
        except ExpressionError as error:
            cells = ", ".join(f"{column} = {format_value(row[column], 40)}" for column in self.columns)
            message = _restore_columns(str(error), self._columns_by_name)
            raise ExpressionError(f"{message} (with {cells})" if cells else message) from error


def compile_column_expression(text: str, columns: Collection[str]) -> ColumnExpression:
    """Compile an expression over these columns.

    Raises ExpressionError as `compile_expression` does, and ColumnsError.
    """
    reading = _ColumnParser(text, columns)
    try:
        expression = compile_expression(reading.source)
    except ExpressionError as error:
        if quoting := reading.explain_quoting():
            raise UnknownColumnError(quoting) from error
        raise ExpressionError(_restore_columns(str(error), reading.columns_by_name)) from error
    names = {name: reading.columns_by_name.get(name, name) for name in expression.names}
    unknown = dict.fromkeys((*reading.unknown, *(name for name in names.values() if name not in columns)))
    if unknown:
        said = [f"there is no column '{name}'{suggest(name, columns, 'columns')}" for name in unknown]
        raise UnknownColumnError(reading.explain_quoting() or said)
    return ColumnExpression(tuple(dict.fromkeys(names.values())), expression, names)


class _ColumnParser:
    """A text with a plain name (`stands_for` which column) in place of each that Jinja2 would not read as one."""

    def __init__(self, text: str, columns: Collection[str]) -> None:
        self.text, self.columns = text, columns
        self.columns_by_name: dict[str, str] = {}
        self.unknown: list[str] = []
        self._prefix = "c"
        while any(self._prefix in name for name in (text, *columns)):
            self._prefix += "_"
        self.source = self._substitute()

    def explain_quoting(self) -> list[str]:
        """What to write for the columns that the text names without the backticks that they need."""
        needed = [name for name in self.columns if not _is_bare(name) and f"`{name}`" not in self.text]
        meant = [name for name in needed if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self.text)]
        return [f"the column '{name}' is written between backticks here: `{name}`" for name in meant]

    def _substitute(self) -> str:
        pieces, at = [], 0
        while (found := _TOKEN.search(self.text, at)) is not None:
            pieces.append(self.text[at : found.start()])
            piece, at = self._substitute_token(found)
            pieces.append(piece)
        return "".join((*pieces, self.text[at:]))

    def _substitute_token(self, match: re.Match[str]) -> tuple[str, int]:
        """What is written for a token, and where the text goes on."""
        if (quoted := match["quoted"]) is not None:
            return self._add_name(quoted, match[0]), match.end()
        run = match["name"]
        if run is None:
            return match[0], match.end()
        head, *longer = [run[: end.start()] for end in _NAME_END.finditer(run)]
        name = next((one for one in reversed((head, *longer)) if one in self.columns), None)
        if name is None and (not longer or head.lower() in _JINJA_WORDS):
            return head, match.start() + len(head)  # Jinja2's own word, or a name that is unknown
        rest = run[len(name or "") :]
        if name is None or (rest.startswith(".") and not _METHOD_CALL.match(self.text, match.start() + len(name))):
            return self._add_name(run, run), match.end()
        return (name if name == head else self._add_name(name, name)), match.start() + len(name)

    def _add_name(self, column: str, written: str) -> str:
        """A plain name as long as what was `written`: the places that an error tells stay those of the text."""
        if column not in self.columns:
            self.unknown.append(column)
        plain = f"{self._prefix}{len(self.columns_by_name)}".ljust(len(written), "_")
        self.columns_by_name[plain] = column
        return plain


def _is_bare(name: str) -> bool:
    return _BARE_NAME.fullmatch(name) is not None and re.split("[.:]", name)[0].lower() not in _JINJA_WORDS


def _restore_columns(message: str, columns_by_name: Mapping[str, str]) -> str:
    for plain, column in columns_by_name.items():
        message = message.replace(plain, column)
    return message
