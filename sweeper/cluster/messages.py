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
    from sweeper.running.settings import Settings
    from sweeper.store.records import Artifact, Job


@dataclass(frozen=True, slots=True)
class Order:
    """What every worker of one run must know. `key` is the results folder's identity, `epoch` this driver's: a worker
    lets go of the groups that an earlier epoch of the same key left with it. `target.key` is None: keys are read from
    the worker's own environment. `folder` is the results folder, and `token` what its `.shared` file says, so that a
    worker that sees the same file writes artifacts there itself. `metrics`: name -> version of those to be measured on
    workers. `partner`: the workflows have nodes of paid partners, whose key must go with them. `pictures`: the URL
    where workers put artifacts, None for the results folder.
    """

    key: str
    epoch: str
    experiment: str
    target: Target
    settings: Settings
    metrics: Mapping[str, str]
    folder: str
    token: str
    partner: bool = False
    pictures: str | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker as it describes itself. `place` names the server beside it for ever, `url` is its address as seen from
    there. `problem`: why it cannot be used; None where it can. `unsent`: jobs of an earlier epoch that certainly never
    left that worker. `shared`: it puts artifacts where they stay. `groups`: how many it may have at a time.
    `about`: what its server says of itself.
    """

    address: str
    name: str
    host: str
    place: str = ""
    url: str = ""
    dialect: str = ""
    version: str = ""
    arguments: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 1
    groups: int = 1
    shared: bool = False
    refused: bool = False
    problem: str | None = None
    unsent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One trial of a group with its graph and files. `job`: a submission of unknown fate, to be looked for; `taken`:
    the server's ids that are known to be others of the same work.
    """

    trial: Trial
    graph: Mapping[str, Any]
    files: tuple[InputFile, ...] = ()
    job: Job | None = None
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Parcel:
    """A group of trials as a task's only argument. The trials come with the grant: Dask's own logs keep the tasks of
    the last thousand messages, so what is in them adds up, on driver and scheduler. The `Order` is known by its epoch.

    `url`: the server that alone can tell what became of these, where they are open; None: the worker's own.
    """

    group: str
    epoch: str
    run_id: int
    url: str | None = None


def name_here(file: InputFile) -> str:
    """What an input file is called on a worker."""
    return f"{file.sha256}{file.path.suffix}"


def pack(items: Iterable[Item]) -> bytes:
    return zlib.compress(pickle.dumps(list(items)), 1)


def unpack(packed: bytes) -> list[Item]:
    found: list[Item] = pickle.loads(zlib.decompress(packed))  # noqa: S301 (Dask's own tasks come by pickle too)
    return found


@dataclass(frozen=True, slots=True)
class Grant:
    """A committed intent: from now on the worker may submit that trial, under this id of ours."""

    job: str
    attempt: int
    intended: float


@dataclass(frozen=True, slots=True)
class Opening:
    """What sets a group going. `items` is packed: graphs of one template differ in little. `grants` are in the order of
    the items that have no job yet.
    """

    items: bytes = field(repr=False)
    grants: tuple[Grant, ...]


# --- what a worker tells, in the order in which it happened


@dataclass(frozen=True, slots=True)
class Taken:
    """The server took a job under that prompt_id, or it was found there."""

    job: str
    prompt_id: str
    when: float


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a job, as `Store.finish` takes it. `measures` are (sha256, metric, value) of its artifacts."""

    job: str
    state: str
    started: float | None
    ended: float | None
    error: tuple[str, str] | None
    artifacts: tuple[Artifact, ...]
    measures: tuple[tuple[str, str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class RowSaid:
    """The lane's last word on a trial. `final`: another submission cannot help, whatever the state says."""

    job: str
    status: str
    error: tuple[str, str] | None
    final: bool
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """Something for whoever watches the run."""

    event: Event


News = Taken | Finished | RowSaid | Told


@dataclass(frozen=True, slots=True)
class Over:
    """The group has ended on that worker. `left`: jobs that stay open. `reason` as `RunControl`'s: None, unless the
    server refused us or stopped answering; `error` says it to people. `node_times` are class -> (runs, seconds).
    """

    left: tuple[str, ...]
    reason: str | None
    error: str | None
    node_times: Mapping[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Batch:
    """News up to and including `number`. `contents`: small artifacts by their path; larger ones are asked for."""

    number: int
    news: tuple[News, ...]
    contents: Mapping[str, bytes] = field(repr=False)
    over: Over | None = None
