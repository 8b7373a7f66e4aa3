"""What passes between driver and workers, as frozen values that pickle. No behaviour but packing."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.model.trial import InputFile, Trial
    from sweeper.running.run_events import Event
    from sweeper.running.settings import EffectiveSettings
    from sweeper.store.records import Artifact, JobRecord


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What every worker of one run must know. `key` is the results folder's identity, `epoch` this driver's: a worker
    lets go of the groups that an earlier epoch of the same key left with it. `target.key` is None: keys are read from
    the worker's own environment. `folder` is the results folder, and `token` what its `.shared` file says, so that a
    worker that sees the same file writes artifacts there itself. `metrics`: name -> version of those to be measured on
    workers. `partner`: the workflows have nodes of paid partners, whose key must go with them. `pictures`: the URL
    where workers put artifacts, None for the results folder.
    """

    folder_id: str
    driver_id: str
    experiment: str
    target: Target
    settings: EffectiveSettings
    metrics: Mapping[str, str]
    folder: str
    token: str
    has_partner_nodes: bool = False
    artifact_url: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as it describes itself. `place` names the server beside it for ever, `url` is its address as seen from
    there. `problem`: why it cannot be used; None where it can. `unsent`: jobs of an earlier epoch that certainly never
    left that worker. `shared`: it puts artifacts where they stay. `groups`: how many it may have at a time.
    `about`: what its server says of itself.
    """

    address: str
    name: str
    host: str
    server_id: str = ""
    url: str = ""
    dialect: str = ""
    version: str = ""
    arguments: tuple[str, ...] = ()
    server_info: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 1
    max_batches: int = 1
    stores_directly: bool = False
    refused: bool = False
    problem: str | None = None
    unsent_jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One trial of a group with its graph and files. `job`: a submission of unknown fate, to be looked for; `taken`:
    the server's ids that are known to be others of the same work.
    """

    trial: Trial
    graph: Mapping[str, Any]
    files: tuple[InputFile, ...] = ()
    job: JobRecord | None = None
    other_prompt_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BatchTask:
    """A group of trials as a task's only argument. The trials come with the grant: Dask's own logs keep the tasks of
    the last thousand messages, so what is in them adds up, on driver and scheduler. The `Order` is known by its epoch.

    `url`: the server that alone can tell what became of these, where they are open; None: the worker's own.
    """

    batch_id: str
    driver_id: str
    run_id: int
    server_url: str | None = None


def worker_file_name(file: InputFile) -> str:
    """What an input file is called on a worker."""
    return f"{file.sha256}{file.path.suffix}"


def pack(items: Iterable[BatchItem]) -> bytes:
    return zlib.compress(pickle.dumps(list(items)), 1)


def unpack(packed: bytes) -> list[BatchItem]:
    found: list[BatchItem] = pickle.loads(zlib.decompress(packed))  # noqa: S301 (Dask's own tasks come by pickle too)
    return found


@dataclass(frozen=True, slots=True)
class JobLease:
    """A committed intent: from now on the worker may submit that trial, under this id of ours."""

    job_id: str
    attempt: int
    intended_at: float


@dataclass(frozen=True, slots=True)
class BatchStart:
    """What sets a group going. `items` is packed: graphs of one template differ in little. `grants` are in the order of
    the items that have no job yet.
    """

    packed_items: bytes = field(repr=False)
    leases: tuple[JobLease, ...]


# --- what a worker tells, in the order in which it happened


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The server took a job under that prompt_id, or it was found there."""

    job_id: str
    prompt_id: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class JobFinished:
    """What became of a job, as `Store.finish` takes it. `measures` are (sha256, metric, value) of its artifacts."""

    job_id: str
    state: str
    started: float | None
    ended: float | None
    error: tuple[str, str] | None
    artifacts: tuple[Artifact, ...]
    measures: tuple[tuple[str, str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """The lane's last word on a trial. `final`: another submission cannot help, whatever the state says."""

    job_id: str
    status: str
    error: tuple[str, str] | None
    final: bool
    seconds: float | None


@dataclass(frozen=True, slots=True)
class EventForwarded:
    """Something for whoever watches the run."""

    event: Event


WorkerMessage = JobAccepted | JobFinished | TrialFinished | EventForwarded


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """The group has ended on that worker. `left`: jobs that stay open. `reason` as `RunControl`'s: None, unless the
    server refused us or stopped answering; `error` says it to people. `node_times` are class -> (runs, seconds).
    """

    open_jobs: tuple[str, ...]
    reason: str | None
    error: str | None
    node_times: Mapping[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class WorkerUpdate:
    """News up to and including `number`. `contents`: small artifacts by their path; larger ones are asked for."""

    number: int
    messages: tuple[WorkerMessage, ...]
    file_contents: Mapping[str, bytes] = field(repr=False)
    finished: BatchFinished | None = None
