"""Compare a check's pictures, stored at URLs, on the workers of a cluster.

Workers first get only the hashes of the accepted pictures' pixels, which settles most pictures. For the others they
get the accepted files. `sweeper.regression` decides what counts as equal, on driver and worker.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cluster.address import connect_cluster, resolve_address
from sweeper.errors import ImageError, ResultsError
from sweeper.images.compare import pixel_hash
from sweeper.images.file_types import PICTURE_TYPES
from sweeper.regression.match_files import CompareResult, CompareTask, Match, equal_metrics, find_best_match
from sweeper.running.stop_control import run_sync
from sweeper.store.remote_artifacts import allow_storage, download_artifact, require_storage

if TYPE_CHECKING:
    from distributed import Client

_FILES_PER_TASK: Final = 8  # pictures whose pixels one Dask task hashes
_MAX_TASKS: Final = 64  # Dask tasks at a time


Contents = tuple[tuple[str, bytes], ...]  # (suffix, content) of each accepted file of a task


def compare_on_cluster(cluster: str, tasks: Sequence[CompareTask]) -> list[CompareResult]:
    """Compare pictures at URLs on a cluster (named as in `--dask`); return the results in order.

    Raises UsageError and UnreachableError like `sweeper.cluster.run`, ResultsError if a worker cannot read a picture.
    """
    for task in tasks:
        require_storage(task.url or "")  # workers read what they are told
    address = resolve_address(cluster, os.environ)
    return run_sync(lambda: _compare(address, tasks))


async def _compare(address: str, tasks: Sequence[CompareTask]) -> list[CompareResult]:
    async with connect_cluster(address) as client:
        starts = range(0, len(tasks), _FILES_PER_TASK)
        chunks = [tasks[start : start + _FILES_PER_TASK] for start in starts]
        matches = [match for chunk in await _map_on_workers(client, match_pixels, chunks) for match in chunk]
        differing = [task for task, match in zip(tasks, matches, strict=True) if match is None]
        compared = iter(await _map_on_workers(client, compare_to_accepted, differing, prepare=_add_contents))
    results: list[CompareResult] = []
    for task, match in zip(tasks, matches, strict=True):
        if match is not None:
            results.append((match, Match("pixels", equal_metrics(task.thresholds))))
        else:
            result = next(compared)
            results.append(ImageError(result) if isinstance(result, str) else result)
    return results


async def _map_on_workers(
    client: Client,
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    prepare: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """Call a function on workers for each item; return the results in order.

    `prepare` converts an item here, just before it is sent, so that few converted items are in memory at a time.
    """
    semaphore = asyncio.Semaphore(_MAX_TASKS)

    async def call(item: Any) -> Any:
        async with semaphore:
            future = client.submit(function, prepare(item) if prepare else item, pure=False)
            try:
                return await future
            finally:
                await future.cancel()

    return list(await asyncio.gather(*map(call, items)))


def _add_contents(task: CompareTask) -> tuple[CompareTask, Contents]:
    return task, tuple((path.suffix, path.read_bytes()) for path in task.accepted)


# --- on a worker


def match_pixels(tasks: Sequence[CompareTask]) -> list[int | None]:
    """For each task, the index of the accepted picture with the same pixels; None if there is none, or unknown."""
    return [_match_pixels_of(task) for task in tasks]


def _match_pixels_of(task: CompareTask) -> int | None:
    if Path(task.url or "").suffix[1:].lower() not in PICTURE_TYPES:  # the sound of a video counts too
        return None
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        path = _download(task, folder)
        if path is None:
            return None
        try:
            pixels = pixel_hash(path)
        except ImageError:
            return None
    return task.pixel_hashes.index(pixels) if pixels in task.pixel_hashes else None


def _download(task: CompareTask, folder: str) -> Path | None:
    url = task.url or ""
    allow_storage(url.rpartition("/")[0])
    return download_artifact(Path(folder), url, task.sha256)


def compare_to_accepted(sent: tuple[CompareTask, Contents]) -> tuple[int, Match] | str:
    """The index of the accepted file that matches best, and how; or why the picture cannot be compared."""
    task, contents = sent
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        try:
            path = _download(task, folder)
        except ResultsError as error:
            return str(error)
        if path is None:
            return f"{task.url} is gone"
        accepted: list[Path] = []
        for index, (suffix, content) in enumerate(contents):
            accepted.append(Path(folder) / f"accepted-{index}{suffix}")
            accepted[-1].write_bytes(content)
        try:
            return find_best_match(accepted, path, task.thresholds)
        except ImageError as error:
            return str(error).replace(str(path), task.url or "")
