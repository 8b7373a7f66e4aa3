"""After a run: the metrics of its artifacts, each file measured once and kept by content in the store's cache.

Beside the values the cache keeps the version of each metric, under a name that no metric has. Where one is of another
version by now (its function was edited, its model exchanged), what was measured before is dropped and measured anew.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.images.metrics.registry import MetricInput
from sweeper.store.remote_artifacts import download_artifact, is_url, local_path

if TYPE_CHECKING:
    from sweeper.running.stop_control import StopControl
    from sweeper.store import Store

_BATCH_SIZE = 16  # files measured between two looks at the brake
_VERSION_PREFIX: Final = "version of "  # a metric's name has no space


async def measure_run(store: Store, run_id: int, out: Path, metrics: dict[str, Any], control: StopControl) -> list[str]:
    """Fill the store's cache for what the rows of a run show. Returns what could not be measured, for people.

    Stops early when the run is to be cancelled; a later run measures the rest.
    """
    if not metrics:
        return []
    cached = {name: store.load_cached_metrics(name) for name in metrics}
    versions = {name: store.load_cached_metrics(_VERSION_PREFIX + name).get("") for name in metrics}
    stale = [name for name, metric in metrics.items() if versions[name] != metric.version]
    if stale:
        store.cache_metrics([("", _VERSION_PREFIX + name, metrics[name].version) for name in stale], discard=stale)
        cached.update({name: {} for name in stale})
    # Earlier runs show the same columns: what they lost is measured again too.
    runs = [run_id] if not stale else [run_id, *(run.id for run in store.runs() if run.id != run_id)]
    files = iter(
        [
            (file, url)
            for file, url in _list_files(store, runs, out)
            if any(file.cache_key(metric) not in cached[name] for name, metric in metrics.items())
        ]
    )
    problems: dict[str, list[Path]] = {}
    # Decoding and NumPy let go of the interpreter; a function of the user's was never promised company.
    threads = 1 if any(metric.single_threaded for metric in metrics.values()) else min(os.cpu_count() or 1, _BATCH_SIZE)
    while batch := list(islice(files, _BATCH_SIZE)):
        if control.cancelling:
            break
        shares = [batch[start::threads] for start in range(threads)]
        found = [asyncio.to_thread(_measure_files, share, metrics, cached, problems) for share in shares]
        rows = [row for share in await asyncio.gather(*found) for row in share]
        store.cache_metrics(rows)
        for key, name, value in rows:
            cached[name][key] = value
    return [_describe_problem(sentence, paths) for sentence, paths in problems.items()]


def _measure_files(
    files: list[tuple[MetricInput, str]],
    metrics: dict[str, Any],
    cached: dict[str, dict[str, Any]],
    problems: dict[str, list[Path]],
) -> list[tuple[str, str, Any]]:
    """The rows of some files."""
    from sweeper.images.metrics.measure import measure_missing

    with tempfile.TemporaryDirectory(prefix="sweeper-measure-") as aside:
        return list(measure_missing(_fetch_remote_files(files, Path(aside)), metrics, cached, problems))


def _fetch_remote_files(files: Iterable[tuple[MetricInput, str]], folder: Path) -> Iterator[MetricInput]:
    """Files to be read one after another: what lies elsewhere is here for as long; what is gone there is left out."""
    for file, path in files:
        if not is_url(path) or file.path.is_file():
            yield file
        elif (brought := download_artifact(folder, path, file.sha256)) is not None:
            yield replace(file, path=brought)
            brought.unlink()


def get_cacheable_versions(store: Store, metrics: dict[str, Any]) -> dict[str, str]:
    """By name, the version of the metrics whose values may enter the cache while a run goes on: what is kept is of that
    version, or nothing is kept yet. The others are measured anew by `measure_run`.
    """
    found: dict[str, str] = {}
    for name, metric in metrics.items():
        known = store.load_cached_metrics(_VERSION_PREFIX + name).get("")
        if known is None and not store.load_cached_metrics(name):
            store.cache_metrics([("", _VERSION_PREFIX + name, metric.version)])
            known = metric.version
        if known == metric.version:
            found[name] = metric.version
    return found


def _describe_problem(problem: str, paths: list[Path]) -> str:
    """What is true of a thousand files is said once."""
    more = f" (and of {len(paths) - 1} more files)" if len(paths) > 1 else ""
    return f"{paths[0]}: {problem}{more}"


def _list_files(store: Store, runs: Iterable[int], out: Path) -> Iterator[tuple[MetricInput, str]]:
    """Each file with its path on record."""
    for run_id in runs:
        for row in store.results(run_id):
            for path, sha256 in zip(row.outputs, row.sha256, strict=True):
                yield MetricInput(sha256, local_path(out, path, sha256), row.digest, row.params), path
