"""Measures the metrics of a run's artifacts after the run, and during it while somebody watches. Each file is measured
once; the store caches the values. The hash of a picture's pixels counts as a metric here. If it is the only one, it is
also computed during a run that nobody watches, so that the run ends no later.

The cache also keeps the version of each metric, under a name that no metric can have. If a metric has another version
now (its function was edited, its model replaced), its old values are discarded and measured again.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ResultsError
from sweeper.images.metrics.registry import Metric, MetricInput
from sweeper.model.result import PIXEL_HASH
from sweeper.running.stop_control import StopControl
from sweeper.store import Store
from sweeper.store.remote_artifacts import download_artifact, is_url, local_path

_BATCH_SIZE = 16  # files that are measured between two checks whether the run is cancelled
_WATCHED_BATCH_SIZE: Final = 64  # files that are measured between two pauses during a run
_MIN_PAUSE: Final = 1.5  # seconds
_REST_FACTOR: Final = 3  # the pause is also this many times the last measuring, because the run needs CPU time
_VERSION_PREFIX: Final = "version of "  # a metric's name has no space


async def measure_run(
    store: Store, run_id: int, out: Path, metrics: dict[str, Metric], control: StopControl
) -> list[str]:
    """Measure the files of a run and of the table that the store's cache lacks. Returns a message for each problem.

    Stops early if the run is cancelled; a later run measures the rest.
    """
    unmeasured, cached = find_unmeasured(store, run_id, out, metrics)
    files = iter(unmeasured)
    problems: dict[str, list[Path]] = {}
    # Decoding and NumPy release the interpreter lock. A user's function need not be safe to run in several threads.
    threads = 1 if any(metric.single_threaded for metric in metrics.values()) else min(os.cpu_count() or 1, _BATCH_SIZE)
    while batch := list(islice(files, _BATCH_SIZE)):
        if control.cancelling:
            break
        shares = [batch[start::threads] for start in range(threads)]
        tasks = [asyncio.to_thread(_measure_files, share, metrics, cached, problems) for share in shares]
        rows = [row for share in await asyncio.gather(*tasks) for row in share]
        store.cache_metrics(rows)
        for key, name, value in rows:
            cached[name][key] = value
    return [
        f"{paths[0]}: {problem}" + (f" (and of {len(paths) - 1} more files)" if len(paths) > 1 else "")
        for problem, paths in problems.items()
    ]


@asynccontextmanager
async def measure_while_watched(
    store: Store, run_id: int, out: Path, metrics: dict[str, Metric], is_watched: Callable[[], bool]
) -> AsyncIterator[None]:
    """Inside, measure the files of a run as long as somebody looks at its page, or if only their pixels are hashed.

    `measure_run` measures the rest after the run, and reports all problems.
    """
    current = {name: metrics[name] for name in get_cacheable_versions(store, metrics)}
    task = asyncio.create_task(_measure_in_turns(store, run_id, out, current, is_watched))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _measure_in_turns(
    store: Store, run_id: int, out: Path, metrics: dict[str, Metric], is_watched: Callable[[], bool]
) -> None:
    pause = _MIN_PAUSE
    if metrics:  # NumPy and Pillow take 0.1 s, which the servers' work hides here
        await asyncio.to_thread(importlib.import_module, "sweeper.images.metrics.measure")
    while metrics:
        await asyncio.sleep(pause)
        if is_watched() or metrics.keys() == {PIXEL_HASH}:
            start = time.monotonic()
            with suppress(ResultsError):  # the measuring after the run reports it
                store.cache_metrics(await asyncio.to_thread(_measure_new_files, run_id, out, metrics))
            pause = max(_MIN_PAUSE, _REST_FACTOR * (time.monotonic() - start))


def _measure_new_files(run_id: int, out: Path, metrics: dict[str, Metric]) -> list[tuple[str, str, Any]]:
    """The cache rows of some files of a run that lack a value. Runs in a thread, with a connection of its own."""
    with Store.open(out, readonly=True) as store:
        cached = _load_cached(store, metrics)
        batch = list(islice(_list_lacking(store, [run_id], out, metrics, cached), _WATCHED_BATCH_SIZE))
    return _measure_files(batch, metrics, cached, {})


def find_unmeasured(
    store: Store, run_id: int, out: Path, metrics: dict[str, Metric]
) -> tuple[list[tuple[MetricInput, str]], dict[str, dict[str, Any]]]:
    """The files of a run and of the table that lack a value, each with its recorded path; and the cached values.

    Discards the values of metrics that have another version now.
    """
    if not metrics:
        return [], {}
    versions = {name: store.load_cached_metrics(_VERSION_PREFIX + name).get("") for name in metrics}
    stale = [name for name, metric in metrics.items() if versions[name] != metric.version]
    if stale:
        store.cache_metrics([("", _VERSION_PREFIX + name, metrics[name].version) for name in stale], discard=stale)
    if not any(metric.reads_params for metric in metrics.values()) and not any(store.files(lacking=metrics)):
        return [], {}  # known without reading all rows and values
    cached = _load_cached(store, metrics)
    # Earlier runs have the same columns, so measure again what they lost.
    runs = [None, run_id] if not stale else [None, *(run.id for run in store.runs())]
    return list(_list_lacking(store, runs, out, metrics, cached)), cached


def _load_cached(store: Store, metrics: Collection[str]) -> dict[str, dict[str, Any]]:
    """The cached values of each metric. Those of the hash alone are not needed: see `_list_lacking`."""
    return {name: {} if {*metrics} == {PIXEL_HASH} else store.load_cached_metrics(name) for name in metrics}


def _measure_files(
    files: list[tuple[MetricInput, str]],
    metrics: dict[str, Metric],
    cached: dict[str, dict[str, Any]],
    problems: dict[str, list[Path]],
) -> list[tuple[str, str, Any]]:
    """The cache rows (key, metric, value) of some files. Runs in a thread."""
    from sweeper.images.metrics.measure import measure_missing

    with tempfile.TemporaryDirectory(prefix="sweeper-measure-") as folder:
        return list(measure_missing(fetch_remote_files(files, Path(folder)), metrics, cached, problems))


def fetch_remote_files(files: Iterable[tuple[MetricInput, str]], folder: Path) -> Iterator[MetricInput]:
    """Yield the files, those at a URL downloaded to `folder` until the next is asked for. Skips files that are gone."""
    for file, path in files:
        if not is_url(path) or file.path.is_file():
            yield file
        elif (downloaded := download_artifact(folder, path, file.sha256)) is not None:
            yield replace(file, path=downloaded)
            downloaded.unlink()


def get_cacheable_versions(store: Store, metrics: dict[str, Metric]) -> dict[str, str]:
    """By name, the versions of the metrics whose values may be added to the cache during a run.

    These are metrics whose cached values have the current version, or that have none yet. `measure_run` measures the
    others after the run.
    """
    versions: dict[str, str] = {}
    for name, metric in metrics.items():
        cached_version = store.load_cached_metrics(_VERSION_PREFIX + name).get("")
        if cached_version is None and not store.load_cached_metrics(name):
            store.cache_metrics([("", _VERSION_PREFIX + name, metric.version)])
            cached_version = metric.version
        if cached_version == metric.version:
            versions[name] = metric.version
    return versions


def _list_lacking(
    store: Store,
    runs: Iterable[int | None],
    out: Path,
    metrics: Mapping[str, Metric],
    cached: Mapping[str, Collection[str]],
) -> Iterator[tuple[MetricInput, str]]:
    """Yield each file of some runs, or of the table (None), that lacks a value, with its recorded path.

    The path is relative to `out`, or a URL.
    """
    if metrics.keys() == {PIXEL_HASH}:  # files without trials are read much faster than the rows of the table
        for path, sha256 in store.files(lacking=[PIXEL_HASH]):
            file = MetricInput(sha256, local_path(out, path, sha256))
            if _is_worth_reading(file, path, metrics):
                yield file, path
        return
    seen: set[tuple[str, str]] = set()
    for run_id in runs:
        for row in store.results(run_id):
            for path, sha256 in zip(row.outputs, row.sha256, strict=True):
                file = MetricInput(sha256, local_path(out, path, sha256), row.digest, row.params, row.columns)
                lacking = [name for name, metric in metrics.items() if file.cache_key(metric) not in cached[name]]
                if (path, row.digest) not in seen and _is_worth_reading(file, path, lacking):
                    seen.add((path, row.digest))
                    yield file, path


def _is_worth_reading(file: MetricInput, path: str, lacking: Collection[str]) -> bool:
    """Whether a file lacks something. For the hash of its pixels alone, sweeper downloads none from a storage."""
    return bool(lacking) and ({*lacking} != {PIXEL_HASH} or not is_url(path) or file.path.is_file())
