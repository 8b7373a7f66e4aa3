"""Select, sort and check the rows and columns that options such as `--where` and `--sort` ask for.

Rows are mappings as `tables.export.to_records` makes them. Printing belongs to the commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sweeper.did_you_mean import suggest
from sweeper.errors import Problem, UsageError
from sweeper.model.expressions import ExpressionError
from sweeper.model.expressions.column_expression import (
    ColumnExpression,
    UnknownColumnError,
    compile_column_expression,
)

Rows = list[dict[str, Any]]

# Matches the message of an operation on a missing value.
_MISSING_VALUE_ERROR: Final = re.compile(r"\b(None(Type)?|nothing)\b(?! that).* \(with ", re.DOTALL)


class OptionErrors:
    """Collects the mistakes in the options of one command, so that the user sees all of them at once."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, option: str, message: str) -> None:
        self._problems.append(Problem("", 0, option, message))

    def check_columns(self, option: str, requested: Iterable[str], names: Sequence[str]) -> None:
        """Add an error for each name of `requested` that is not in `names`."""
        for name in requested:
            if name not in names:
                self.add(option, f"there is no column '{name}'{suggest(name, names, 'columns')}")

    def raise_if_any(self) -> None:
        """Raise UsageError with all errors, if any."""
        if self._problems:
            raise UsageError(self._problems)


def split_names(texts: Iterable[str]) -> list[str]:
    """`("a, b", "c")` as `["a", "b", "c"]`: an option may be repeated, and may hold several names."""
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def compile_where(where: str | None, names: Sequence[str], errors: OptionErrors) -> ColumnExpression | None:
    """The compiled expression. None if `where` is None or has mistakes, which are added to `errors`."""
    if where is None:
        return None
    try:
        return compile_column_expression(where, names)
    except UnknownColumnError as error:
        for message in error.messages:
            errors.add("--where", message)
    except ExpressionError as error:
        errors.add("--where", f"'{where}' {error}")
    return None


def filter_rows(rows: Rows, expression: ColumnExpression | None) -> Rows:
    """The rows for which `expression` is true. An operation that fails on a missing value counts as false.

    Raises UsageError if the expression fails on a row for another reason.
    """
    if expression is None:
        return rows
    selected = []
    for row in rows:
        try:
            is_true = expression.evaluate(row)
        except ExpressionError as error:
            if any(row[name] is None for name in expression.columns) and _MISSING_VALUE_ERROR.search(str(error)):
                continue
            raise UsageError(f"--where: trial {row['trial']}: {error}") from None
        if is_true:
            selected.append(row)
    return selected


def describe_no_match(where: str | None, trials: int) -> str:
    """The message for a condition that selects nothing, because that may be a mistake."""
    return f"--where: {where} matches none of the {trials} trials"


def sort_rows(rows: Rows, sorts: Iterable[str]) -> Rows:
    """Sort by each column of `sorts`; the first is the primary key, and `-name` sorts in descending order.

    Rows without a value come last either way.
    """
    for sort in reversed(list(sorts)):
        name = sort.removeprefix("-")
        with_value = [row for row in rows if row[name] is not None]
        with_value.sort(key=lambda row: _to_sort_key(row[name]), reverse=sort.startswith("-"))
        rows = with_value + [row for row in rows if row[name] is None]
    return rows


def _to_sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers sort before texts, because the two cannot be compared with each other."""
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))
