"""Cases: the trials of a results folder as the regression suite knows them, by swept values and output, not by digest.

So a changed workflow meets its old pictures. Here a run's rows are read off the store as cases with their files; what
was accepted for a case is `baseline`'s affair.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sweeper.errors import UsageError
from sweeper.model.expressions import ExpressionError
from sweeper.model.expressions.column_expression import compile_column_expression
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.workflow import encode_canonical
from sweeper.store import Store
from sweeper.store.artifacts import build_file_name, build_stem
from sweeper.store.records import ArtifactRef, RunRecord, TableLayout
from sweeper.store.remote_artifacts import download_artifacts, is_url, local_path

_MAX_VALUE: Final = 40  # characters of a value in a case's name


@dataclass(frozen=True, slots=True)
class Case:
    """One output of one point of the sweep. `cells` are the axis cells of the table; `position` counts the files of
    output node `node` from 0. `point` is the `point_key` of the cells, and made of them where it is not given.
    """

    cells: Mapping[str, Any]
    node: str
    position: int
    point: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.point:
            object.__setattr__(self, "point", point_key(self.cells))

    @property
    def key(self) -> str:
        """Canonical JSON: equal exactly for equal cases (7 and 7.0 are one value, "7" is another)."""
        return f"[{self.point},{_output_key(self.node, self.position)}"

    @property
    def name(self) -> str:
        """How people read it: `prompt=a fox steps=4 [9]`, in one line; the second file of node 9 is `[9/1]`."""
        place = f"[{self.node}/{self.position}]" if self.position else f"[{self.node}]"
        return f"{format_cells(self.cells)} {_to_one_line(place)}".lstrip()

    def build_file_name(self, extension: str, number: int = 1) -> str:
        """A safe name of ours for its accepted picture, the same for every version of it."""
        mark = hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).hexdigest()
        name = build_file_name(build_stem(self.cells, mark), self.node, self.position, extension)
        base, dot, suffix = name.rpartition(".")
        return name if number == 1 else f"{base}-{number}{dot}{suffix}"


def point_key(cells: Mapping[str, Any]) -> str:
    """Canonical JSON of a point of the sweep, of all of whose outputs it is the `point`."""
    return _to_text(dict(cells))


@lru_cache  # a workflow has few outputs
def _output_key(node: str, position: int) -> str:
    return _to_text([node, position])[1:]


def _to_text(value: object) -> str:
    return encode_canonical(value).decode("utf-8", "surrogatepass")


def format_cells(cells: Mapping[str, Any]) -> str:
    """`axis=value axis=value`; a long value is cut and ends in a hash, so that two stay two."""
    return " ".join(
        f"{_to_one_line(axis)}={_format_value(value)}" for axis, value in cells.items() if not axis.endswith(".label")
    )


def _format_value(value: Any) -> str:
    text = (
        value
        if isinstance(value, str) and not _is_number_like(value)
        else encode_canonical(value).decode("utf-8", "replace")
    )
    plain = _to_one_line(text)
    if len(plain) <= _MAX_VALUE and plain == text:
        return plain
    return f"{plain[: _MAX_VALUE - 8].rstrip()}~{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def _to_one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _is_number_like(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false", "null", "")
    return True


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a trial gave for a case: `file` in the results folder `home`, which is absolute; `sha256` of its
    bytes as they arrived. `url`: where it lies instead; it is at `path` once it was fetched (`Observed.bring`).
    """

    case: Case
    folder: str
    file: str
    sha256: str
    url: str | None = None

    @property
    def path(self) -> Path:
        """Made when it is asked for: ten thousand of them are some megabytes."""
        return Path(self.folder, self.file)

    @property
    def path_text(self) -> str:
        return os.path.join(self.folder, self.file)  # noqa: PTH118 - at a tenth of the price of a Path


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial of a run: its cells and their `point_key`, what became of it, its files. `run` is the run whose job
    stands for it, None where no job does: a row of a fresh run can still rest on an older one when the run was stopped.
    `server` is what the server told of itself that did it.
    """

    cells: Mapping[str, Any]
    point: str
    result: Result
    outputs: tuple[OutputFile, ...]
    run: int | None
    server: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.result.status == SUCCEEDED


@dataclass(frozen=True, slots=True)
class RunCases:
    """A run as cases. `file` is the experiment as the run recorded it."""

    experiment: str
    file: Path
    folder: Path
    run: int
    rows: tuple[TrialRow, ...]
    names: frozenset[str]

    def describe_missing(self, shown: OutputFile) -> str:
        """That a file of this run is gone, and what brings it back; empty where it is there."""
        if shown.path.exists():
            return ""
        if shown.url is not None:
            return (
                f"{shown.url} is gone; `sweeper run {self.file} --out {self.folder}` fetches it again from its server"
            )
        return f"{shown.path} is gone; `sweeper run {self.file} --out {self.folder}` fetches it again from its server"

    def fetch(self, shown: Iterable[OutputFile]) -> None:
        """Have these files at their `path`, unless they are gone. Raises ResultsError for a storage that fails."""
        download_artifacts(self.folder.resolve(), ((one.url, one.sha256) for one in shown if one.url is not None))

    def select_rows(self, where: str | None) -> tuple[TrialRow, ...]:
        """The rows for which an expression over slots and axes is true. Raises UsageError where it cannot be used."""
        if where is None:
            return self.rows
        test = Condition(where, self.names, "--where")
        return tuple(row for row in self.rows if test(row.result.params, row.result.columns))


def load_run_record(folder: Path, run: int | str | None = None) -> RunRecord:
    """What is on record of the latest run of a results folder, or of another. Raises ResultsError."""
    with Store.open(folder, readonly=True) as store:
        return _find_record(store, run)


def _find_record(store: Store, run: int | str | None) -> RunRecord:
    run_id = store.latest_run_id() if run is None else run
    store.layout(run_id)  # says so where there is no such run
    return next(record for record in store.runs() if str(record.id) == str(run_id))


def read_run(folder: Path, run: int | str | None = None, trials: Collection[int] | None = None) -> RunCases:
    """The latest run of a results folder, or another; only these trials, where they are given.

    Raises ResultsError where there is nothing to read.
    """
    with Store.open(folder, readonly=True) as store:
        record = _find_record(store, run)
        layout = store.layout(record.id)
        outcomes = list(store.outcomes(record.id))
        servers = store.servers.load_info()
    home, rows, seen = str(folder.resolve()), [], set()
    for (cells, point), outcome in zip(identify_points([one.result for one in outcomes]), outcomes, strict=True):
        if point in seen or not (
            trials is None or outcome.result.trial in trials
        ):  # overlapping blocks plan the same trial twice
            continue
        seen.add(point)
        one = outcome.result
        shown = _collect_outputs(cells, point, home, outcome.files) if one.status == SUCCEEDED else ()
        server = servers.get((outcome.run, one.target), {}) if outcome.run is not None and one.target else {}
        rows.append(TrialRow(cells, point, one, shown, outcome.run, server))
    return RunCases(record.experiment, Path(record.file), folder, record.id, tuple(rows), _list_names(layout))


def identify_points(rows: Sequence[Any]) -> list[tuple[Mapping[str, Any], str]]:
    """The cells that key each row (Results or Trials: what has `columns` and `params`), and their `point_key`.

    Rows of one key are told apart by the params in which they differ: an `include` row may set a slot that is no axis.
    """
    keys = [point_key(row.columns) for row in rows]
    crowded = {key for key, count in Counter(keys).items() if count > 1}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for key, row in zip(keys, rows, strict=True):
        if key in crowded:
            groups.setdefault(key, []).append(row.params)
    differing = {key: names for key, group in groups.items() if (names := _find_differing(group))}
    return [
        _distinguish(row, differing[key]) if key in differing else (row.columns, key)
        for key, row in zip(keys, rows, strict=True)
    ]


def _distinguish(row: Any, names: Iterable[str]) -> tuple[Mapping[str, Any], str]:
    cells = {**row.columns, **{name: row.params.get(name) for name in names}}
    return cells, point_key(cells)


def _find_differing(group: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in group[0] if len({encode_canonical(params.get(name)) for params in group}) > 1]


def _collect_outputs(
    cells: Mapping[str, Any], point: str, home: str, files: Iterable[ArtifactRef]
) -> tuple[OutputFile, ...]:
    found: dict[tuple[str, int], OutputFile] = {}
    for file in files:
        place = file.node, file.position
        if place in found:
            continue
        case = Case(cells, *place, point)
        if is_url(file.path):
            found[place] = OutputFile(
                case, home, str(local_path(Path(), file.path, file.sha256)), file.sha256, file.path
            )
        else:
            found[place] = OutputFile(case, home, file.path, file.sha256)
    return tuple(found.values())


def _list_names(layout: TableLayout) -> frozenset[str]:
    return frozenset((*layout.axis_columns, *layout.slot_names))


class Condition:
    """`where` over slots and the table's columns of axes: compiled and checked at once, then asked of each trial."""

    def __init__(self, text: str, names: Iterable[str], label: str) -> None:
        """Raises UsageError where the expression does not parse or reads a name that no trial has."""
        self.label = label
        try:
            self._expression = compile_column_expression(text, frozenset(names))
        except ExpressionError as error:
            raise UsageError(f"{label}: {error}") from None

    def __call__(self, params: Mapping[str, Any], cells: Mapping[str, Any]) -> bool:
        try:
            # A baseline may be older than a column.
            absent = dict.fromkeys(self._expression.columns)
            return bool(self._expression.evaluate({**absent, **cells, **params}))
        except ExpressionError as error:
            raise UsageError(f"{self.label}: for {format_cells(cells)}: {error}") from None
