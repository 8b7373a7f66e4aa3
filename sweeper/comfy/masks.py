"""Convert a mask to the form that servers expect: a PNG whose alpha channel is 0 where the picture is masked. Pure.

ComfyUI's LoadImage returns the mask as 1 - alpha, and its mask editor makes masked areas transparent. Users also draw
masks in black and white, with white for masked areas; both work.
"""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from sweeper.errors import ImageError, RejectedError
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels


def paint_mask(mask: bytes, picture: bytes, name: str, *, keeps_colours: bool = False) -> bytes:
    """Return the mask as an RGBA PNG, made from its alpha channel if it has one, else from its inverted brightness.

    With `keeps_colours`, it also has the colours of the picture, like the combined copy that a server makes.

    Raises RejectedError, with the file's name, if a file cannot be read or the sizes differ.
    """
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
    try:
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
            check_pixels(picture.size)
            picture.load()
            return picture
    except UnidentifiedImageError:  # its text names the buffer, not the file
        raise RejectedError(f"{label}: cannot be read as a picture: unknown format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ImageError) as error:
        raise RejectedError(f"{label}: cannot be read as a picture: {error}") from None
