"""After a run: the metrics of its artifacts, each file measured once and kept by content in the store's cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sweeper.running.control import RunControl
    from sweeper.store import Store

_BATCH = 16  # files measured between two looks at the brake


async def measure_run(store: Store, run_id: int, out: Path, metrics: dict[str, Any], control: RunControl) -> list[str]:
    """Fill the store's cache for what the rows of a run show. Returns what could not be measured, for people.

    Stops early when the run is to be cancelled; a later run measures the rest.
    """
    if not metrics:
        return []
    from sweeper.metrics import missing_metrics  # noqa: PLC0415 (NumPy and Pillow come with it)

    cached = {name: store.cached_metrics(name) for name in metrics}
    files: Iterator[tuple[str, Path]] = iter(
        [
            (sha256, out / path)
            for row in store.results(run_id)
            for path, sha256 in zip(row.outputs, row.sha256, strict=True)
            if any(sha256 not in known for known in cached.values())
        ]
    )
    problems: list[str] = []
    while batch := list(islice(files, _BATCH)):
        if control.cancelling:
            break
        rows = await asyncio.to_thread(list, missing_metrics(batch, metrics, cached, problems))
        store.cache_metrics(rows)
        for sha256, name, value in rows:
            cached[name][sha256] = value
    return problems
