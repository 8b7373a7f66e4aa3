"""The input files of one target: what has to be brought there is brought once for each content, now and in later runs.

What an earlier run brought is believed only where the server still shows it: people empty input folders, and a name in
a targets file may be another machine today. How a file is sent is the dialect's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import RejectedError, TargetError, TransientError
from sweeper.model.trial import make_content_key

if TYPE_CHECKING:
    from pathlib import Path

    from sweeper.comfy.dialects import Dialect
    from sweeper.comfy.protocol import Flow

Mask = tuple["Path", str]  # a picture that masks another, and its hash
UploadCallback = Callable[
    [str, Any, int | None], None
]  # content, what stands for it, its bytes there where they are its own

_IGNORE_UPLOAD: Final[UploadCallback] = lambda *_: None  # noqa: E731


class Uploads:
    """`perform` runs a flow of `dialect()` on the target."""

    def __init__(self, run_flow: Callable[[Flow[Any]], Any], dialect: Callable[[], Dialect]) -> None:
        self._run_flow = run_flow
        self._dialect = dialect
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._uploaded: dict[str, tuple[Any, int | None]] = {}
        self._unverified: Mapping[str, tuple[Any, int | None]] = {}
        self._on_upload = _IGNORE_UPLOAD

    def preload(self, known: Mapping[str, tuple[Any, int | None]], on_upload: UploadCallback) -> None:
        """Let `known`, which `note` was told of in earlier runs, count where the server has it still."""
        self._unverified, self._on_upload = known, on_upload

    def mark_unverified(self) -> None:
        """The server was away: what it was brought counts only where it has it still, as after an earlier run."""
        self._unverified = {**self._unverified, **self._uploaded}
        self._tasks = {content: task for content, task in self._tasks.items() if not task.done()}

    async def are_missing(self, contents: Iterable[str]) -> bool:
        """Whether the server has lost any of these, which are then brought again when they are asked for."""
        found = [one for one in contents if one in self._uploaded and not await self._has_file(*self._uploaded[one])]
        for content in found:
            self._tasks.pop(content, None)
            self._unverified = {known: value for known, value in self._unverified.items() if known != content}
        return bool(found)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def ensure_uploaded(self, path: Path, sha256: str, mask: Mask | None = None) -> Any:
        """See to it that the server has a local file; what a workflow must have in its place.

        `mask` is laid over it there (see `masks`). Raises RejectedError when a file is gone or another than planned,
        when the mask does not fit, or when the server will not have it.
        """
        content = make_content_key(sha256, mask and mask[1])
        task = self._tasks.get(content)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._tasks[content] = asyncio.create_task(self._ensure_uploaded(content, path, sha256, mask))
        return await asyncio.shield(task)

    async def _ensure_uploaded(self, content: str, path: Path, sha256: str, mask: Mask | None) -> Any:
        if content in self._unverified and await self._has_file(*self._unverified[content]):
            self._uploaded[content] = self._unverified[content]
            return self._unverified[content][0]
        if mask is None:
            value, size = await self._upload(path, sha256)
        else:
            value, size = await self._upload_masked(path, sha256, mask), None
        self._uploaded[content] = value, size
        self._on_upload(content, value, size)
        return value

    async def _has_file(self, value: Any, size: int | None) -> bool:
        try:
            return bool(await self._run_flow(self._dialect().has_file(value, size)))
        except (TransientError, TargetError):  # no answer is no yes; what is wrong there, the upload will tell
            return False

    async def _upload(self, path: Path, sha256: str) -> tuple[Any, int]:
        content = await asyncio.to_thread(_read_content, path, sha256)
        # Named by content: the server then has it already under this name, or not at all (COMFYUI_BEHAVIOUR.md 3.8).
        name = f"sweeper-{sha256[:16]}{path.suffix.lower()}"
        return await self._run_flow(self._dialect().upload(name, content)), len(content)

    async def _upload_masked(self, path: Path, sha256: str, mask: Mask) -> Any:
        from sweeper.comfy.masks import paint_mask  # noqa: PLC0415 (Pillow, only where there is a mask)

        original = await self.ensure_uploaded(path, sha256)
        picture = await asyncio.to_thread(_read_content, path, sha256)
        drawn = await asyncio.to_thread(_read_content, *mask)
        content = await asyncio.to_thread(paint_mask, drawn, picture, mask[0].name)
        name = f"sweeper-{sha256[:16]}-{mask[1][:16]}.png"
        return await self._run_flow(self._dialect().upload_mask(name, content, original))


def _read_content(path: Path, sha256: str) -> bytes:
    """The bytes of an input file. Raises RejectedError when it is gone, or not the one that was planned."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RejectedError(f"input file {path}: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RejectedError(f"input file {path} is not the one that was planned: it changed since")
    return content
