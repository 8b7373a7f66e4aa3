"""The largest picture that sweeper decodes.

A PNG of half a megabyte may declare 178 million pixels, which is where Pillow begins to refuse, and a metric would need
nine gigabytes for them. So the size in the header is checked before the pixels are decoded.
"""

from __future__ import annotations

from typing import Final

from sweeper.errors import ImageError

MAX_PIXELS: Final = 100_000_000  # 10,000 x 10,000; with Pillow's copy and a metric about 3 GB
MAX_FRAME_PIXELS: Final = 40_000_000_000  # of all frames together: ten minutes of 1920 x 1080 with 30 frames a second


def check_pixels(size: tuple[int, int], frames: int = 1) -> None:
    """Raise ImageError, whose text does not name the file, for a picture or film that is too large to decode.

    `frames`: how many there are, or were decoded so far.
    """
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels, but at most {MAX_PIXELS:,} pixels are decoded; scale it down")
    if frames > 1 and width * height * frames > MAX_FRAME_PIXELS:
        raise ImageError(
            f"has more than {MAX_FRAME_PIXELS:,} pixels in all frames together, which is the most that is decoded; "
            "shorten it or scale it down"
        )
