"""The records of the store as values: runs, jobs and their states, artifacts, the layout of a table.

`store` reads and writes them. A row of the table is a `sweeper.model.result.Result`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeper.errors import ResultsError
from sweeper.model import result
from sweeper.model.bounded_json import parse_json
from sweeper.model.money import Charge
from sweeper.model.result import Result
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.schemas.values import fits_shape, format_value

# The states of a job. INTENT is committed before the request leaves, so a crash can never hide a submission.
INTENT: Final = "intent"  # the request may or may not have reached the server
SUBMITTED: Final = "submitted"  # the server assigned or confirmed the prompt_id
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
REJECTED: Final = "rejected"  # the server's validation refused it
CANCELLED: Final = "cancelled"
LOST: Final = "lost"  # the server had it, or may have had it, and no longer knows it
UNSENT: Final = "unsent"  # never reached the server

STATES: Final = (INTENT, SUBMITTED, SUCCEEDED, FAILED, REJECTED, CANCELLED, LOST, UNSENT)
OPEN_STATES: Final = (INTENT, SUBMITTED)
ENDED_STATES: Final = (SUCCEEDED, FAILED, REJECTED)  # not submitted again, unless an option such as --retry-failed asks
# What people say of two pictures and of a trial; see `votes`.
ANSWERS: Final = ("left", "right", "tie", "bad")  # "bad": neither picture is good
VERDICTS: Final = ("", "keep", "reject")
MAX_STARS: Final = 5
UNWRITTEN: Final = "sweeper does not write; restore a good copy of the folder, or delete it"

STATUS_OF_STATE: Final = {
    SUCCEEDED: result.SUCCEEDED,
    FAILED: result.FAILED,
    REJECTED: result.FAILED,
    LOST: result.FAILED,
    CANCELLED: result.CANCELLED,
}


ANY_MAPPING: Final = {...: object}
_SEARCH_SHAPE: Final = {
    "objectives": [{"metric": str, "maximize": bool}], "space": [str], "over": [str], "stop_early": bool,
}  # fmt: skip
_LAYOUT_SHAPE: Final = {
    "experiment": str, "axis_columns": [str], "slot_names": [str], "metrics": [str],
    "value_order": {...: [int]}, "together": [[str, str]], "search": (None, _SEARCH_SHAPE),
    "overrides": {...: object}, "alone": bool, "titles": {...: str}, "sizes_differ": bool, "extras": {...: str},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The columns of a run's table, and what else a table needs besides its rows. Names are in the table's order.

    `value_order` is for axes whose values appear in the rows in another order than in the experiment. It maps the
    column to the first trial of each value, in the experiment's order (trials, because a value may be a long prompt).
    `together` lists the pairs of axes that vary together, as in a zip.
    `search`: what a search adds; None if the run is not a round of one. `titles`: by id, the unique titles of nodes.
    `sizes_differ`: whether its jobs differ in size or model files, so that the time of one says little about another.
    `extras` maps the columns that tell more of the values of an axis to that axis: `lora.step`, other fields of a row.

    The fields are the keys of the JSON in the column `runs.layout`.
    """

    experiment: str
    axis_columns: tuple[str, ...]
    slot_names: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    value_order: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    together: tuple[tuple[str, str], ...] = ()
    search: SearchColumns | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    sizes_differ: bool = False
    extras: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured_metrics(self) -> tuple[str, ...]:
        """The metrics of the pictures and votes, without the columns that a search adds to them."""
        added = () if self.search is None else self.search.columns
        return tuple(name for name in self.metrics if name not in added)

    def values_in_order(self, column: str, cells: Sequence[Any]) -> list[Any]:
        """The values of an axis column in the order of the experiment.

        `cells` are the column's cells in all rows of the run. Empty if the rows already have that order, or if it is
        unknown.
        """
        return [cells[trial] for trial in self.value_order.get(column, ()) if 0 <= trial < len(cells)]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as `sweeper runs` lists it. Times are in seconds since 1970, UTC.

    `ended` is None while the run goes on, or if it was killed. `stopped_by` is None if the run finished. `overrides`
    are the values that `--set` gave, by name.
    """

    id: int
    experiment: str
    file: str
    targets: tuple[str, ...]
    trials: int
    started: float
    ended: float | None
    stopped_by: str | None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One submission of one trial. Times are in seconds since 1970, UTC.

    `id` is a UUID of ours, which ComfyUI accepts as `prompt_id`. `sent` is the digest of the graph as sent, without our
    file name prefix. The fields are the columns of the table `jobs`.
    """

    id: str
    run: int
    target: str
    digest: str
    sent: str
    attempt: int
    prompt_id: str | None
    state: str
    intended: float
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    error_type: str | None = None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long it ran; None if that is unknown. The two times may come from the clocks of two machines."""
        return None if self.started is None or self.ended is None else max(0.0, self.ended - self.started)


@dataclass(frozen=True, slots=True)
class Artifact:
    """An output file that we have. `path` is relative to the results folder, with `/`, or a URL.

    `label` is the file name that the server gave.
    """

    node: str
    kind: str
    position: int
    path: str
    sha256: str
    bytes: int
    label: str


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended, with its files. Times are in seconds since 1970, UTC; `error` is (error_type, message).

    `charges` None: those of the intent. `sampling_s`: the value of that metric, in seconds; None if it is unknown.
    """

    state: str
    started: float | None = None
    ended: float | None = None
    error: tuple[str, str] | None = None
    artifacts: tuple[Artifact, ...] = ()
    charges: tuple[Charge, ...] | None = None
    sampling_s: float | None = None


class ArtifactRef(NamedTuple):
    """The part of an `Artifact` that identifies it among the files of its row."""

    node: str
    position: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """A row of the table with its files, and the run that submitted its job (None if it has no job)."""

    result: Result
    run: int | None
    files: tuple[ArtifactRef, ...]


def parse_column(text: str, shape: Any, column: str, folder: Path) -> Any:
    """Parse the JSON of a column of the store in `folder`, which has this shape (see `fits_shape`).

    Raises ResultsError, because somebody else may have made the store.
    """
    try:
        value = parse_json(text, keeps_surrogates=True)
    except ValueError:
        value = ...
    if value is ... or not fits_shape(value, shape):
        raise ResultsError(f"{folder}: the column '{column}' of its store is {format_value(text)}, which {UNWRITTEN}")
    return value


def parse_columns(texts: Sequence[str], shape: Any, column: str, folder: Path) -> list[Any]:
    """`parse_column` of many texts, in a third of the time if all are mappings without lists, or all are numbers.

    `shape`: ANY_MAPPING or `object`.
    """
    joined = ",".join(texts)
    brackets = joined.count("{") + joined.count("[")
    if brackets:  # then each text has one, at its start, so that no value spans two texts
        is_plain = brackets == len(texts) and shape is not object and all(text.startswith("{") for text in texts)
    else:
        is_plain = '"' not in joined and joined.count(",") < len(texts)
    if is_plain:
        with suppress(ValueError):
            values = parse_json(f"[{joined}]", max_depth=len(texts) + 1, keeps_surrogates=True)
            if len(values) == len(texts) and (shape is object or set(map(type, values)) == {dict}):
                return list(values)
    return [parse_column(text, shape, column, folder) for text in texts]


def parse_trial(params: str, columns: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse these two columns of the table `trials`: the cells of the slots and those of the axes."""
    return (
        parse_column(params, ANY_MAPPING, "trials.params", folder),
        parse_column(columns, ANY_MAPPING, "trials.columns", folder),
    )


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def to_compact_json(value: Mapping[str, Any]) -> str:
    """A mapping as JSON text, the form in which it is stored in one column.

    One text and not a column for each value, because SQLite's integers are signed 64-bit and a seed may be 2**64 - 1.
    ASCII, because half a surrogate pair can be written in JSON but not in UTF-8.
    """
    return _encode(dict(value))


def encode_layout(layout: TableLayout, overrides: Mapping[str, Any] | None, *, alone: bool) -> str:
    """The layout as JSON, with facts that need no column of their own."""
    values = {name: getattr(layout, name) for name in TableLayout.__slots__}
    search = None if layout.search is None else asdict(layout.search)
    return to_compact_json({**values, "search": search, "overrides": overrides or {}, "alone": alone})


def decode_layout(text: str, folder: Path) -> tuple[TableLayout, dict[str, Any]]:
    """The layout and all facts that `encode_layout` wrote. Raises ResultsError as `parse_column` does."""
    facts: dict[str, Any] = parse_column(text, _LAYOUT_SHAPE, "runs.layout", folder)
    for name in (*facts["axis_columns"], *facts["slot_names"], *facts["metrics"]):
        if name in result.RESERVED_COLUMNS:
            raise ResultsError(f"{folder}: a run has a column '{name}' of its own, which {UNWRITTEN}")
    values = {name: _to_tuples(facts[name]) for name in TableLayout.__slots__}
    if search := values["search"]:
        objectives = tuple(Objective(found["metric"], found["maximize"]) for found in search["objectives"])
        values["search"] = SearchColumns(objectives, search["space"], search["over"], search["stop_early"])
    return TableLayout(**values), facts


def _to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_tuples(item) for key, item in value.items()}
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value
