"""Reading image files: checks of uploads, and masks. Pillow loads on first use."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweeper.model.picture_size import PICTURE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

# The largest image to decode. A PNG of a few bytes may declare any size, and would take too much memory.
MAX_PIXELS = 67_108_864


class ImageFileError(Exception):
    """The data is not an image, or it cannot be processed as requested."""


@contextmanager
def open_image(source: Path | bytes) -> Iterator[Image.Image]:
    """Open an image file. Raises ImageFileError for any error of Pillow inside the block."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURE_FORMATS) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ImageFileError(str(problem)) from problem


def replace_alpha(original: Path, mask: bytes) -> bytes:
    """The original as PNG, with the alpha channel of the mask. Keeps the text chunks of the original.

    Raises ImageFileError if one of them cannot be read, or if the sizes differ.
    """
    from PIL.PngImagePlugin import PngInfo

    with open_image(original) as image, open_image(mask) as mask_image:
        _check_pixels(image.size)
        _check_pixels(mask_image.size)
        texts = PngInfo()
        for key, text in getattr(image, "text", {}).items():
            texts.add_text(key, text)
        result = image.convert("RGBA")
        result.putalpha(mask_image.convert("RGBA").getchannel("A"))
        buffer = io.BytesIO()
        result.save(buffer, format="PNG", compress_level=4, pnginfo=texts)
    return buffer.getvalue()


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS}")
