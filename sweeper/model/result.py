"""What became of one trial, exactly one row of the table, always; and what came of a whole run. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
PENDING: Final = "pending"  # not submitted yet, or not any more

STATUSES: Final = (SUCCEEDED, FAILED, CANCELLED, PENDING)

# The columns behind the axes and slots, in the table's order (CONTRACT.md 11). No axis or slot may bear such a name.
OUTCOME_COLUMNS: Final = (
    "digest", "status", "outputs", "sha256", "target", "prompt_id", "attempts", "queued_s", "ran_s", "error_type",
    "error",
)  # fmt: skip
RESERVED_COLUMNS: Final = ("trial", *OUTCOME_COLUMNS)


@dataclass(frozen=True, slots=True)
class Result:
    """One row: the trial as planned, and what became of it.

    `columns` holds the axis cells in table order, `params` every slot. `outputs` are paths relative to the results
    folder with `/`; `sha256` stands beside it, one hex digest per file. `queued_s` and `ran_s` are seconds: from the
    submission to the start of execution, and from there to the end; None where the server did not tell.
    """

    trial: int
    columns: Mapping[str, Any]
    params: Mapping[str, Any]
    digest: str
    status: str = PENDING
    outputs: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    target: str | None = None
    prompt_id: str | None = None
    attempts: int = 0
    queued_s: float | None = None
    ran_s: float | None = None
    error_type: str | None = None
    error: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run. `trials` counts rows, and so do `succeeded failed cancelled pending`, which add up to it;
    `reused` of them rest on work of earlier runs. `submitted` counts the submissions of this run that a server took
    or may have taken, retries included.

    `stopped_by`: None at a natural end, else `interrupt`, `max_failures`, `refused` (key, credits, subscription),
    `unreachable` or `unwritable` (the results folder, as when the disk is full); `error` says the same to people, or
    what is left undone at a natural end. `pictures`: the folder or the URL where they went.
    """

    run_id: int
    out: Path
    trials: int
    submitted: int
    succeeded: int
    failed: int
    cancelled: int
    pending: int
    reused: int
    stopped_by: str | None = None
    error: str | None = None
    pictures: str = ""
