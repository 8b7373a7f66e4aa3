"""A picture without the settings that made it: ComfyUI writes its workflow into the files that it saves."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image

from sweeper.errors import ImageError
from sweeper.images.decoding import decode_frames, open_bytes, read_bytes

_PNG: Final = b"\x89PNG\r\n\x1a\n"
# The chunks that a browser needs: pixels, transparency, colour spaces and the frames of an animation.
_SHOWN_CHUNKS: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP acTL fcTL fdAT".split()  # PNG specification, 5.6
)


def read_plain_picture(path: Path) -> tuple[bytes, str]:
    """The picture in a file and its media type, without texts and other data about it.

    A PNG keeps its pixels as they are stored. Any other picture is stored again without loss, as PNG, or as WebP if it
    is an animation. Raises ImageError if it cannot be read.
    """
    data, name = read_bytes(path), path.name
    if data.startswith(_PNG):
        return _PNG + b"".join(_iter_shown_chunks(data, name)), "image/png"
    image = open_bytes(data, name)
    first, *more = (Image.fromarray(pixels.squeeze()) for pixels in decode_frames(image, name, data))
    plain = io.BytesIO()
    if not more:
        first.save(plain, "PNG", compress_level=1, icc_profile=image.info.get("icc_profile"))
        return plain.getvalue(), "image/png"
    duration = image.info.get("duration", 100)
    first.save(plain, "WEBP", save_all=True, append_images=more, duration=duration, loop=0, lossless=True, method=0)
    return plain.getvalue(), "image/webp"


def _iter_shown_chunks(data: bytes, name: str) -> Iterator[memoryview]:
    offset = len(_PNG)
    while offset + 12 <= len(data):
        kind, end = data[offset + 4 : offset + 8], offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if kind in _SHOWN_CHUNKS:
            yield memoryview(data)[offset:end]
        if kind == b"IEND":  # some programs write about the picture behind its end
            return
        offset = end
    raise ImageError(f"{name}: cannot be read as a picture: the PNG ends before its last chunk")
