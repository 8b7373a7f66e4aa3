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

from sweeper.did_you_mean import hint
from sweeper.model.expressions import Expression, ExpressionError, compile_expression
from sweeper.schemas import shown

# Left alone: texts, numbers, what follows a `|` (a filter), and attributes of what is no name, as in `x[0].upper()`.
_TOKEN: Final = re.compile(
    r"""'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | \d[\w.]* | \|\s*\w+ | \.\s*\w+
    | `(?P<quoted>[^`]*)` | (?P<name>[^\W\d]\w*(?:[.:]\w+)*)""",
    re.VERBOSE | re.DOTALL,
)
_BARE: Final = re.compile(r"[^\W\d]\w*(?:[.:]\w+)*")
_END: Final = re.compile(r"(?=[.:])|\Z")
_METHOD: Final = re.compile(r"\.\w+\s*\(")
_WORDS: Final = frozenset(("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "self"))


class ColumnsError(ExpressionError):
    """Names that are no columns; `sentences` says it of each."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = tuple(sentences)


@dataclass(frozen=True, slots=True)
class ColumnExpression:
    """A compiled expression: `columns` are those that it reads, `evaluate(row)` gives its value for a row."""

    columns: tuple[str, ...]
    _expression: Expression
    _stands_for: Mapping[str, str]

    def evaluate(self, row: Mapping[str, Any]) -> Any:
        """The value for the cells of this row. Raises ExpressionError, with the cells, where it cannot be computed."""
        try:
            return self._expression.evaluate({name: row[column] for name, column in self._stands_for.items()})
        except ExpressionError as error:
            cells = ", ".join(f"{column} = {shown(row[column], 40)}" for column in self.columns)
            message = _told(str(error), self._stands_for)
            raise ExpressionError(f"{message} (with {cells})" if cells else message) from error


def compile_over(text: str, columns: Collection[str]) -> ColumnExpression:
    """Compile an expression over these columns.

    Raises ExpressionError as `compile_expression` does, and ColumnsError.
    """
    reading = _Reading(text, columns)
    try:
        expression = compile_expression(reading.source)
    except ExpressionError as error:
        if quoting := reading.quoting():
            raise ColumnsError(quoting) from error
        raise ExpressionError(_told(str(error), reading.stands_for)) from error
    names = {name: reading.stands_for.get(name, name) for name in expression.names}
    unknown = dict.fromkeys((*reading.unknown, *(name for name in names.values() if name not in columns)))
    if unknown:
        said = [f"there is no column '{name}'{hint(name, columns, 'columns')}" for name in unknown]
        raise ColumnsError(reading.quoting() or said)
    return ColumnExpression(tuple(dict.fromkeys(names.values())), expression, names)


class _Reading:
    """A text with a plain name (`stands_for` which column) in place of each that Jinja2 would not read as one."""

    def __init__(self, text: str, columns: Collection[str]) -> None:
        self.text, self.columns = text, columns
        self.stands_for: dict[str, str] = {}
        self.unknown: list[str] = []
        self._plain = "c"
        while any(self._plain in name for name in (text, *columns)):
            self._plain += "_"
        self.source = self._read()

    def quoting(self) -> list[str]:
        """What to write for the columns that the text names without the backticks that they need."""
        needed = [name for name in self.columns if not _is_bare(name) and f"`{name}`" not in self.text]
        meant = [name for name in needed if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self.text)]
        return [f"the column '{name}' is written between backticks here: `{name}`" for name in meant]

    def _read(self) -> str:
        pieces, at = [], 0
        while (found := _TOKEN.search(self.text, at)) is not None:
            pieces.append(self.text[at : found.start()])
            piece, at = self._piece(found)
            pieces.append(piece)
        return "".join((*pieces, self.text[at:]))

    def _piece(self, found: re.Match[str]) -> tuple[str, int]:
        """What is written for a token, and where the text goes on."""
        if (quoted := found["quoted"]) is not None:
            return self._named(quoted, found[0]), found.end()
        run = found["name"]
        if run is None:
            return found[0], found.end()
        head, *longer = [run[: end.start()] for end in _END.finditer(run)]
        name = next((one for one in reversed((head, *longer)) if one in self.columns), None)
        if name is None and (not longer or head.lower() in _WORDS):
            return head, found.start() + len(head)  # Jinja2's own word, or a name that is unknown
        rest = run[len(name or "") :]
        if name is None or (rest.startswith(".") and not _METHOD.match(self.text, found.start() + len(name))):
            return self._named(run, run), found.end()
        return (name if name == head else self._named(name, name)), found.start() + len(name)

    def _named(self, column: str, written: str) -> str:
        """A plain name as long as what was `written`: the places that an error tells stay those of the text."""
        if column not in self.columns:
            self.unknown.append(column)
        plain = f"{self._plain}{len(self.stands_for)}".ljust(len(written), "_")
        self.stands_for[plain] = column
        return plain


def _is_bare(name: str) -> bool:
    return _BARE.fullmatch(name) is not None and re.split("[.:]", name)[0].lower() not in _WORDS


def _told(message: str, stands_for: Mapping[str, str]) -> str:
    for plain, column in stands_for.items():
        message = message.replace(plain, column)
    return message
