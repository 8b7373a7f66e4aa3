"""LoadImage, SaveImage and PreviewImage: pictures on the server's disk, with ComfyUI 0.3.64's names and rules."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded.nodes.base import Context, Folders, NodeOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def _input_path(folders: Folders, name: str) -> Path | None:
    """The file that LoadImage's value names (`a.png`, `sub/a.png`, `a.png [output]`); None if it lies elsewhere."""
    base = folders.input_dir
    for label in ("output", "input", "temp"):
        mark = f" [{label}]"
        if name.endswith(mark):
            base, name = getattr(folders, f"{label}_dir"), name.removesuffix(mark)
    if not name or "\0" in name:
        return None
    root = base.resolve()
    path = (root / name).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def check(context: Folders, image: str) -> str | None:
    """VALIDATE_INPUTS: the file is there, below its folder. (Paths that climb do not exist, for a client.)"""
    return None if isinstance(image, str) and _input_path(context, image) else f"Invalid image file: {image}"


def fingerprint(context: Folders, image: str) -> str:
    """IS_CHANGED: the file's SHA-256, so that new content under an old name is not a cached result."""
    path = _input_path(context, image)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""


def load_image(context: Context, image: str) -> NodeOutput:
    """IMAGE [frames, H, W, 3] and MASK [frames, H, W], 1 - alpha; a picture without alpha has an empty 64 x 64 mask.

    Turned as its EXIF says; frames of another size than the first are left out; of an MPO only the first is taken.
    """
    path = _input_path(context, image)
    if path is None:
        raise FileNotFoundError(f"Invalid image file: {image}")
    with Image.open(path) as file:
        frames = [_frame(frame) for frame in ImageSequence.Iterator(file)]
        single = file.format == "MPO"
    frames = [frame for frame in frames if frame[0].shape == frames[0][0].shape]
    if single:
        frames = frames[:1]
    return NodeOutput((np.stack([pixels for pixels, _ in frames]), np.stack([mask for _, mask in frames])))


def _frame(frame: Image.Image) -> tuple[Array, Array]:
    picture = ImageOps.exif_transpose(frame)
    if picture.mode.startswith("I;16"):
        picture = picture.convert("I")
    if picture.mode == "I":
        # 16 bits to 8, as ComfyUI does it: by 255, which Pillow then clips.
        picture = picture.point(lambda value: value * (1 / 255))
    pixels = np.asarray(picture.convert("RGB"), np.float32) / np.float32(255)
    if "A" in picture.getbands():
        alpha = picture.getchannel("A")
    elif picture.mode == "P" and "transparency" in picture.info:
        alpha = picture.convert("RGBA").getchannel("A")
    else:
        return pixels, np.zeros((64, 64), np.float32)
    return pixels, 1 - np.asarray(alpha, np.float32) / np.float32(255)


def _filled(prefix: str, width: int, height: int) -> str:
    """%width%, %height% and the parts of the local time; other tokens are the web interface's to fill."""
    now = time.localtime()
    tokens = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    parts = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    tokens |= {name: f"{value:02d}" for name, value in parts.items()}
    for name, value in tokens.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _split(prefix: str, root: Path) -> tuple[str, str]:
    """(subfolder, file name) of a prefix. Raises ValueError where it leads out of `root`."""
    path = os.path.normpath(prefix)
    subfolder, name = os.path.split(path)
    folder = (root / subfolder).resolve()
    if not folder.is_relative_to(root) or name == ".." or "\0" in prefix:
        raise ValueError(f"Saving image outside the output folder is not allowed: filename_prefix {prefix!r}")
    return subfolder, name


def _next_counter(folder: Path, name: str) -> int:
    """One more than the highest number that a file `<name>_<number>_...` in the folder has."""
    highest = 0
    start = os.path.normcase(f"{name}_")
    for entry in (path.name for path in folder.iterdir()):
        if os.path.normcase(entry[: len(start)]) == start:
            digits = entry[len(start) :].split("_")[0]
            highest = max(highest, int(digits) if digits.isdecimal() else 0)
    return highest + 1


def _reserved(folder: Path, name: str, counter: int) -> tuple[Path, int]:
    """The first free `<name>_<counter>_.png`, created empty: two jobs at once can never hold the same one."""
    while True:
        path = folder / f"{name}_{counter:05}_.png"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            counter += 1
        else:
            return path, counter


def _metadata(context: Context) -> PngInfo | None:
    """The text chunks: `prompt`, and one per key of extra_pnginfo, each JSON."""
    if not context.save_metadata:
        return None
    info = PngInfo()
    info.add_text("prompt", json.dumps(context.prompt))
    for key, value in context.extra_pnginfo.items():
        info.add_text(key, json.dumps(value))
    return info


def _pictures(images: Array) -> Iterator[Image.Image]:
    """8-bit pictures of IMAGE [B, H, W, C]: times 255, clipped, cut off (not rounded), as ComfyUI does."""
    for image in images:
        pixels = np.clip(np.float32(255) * image, 0, 255).astype(np.uint8)
        yield Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _saved(context: Context, images: Array, prefix: str, *, base: Path, kind: str, compress_level: int) -> NodeOutput:
    root = base.resolve()
    filled = _filled(prefix, images[0].shape[1], images[0].shape[0])
    subfolder, name = _split(filled, root)
    folder = root / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    counter = _next_counter(folder, name)
    info = _metadata(context)
    results = []
    for number, picture in enumerate(_pictures(images)):
        context.check()
        path, counter = _reserved(folder, name.replace("%batch_num%", str(number)), counter)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            picture.save(draft, format="PNG", pnginfo=info, compress_level=compress_level)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        results.append({"filename": path.name, "subfolder": subfolder.replace(os.sep, "/"), "type": kind})
        counter += 1
    return NodeOutput(ui={"images": results})


def save_image(context: Context, images: Array, filename_prefix: str = "ComfyUI") -> NodeOutput:
    """PNG files `<prefix>_00001_.png` in the output folder. Raises ValueError for a prefix that climbs out of it."""
    return _saved(context, images, filename_prefix, base=context.output_dir, kind="output", compress_level=4)


@lru_cache(maxsize=1)
def _preview_prefix() -> str:
    """ComfyUI's temporary prefix: five random letters per start of the server."""
    return "ComfyUI_temp_" + "".join(secrets.choice("abcdefghijklmnopqrstupvxyz") for _ in range(5))


def preview_image(context: Context, images: Array) -> NodeOutput:
    return _saved(context, images, _preview_prefix(), base=context.temp_dir, kind="temp", compress_level=1)
