"""Files on their way: artifacts from a worker to the results folder, input files to it; in bounded pieces, verified."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from sweeper.cluster import worker_rpc
from sweeper.cluster.messages import name_here
from sweeper.cluster.workers import Fleet, GoneError

if TYPE_CHECKING:
    from sweeper.cluster.batch import Group
    from sweeper.cluster.messages import Finished, Seat
    from sweeper.model.trial import InputFile
    from sweeper.store.artifacts import ArtifactFolder, Incoming
    from sweeper.store.records import Artifact

PIECE: Final = 4 * 2**20  # bytes


async def bring(
    fleet: Fleet, group: Group, item: Finished, contents: Mapping[str, bytes], folder: ArtifactFolder
) -> tuple[Artifact, ...]:
    """The artifacts of a job as files of the results folder; where the worker wrote them there itself, they are.

    Raises GoneError when the worker is gone or what it sends is not what it hashed, ResultsError when the disk is full.
    """
    assert group.seat is not None
    if group.seat.shared:
        return item.artifacts
    kept: list[Artifact] = []
    for place, artifact in enumerate(item.artifacts):
        with folder.incoming(item.job, place) as file:
            await _fill(file, fleet, group, artifact, contents.get(artifact.path))
            name = PurePosixPath(artifact.path).name
            kept.append(replace(artifact, path=await asyncio.to_thread(folder.keep, file, name)))
    return tuple(kept)


async def _fill(file: Incoming, fleet: Fleet, group: Group, artifact: Artifact, content: bytes | None) -> None:
    assert group.seat is not None
    address = group.seat.address
    digest = hashlib.sha256()
    offset = 0
    while offset < artifact.bytes:
        piece, content = content, None
        if piece is None:
            piece = await fleet.call(worker_rpc.piece, group.id, artifact.path, offset, PIECE, address=address)
        if not piece:
            break
        file.write(piece)
        digest.update(piece)
        offset += len(piece)
    if offset != artifact.bytes or digest.hexdigest() != artifact.sha256:
        raise GoneError(f"{group.seat.name}: {artifact.path} did not arrive whole ({offset} of {artifact.bytes} B)")


async def send_inputs(fleet: Fleet, seat: Seat, files: Mapping[str, InputFile]) -> None:
    """Bring the input files (by their name on the worker) that a worker lacks to it. Raises GoneError.

    A file that cannot be read does not arrive, and the worker says so in the row of its trial.
    """
    missing: Any = await fleet.call(worker_rpc.lacks, tuple(files), address=seat.address) if files else ()
    for name in missing:
        with contextlib.suppress(OSError), files[name].path.open("rb") as file:
            await _send(fleet, seat, name, file)


async def _send(fleet: Fleet, seat: Seat, name: str, file: IO[bytes]) -> None:
    offset, last = 0, False
    while not last:
        piece = await asyncio.to_thread(file.read, PIECE)
        last = len(piece) < PIECE
        await fleet.call(worker_rpc.put, name, offset, piece, last, address=seat.address)
        offset += len(piece)


def with_masks(files: Iterable[InputFile]) -> dict[str, InputFile]:
    """Every file that these are made of, by its name on a worker."""
    return {name_here(part): part for file in files for part in (file, file.mask) if part is not None}
