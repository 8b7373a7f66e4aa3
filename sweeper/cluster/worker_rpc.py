"""What a driver calls on one worker, by `Client.run`. Each function runs in that worker's event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeper.cluster.messages import BatchStart, RunSpec, WorkerInfo, WorkerUpdate
from sweeper.cluster.worker_plugin import RESOURCE_NAME, plugin_of
from sweeper.files import replace_file

if TYPE_CHECKING:
    from distributed import Worker


async def register_worker(run_spec: RunSpec, dask_worker: Worker) -> WorkerInfo:
    """Prepare the worker for a run; see `SweeperWorkerPlugin.register`."""
    return await plugin_of(dask_worker).register(run_spec)


async def retire_worker(dask_worker: Worker) -> None:
    """Accept no more batches in this run, because the worker's server refuses us or is gone."""
    await dask_worker.set_resources(**{RESOURCE_NAME: 0})


async def pull_update(batch_id: str, after: int, start: BatchStart | None, dask_worker: Worker) -> WorkerUpdate | None:
    """The messages of a batch after number `after`; None if the worker does not have the batch. `start` starts it."""
    batch = plugin_of(dask_worker).batches.get(batch_id)
    if batch is None or batch.dropped:
        return None
    if start is not None:
        batch.start(start)
    return await batch.pull_update(after)


async def close_batch(batch_id: str, dask_worker: Worker) -> None:
    """Forget a batch, because the driver has recorded everything."""
    batch = plugin_of(dask_worker).batches.pop(batch_id, None)
    if batch is not None:
        batch.clear()


async def drop_batch(batch_id: str, dask_worker: Worker) -> tuple[str, ...] | None:
    """Give up a batch; return its jobs that were never submitted, None if the worker does not have the batch."""
    batch = plugin_of(dask_worker).batches.pop(batch_id, None)
    return None if batch is None else await batch.drop()


async def stop_batches(driver_id: str, cancelling: bool, dask_worker: Worker) -> None:
    """Submit nothing more for that driver; with `cancelling`, cancel its jobs too."""
    for batch in plugin_of(dask_worker).batches.values():
        if batch.run_spec.driver_id == driver_id:
            batch.stop(cancelling=cancelling)


async def return_pending(batch_id: str, count: int, dask_worker: Worker) -> int:
    """Return up to `count` pending trials of a batch to the driver; see `WorkerBatch.return_pending`."""
    batch = plugin_of(dask_worker).batches.get(batch_id)
    return 0 if batch is None else batch.return_pending(count)


def read_chunk(batch_id: str, path: str, offset: int, size: int, dask_worker: Worker) -> bytes | None:
    """`size` bytes of an artifact that the driver has not recorded yet; None if the worker does not have the batch."""
    batch = plugin_of(dask_worker).batches.get(batch_id)
    if batch is None:
        return None
    with batch.folder.local_path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def find_missing_inputs(names: tuple[str, ...], dask_worker: Worker) -> tuple[str, ...]:
    """Those of these input files (see `worker_file_name`) that the worker does not have."""
    folder = plugin_of(dask_worker).inputs_folder
    return tuple(name for name in names if not (folder / name).is_file())


def write_input(name: str, offset: int, content: bytes, last: bool, dask_worker: Worker) -> None:
    """Write a chunk of an input file. The file gets its name with the `last` chunk."""
    partial = plugin_of(dask_worker).inputs_folder / f".{name}.part"
    with partial.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(content)
    if last:
        replace_file(partial, partial.with_name(name))


async def get_object_info(run_spec: RunSpec, dask_worker: Worker) -> dict[str, Any]:
    """The node classes of the server beside the worker. Raises SweeperError."""
    return await plugin_of(dask_worker).get_object_info(run_spec)
