"""A check's pictures compared on workers, where they lie at a URL: the accepted ones go there, verdicts come back.

First only the hash of the accepted picture's pixels goes, and most pictures are the same; the accepted file itself
follows where that does not settle it. What counts as the same is `sweeper.regression`'s affair, on either side.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cluster.address import connect_cluster, resolve_address
from sweeper.errors import ImageError, ResultsError
from sweeper.images.file_types import PICTURE_TYPES
from sweeper.regression.match_files import CompareResult, CompareTask, Match, equal_metrics, find_best_match
from sweeper.regression.thresholds import Threshold
from sweeper.running.async_tools import run_sync
from sweeper.store.remote_artifacts import download_artifact

if TYPE_CHECKING:
    from distributed import Client

_FILES_PER_TASK: Final = 8  # pictures of one task that looks at pixels
_MAX_TASKS: Final = 64  # tasks that stand in the scheduler at a time


@dataclass(frozen=True, slots=True)
class PixelMatchTask:
    """Whether the pixels of the picture at a URL are those of an accepted one, by their hashes."""

    url: str
    sha256: str
    pixel_hashes: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class RemoteCompareTask:
    """The picture at a URL, to be held against accepted files: (suffix, content) of each."""

    url: str
    sha256: str
    accepted: tuple[tuple[str, bytes], ...] = field(repr=False)
    bounds: Mapping[str, Threshold]


def compare_on_cluster(cluster: str, tasks: Sequence[CompareTask]) -> list[CompareResult]:
    """The answers to questions about pictures at URLs, by the workers of a cluster (as `--dask` names it).

    Raises UsageError and UnreachableError as `sweeper.cluster.run`, ResultsError where a worker cannot get a picture.
    """
    address = resolve_address(cluster, os.environ)
    return run_sync(lambda: _compare(address, tasks))


async def _compare(address: str, tasks: Sequence[CompareTask]) -> list[CompareResult]:
    async with connect_cluster(address) as client:
        looks = [PixelMatchTask(one.url or "", one.sha256, one.pixel_hashes) for one in tasks]
        batches = [tuple(looks[start : start + _FILES_PER_TASK]) for start in range(0, len(looks), _FILES_PER_TASK)]
        met = [place for found in await _map_on_workers(client, match_pixels, batches) for place in found]
        differ = [number for number, place in enumerate(met) if place is None]
        cases = ((_build_remote_task, tasks[number]) for number in differ)
        judged = dict(zip(differ, await _map_on_workers(client, compare_to_accepted, list(cases)), strict=True))
    found: list[CompareResult] = []
    for number, (question, place) in enumerate(zip(tasks, met, strict=True)):
        if place is not None:
            found.append((place, Match("pixels", equal_metrics(question.thresholds))))
        else:
            answer = judged[number]
            found.append(ImageError(answer) if isinstance(answer, str) else answer)
    return found


async def _map_on_workers(client: Client, function: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    """What workers make of each item, in order. An item may be (how to make it, of what), made when it leaves."""
    room = asyncio.Semaphore(_MAX_TASKS)

    async def ask(item: Any) -> Any:
        async with room:
            made = item[0](item[1]) if callable(item[0]) else item
            future = client.submit(function, made, pure=False)
            try:
                return await future
            finally:
                await future.cancel()

    return list(await asyncio.gather(*map(ask, items)))


def _build_remote_task(task: CompareTask) -> RemoteCompareTask:
    accepted = tuple((path.suffix, path.read_bytes()) for path in task.accepted)
    return RemoteCompareTask(task.url or "", task.sha256, accepted, task.thresholds)


# --- on a worker


def match_pixels(tasks: Sequence[PixelMatchTask]) -> list[int | None]:
    """For each, the place of the accepted picture whose pixels it has; None where that is not so, or not known."""
    return [_match_pixels_of(one) for one in tasks]


def _match_pixels_of(task: PixelMatchTask) -> int | None:
    from sweeper.images.compare import pixel_hash  # noqa: PLC0415 (NumPy and Pillow, which a driver need not have loaded)

    if Path(task.url).suffix[1:].lower() not in PICTURE_TYPES:  # a film's sound is heard too
        return None
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        path = download_artifact(Path(folder), task.url, task.sha256)
        if path is None:
            return None
        try:
            pixels = pixel_hash(path)
        except ImageError:
            return None
    return task.pixel_hashes.index(pixels) if pixels in task.pixel_hashes else None


def compare_to_accepted(task: RemoteCompareTask) -> tuple[int, Match] | str:
    """Which accepted file is met or nearest, and how; or why that cannot be said."""
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        try:
            path = download_artifact(Path(folder), task.url, task.sha256)
        except ResultsError as error:
            return str(error)
        if path is None:
            return f"{task.url} is gone"
        accepted: list[Path] = []
        for number, (suffix, content) in enumerate(task.accepted):
            accepted.append(Path(folder) / f"accepted-{number}{suffix}")
            accepted[-1].write_bytes(content)
        try:
            return find_best_match(accepted, path, task.bounds)
        except ImageError as error:
            return str(error).replace(str(path), task.url)
