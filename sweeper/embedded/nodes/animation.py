"""Animated saves: one WebP or PNG file per batch, with ComfyUI 0.3.64's names, times and metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.output_naming import FileReserver, to_pil_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
_CAMERA_MODEL, _CAMERA_MAKE = 0x0110, 0x010F  # the EXIF tags that ComfyUI uses for the graph and what else there is


def _make_exif(context: Context) -> Image.Exif:
    exif = Image.Exif()
    if context.save_metadata:
        exif[_CAMERA_MODEL] = f"prompt:{json.dumps(context.prompt)}"
        for index, (key, value) in enumerate(context.extra_pnginfo.items()):
            exif[_CAMERA_MAKE - index] = f"{key}:{json.dumps(value)}"
    return exif


def save_webp(
    context: Context, *, images: Array, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str
) -> NodeOutput:
    pictures = list(to_pil_images(images))
    file = FileReserver(context.output_dir, filename_prefix, images, ".webp").reserve(0)
    with file.open_draft() as draft:
        pictures[0].save(
            draft,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=int(1000.0 / fps),
            lossless=lossless,
            quality=quality,
            method=_METHODS[method],
            exif=_make_exif(context),
        )
    return NodeOutput(ui={"images": [file.as_ui("output")], "animated": [len(pictures) != 1]})


def save_png(context: Context, *, images: Array, filename_prefix: str, fps: float, compress_level: int) -> NodeOutput:
    """An APNG; the graph stands in chunks of type `comf` after the first picture, Latin-1 as ComfyUI writes it."""
    pictures = list(to_pil_images(images))
    info = PngInfo()
    if context.save_metadata:
        for key, value in {"prompt": context.prompt, **context.extra_pnginfo}.items():
            info.add(b"comf", key.encode("latin-1") + b"\0" + json.dumps(value).encode("latin-1"), after_idat=True)
    file = FileReserver(context.output_dir, filename_prefix, images, ".png").reserve(0)
    with file.open_draft() as draft:
        pictures[0].save(
            draft,
            format="PNG",
            pnginfo=info,
            compress_level=compress_level,
            save_all=True,
            duration=int(1000.0 / fps),
            append_images=pictures[1:],
        )
    return NodeOutput(ui={"images": [file.as_ui("output")], "animated": [True]})
