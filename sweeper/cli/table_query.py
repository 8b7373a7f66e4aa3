"""What is asked of a table on the command line: which rows, in which order, of which columns; every mistake at once.

Rows are mappings as `formats.records` makes them. What is printed is the commands' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sweeper.did_you_mean import suggest
from sweeper.errors import Problem, UsageError

if TYPE_CHECKING:
    from sweeper.model.expressions.column_expression import ColumnExpression

Rows = list[dict[str, Any]]

# In what is said of an operation on a missing value.
_MISSING_VALUE_ERROR: Final = re.compile(r"\b(None(Type)?|nothing)\b(?! that).* \(with ", re.DOTALL)


class OptionErrors:
    """Collects what is wrong with the options of one command, so that a user hears of all of it."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, option: str, message: str) -> None:
        self._problems.append(Problem("", 0, option, message))

    def check_columns(self, option: str, requested: Iterable[str], names: Sequence[str], noun: str = "columns") -> None:
        """Every name of `asked` must be one of `names`."""
        for name in requested:
            if name not in names:
                self.add(option, f"there is no column '{name}'{suggest(name, names, noun)}")

    def raise_if_any(self) -> None:
        """Raises UsageError when there was any."""
        if self._problems:
            raise UsageError(self._problems)


def split_names(texts: Iterable[str]) -> list[str]:
    """`("a, b", "c")` as `["a", "b", "c"]`: an option may be repeated, and each may hold several names."""
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def compile_where(where: str | None, names: Sequence[str], errors: OptionErrors) -> ColumnExpression | None:
    """The compiled expression; None where there is none or it is wrong."""
    if where is None:
        return None
    from sweeper.model.expressions import ExpressionError  # noqa: PLC0415 - Jinja2
    from sweeper.model.expressions.column_expression import UnknownColumnError, compile_column_expression  # noqa: PLC0415 - as above

    try:
        return compile_column_expression(where, names)
    except UnknownColumnError as error:
        for sentence in error.messages:
            errors.add("--where", sentence)
    except ExpressionError as error:
        errors.add("--where", f"'{where}' {error}")
    return None


def filter_rows(rows: Rows, expression: ColumnExpression | None) -> Rows:
    """The rows for which the expression holds. A comparison with a value that is missing does not hold."""
    from sweeper.model.expressions import ExpressionError  # noqa: PLC0415 - as above

    if expression is None:
        return rows
    kept = []
    for row in rows:
        try:
            holds = expression.evaluate(row)
        except ExpressionError as error:
            if any(row[name] is None for name in expression.columns) and _MISSING_VALUE_ERROR.search(str(error)):
                continue
            raise UsageError(f"--where: trial {row['trial']}: {error}") from None
        if holds:
            kept.append(row)
    return kept


def describe_no_match(where: str | None, trials: int) -> str:
    """What is said of a condition that chose nothing: it may be a mistake."""
    return f"--where: {where} is true for none of the {trials} trials"


def sort_rows(rows: Rows, sorts: Iterable[str]) -> Rows:
    """Sorted by each column of `sorts`, the first most; `-name` is descending, and what has no value comes last."""
    for sort in reversed(list(sorts)):
        name = sort.removeprefix("-")
        there = [row for row in rows if row[name] is not None]
        there.sort(key=lambda row: _to_sort_key(row[name]), reverse=sort.startswith("-"))
        rows = there + [row for row in rows if row[name] is None]
    return rows


def _to_sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers before texts; neither can be compared with the other."""
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))
