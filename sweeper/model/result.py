"""The result of one trial, which is one row of the table, and the summary of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.model.html_display import HtmlDisplay
from sweeper.model.model_facts import NO_MODELS, Models
from sweeper.model.money import CURRENCY, NOTHING, Amount

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
PENDING: Final = "pending"  # not submitted, or to be submitted again

STATUSES: Final = (SUCCEEDED, FAILED, CANCELLED, PENDING)

# The columns after the axes and slots, in the order of the table, with the types of their values. Each is an attribute
# of a Result; a tuple of texts becomes JSON. No axis or slot may have one of these names.
OUTCOME_COLUMNS: Final[Mapping[str, type]] = {
    "digest": str, "status": str, "outputs": tuple, "sha256": tuple, "target": str, "prompt_id": str, "attempts": int,
    "queued_s": float, "ran_s": float, "cost": float, "cost_kind": str, "currency": str, "models": str,
    "error_type": str, "error": str,
}  # fmt: skip
RESERVED_COLUMNS: Final = ("trial", *OUTCOME_COLUMNS)
SAMPLING_METRIC: Final = "sampling_s"  # the only metric of a job and not of a file; see `sweeper.comfy.job_listener`
# Beside the metrics, the store's cache keeps the hash of each picture's pixels. A metric's name has no space, so that
# no experiment can ask for it, and no table shows it. See `hash_frames` in `sweeper.images.decoding`.
PIXEL_HASH: Final = "hash of pixels"
MAX_COMPARED: Final = 50_000  # trials whose pictures are compared with each other; more would take seconds
REPEAT_COLUMN: Final = "sweeper_repeat"  # the axis that `sweeper calibrate` adds: the number of the repeat

_NOT_IN_JSON: Final = {"json": ""}  # see `sweeper.answers.render`


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table: the planned trial and its outcome.

    `columns` holds the axis cells in table order, `params` every slot. `outputs` are paths relative to the results
    folder, with `/` (or URLs); `sha256` has one hex digest for each. `queued_s` is the time in seconds from submission
    to the start of execution, `ran_s` from there to the end; both are None if the server does not report it.

    `cost` is what the job cost in US dollars, the upper end of a range; None if nothing has a price or the job has not
    ended. If trials share a job, the first of them has its cost and the others have 0, so that the sum of a table is
    what was paid. `cost_kind` is the least sure kind of the job's charges (`sweeper.model.money`). `models` names the
    model files with a tag for the content of each (`sweeper.model.model_facts`); None if its server told nothing.
    `model_facts` has all that it told.
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
    cost: float | None = None
    cost_kind: str | None = None
    models: str | None = None
    error_type: str | None = None
    error: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model_facts: Models = field(default_factory=lambda: NO_MODELS)

    @property
    def currency(self) -> str | None:
        return None if self.cost is None else CURRENCY


@dataclass(frozen=True, slots=True)
class Run(HtmlDisplay):
    """The summary of a run.

    `succeeded`, `failed`, `cancelled` and `pending` count the trials by what this run has for them, and add up to
    `trials`; `reused` trials have results of earlier runs on the same targets. `kept` counts by target the rows of the
    table that show another result, of an earlier run, because this run has none or a worse one. `submitted` counts
    the submissions of this run that a server accepted or may have accepted, retries included.

    `stopped_by` is None if the run was not stopped, else `interrupt`, `max_failures`, `budget`, `refused` (key, credits
    or subscription), `unreachable` or `unwritable` (the results folder, for example because the disk is full). `error`
    gives the reason for people, or says what is left to do. `pictures` is the folder or URL that received the pictures.

    `cost` is what the jobs of this run cost, `spent` those of all runs of the folder; a job that has not ended counts
    with what it costs at most. `budget` is the most that they may cost, in micro-dollars, if there is a limit.
    """

    run_id: int = field(metadata={"json": "run"})
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
    kept: Mapping[str, int] = field(default_factory=dict)
    cost: Amount = field(default=NOTHING, metadata=_NOT_IN_JSON)
    spent: Amount = field(default=NOTHING, metadata=_NOT_IN_JSON)
    budget: int | None = field(default=None, metadata=_NOT_IN_JSON)
