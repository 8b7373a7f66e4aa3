"""The events of a run: frozen values passed to its `progress` callback. An observer cannot influence the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweeper.model.money import Amount
from sweeper.model.result import Run
from sweeper.model.search_columns import SearchedPoint


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run is recorded in the store.

    Of its `trials` rows, this run may change `todo`, and `reused` show results of earlier runs that are not repeated.
    `where` or `limit` leave out the others.
    """

    run_id: int
    out: Path
    trials: int
    todo: int
    reused: int
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterReady:
    """A Dask cluster responded. `address` is its scheduler's, `dashboard` a URL (empty: there is none).

    `workers`: the number of usable workers now.
    """

    address: str
    dashboard: str
    workers: int


@dataclass(frozen=True, slots=True)
class TargetReady:
    """A target responded. `version` is empty if unknown; `concurrency` is the maximum of jobs in flight."""

    target: str
    dialect: str
    version: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class TargetDown:
    """A target does not respond or refuses us. `final`: it gets no more work in this run.

    Otherwise the run retries it while other targets have work, and for `patience` seconds if none can continue.
    """

    target: str
    reason: str
    final: bool
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class TargetUp:
    """A target responds again after it was down for `seconds`."""

    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitingForTarget:
    """The run can do nothing but wait for a target that is down, and gives it up in `seconds`.

    `seconds` None: the run waits no longer, because another target can continue.
    """

    target: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """The server accepted a job. `found`: an earlier submission was found on the server, so nothing was sent now."""

    target: str
    trial: int
    prompt_id: str
    attempt: int
    found: bool = False


@dataclass(frozen=True, slots=True)
class JobQueued:
    """A poll showed why a job waits on the server.

    `reason`: the server's word, empty when the job waits no longer. `position`: its place in the queue, if known.
    """

    target: str
    trial: int
    prompt_id: str
    reason: str
    position: int | None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A node of a job is at step `value` of `maximum` (0 of 0: it has just started)."""

    target: str
    trial: int
    prompt_id: str
    node: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class JobPreview:
    """The server sent a preview of a job in progress: `image` holds the bytes of a JPEG or PNG."""

    target: str
    trial: int
    prompt_id: str
    node: str
    image: bytes


@dataclass(frozen=True, slots=True)
class TrialDone:
    """The result row of a trial is final for this run. `seconds`: the execution time, None if unknown."""

    trial: int
    status: str
    target: str
    outputs: tuple[str, ...] = ()
    error_type: str | None = None
    error: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CostChanged:
    """What all jobs of the results folder cost, after one more ended. One that has not ended counts at most.

    `budget`: the most that they may cost, in micro-dollars; None without a limit.
    """

    spent: Amount
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Retrying:
    """A trial will be submitted again after `wait` seconds."""

    target: str
    trial: int
    attempt: int
    wait: float
    reason: str


@dataclass(frozen=True, slots=True)
class TargetBusy:
    """A target's queue is full; the run retries after `seconds`, with at most `limit` jobs in flight."""

    target: str
    seconds: float
    limit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Draining:
    """The run submits nothing more and waits for `in_flight` jobs. `reason`: a constant of `stop_control`."""

    in_flight: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelling:
    """The run cancels its `in_flight` jobs."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning that stops nothing, such as a picture that could not be measured."""

    message: str


@dataclass(frozen=True, slots=True)
class JudgeAsked:
    """From now on, the judge of a metric is asked about up to `pictures` pictures, each `repeats` times."""

    metric: str
    model: str
    host: str
    pictures: int
    repeats: int


@dataclass(frozen=True, slots=True)
class RoundPlanned:
    """A search asks for `points` points with `trials` trials; with 0 points, for more trials of earlier points.

    `asked`: the trials that it has asked for before, of at most `limit` (None: no limit). `best`: the best point so
    far, None if there is none yet. `objectives`: the names of its objectives.
    """

    number: int
    points: int
    trials: int
    asked: int
    limit: int | None
    objectives: tuple[str, ...]
    best: SearchedPoint | None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run has ended and its table is written."""

    run: Run


Event = (
    RunStarted
    | ClusterReady
    | TargetReady
    | TargetDown
    | TargetUp
    | WaitingForTarget
    | JobSubmitted
    | JobQueued
    | JobProgress
    | JobPreview
    | TrialDone
    | CostChanged
    | Retrying
    | TargetBusy
    | Draining
    | Cancelling
    | Notice
    | JudgeAsked
    | RoundPlanned
    | RunEnded
)
