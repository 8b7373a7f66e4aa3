"""The input files of one target. Each content is uploaded once, in this run and later ones.

An upload of an earlier run counts only if the server still has the file, because people empty input folders, and a
target's name may stand for another machine today. The dialect defines how a file is sent.

ComfyUI's LoadImage returns a mask as 1 - alpha, and its mask editor makes masked areas transparent. Users also draw
masks in black and white, with white for masked areas; both work.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.comfy.comfyui import upload_mask
from sweeper.comfy.dialects import Dialect
from sweeper.comfy.protocol import Flow
from sweeper.errors import ImageError, RejectedError, TargetError, TransientError
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels
from sweeper.model.trial import make_content_key

if TYPE_CHECKING:
    from PIL import Image


Mask = tuple["Path", str]  # the file of a mask, and its SHA-256
Uploaded = tuple[Any, int | None]  # the value that a workflow uses; the size in bytes, None for a masked picture
UploadCallback = Callable[[str, Any, int | None], None]  # content key, value, size


class Uploads:
    """Uploads files to one target, where `run_flow` runs the flows of `dialect()`. Content keys identify the files."""

    def __init__(self, run_flow: Callable[[Flow[Any]], Any], dialect: Callable[[], Dialect]) -> None:
        self._run_flow = run_flow
        self._dialect = dialect
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._uploaded: dict[str, Uploaded] = {}
        self._unverified: Mapping[str, Uploaded] = {}
        self._on_upload: UploadCallback = lambda *_: None  # until `preload`
        self.losses = 0  # how often files were found lost

    def preload(self, known: Mapping[str, Uploaded], on_upload: UploadCallback) -> None:
        """Use uploads of earlier runs if the server still has them, and call `on_upload` for each new one."""
        self._unverified, self._on_upload = known, on_upload

    def mark_unverified(self) -> None:
        """Check each file again before its next use, because the server was unreachable and may have lost it."""
        self._unverified = {**self._unverified, **self._uploaded}
        self._tasks = {content: task for content, task in self._tasks.items() if not task.done()}

    async def are_missing(self, contents: Iterable[str]) -> bool:
        """Whether the server has lost any of these uploads. The next use uploads the lost ones again."""
        uploaded = [content for content in contents if content in self._uploaded]
        lost = [content for content in uploaded if not await self._has_file(*self._uploaded[content])]
        for content in lost:
            self._tasks.pop(content, None)
            self._unverified = {known: value for known, value in self._unverified.items() if known != content}
        self.losses += bool(lost)
        return bool(lost)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def ensure_uploaded(self, path: Path, sha256: str, mask: Mask | None = None) -> Any:
        """Upload a local file unless the server has it; return the value that a workflow uses for it.

        With `mask`, the server's copy gets that mask; see `paint_mask`. Raises RejectedError if a file is missing or
        has changed since it was planned, if the mask does not fit, or if the server rejects the file.
        """
        if not self._dialect().keeps_files:  # nor is one kept here, because a sweep may have gigabytes of pictures
            return await self._upload_masked(path, sha256, mask) if mask else (await self._upload(path, sha256))[0]
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
        except (TransientError, TargetError):  # upload it then, which reports what is wrong
            return False

    async def _upload(self, path: Path, sha256: str) -> tuple[Any, int]:
        content = await asyncio.to_thread(_read_content, path, sha256)
        # Named by its content, so a file of this name on the server has the same content and is not stored twice.
        name = f"sweeper-{sha256[:16]}{path.suffix.lower()}"
        return await self._run_flow(self._dialect().upload(name, content)), len(content)

    async def _upload_masked(self, path: Path, sha256: str, mask: Mask) -> Any:
        picture = await asyncio.to_thread(_read_content, path, sha256)
        drawn = await asyncio.to_thread(_read_content, *mask)
        dialect, name = self._dialect(), f"sweeper-{sha256[:16]}-{mask[1][:16]}.png"
        keeps_colours = dialect.mask_path is None
        content = await asyncio.to_thread(paint_mask, drawn, picture, mask[0].name, keeps_colours=keeps_colours)
        if dialect.mask_path is None:
            return await self._run_flow(dialect.upload(name, content))
        original = await self.ensure_uploaded(path, sha256)
        return await self._run_flow(upload_mask(dialect.mask_path, name, content, original))


def _read_content(path: Path, sha256: str) -> bytes:
    """The bytes of an input file. Raises RejectedError if it is missing or has changed since it was planned."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RejectedError(f"input file {path}: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RejectedError(f"input file {path} has changed since it was planned; plan and run again")
    return content


def paint_mask(mask: bytes, picture: bytes, name: str, *, keeps_colours: bool = False) -> bytes:
    """Return the mask as an RGBA PNG whose alpha channel is 0 where the picture is masked.

    It is made from the alpha channel of `mask` if it has one, else from its inverted brightness.
    With `keeps_colours`, it also has the colours of the picture, like the combined copy that a server makes.

    Raises RejectedError, with the file's name, if a file cannot be read or the sizes differ.
    """
    from PIL import Image

    drawn, below = _read_picture(mask, f"mask {name}"), _read_picture(picture, f"the picture that mask {name} is for")
    if drawn.size != below.size:
        raise RejectedError(
            f"mask {name}: has {drawn.width} x {drawn.height} pixels, but its picture {below.width} x "
            f"{below.height}; make both the same size"
        )
    if drawn.has_transparency_data:
        alpha = drawn.convert("RGBA").getchannel("A")
    else:
        alpha = drawn.convert("L").point(lambda value: 255 - value)
    painted = below.convert("RGBA") if keeps_colours else Image.new("RGBA", drawn.size, (0, 0, 0, 0))
    painted.putalpha(alpha)
    buffer = io.BytesIO()
    painted.save(buffer, "PNG")
    return buffer.getvalue()


def _read_picture(content: bytes, label: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
            check_pixels(picture.size)
            picture.load()
            return picture
    except UnidentifiedImageError:  # its text names the buffer, not the file
        raise RejectedError(f"{label}: cannot be read as a picture: unknown format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ImageError) as error:
        raise RejectedError(f"{label}: cannot be read as a picture: {error}") from None
