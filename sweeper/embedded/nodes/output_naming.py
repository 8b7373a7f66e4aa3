"""Where a saved file goes: prefix, folder and number as ComfyUI 0.3.64 forms them; no two jobs share one.

What is written there, and in which format, is for `files` and `media_files`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.nodes.base import Context
from sweeper.files import replace_file


def _fill_tokens(prefix: str, width: int, height: int) -> str:
    """%width%, %height% and the parts of the local time; other tokens are the web interface's to fill."""
    now = time.localtime()
    tokens = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    parts = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    tokens |= {name: f"{value:02d}" for name, value in parts.items()}
    for name, value in tokens.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _split_prefix(prefix: str, root: Path) -> tuple[str, str]:
    """(subfolder, file name) of a prefix. Raises Exception, as ComfyUI does, where it leads out of `root`."""
    path = os.path.normpath(prefix)
    subfolder, name = os.path.split(path)
    folder = (root / subfolder).resolve()
    if not folder.is_relative_to(root) or name == ".." or "\0" in prefix:
        # ComfyUI goes on to name the server's folders here; a client has no use for those.
        raise Exception(  # noqa: TRY002 - ComfyUI raises this class, and clients see its name
            f"**** ERROR: Saving image outside the output folder is not allowed.\n filename_prefix: {prefix!r}"
        )
    return subfolder, name


def _next_counter(folder: Path, name: str) -> int:
    """One more than the highest number that a file `<name>_<number>_...` in the folder has."""
    highest = 0
    start = os.path.normcase(f"{name}_")
    for entry in map(os.path.normcase, os.listdir(folder)):  # noqa: PTH208 - paths would be slow for thousands of files
        if entry.startswith(start):
            digits = entry[len(start) :].split("_")[0]
            highest = max(highest, int(digits) if digits.isdecimal() else 0)
    return highest + 1


def _reserve_file(folder: Path, name: str, counter: int, suffix: str) -> tuple[Path, int]:
    """The first free `<name>_<counter>_<suffix>`, created empty: two jobs at once can never hold the same one."""
    while True:
        path = folder / f"{name}_{counter:05}_{suffix}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            counter += 1
        else:
            return path, counter


def save_files(
    context: Context,
    prefix: str,
    suffix: str,
    items: Iterable[Any],
    write: Callable[[Path, Any], object],
    *,
    size: tuple[int, int] = (0, 0),
    temporary: bool = False,
) -> list[dict[str, str]]:
    """Save a file `<prefix>_<number>_<suffix>` for each item by `write(path, item)`.

    `size`: width and height, for %width% and %height%; %batch_num% is the index of an item. `temporary`: to previews.
    Returns the files as a node's `ui` names them. Raises Exception for a prefix that climbs out of the folder. If
    `write` raises, its file does not stay.
    """
    root = (context.temp_dir if temporary else context.output_dir).resolve()
    subfolder, name = _split_prefix(_fill_tokens(prefix, *size), root)
    folder = root / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    counter = _next_counter(folder, name)
    saved = []
    for number, item in enumerate(items):
        context.check()
        path, counter = _reserve_file(folder, name.replace("%batch_num%", str(number)), counter, suffix)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            write(draft, item)
            replace_file(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        counter += 1
        kind = "temp" if temporary else "output"
        saved.append({"filename": path.name, "subfolder": subfolder.replace(os.sep, "/"), "type": kind})
    return saved


def to_pil_images(images: Array) -> Iterator[Image.Image]:
    """8-bit pictures of IMAGE [B, H, W, C]: times 255, clipped, cut off (not rounded), as ComfyUI does."""
    for image in images:
        pixels = np.clip(np.float32(255) * image, 0, 255).astype(np.uint8)
        yield Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
