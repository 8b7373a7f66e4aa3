"""Read the rows of a run as cases, with their files.

A case is identified by the swept values and the output, not by the digest of the workflow. The pictures of a changed
workflow are therefore compared with the pictures accepted before.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sweeper.errors import UsageError
from sweeper.files import make_portable
from sweeper.model.axis_values import format_label
from sweeper.model.expressions import ExpressionError, compile_column_expression
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.workflow import encode_canonical
from sweeper.store import Store
from sweeper.store.records import ArtifactRef, RunRecord
from sweeper.store.remote_artifacts import download_artifacts, is_url, local_path
from sweeper.wording import shorten, to_one_line

_MAX_VALUE: Final = 40  # characters of a value in a case's name
_MAX_STEM: Final = 80  # characters of the readable part of an accepted file's name


@dataclass(frozen=True, slots=True)
class Case:
    """One output of one point of the sweep.

    `cells` are the axis cells of the table, and `position` counts the files of the output node `node` from 0. `point`
    is the `point_key` of the cells, computed if it is not given. `title`: that of the node, if no other has it.
    """

    cells: Mapping[str, Any]
    node: str
    position: int
    point: str = field(default="", compare=False, repr=False)
    title: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.point:
            object.__setattr__(self, "point", point_key(self.cells))

    @property
    def key(self) -> str:
        """Canonical JSON that is equal for equal cases only (7 equals 7.0, but not "7")."""
        return f"[{self.point},{_output_key(self.node, self.position)}"

    @property
    def name(self) -> str:
        """The name for people: `prompt=a fox steps=4 [Save final]`. Its second file: `[Save final/1]`."""
        node = shorten(self.title or self.node)
        output = f"[{node}/{self.position}]" if self.position else f"[{node}]"
        return f"{format_cells(self.cells)} {to_one_line(output)}".lstrip()

    def build_file_name(self, extension: str, number: int = 1) -> str:
        """A safe name for its accepted file number `number`, from 1."""
        digest = hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).hexdigest()
        words = [_to_slug(format_label(value)) for value in self.cells.values() if value is not None]
        readable = "-".join(word for word in words if word)[:_MAX_STEM].strip("-.")
        readable = make_portable(readable, "trial") or "trial"
        name = f"{readable}-{digest[:8]}.{_to_slug(self.node)[:40] or 'node'}-{self.position}"
        return f"{name}.{extension}" if number == 1 else f"{name}-{number}.{extension}"


def point_key(cells: Mapping[str, Any]) -> str:
    """Canonical JSON that identifies a point of the sweep."""
    return _to_text(dict(cells))


@lru_cache  # a workflow has few outputs
def _output_key(node: str, position: int) -> str:
    return _to_text([node, position])[1:]


def _to_slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.]+|\.{2,}", "-", plain).strip("-.")[:_MAX_STEM]


def _to_text(value: object) -> str:
    return encode_canonical(value).decode("utf-8", "surrogatepass")


def format_cells(cells: Mapping[str, Any]) -> str:
    """`axis=value axis=value`. A long value is cut and ends in a hash, so that different values stay different."""
    return " ".join(
        f"{to_one_line(axis)}={_format_value(value)}" for axis, value in cells.items() if not axis.endswith(".label")
    )


def _format_value(value: Any) -> str:
    is_plain_text = isinstance(value, str) and not _is_number_like(value)
    text = value if is_plain_text else encode_canonical(value).decode("utf-8", "replace")
    plain = to_one_line(text)
    if len(plain) <= _MAX_VALUE and plain == text:
        return plain
    return f"{plain[: _MAX_VALUE - 8].rstrip()}~{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def _is_number_like(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false", "null", "")
    return True


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An output file of a trial: `file` in the absolute results folder `folder`, with the SHA-256 of its bytes.

    If the file is stored at a `url`, it is at `path` only after `RunCases.fetch`.
    """

    case: Case
    folder: str
    file: str
    sha256: str
    url: str | None = None

    @property
    def path(self) -> Path:
        """The absolute path. Computed on demand, because ten thousand Path objects take some megabytes."""
        return Path(self.folder, self.file)

    @property
    def path_text(self) -> str:
        """`path` as a text, which is ten times faster."""
        return f"{self.folder}{os.sep}{self.file}"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial of a run: its cells and their `point_key`, its result, and its files.

    `run` is the run that submitted its job; None if it has no job. Even in a run that repeats everything, a row may
    still have an older job if the run was stopped. `server` are the recorded facts about the server that did the job.
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
    """The cases of a run. `file` is the recorded experiment file, and `overrides` what `--set` changed in it."""

    experiment: str
    file: Path
    folder: Path
    run: int
    rows: tuple[TrialRow, ...]
    overrides: Mapping[str, Any]

    @property
    def outputs(self) -> dict[str, OutputFile]:
        """The output files by the key of their case."""
        return {output.case.key: output for row in self.rows for output in row.outputs}

    def describe_missing(self, output: OutputFile) -> str:
        """A message that a file is gone and how to restore it; empty if it exists."""
        if output.path.exists():
            return ""
        command = f"sweeper run {self.file} --out {self.folder}"
        return f"{output.url or output.path} is gone; `{command}` fetches it again from its server"

    def fetch(self, outputs: Iterable[OutputFile]) -> None:
        """Download the files that are at a URL, unless they are gone. Raises ResultsError if the storage fails."""
        files = ((output.url, output.sha256) for output in outputs if output.url is not None)
        download_artifacts(self.folder.resolve(), files)


def load_run_record(folder: Path, run: int | str | None = None) -> RunRecord:
    """The record of a run in a results folder, by default the latest. Raises ResultsError."""
    with Store.open(folder, readonly=True) as store:
        return find_run_record(store, run)


def find_run_record(store: Store, run: int | str | None) -> RunRecord:
    """The record of a run, by default the latest. Raises ResultsError."""
    run_id = store.latest_run_id() if run is None else run
    store.layout(run_id)  # raises if there is no such run
    return next(record for record in store.runs() if str(record.id) == str(run_id))


def read_run(
    folder: Path, run: int | str | None = None, trials: Collection[int] | None = None, *, own: bool = False
) -> RunCases:
    """Read a run of a results folder, or by default its table, and all trials or some.

    `own`: only what the run made itself. Raises ResultsError if there is nothing to read.
    """
    with Store.open(folder, readonly=True) as store:
        record = find_run_record(store, run)
        outcomes = list(store.outcomes(record.id, of_folder=run is None))
        titles = store.layout(record.id).titles
        servers = store.servers.load_info()
    absolute = str(folder.resolve())
    rows: dict[str, TrialRow] = {}  # by point, because overlapping blocks plan the same trial twice
    points = identify_points([outcome.result for outcome in outcomes])
    for (cells, point), outcome in zip(points, outcomes, strict=True):
        result = outcome.result
        if point in rows or (trials is not None and result.trial not in trials):
            continue
        files = outcome.files if result.status == SUCCEEDED else ()
        outputs = _collect_outputs(cells, point, absolute, files, titles)
        server = servers.get((outcome.run, result.target), {}) if outcome.run is not None and result.target else {}
        rows[point] = TrialRow(cells, point, result, outputs, outcome.run, server)
    found = tuple(row for row in rows.values() if not own or row.run == record.id)
    return RunCases(record.experiment, Path(record.file), folder, record.id, found, record.overrides)


def identify_points(rows: Sequence[Any]) -> list[tuple[Mapping[str, Any], str]]:
    """The cells that identify each row (a Result or a Trial), and their `point_key`.

    If several rows have the same axis cells, the params in which they differ are added to the cells. This happens
    because an `include` row may set a slot that is not an axis.
    """
    keys = [point_key(row.columns) for row in rows]
    repeated = {key for key, count in Counter(keys).items() if count > 1}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for key, row in zip(keys, rows, strict=True):
        if key in repeated:
            groups.setdefault(key, []).append(row.params)
    differing = {
        key: [name for name in group[0] if len({encode_canonical(params.get(name)) for params in group}) > 1]
        for key, group in groups.items()
    }
    found = []
    for key, row in zip(keys, rows, strict=True):
        names = differing.get(key)
        cells = {**row.columns, **{name: row.params.get(name) for name in names}} if names else row.columns
        found.append((cells, point_key(cells) if names else key))
    return found


def _collect_outputs(
    cells: Mapping[str, Any], point: str, folder: str, files: Iterable[ArtifactRef], titles: Mapping[str, str]
) -> tuple[OutputFile, ...]:
    outputs: dict[tuple[str, int], OutputFile] = {}
    for file in files:
        case = Case(cells, file.node, file.position, point, titles.get(file.node, ""))
        url = file.path if is_url(file.path) else None
        path = file.path if url is None else str(local_path(Path(), url, file.sha256))
        outputs.setdefault((file.node, file.position), OutputFile(case, folder, path, file.sha256, url))
    return tuple(outputs.values())


class Condition:
    """A `where` expression over slots and axis columns, compiled and checked once. Call it for each trial."""

    def __init__(self, text: str, names: Iterable[str]) -> None:
        """Raises UsageError if the expression is invalid or contains an unknown name."""
        try:
            self._expression = compile_column_expression(text, frozenset(names))
        except ExpressionError as error:
            raise UsageError(f"where: {error}") from None

    def __call__(self, params: Mapping[str, Any], cells: Mapping[str, Any]) -> bool:
        try:
            # A baseline may be older than a column of the experiment, so that its cells lack the name.
            missing = dict.fromkeys(self._expression.names)
            return bool(self._expression.evaluate({**missing, **cells, **params}))
        except ExpressionError as error:
            raise UsageError(f"where: for {format_cells(cells)}: {error}") from None
