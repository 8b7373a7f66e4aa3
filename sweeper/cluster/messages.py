"""The messages between driver and workers: frozen values that can be pickled."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.comfy.target import Target
from sweeper.model.trial import InputFile, Trial
from sweeper.planning.order import CLASSIC_CACHE, ServerCache
from sweeper.running.run_events import Event
from sweeper.running.settings import EffectiveSettings
from sweeper.running.spending import JobUsage
from sweeper.store.file_names import FileNaming
from sweeper.store.records import JobEnd, JobRecord


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What every worker of a run must know.

    `folder_id` identifies the results folder and `driver_id` this driver; a worker drops the batches that another
    driver of the same folder left with it. `target.key` is None, because workers read keys from their own environment.
    `folder` is the results folder, and `token` the content of its `.shared` file: a worker that reads the same token
    there writes artifacts into the folder itself. `metrics`: name -> version of the metrics that workers measure;
    `experiment_folder`: where a module of the user is looked for first, as on the driver.
    `naming`: how artifacts are named. `has_partner_nodes`: submissions need the key for paid partner nodes.
    `sampler_nodes`: the ids of the nodes that are samplers.
    `artifact_url`: where workers store artifacts, None for the results folder.
    """

    folder_id: str
    driver_id: str
    experiment: str
    experiment_folder: str
    target: Target
    settings: EffectiveSettings
    metrics: Mapping[str, str]
    folder: str
    token: str
    naming: FileNaming
    has_partner_nodes: bool = False
    sampler_nodes: frozenset[str] = frozenset()
    artifact_url: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, as it describes itself.

    `server_id` identifies the server beside it, also for later runs; `url` is that server's URL as the worker sees it.
    `max_batches`: how many batches it takes at a time. `stores_directly`: it writes artifacts to their final place.
    `problem`: why it cannot be used, else None; `refused`: because its server refused us. `unsent_jobs`: jobs of an
    earlier driver that certainly never left this worker. `server_info`: see `sweeper.comfy.responses`. `server_time`:
    the time by the server's clock when the worker described itself, in seconds since 1970; None if unknown.
    """

    address: str
    name: str
    host: str
    server_id: str = ""
    url: str = ""
    dialect: str = ""
    version: str = ""
    server_cache: ServerCache = CLASSIC_CACHE
    server_info: Mapping[str, Any] = field(default_factory=dict)
    server_time: float | None = None
    concurrency: int = 1
    max_batches: int = 1
    stores_directly: bool = False
    refused: bool = False
    problem: str | None = None
    unsent_jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One trial of a batch with its graph, its files and its job.

    A job in state UNSENT is a recorded intent: from now on the worker may submit the trial, once, under its id. Another
    is an earlier submission with an unknown outcome, to search for first; `server_time` is that of its intent by the
    server's clock, and `other_prompt_ids` are the prompt ids of other jobs with the same digest.
    """

    trial: Trial
    graph: Mapping[str, Any]
    files: tuple[InputFile, ...]
    job: JobRecord
    other_prompt_ids: frozenset[str] = frozenset()
    server_time: float | None = None


def worker_file_name(file: InputFile) -> str:
    return f"{file.sha256}{file.path.suffix}"


def pack(items: Iterable[BatchItem]) -> bytes:
    """Pickle and compress the items of a batch. Graphs of one template differ little, so they compress well."""
    return zlib.compress(pickle.dumps(list(items)), 1)


def unpack(packed: bytes) -> list[BatchItem]:
    """The items that `pack` packed."""
    items: list[BatchItem] = pickle.loads(zlib.decompress(packed))  # noqa: S301 (Dask itself sends tasks as pickles)
    return items


# --- messages of a worker, in the order of the events, some of which are Events for the driver's progress display


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The server accepted a job under that prompt_id, or the worker found the job there."""

    job_id: str
    prompt_id: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job ended, or stays open with an error. `measures`: (sha256, metric, value) of its artifacts.

    `usage`: what its server says about it, from which the driver computes what it cost.
    """

    job_id: str
    end: JobEnd
    measures: tuple[tuple[str, str, Any], ...] = ()
    usage: JobUsage = field(default_factory=JobUsage)


WorkerMessage = JobAccepted | JobFinished | Event


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """The end of a batch on its worker.

    `open_jobs`: jobs that stay open. `reason`: a word of `stop_control`, if the server refused us or
    stopped responding; `error` explains it. `node_times`: node class -> (runs, seconds).
    """

    open_jobs: tuple[str, ...]
    reason: str | None
    error: str | None
    node_times: Mapping[str, tuple[int, float]]


WorkerUpdate = tuple[tuple[WorkerMessage, ...], BatchFinished | None]
