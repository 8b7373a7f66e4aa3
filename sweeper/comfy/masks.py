"""A mask as a server takes it: a PNG whose alpha channel says where the picture below is masked. Pure, bytes to bytes.

ComfyUI's LoadImage gives the mask as 1 - alpha, and its mask editor paints holes into the alpha channel. People draw
masks in black and white, white where they mask; both are understood.
"""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from sweeper.errors import RejectedError


def paint_mask(mask: bytes, picture: bytes, name: str) -> bytes:
    """The mask as an RGBA PNG. Its own alpha channel counts where it has one, otherwise its brightness (white masks).

    Raises RejectedError, with the file's name, when it cannot be read or is not of the picture's size.
    """
    drawn, below = _read_picture(mask, f"mask {name}"), _read_picture(picture, f"the picture that mask {name} is for")
    if drawn.size != below.size:
        raise RejectedError(
            f"mask {name}: has {drawn.width} x {drawn.height} pixels, but its picture {below.width} x "
            f"{below.height}; the two must be of one size"
        )
    if drawn.has_transparency_data:
        alpha = drawn.convert("RGBA").getchannel("A")
    else:
        alpha = drawn.convert("L").point(lambda value: 255 - value)
    made = Image.new("RGBA", drawn.size, (0, 0, 0, 0))
    made.putalpha(alpha)
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    return buffer.getvalue()


def _read_picture(content: bytes, label: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as found:
            found.load()
            return found
    except UnidentifiedImageError:  # which names the buffer, not the file
        raise RejectedError(f"{label}: cannot be read as a picture: it is of no format known here") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RejectedError(f"{label}: cannot be read as a picture: {error}") from None
