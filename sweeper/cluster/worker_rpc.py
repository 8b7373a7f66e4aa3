"""What a driver asks of one worker, by `Client.run`: each function runs in that worker's event loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cluster.messages import BatchStart, RunSpec, WorkerInfo, WorkerUpdate
from sweeper.cluster.worker_plugin import RESOURCE_NAME, plugin_of

if TYPE_CHECKING:
    from distributed import Worker


async def register_worker(run_spec: RunSpec, dask_worker: Worker) -> WorkerInfo:
    return await plugin_of(dask_worker).register(run_spec)


async def retire_worker(dask_worker: Worker) -> None:
    """No more groups for this worker in this run: its server refuses us, or is gone."""
    await dask_worker.set_resources(**{RESOURCE_NAME: 0})


async def pull_update(batch_id: str, after: int, start: BatchStart | None, dask_worker: Worker) -> WorkerUpdate | None:
    """The next news of a group, which `opening` sets going; None where this worker does not have it (any more)."""
    stint = plugin_of(dask_worker).batches.get(batch_id)
    if stint is None or stint.dropped:
        return None
    if start is not None:
        stint.start(start)
    return await stint.pull_update(after)


async def close_batch(batch_id: str, dask_worker: Worker) -> None:
    """The driver has written down everything of that group."""
    stint = plugin_of(dask_worker).batches.pop(batch_id, None)
    if stint is not None:
        stint.clear()


async def drop_batch(batch_id: str, dask_worker: Worker) -> tuple[str, ...] | None:
    """Let go of a group; the jobs of it that never left, None where it is not here."""
    stint = plugin_of(dask_worker).batches.pop(batch_id, None)
    return None if stint is None else await stint.drop()


async def stop_batches(driver_id: str, cancelling: bool, dask_worker: Worker) -> None:
    for stint in plugin_of(dask_worker).batches.values():
        if stint.run_spec.driver_id == driver_id:
            stint.stop(cancelling=cancelling)


async def return_pending(batch_id: str, count: int, dask_worker: Worker) -> int:
    stint = plugin_of(dask_worker).batches.get(batch_id)
    return 0 if stint is None else stint.return_pending(count)


async def read_chunk(batch_id: str, path: str, offset: int, size: int, dask_worker: Worker) -> bytes | None:
    """So many bytes of an artifact of that group that the driver has not written down yet; None where it is gone."""
    stint = plugin_of(dask_worker).batches.get(batch_id)
    if stint is None:
        return None
    with stint.folder.local_path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


async def find_missing_inputs(names: tuple[str, ...], dask_worker: Worker) -> tuple[str, ...]:
    """Which of these input files, named by SHA-256 and suffix, are not here yet."""
    inputs = plugin_of(dask_worker).inputs_folder
    return tuple(name for name in names if not (inputs / name).is_file())


async def write_input(name: str, offset: int, content: bytes, last: bool, dask_worker: Worker) -> None:
    """A piece of an input file; it has its name once the last is there."""
    partial: Path = plugin_of(dask_worker).inputs_folder / f".{name}.part"
    with partial.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(content)
    if last:
        os.replace(partial, partial.with_name(name))  # noqa: PTH105 (a rename does not block)


async def get_object_info(run_spec: RunSpec, dask_worker: Worker) -> dict[str, Any]:
    """What the server beside that worker says of its node classes. Raises SweeperError."""
    return await plugin_of(dask_worker).get_object_info(run_spec)
