"""Select rows of a results table by the options `--where`, `--limit` and `--set`, which many commands share; sort rows.

A row is a mapping from column to cell, with the cells of `export.read_columns`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import to_json_text
from sweeper.errors import Problem, UsageError
from sweeper.model.axis_values import format_label
from sweeper.model.expressions import (
    Expression,
    ExpressionError,
    UnknownColumnError,
    compile_column_expression,
)
from sweeper.model.result import Result
from sweeper.model.selection import Selection
from sweeper.model.workflow import encode_canonical
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.votes import Mark, merge_marks
from sweeper.tables.aggregate import NumberSummary
from sweeper.tables.export import column_names, read_columns
from sweeper.wording import suggest

Rows = list[dict[str, Any]]

# Matches the message of an operation on a missing value.
_MISSING_VALUE_ERROR: Final = re.compile(r"\b(None(Type)?|nothing)\b(?! that).* \(with ", re.DOTALL)


class OptionErrors:
    """Collects the mistakes in the options of one command, so that the user sees all of them at once."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, option: str, message: str) -> None:
        self._problems.append(Problem("", 0, option, message))

    def check_columns(
        self,
        option: str,
        requested: Iterable[str],
        names: Sequence[str],
        kinds: tuple[str, str] = ("column", "columns"),
    ) -> None:
        """Add an error for each name of `requested` that is not in `names`. `kinds`: what names are, one and many."""
        kind, many = kinds
        for name in requested:
            if name not in names:
                self.add(option, f"there is no {kind} '{name}'{suggest(name, names, many)}")

    def check_over(self, over: Sequence[str], axes: Sequence[str], compared: Collection[str]) -> None:
        """Add the mistakes in `--over`, the axes that are replicates. `compared`: those that `--axis` names."""
        self.check_columns("--over", over, axes, ("axis", "axes"))
        for name in {*over} & {*compared}:
            self.add("--over", f"'{name}' is also in --axis; a replicate is not compared")

    def raise_if_any(self) -> None:
        """Raise UsageError with all errors, if any."""
        if self._problems:
            raise UsageError(self._problems)


class RowFilter:
    """The rows that `--where` and `--set` select; `--limit` is left to the caller, who may sort them first.

    Mistakes in the options are added to `errors`.
    """

    def __init__(self, selection: Selection, layout: TableLayout, errors: OptionErrors) -> None:
        self._where = _compile_where(selection.where, column_names(layout), errors)
        given = [*layout.axis_columns, *layout.slot_names]
        for name in selection.values:
            errors.check_columns(f"--set {name}", [name], given)
        self._matches = [_make_match(name, value, given) for name, value in selection.values.items()]
        labelled = (part for name in selection.values for part in (name, f"{name}.label"))
        self._read = {*(() if self._where is None else self._where.names), *labelled}
        self.columns = {"trial", *self._read}  # messages name the trial
        self.selects_all = self._where is None and not self._matches

    def select(self, columns: Mapping[str, Sequence[Any]]) -> Sequence[int]:
        """The indexes of the selected rows of a table in columns.

        An operation of `--where` that fails on a missing value counts as false. Raises UsageError if the expression
        fails on a row for another reason.
        """
        count = len(columns["trial"])
        if self.selects_all:
            return range(count)
        names = [name for name in columns if name in self.columns]
        keys = [_make_keys(columns[name]) for name in names if name in self._read] or [[None] * count]
        known: dict[tuple[Hashable, ...], bool] = {}  # an axis has few values, so most rows are like one before
        selected = []
        for index, key in enumerate(zip(*keys, strict=True)):
            if key not in known:
                known[key] = self._is_selected({name: columns[name][index] for name in names})
            if known[key]:
                selected.append(index)
        return selected

    def _is_selected(self, row: Mapping[str, Any]) -> bool:
        return all(matches(row) for matches in self._matches) and (self._where is None or _is_true(self._where, row))


def _make_keys(cells: Sequence[Any]) -> Sequence[Hashable]:
    """Keys that are equal only for cells of equal value and type: 1, 1.0 and True differ, and 0.0 and -0.0."""
    types = set(map(type, cells)) - {str, type(None)}
    return cells if not types or types in ({int}, {bool}) else list(map(repr, cells))


def _compile_where(where: str | None, names: Sequence[str], errors: OptionErrors) -> Expression | None:
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


def _is_true(expression: Expression, row: Mapping[str, Any]) -> bool:
    try:
        return bool(expression.evaluate(row))
    except ExpressionError as error:
        if any(row[name] is None for name in expression.names) and _MISSING_VALUE_ERROR.search(str(error)):
            return False
        raise UsageError(f"--where: trial {row['trial']}: {error}") from None


def _make_match(name: str, value: Any, names: Collection[str]) -> Callable[[Mapping[str, Any]], bool]:
    """Return a test of rows: whether the column has the value, or one of a list of values. A value may be a label."""
    values = [*value, value] if isinstance(value, list) else [value]
    cells = {encode_canonical(to_json_text(cell) if isinstance(cell, list | dict) else cell) for cell in values}
    labels = set(map(format_label, values))
    label_column = f"{name}.label" if f"{name}.label" in names else None
    return lambda row: (
        encode_canonical(row.get(name)) in cells or (label_column is not None and row[label_column] in labels)
    )


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
    """Numbers and means sort before texts, because these cannot be compared with them."""
    value = value.mean if isinstance(value, NumberSummary) else value
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))


def describe_no_match(selection: Selection, trials: int) -> str:
    """The message for options that select nothing, because that may be a mistake."""
    return f"{selection.describe()} matches none of the {trials} trials"


def select_trials(results: Path, run: int | str | None, selection: Selection) -> tuple[frozenset[int] | None, str]:
    """The indexes of the selected trials of a run (None: all), and a message if the options select nothing.

    Raises UsageError for mistakes in the options, and ResultsError.
    """
    if selection.selects_all:
        return None, ""
    with Store.open(results, readonly=True) as store:
        layout, errors = store.layout(run), OptionErrors()
        row_filter = RowFilter(selection, layout, errors)
        errors.raise_if_any()
        columns = read_columns(store.batches(run, columns=row_filter.columns), layout, row_filter.columns)
    trials = columns["trial"]
    selected = row_filter.select(columns)
    message = describe_no_match(selection, len(trials)) if trials and not selected else ""
    return frozenset(trials[index] for index in selected[: selection.limit]), message


def select_marked(results: Path, run: int | str | None, verdict: str, marks: Iterable[Mark]) -> frozenset[int]:
    """The indexes of the trials of a run with this verdict, by the marks of the folder and these.

    Raises ResultsError.
    """
    with Store.open(results, readonly=True) as store:
        verdicts = {mark.digest: mark.verdict for mark in merge_marks(store.marks.load(), marks)}
        return frozenset(row.trial for row in store.results(run) if verdicts.get(row.digest, "") == verdict)


def select_results(
    layout: TableLayout, rows: list[Result], trials: Collection[int] | None
) -> tuple[TableLayout, list[Result]]:
    """The rows of these trials (None: all), and a layout with the values of their axes in the same order."""
    if trials is None:
        return layout, rows
    selected = [row for row in rows if row.trial in trials]
    value_order = {}
    for name in layout.value_order:
        last_first = reversed([*enumerate(selected)])
        first = {encode_canonical(row.columns.get(name)): index for index, row in last_first}
        ordered = layout.values_in_order(name, [row.columns.get(name) for row in rows])
        keys = map(encode_canonical, ordered)
        value_order[name] = tuple(first[key] for key in keys if key in first)
    return replace(layout, value_order=value_order), selected
