"""What a run tells whoever watches it, as frozen values. Watching is optional, and a watcher decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.model.result import Run


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run is recorded. Of the `trials` rows `todo` may change in this run, and `reused` stand on work of earlier
    runs that is not done again; the others are left out by `where` or `limit`.
    """

    run_id: int
    out: Path
    trials: int
    todo: int
    reused: int
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterReady:
    """A Dask cluster answers: its scheduler's address, the link to its dashboard (empty where it has none), and the
    number of its workers that can be used now.
    """

    address: str
    dashboard: str
    workers: int


@dataclass(frozen=True, slots=True)
class TargetReady:
    """A target answers. `version` is empty where it does not tell; `concurrency` is jobs in flight at most."""

    target: str
    dialect: str
    version: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class TargetDown:
    """A target does not answer, or refuses us (`final`: it gets no more work in this run). One that is not given up is
    asked again while others have work, and for `patience` seconds where nobody else can go on.
    """

    target: str
    reason: str
    final: bool
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class TargetUp:
    """A target that was down for so many `seconds` answers again."""

    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """The server took a job. `found`: it was sent earlier and was found there instead of being sent again."""

    target: str
    trial: int
    prompt_id: str
    attempt: int
    found: bool = False


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A node of a job is at step `value` of `maximum` (0 of 0: it began)."""

    target: str
    trial: int
    prompt_id: str
    node: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class JobPreview:
    """The server sent a picture of how far a job is: the bytes of a JPEG or PNG, as they came."""

    target: str
    trial: int
    prompt_id: str
    node: str
    image: bytes


@dataclass(frozen=True, slots=True)
class TrialDone:
    """A row got its final words of this run. `seconds` is its execution time, None where the server did not tell."""

    trial: int
    status: str
    target: str
    outputs: tuple[str, ...] = ()
    error_type: str | None = None
    error: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Retrying:
    """A trial is submitted again after `wait` seconds."""

    target: str
    trial: int
    attempt: int
    wait: float
    reason: str


@dataclass(frozen=True, slots=True)
class TargetBusy:
    """A target takes nothing more at the moment; we ask again after `seconds`, with at most `limit` in flight."""

    target: str
    seconds: float
    limit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Draining:
    """Nothing more is submitted; `in_flight` jobs are waited for. `reason`: interrupt, max_failures."""

    in_flight: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelling:
    """Our `in_flight` jobs are being cancelled."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know and that stops nothing, such as a picture that could not be measured."""

    message: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, its table written."""

    run: Run


Event = (
    RunStarted
    | ClusterReady
    | TargetReady
    | TargetDown
    | TargetUp
    | JobSubmitted
    | JobProgress
    | JobPreview
    | TrialDone
    | Retrying
    | TargetBusy
    | Draining
    | Cancelling
    | Notice
    | RunEnded
)
