"""What a driver asks of one worker, by `Client.run`: each function runs in that worker's event loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cluster.messages import Batch, Opening, Order, Seat
from sweeper.cluster.worker_plugin import RESOURCE, berth_of

if TYPE_CHECKING:
    from distributed import Worker


async def enlist(order: Order, dask_worker: Worker) -> Seat:
    return await berth_of(dask_worker).enlist(order)


async def discharge(dask_worker: Worker) -> None:
    """No more groups for this worker in this run: its server refuses us, or is gone."""
    await dask_worker.set_resources(**{RESOURCE: 0})


async def pull(group: str, after: int, opening: Opening | None, dask_worker: Worker) -> Batch | None:
    """The next news of a group, which `opening` sets going; None where this worker does not have it (any more)."""
    stint = berth_of(dask_worker).stints.get(group)
    if stint is None or stint.dropped:
        return None
    if opening is not None:
        stint.grant(opening)
    return await stint.pull(after)


async def close(group: str, dask_worker: Worker) -> None:
    """The driver has written down everything of that group."""
    stint = berth_of(dask_worker).stints.pop(group, None)
    if stint is not None:
        stint.clear()


async def drop(group: str, dask_worker: Worker) -> tuple[str, ...] | None:
    """Let go of a group; the jobs of it that never left, None where it is not here."""
    stint = berth_of(dask_worker).stints.pop(group, None)
    return None if stint is None else await stint.drop()


async def brake(epoch: str, cancelling: bool, dask_worker: Worker) -> None:
    for stint in berth_of(dask_worker).stints.values():
        if stint.order.epoch == epoch:
            stint.brake(cancelling=cancelling)


async def withdraw(group: str, count: int, dask_worker: Worker) -> int:
    stint = berth_of(dask_worker).stints.get(group)
    return 0 if stint is None else stint.withdraw(count)


async def piece(group: str, path: str, offset: int, size: int, dask_worker: Worker) -> bytes | None:
    """So many bytes of an artifact of that group that the driver has not written down yet; None where it is gone."""
    stint = berth_of(dask_worker).stints.get(group)
    if stint is None:
        return None
    with stint.folder.at(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


async def lacks(names: tuple[str, ...], dask_worker: Worker) -> tuple[str, ...]:
    """Which of these input files, named by SHA-256 and suffix, are not here yet."""
    inputs = berth_of(dask_worker).inputs
    return tuple(name for name in names if not (inputs / name).is_file())


async def put(name: str, offset: int, content: bytes, last: bool, dask_worker: Worker) -> None:
    """A piece of an input file; it has its name once the last is there."""
    partial: Path = berth_of(dask_worker).inputs / f".{name}.part"
    with partial.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(content)
    if last:
        os.replace(partial, partial.with_name(name))  # noqa: PTH105 (a rename does not block)


async def object_info(order: Order, dask_worker: Worker) -> dict[str, Any]:
    """What the server beside that worker says of its node classes. Raises SweeperError."""
    return await berth_of(dask_worker).object_info(order)
