"""LoadImage, SaveImage and PreviewImage: pictures on the server's disk, with ComfyUI 0.3.64's names and rules.

No two jobs share a file that any node saves.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.files import atomic_write
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels


def find_input(context: Context, name: str, kind: str = "image") -> Path:
    """The file that an input names. Raises FileNotFoundError."""
    path = context.find_input(name)
    if path is None:
        raise FileNotFoundError(f"Invalid {kind} file: {name}")
    return path


def load_image(context: Context, image: str) -> tuple[Array, Array]:
    """IMAGE [frames, H, W, 3] and MASK [frames, H, W], 1 - alpha; a picture without alpha has an empty 64 x 64 mask.

    Turned as its EXIF says; frames of another size than the first are left out; of an MPO only the first is taken.
    """
    with Image.open(find_input(context, image), formats=PICTURE_FORMATS) as file:
        check_pixels(file.size, getattr(file, "n_frames", 1))
        frames = [_decode_frame(frame) for frame in ImageSequence.Iterator(file)]
        single = file.format == "MPO"
    frames = [frame for frame in frames if frame[0].shape == frames[0][0].shape]
    if single:
        frames = frames[:1]
    return np.stack([pixels for pixels, _ in frames]), np.stack([mask for _, mask in frames])


def _decode_frame(frame: Image.Image) -> tuple[Array, Array]:
    picture = ImageOps.exif_transpose(frame)
    pixels = np.asarray(_convert_to_rgb(picture), np.float32) / np.float32(255)
    if "A" in picture.getbands():
        alpha = picture.getchannel("A")
    elif picture.mode == "P" and "transparency" in picture.info:
        alpha = picture.convert("RGBA").getchannel("A")
    else:
        return pixels, np.zeros((64, 64), np.float32)
    return pixels, 1 - np.asarray(alpha, np.float32) / np.float32(255)


def _convert_to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA").convert("RGB")  # the same colours, without Pillow's warning
    return picture.convert("RGB")


def make_metadata(context: Context) -> dict[str, str]:
    """The graph and each key of extra_pnginfo as JSON."""
    graphs = {"prompt": context.prompt, **context.extra_pnginfo}
    return {name: json.dumps(value) for name, value in graphs.items()}


def _save_pngs(
    context: Context, images: Array, prefix: str, *, temporary: bool = False, compress_level: int = 4
) -> NodeOutput:
    info = PngInfo()
    for key, text in make_metadata(context).items():
        info.add_text(key, text)

    def write(file: BinaryIO, picture: Image.Image) -> None:
        picture.save(file, format="PNG", pnginfo=info, compress_level=compress_level)

    saved = save_files(context, prefix, ".png", to_pil_images(images), write, temporary=temporary)
    return NodeOutput((images,), ui={"images": saved})


def save_image(context: Context, images: Array, filename_prefix: str = "ComfyUI") -> NodeOutput:
    """PNG files `<prefix>_00001_.png` in the output folder. Raises Exception for a prefix that climbs out of it."""
    return _save_pngs(context, images, filename_prefix)


@lru_cache(maxsize=1)
def make_preview_prefix() -> str:
    """ComfyUI's temporary prefix: five random letters per start of the server."""
    return "ComfyUI_temp_" + "".join(secrets.choice("abcdefghijklmnopqrstupvxyz") for _ in range(5))


def preview_image(context: Context, images: Array) -> NodeOutput:
    return _save_pngs(context, images, make_preview_prefix(), temporary=True, compress_level=1)


def send_images(context: Context, images: Array) -> NodeOutput:
    """SaveImageWebsocket: nothing on disk, every picture into the event stream."""
    for number, picture in enumerate(to_pil_images(images)):
        context.progress(number, len(images))
        context.show(picture)
    return NodeOutput()


def preview_mask(context: Context, mask: Array) -> NodeOutput:
    """MaskPreview: the mask as grey pictures in the temporary folder."""
    grey = np.repeat(mask.reshape(-1, *mask.shape[-2:])[..., None], 3, axis=-1)
    saved = _save_pngs(context, grey, make_preview_prefix(), temporary=True)
    return NodeOutput((mask,), saved.ui)


def preview_any(source: Any = None) -> NodeOutput:
    """PreviewAny: a value as text, JSON where it has a form in it, shown and passed on."""
    try:
        text = source if isinstance(source, str) else json.dumps(source)
    except (TypeError, ValueError):
        text = str(source)
    text = str(source) if isinstance(source, bool | float) else text  # not `true` and `NaN`
    return NodeOutput((text,), ui={"text": [text]})


def load_mask(context: Context, image: str, channel: str) -> Array:
    """One channel of a file as MASK [1, H, W]; alpha turned around; empty, 64 x 64, where there is no such channel."""
    with Image.open(find_input(context, image), formats=PICTURE_FORMATS) as file:
        check_pixels(file.size)
        picture = ImageOps.exif_transpose(file)
        if picture.mode != "RGBA":
            clear = picture.mode in {"LA", "PA"} or "transparency" in picture.info
            picture = picture.convert("RGBA") if clear else _convert_to_rgb(picture).convert("RGBA")
    plane = np.asarray(picture.getchannel(channel[0].upper()), np.float32) / np.float32(255)
    return np.asarray((1 - plane if channel == "alpha" else plane)[None])


# --- names of saved files --------------------------------------------------------------------------------------------


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
    write: Callable[[BinaryIO, Any], object],
    *,
    temporary: bool = False,
) -> list[dict[str, str]]:
    """Save a file `<prefix>_<number>_<suffix>` for each item by `write(file, item)`.

    `temporary`: to previews. Returns the files as a node's `ui` names them. Raises Exception for a prefix that climbs
    out of the folder. If `write` raises, its file does not stay.
    """
    root = (context.temp_dir if temporary else context.output_dir).resolve()
    subfolder, name = _split_prefix(prefix, root)
    folder = root / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    counter = _next_counter(folder, name)
    saved = []
    for item in items:
        context.check()
        path, counter = _reserve_file(folder, name, counter, suffix)
        try:
            with atomic_write(path) as file:
                write(file, item)
        except BaseException:
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
