"""The answer of `sweeper results`: the table of a run, whole, in groups, as a pivot, or the best points of a search."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Note, Part, Warn
from sweeper.answers.render import AS_JSON, NOT_IN_JSON
from sweeper.model.model_facts import encode_models
from sweeper.model.search_columns import ROUND, SearchedPoint
from sweeper.model.selection import EVERYTHING, Selection
from sweeper.schemas.values import is_number
from sweeper.store import Store
from sweeper.store.containment import display_path
from sweeper.store.records import TableLayout
from sweeper.store.remote_artifacts import make_missing_finder
from sweeper.store.row_queries import Batch, batch_results
from sweeper.tables.aggregate import COST_SUM, Labels, Pivot, RowTable, label_column, make_groups, make_pivot
from sweeper.tables.export import column_names, read_columns
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.searched_points import BestPoints, find_best_points, find_search_run
from sweeper.tables.select_rows import OptionErrors, RowFilter, Rows, describe_no_match, sort_rows
from sweeper.wording import count_things, join_command, join_names

_MAX_MISSING: Final = 3  # missing files that a message names


@dataclass(frozen=True, slots=True)
class ResultsQuery:
    """What a user asks of a table; None is an option that is not given. `by`, `pivot` and `best` exclude each other.

    `sorts` are columns, the first being the primary key; `-name` sorts in descending order. `by`: one row for each
    combination of values of these columns. `pivot`: (x, y, column). `best`: so many points of a search.
    """

    selection: Selection = EVERYTHING
    sorts: Sequence[str] = ()
    columns: Sequence[str] | None = None
    by: Sequence[str] | None = None
    pivot: Sequence[str] | None = None
    best: int | None = None
    run: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsAnswer:
    """What was found. `message`: that the selection matches no trial, because that may be a mistake in it.

    `missing`: which files of the rows are gone.
    """

    found: RowTable | Pivot | BestPoints = field(metadata=AS_JSON)
    message: str = field(default="", metadata=NOT_IN_JSON)
    missing: str = field(default="", metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """The message, if there is one, and a table."""
        if self.missing:
            yield Warn(self.missing)
        if self.message:
            yield Note(self.message)
        if not self.message or not isinstance(self.found, BestPoints):
            yield from self.found.parts()


@dataclass(frozen=True, slots=True)
class _RunTable:
    """The cells of a run by column: those that the query needs.

    `names`: all columns. `measures` are the columns whose numbers are shown and averaged without being asked for.
    `cost` is one of them if a row has a cost. `best` are the points for `--best`, best first.
    """

    columns: dict[str, list[Any]]
    extras: dict[int, dict[str, Any]]  # by the index of the row, what only JSON has: `model_files`, `missing_files`
    names: tuple[str, ...]
    measures: tuple[str, ...]
    folder: Path
    file: str  # the experiment
    layout: TableLayout
    best: Sequence[SearchedPoint]

    def has_numbers(self, name: str) -> bool:
        cells = self.columns[name]
        return not set(map(type, cells)).isdisjoint((int, float)) and any(map(is_number, cells))

    def describe_missing(self, indexes: Iterable[int]) -> str:
        """Say which files of these rows are gone, and how to get them back; empty if none is."""
        names = [name for index in indexes for name in self.extras.get(index, {}).get("missing_files", ())]
        if not names:
            return ""
        command = join_command(["sweeper", "run", self.file, "--out", display_path(self.folder)])
        are = "artifact is" if len(names) == 1 else "artifacts are"
        more = ", ..." if len(names) > _MAX_MISSING else ""
        return (
            f"{len(names)} {are} missing: {', '.join(names[:_MAX_MISSING])}{more}; `{command}` fetches what the server "
            "still has, and with --remake makes the rest again"
        )

    def select(self, indexes: Sequence[int], wanted: Collection[str] | None = None) -> dict[str, list[Any]]:
        """The cells of these rows in the `wanted` columns, in the order of the table, or in all."""
        columns = {name: cells for name, cells in self.columns.items() if wanted is None or name in wanted}
        if len(indexes) == len(self.columns["trial"]):
            return columns
        return {name: [cells[index] for index in indexes] for name, cells in columns.items()}

    def make_rows(self, indexes: Sequence[int], wanted: Collection[str] | None = None) -> Rows:
        """The same as rows; with all columns, also what only JSON has."""
        columns = self.select(indexes, wanted)
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        if wanted is None and self.extras:
            rows = [{**row, **self.extras.get(index, {}), **row} for index, row in zip(indexes, rows, strict=True)]
        return rows


def query_results(results: str | os.PathLike[str], query: ResultsQuery) -> ResultsAnswer:
    """Answer a query about a results folder, or about an experiment's default one.

    Raises UsageError with all mistakes in the query, by the names of the command's options, and ResultsError.
    """
    errors = OptionErrors()
    with Store.open(find_results_folder(results), readonly=True) as store:
        is_best = query.best is not None
        run, of_folder = (find_search_run(store), True) if is_best and query.run is None else (query.run, None)
        layout = store.layout(run)
        row_filter = RowFilter(query.selection, layout, errors)
        wanted = _find_columns(query, layout)
        # Then only the selected rows are read whole. A summary also needs the others, for the order of its values.
        reads_twice = not (row_filter.selects_all or query.by or query.pivot or is_best)
        columns = wanted and {*wanted, *row_filter.columns}
        if reads_twice:
            columns = {*row_filter.columns, *(("cost",) if store.charges.load_whole_cost() else ())}
        table = _read_table(store, run, query, columns, of_folder=of_folder)
        _check_query(table, query, errors)
        count, selected = len(table.columns["trial"]), row_filter.select(table.columns)
        if reads_twice:
            trials = {table.columns["trial"][index] for index in selected}
            whole = _read_table(store, run, query, wanted, of_folder=of_folder, trials=trials)
            table, selected = replace(whole, measures=table.measures), range(len(trials))
    message = describe_no_match(query.selection, count) if count and not selected else ""
    missing = "" if query.by or query.pivot else table.describe_missing(selected)
    return ResultsAnswer(_find_answer(selected, table, query), message, missing)


def _find_columns(query: ResultsQuery, layout: TableLayout) -> set[str] | None:
    """The columns that the answer needs, beside those that select the rows; None: all."""
    asked = {*(query.by or ()), *(query.pivot or ()), *(query.columns or ())}
    if not asked or query.best is not None:
        return None
    measured = ("ran_s", *layout.metrics) if query.by else ()
    sorted_by = (name.removeprefix("-") for name in query.sorts)
    labels = (f"{name}.label" for name in asked)
    return {*asked, *labels, *sorted_by, *measured, "trial", "status", "cost"}


def _read_table(
    store: Store, run: int | str | None, query: ResultsQuery, wanted: Collection[str] | None, *,
    of_folder: bool | None, trials: Collection[int] | None = None,
) -> _RunTable:  # fmt: skip
    """These columns and trials of the run (None: all); for the best points, the run is that of the latest search."""
    layout = store.layout(run)
    results = [] if query.best is None else list(store.results(run, of_folder=of_folder))
    extras: dict[int, dict[str, Any]] = {}
    batches = store.batches(run, columns=wanted, trials=trials) if query.best is None else batch_results(results)
    columns = read_columns(_note_files(batches, extras, store.path.parent), layout, wanted)
    best = find_best_points(results, layout.search) if layout.search is not None else []
    has_cost = any(cost is not None for cost in columns.get("cost", ()))
    measures = ("ran_s", *(("cost",) if has_cost else ()), *layout.metrics)
    if layout.search is not None:
        measures = tuple(name for name in measures if name != ROUND)  # the mean of rounds says nothing
    names, file = column_names(layout), store.runs()[-1].file
    return _RunTable(columns, extras, names, measures, store.path.parent, file, layout, best)


def _note_files(batches: Iterable[Batch], extras: dict[int, dict[str, Any]], folder: Path) -> Iterator[Batch]:
    """Pass on batches; add the model files of each row, and the files that are missing, to `extras`, by its index."""
    described: dict[int, list[dict[str, Any]]] = {}  # by the identity of the facts, which rows share
    find_missing, count = make_missing_finder(folder), 0
    for batch in batches:
        for index, facts in enumerate(batch.get("model_facts", ()), count):
            if facts:
                if id(facts) not in described:
                    files = encode_models(facts)
                    described[id(facts)] = [{"folder": place, "name": name, **facts} for place, name, facts in files]
                extras[index] = {"model_files": described[id(facts)]}
        for index, outputs in enumerate(batch.get("outputs", ()), count):
            if missing := find_missing(outputs):
                extras.setdefault(index, {})["missing_files"] = missing
        count += len(batch["trial"])
        yield batch


def _check_query(table: _RunTable, query: ResultsQuery, errors: OptionErrors) -> None:
    """Raise UsageError with all mistakes in the query."""
    columns, by, pivot = query.columns or (), query.by or (), query.pivot or ()
    for option in (option for option, names in (("--columns", query.columns), ("--by", query.by)) if names == []):
        errors.add(option, f"names no column; columns: {join_names(table.names)}")
    for option, names in (("--columns", columns), ("--by", by), ("--pivot", pivot)):
        errors.check_columns(option, names, table.names)
    _check_mean_columns(table, query, errors)
    if query.pivot is None:
        groups = [name for name in by if name in table.names]
        sortable = [*groups, *_choose_group_columns(table, query), "trials", "succeeded"] if by else table.names
        errors.check_columns("--sort", [name.removeprefix("-") for name in query.sorts], sortable)
    elif len(pivot) != 3:
        names_given = count_things(len(pivot), "name")
        errors.add("--pivot", f"has {names_given} but needs three: X,Y,METRIC, such as steps,seed,sharpness")
    for option, names in (("--by", by), ("--pivot", pivot)):
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            errors.add(option, f"'{name}' is listed {names.count(name)} times; list it once")
    for option, message in (conflict[1:] for conflict in _find_conflicts(query) if conflict[0]):
        errors.add(option, message)
    if query.best is not None and table.layout.search is None:
        metric = next(filter(table.has_numbers, table.layout.metrics), "COLUMN")
        words = ["sweeper", "results", display_path(table.folder), "--sort", f"-{metric}", "--limit", str(query.best)]
        most = f"`{join_command(words)}` shows its trials with most {metric}"
        errors.add("--best", f"this run is not a search, so it has no points; {most}")
    errors.raise_if_any()


def _check_mean_columns(table: _RunTable, query: ResultsQuery, errors: OptionErrors) -> None:
    """Add an error for each column whose mean is requested but which holds no numbers."""
    requested = [("--pivot", name) for name in (query.pivot or ())[2:3]]
    requested += [("--columns", name) for name in query.columns or () if query.by and name not in query.by]
    for option, name in requested:
        if name in table.names and (name == "trial" or not table.has_numbers(name)):
            others = join_names([other for other in table.measures if other != name])
            errors.add(option, f"'{name}' holds no numbers, and a mean needs some; measured: {others}")


def _find_conflicts(query: ResultsQuery) -> Sequence[tuple[bool, str, str]]:
    """(whether there is a conflict, option, message) for each pair of options that exclude each other."""
    is_best, has_pivot, has_limit = query.best is not None, query.pivot is not None, query.selection.limit is not None
    return (
        (has_pivot and bool(query.by), "--pivot", "cannot be combined with --by; give one"),
        (has_pivot and bool(query.sorts), "--sort", "a pivot table keeps the order of the sweep"),
        (has_pivot and bool(query.columns), "--columns", "a pivot table has only the column that --pivot names"),
        (has_pivot and has_limit, "--limit", "a pivot table is always shown whole"),
        (is_best and has_pivot, "--best", "cannot be combined with --pivot; give one"),
        (is_best and bool(query.by), "--best", "cannot be combined with --by; give one"),
        (is_best and bool(query.sorts), "--sort", "--best sorts the points itself"),
        (is_best and bool(query.columns), "--columns", "--best has columns of its own"),
        (is_best and has_limit, "--limit", "--best N says how many points to show"),
    )


def _choose_group_columns(table: _RunTable, query: ResultsQuery) -> list[str]:
    """The columns whose means a group shows: those asked for, or all measures. Before `cost` comes its sum."""
    wanted = query.columns or [name for name in table.measures if table.has_numbers(name)]
    columns = [name for name in wanted if name in table.names and name not in (query.by or ())]
    if "cost" in columns and "cost" in table.measures and COST_SUM not in table.names:
        columns.insert(columns.index("cost"), COST_SUM)
    return columns


def _find_answer(selected: Sequence[int], table: _RunTable, query: ResultsQuery) -> RowTable | Pivot | BestPoints:
    layout, limit = table.layout, query.selection.limit
    if query.best is not None and layout.search is not None:
        trials = {table.columns["trial"][index] for index in selected}
        points = [point for point in table.best if not trials.isdisjoint(point.trials)]
        return BestPoints(points[: query.best], len(points))
    axes = [name for name in query.pivot or query.by or () if name in layout.axis_columns]
    value_order = {name: layout.values_in_order(name, table.columns[name]) for name in axes}
    if query.pivot:
        x, y, column = query.pivot
        return make_pivot(table.select(selected), x, y, column, value_order)
    if query.by:
        columns = _choose_group_columns(table, query)
        groups = make_groups(table.select(selected), query.by, columns, value_order)
        return replace(groups, rows=sort_rows(groups.rows, query.sorts)[:limit])
    if query.columns:
        sorted_by = [name.removeprefix("-") for name in query.sorts]
        found = sort_rows(table.make_rows(selected, {*query.columns, *sorted_by}), query.sorts)[:limit]
        found = [{name: row[name] for name in query.columns} for row in found]
        return RowTable(found, query.columns, ("queued_s", *table.measures), _label_axes(found, query.columns, layout))
    rows = table.make_rows(selected)
    errors = ("error_type", "error") if any(row["error"] for row in rows) else ()
    costs = ("cost", "cost_kind") if "cost" in table.measures else ()
    shown = ["trial", *layout.axis_columns, "status", "attempts", "ran_s", *costs, *layout.metrics, *errors]
    rows = sort_rows(rows, query.sorts)[:limit]
    return RowTable(rows, shown, ("queued_s", *table.measures), _label_axes(rows, shown, layout))


def _label_axes(rows: Rows, shown: Iterable[str], layout: TableLayout) -> Labels:
    """The short labels of the axes; those that a user gave have a column of their own."""
    return {name: label_column([row[name] for row in rows]) for name in shown if name in layout.axis_columns}
