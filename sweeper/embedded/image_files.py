"""Reading and re-encoding image files: checks of uploads, masks, previews for /view. Pillow loads on first use."""

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


def reencode(path: Path, preview: str | None, channel: str, *, grey_alpha: bool) -> tuple[bytes, str]:
    """Convert an image as the query of /view says. Returns (bytes, media type). Raises ImageFileError.

    Args:
        path: the image file.
        preview: `webp;50` or `jpeg;10`, format and quality; None: PNG.
        channel: `rgb`, `a`, or any other word for all channels.
        grey_alpha: return the alpha channel as a grey image (Cloud), not as the alpha of a black one (ComfyUI).

    """
    buffer = io.BytesIO()
    with open_image(path) as image:
        _check_pixels(image.size)
        if preview is not None:
            kind, *_, quality = [*preview.split(";"), "90"][:2]
            kind = kind if kind in {"webp", "jpeg"} and "a" not in channel.replace("rgba", "") else "webp"
            converted = image.convert("RGB") if kind == "jpeg" or channel == "rgb" else image
            converted.save(buffer, format=kind, quality=int(quality) if quality.isdecimal() else 90)
            return buffer.getvalue(), f"image/{kind}"
        if channel == "rgb":
            image.convert("RGB").save(buffer, format="PNG")
        else:
            _extract_alpha(image, grey=grey_alpha).save(buffer, format="PNG")
    return buffer.getvalue(), "image/png"


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS}")


def _extract_alpha(image: Image.Image, *, grey: bool) -> Image.Image:
    from PIL import Image

    alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
    if grey:
        return alpha
    black = Image.new("RGBA", image.size)
    black.putalpha(alpha)
    return black
