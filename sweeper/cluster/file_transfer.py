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
from sweeper.cluster.messages import worker_file_name
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry

if TYPE_CHECKING:
    from sweeper.cluster.batch import Batch
    from sweeper.cluster.messages import JobFinished, WorkerInfo
    from sweeper.model.trial import InputFile
    from sweeper.store.artifacts import ArtifactFolder, IncomingFile
    from sweeper.store.records import Artifact

CHUNK_BYTES: Final = 4 * 2**20  # bytes


async def fetch_artifacts(
    registry: WorkerRegistry, batch: Batch, message: JobFinished, contents: Mapping[str, bytes], folder: ArtifactFolder
) -> tuple[Artifact, ...]:
    """The artifacts of a job as files of the results folder; where the worker wrote them there itself, they are.

    Raises GoneError when the worker is gone or what it sends is not what it hashed, ResultsError when the disk is full.
    """
    assert batch.worker is not None
    if batch.worker.stores_directly:
        return message.artifacts
    kept: list[Artifact] = []
    for place, artifact in enumerate(message.artifacts):
        with folder.open_incoming(message.job_id, place) as file:
            await _receive_file(file, registry, batch, artifact, contents.get(artifact.path))
            name = PurePosixPath(artifact.path).name
            kept.append(replace(artifact, path=await asyncio.to_thread(folder.save, file, name)))
    return tuple(kept)


async def _receive_file(
    file: IncomingFile, registry: WorkerRegistry, batch: Batch, artifact: Artifact, content: bytes | None
) -> None:
    assert batch.worker is not None
    address = batch.worker.address
    digest = hashlib.sha256()
    offset = 0
    while offset < artifact.bytes:
        piece, content = content, None
        if piece is None:
            piece = await registry.call(
                worker_rpc.read_chunk, batch.id, artifact.path, offset, CHUNK_BYTES, address=address
            )
        if not piece:
            break
        file.write(piece)
        digest.update(piece)
        offset += len(piece)
    if offset != artifact.bytes or digest.hexdigest() != artifact.sha256:
        raise WorkerGoneError(
            f"{batch.worker.name}: {artifact.path} did not arrive whole ({offset} of {artifact.bytes} B)"
        )


async def send_inputs(registry: WorkerRegistry, worker: WorkerInfo, files: Mapping[str, InputFile]) -> None:
    """Bring the input files (by their name on the worker) that a worker lacks to it. Raises GoneError.

    A file that cannot be read does not arrive, and the worker says so in the row of its trial.
    """
    missing: Any = (
        await registry.call(worker_rpc.find_missing_inputs, tuple(files), address=worker.address) if files else ()
    )
    for name in missing:
        with contextlib.suppress(OSError), files[name].path.open("rb") as file:
            await _send_file(registry, worker, name, file)


async def _send_file(registry: WorkerRegistry, worker: WorkerInfo, name: str, file: IO[bytes]) -> None:
    offset, last = 0, False
    while not last:
        piece = await asyncio.to_thread(file.read, CHUNK_BYTES)
        last = len(piece) < CHUNK_BYTES
        await registry.call(worker_rpc.write_input, name, offset, piece, last, address=worker.address)
        offset += len(piece)


def index_by_worker_name(files: Iterable[InputFile]) -> dict[str, InputFile]:
    """Every file that these are made of, by its name on a worker."""
    return {worker_file_name(part): part for file in files for part in (file, file.mask) if part is not None}
