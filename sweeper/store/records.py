"""What the store remembers, as values: runs, jobs and their states, artifacts, the layout of a table.

No database here: `store` reads and writes these. The row of the table is `sweeper.model.result.Result`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.model import result
from sweeper.model.result import Result

# What is known of a job. INTENT is committed before the request leaves, so a crash can never hide a submission.
INTENT: Final = "intent"  # may or may not have reached the server
SUBMITTED: Final = "submitted"  # the server gave or confirmed its prompt_id
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
REJECTED: Final = "rejected"  # the server's validation said no
CANCELLED: Final = "cancelled"
LOST: Final = "lost"  # the server had it, or may have had it, and does not know it now
UNSENT: Final = "unsent"  # certainly never reached the server

OPEN_STATES: Final = (INTENT, SUBMITTED)
STATUS_OF_STATE: Final = {
    SUCCEEDED: result.SUCCEEDED,
    FAILED: result.FAILED,
    REJECTED: result.FAILED,
    LOST: result.FAILED,
    CANCELLED: result.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class TableLayout:
    """What the table of a run needs beside its rows; column names in the table's order (CONTRACT.md 11).

    `value_order`: for a column of an axis whose values the rows have in another order than the experiment, the first
    trial of each value in the experiment's order. By trial and not by value: a prompt is long. `together`: the pairs of
    axes that are swept as one, as in a zip; None where that is not known, as in a run of before it was kept.
    """

    experiment: str
    axis_columns: tuple[str, ...]
    slot_names: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    value_order: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    together: tuple[tuple[str, str], ...] | None = None

    def values_in_order(self, column: str, cells: Sequence[Any]) -> list[Any]:
        """One of `cells` for each value of an axis' column, in the order in which the values were written; empty where
        that is the order of the rows (or is not known). `cells` are those of the column in all rows of the run.
        """
        return [cells[trial] for trial in self.value_order.get(column, ())]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as `sweeper runs` lists it. Times are seconds since 1970, UTC; `ended` is None while it goes on, or
    when it was killed. `stopped_by` is None for a run that came to its end. `overrides`: names that it fixed to a value
    of their own, as `--set` does; empty for a run of before they were kept.
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
    """One submission as the store knows it. `id` is ours (a UUID, which ComfyUI takes as `prompt_id`); `sent` is the
    digest of the graph as it was sent, our filename prefix taken out. Times are seconds since 1970, UTC.
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


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file on our disk. `path` is relative to the results folder, with `/`; `label` is what the server called it."""

    node: str
    kind: str
    position: int
    path: str
    sha256: str
    bytes: int
    label: str


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """What tells an artifact of a row from the others, and where it is: see `Artifact`."""

    node: str
    position: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """A row of the table with its files, and the run whose job stands for it, None where no job does."""

    result: Result
    run: int | None
    files: tuple[ArtifactRef, ...]


def to_compact_json(value: Mapping[str, Any]) -> str:
    """A mapping as it stands in a column.

    JSON text and not columns: SQLite's integers are signed 64-bit, and a seed of 2**64 - 1 must come back as it went.
    ASCII, so that half a surrogate pair, which JSON can write and UTF-8 cannot, comes back too.
    """
    return json.dumps(dict(value), separators=(",", ":"))
