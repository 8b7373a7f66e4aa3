"""Transfer files in bounded, verified chunks: artifacts from a worker, and input files to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from sweeper.cluster import worker_rpc
from sweeper.cluster.messages import worker_file_name
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry

if TYPE_CHECKING:
    from sweeper.cluster.messages import JobFinished, WorkerInfo
    from sweeper.model.trial import InputFile
    from sweeper.store.artifacts import ArtifactFolder, IncomingFile
    from sweeper.store.records import Artifact

CHUNK_BYTES: Final = 4 * 2**20

ReadChunk = Callable[[str, int], Awaitable[bytes | None]]  # path, offset -> bytes


async def fetch_artifacts(
    registry: WorkerRegistry,
    worker: WorkerInfo,
    batch_id: str,
    message: JobFinished,
    *,
    contents: Mapping[str, bytes],
    folder: ArtifactFolder,
) -> tuple[Artifact, ...]:
    """Save the artifacts of a job in the results folder, unless the worker wrote them there itself.

    `contents`: the files that came with the message. Raises WorkerGoneError if the worker is gone or a file arrives
    damaged, ResultsError if the disk is full.
    """
    if worker.stores_directly:
        return message.artifacts

    async def read_chunk(path: str, offset: int) -> bytes | None:
        arguments = (batch_id, path, offset, CHUNK_BYTES)
        chunk: bytes | None = await registry.call(worker_rpc.read_chunk, *arguments, address=worker.address)
        return chunk

    saved: list[Artifact] = []
    for index, artifact in enumerate(message.artifacts):
        with folder.open_incoming(message.job_id, index) as file:
            received = await _receive_file(file, artifact, contents.get(artifact.path), read_chunk)
            if not received:
                raise WorkerGoneError(f"{worker.name}: {artifact.path} arrived damaged")
            name = PurePosixPath(artifact.path).name
            saved.append(replace(artifact, path=await asyncio.to_thread(folder.save, file, name)))
    return tuple(saved)


async def _receive_file(file: IncomingFile, artifact: Artifact, content: bytes | None, read_chunk: ReadChunk) -> bool:
    """Write the artifact to `file`, from `content` or in chunks. Returns whether its size and hash are right."""
    digest = hashlib.sha256()
    offset = 0
    while offset < artifact.bytes:
        chunk = content if content is not None else await read_chunk(artifact.path, offset)
        content = None
        if not chunk:
            break
        file.write(chunk)
        digest.update(chunk)
        offset += len(chunk)
    return offset == artifact.bytes and digest.hexdigest() == artifact.sha256


async def send_inputs(registry: WorkerRegistry, worker: WorkerInfo, files: Mapping[str, InputFile]) -> None:
    """Send a worker the input files that it lacks; `files` are by their name on the worker. Raises WorkerGoneError.

    Skips a file that cannot be read. The worker then reports it in the result of its trial.
    """
    if not files:
        return
    missing: Any = await registry.call(worker_rpc.find_missing_inputs, tuple(files), address=worker.address)
    for name in missing:
        with contextlib.suppress(OSError), files[name].path.open("rb") as file:
            await _send_file(registry, worker, name, file)


async def _send_file(registry: WorkerRegistry, worker: WorkerInfo, name: str, file: IO[bytes]) -> None:
    offset, is_last = 0, False
    while not is_last:
        chunk = await asyncio.to_thread(file.read, CHUNK_BYTES)
        is_last = len(chunk) < CHUNK_BYTES
        await registry.call(worker_rpc.write_input, name, offset, chunk, is_last, address=worker.address)
        offset += len(chunk)


def index_by_worker_name(files: Iterable[InputFile]) -> dict[str, InputFile]:
    """These files and their masks, by their name on a worker."""
    return {worker_file_name(part): part for file in files for part in (file, file.mask) if part is not None}
