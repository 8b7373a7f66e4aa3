"""The answer of `sweeper costs`: what the jobs of results folders were charged, and its sums by target, day or axis.

All runs of a folder count, because each was paid for. The table of a folder shows fewer jobs: no retries, no failures
that were repeated, and no results that others replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import format_cell
from sweeper.answers.parts import MAX_CELL_LENGTH, Fact, Facts, Heading, Item, Line, Part, Table
from sweeper.answers.render import INLINE, NOT_IN_JSON
from sweeper.model.money import CURRENCY, KINDS, NOTHING, Amount, find_weakest_kind, sum_charges
from sweeper.store import Store
from sweeper.store.containment import display_path
from sweeper.store.job_charges import JobCharge
from sweeper.tables.aggregate import group_rows
from sweeper.tables.export import CSV_DIALECTS, format_delimited
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors
from sweeper.wording import count_things, join_names, shorten

_MAX_VALUES: Final = 20  # in a table; --json has all
_NOTHING_PRICED: Final = (
    "no job has a price. Partner nodes have prices of their own; give a target one in the experiment or in the targets "
    "file, such as `price: {per_second: 0.0013 USD}`, and the next run counts it"
)
_CSV_COLUMNS: Final = (
    "folder", "run", "trial", "target", "day", "node", "class", "low", "high", "currency", "kind", "kept",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """A charge and the first trial of its job, with the cells of the trial's axes and slots.

    `is_kept`: whether the folder's table shows a successful result of the job.
    """

    folder: Path
    job: JobCharge
    trial: int | None
    cells: Mapping[str, Any]
    is_kept: bool

    @property
    def day(self) -> str:
        """The day of the submission in UTC, as `2026-11-27`."""
        return datetime.fromtimestamp(self.job.intended, UTC).date().isoformat()

    @property
    def class_type(self) -> str | None:
        """The class of the partner node; None for a charge of the job itself."""
        return self.job.charge.class_type or None


@dataclass(frozen=True, slots=True)
class ChargeSum:
    """What some charges are together. `spent` is the sum of `kept`, `rest` and `open`.

    `kept` paid for results that a table shows, `open` is what jobs that have not ended cost at most, and `rest` paid
    for failures, for retries and for results that others replaced. Each is a range in US dollars. `kinds` has the sum
    of each kind that there is, the surest first, and `kind` is the least sure.
    """

    jobs: int
    open_jobs: int
    spent: Amount
    kept: Amount
    rest: Amount
    open: Amount
    kind: str | None
    kinds: Mapping[str, Amount] = field(metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class ValueCharges:
    """The charges of a value. None is the value of a job without one; of `class`, the charge of the job itself."""

    value: Any
    charges: ChargeSum = field(metadata=INLINE)

    def make_row(self, name: str) -> tuple[Any, ...]:
        """The cells of a table by the values of `name`."""
        text = "(the job)" if name == "class" and self.value is None else format_cell(self.value) or "(none)"
        text = text if name in ("folder", "class") else shorten(text, MAX_CELL_LENGTH)
        return text, self.charges.jobs, str(self.charges.spent), str(self.charges.kept), self.charges.kind


@dataclass(frozen=True, slots=True)
class FolderCosts:
    """What all runs of results folders cost: in all, by kind, and by the values of targets, days, classes and axes."""

    folders: tuple[Path, ...]
    currency: str
    total: ChargeSum = field(metadata=INLINE)
    kinds: Mapping[str, Amount]
    by: Mapping[str, Sequence[ValueCharges]]
    rows: Sequence[ChargeRow] = field(metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """The sums, then a table of each group."""
        if not self.rows:
            yield Line(f"{join_names(map(display_path, self.folders))}: {_NOTHING_PRICED}")
            return
        total, kinds = self.total, ", ".join(f"{amount} {kind}" for kind, amount in self.kinds.items())
        facts = [
            Fact("spent", f"{total.spent} for {count_things(total.jobs, 'job')}: {kinds}"),
            Fact("kept", f"{total.kept} for results that the table shows"),
        ]
        if total.rest != NOTHING:
            facts.append(Fact("rest", f"{total.rest} for failures, retries and results that others replaced"))
        if total.open_jobs:
            jobs = count_things(total.open_jobs, "job")
            facts.append(Fact("open", f"{total.open} at most, for {jobs} that may still run"))
        yield Facts(facts)
        for name, found in self.by.items():
            yield Heading(f"cost by {name}:")
            yield Table((name, "jobs", "spent", "kept", "kind"), [row.make_row(name) for row in found[:_MAX_VALUES]])
            if len(found) > _MAX_VALUES:
                yield Item(f"and {len(found) - _MAX_VALUES} more; --json lists them")


def find_costs(results: Iterable[str | os.PathLike[str]], by: Sequence[str] | None = None) -> FolderCosts:
    """Add up the charges of results folders, or of experiments' default ones.

    `by`: also group by these axes and slots (None: not asked for). Raises UsageError for unknown ones, and
    ResultsError.
    """
    folders = tuple({folder.resolve(): folder for folder in map(find_results_folder, results)}.values())
    rows = load_charge_rows(folders)
    _check_axes(rows, by)
    columns: dict[str, list[Any]] = {
        "folder": [display_path(row.folder) for row in rows],
        "target": [row.job.target for row in rows],
        "day": [row.day for row in rows],
        "class": [row.class_type for row in rows],
    }
    if len(set(columns["folder"])) < 2:  # its table would have only one row
        del columns["folder"]
    columns |= {name: [row.cells.get(name) for row in rows] for name in by or ()}
    groups = {name: group_charges(rows, values) for name, values in columns.items()}
    groups["day"].sort(key=lambda group: str(group.value))
    total = add_up(rows)
    return FolderCosts(folders, CURRENCY, total, total.kinds, groups, rows)


def _check_axes(rows: Sequence[ChargeRow], by: Sequence[str] | None) -> None:
    errors = OptionErrors()
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    if by is not None and not by:
        errors.add("--by", f"names no axis; axes and slots: {join_names(names)}")
    if rows:
        errors.check_columns("--by", by or (), names)
    errors.raise_if_any()


def load_charge_rows(folders: Iterable[Path]) -> list[ChargeRow]:
    """The charges of all runs, folder by folder, in the order of runs and trials. Raises ResultsError."""
    rows: list[ChargeRow] = []
    for folder in folders:
        with Store.open(folder, readonly=True) as store:
            jobs, trials = list(store.charges.iter_all()), store.charges.load_trials()
            result_jobs = store.list_result_jobs() if jobs else ()
        found = []
        for job in jobs:
            trial, cells = trials.get((job.run, job.digest), (None, {}))
            found.append(ChargeRow(folder, job, trial, cells, job.job in result_jobs))
        rows += sorted(found, key=lambda row: (row.job.run, -1 if row.trial is None else row.trial))
    return rows


def add_up(rows: Sequence[ChargeRow]) -> ChargeSum:
    unended = [row for row in rows if row.job.is_open]
    by_kind = {kind: [row for row in rows if row.job.charge.kind == kind] for kind in KINDS}
    kinds = {kind: _sum_amounts(of_kind) for kind, of_kind in by_kind.items() if of_kind}
    return ChargeSum(
        _count_jobs(rows),
        _count_jobs(unended),
        _sum_amounts(rows),
        _sum_amounts(row for row in rows if row.is_kept),
        _sum_amounts(row for row in rows if not row.is_kept and not row.job.is_open),
        _sum_amounts(unended),
        find_weakest_kind(kinds),
        kinds,
    )


def _count_jobs(rows: Iterable[ChargeRow]) -> int:
    return len({(row.folder, row.job.job) for row in rows})


def _sum_amounts(rows: Iterable[ChargeRow]) -> Amount:
    return sum_charges(row.job.charge for row in rows)


def group_charges(rows: Sequence[ChargeRow], values: Sequence[Any]) -> list[ValueCharges]:
    """The sum of the charges of each value, in the order in which the values appear."""
    groups = group_rows({"value": values}, ["value"])
    return [ValueCharges(group.values[0], add_up(group.get_cells(rows))) for group in groups]


def format_csv(rows: Iterable[ChargeRow], axes: Sequence[str]) -> Iterator[str]:
    """A CSV file with a line for each charge; the cells of these axes come last."""
    cells = [
        (
            str(row.folder), row.job.run, row.trial, row.job.target, row.day, row.job.charge.node or None,
            row.class_type, *map(row.job.charge.amount.to_dict().get, ("low", "high")), CURRENCY,
            row.job.charge.kind, row.is_kept, *map(row.cells.get, axes),
        )
        for row in rows
    ]  # fmt: skip
    return format_delimited((*_CSV_COLUMNS, *axes), [list(zip(*cells, strict=True))], CSV_DIALECTS["csv"])
