"""The largest picture that sweeper decodes.

A PNG of half a megabyte may declare 178 million pixels, which is where Pillow begins to refuse, and a metric would need
nine gigabytes for them. So the size in the header is checked before the pixels are decoded.
"""

from __future__ import annotations

from typing import Final

from sweeper.errors import ImageError

MAX_PIXELS: Final = 100_000_000  # 10,000 x 10,000; with Pillow's copy and a metric about 3 GB


def check_pixels(size: tuple[int, int]) -> None:
    """Raise ImageError, whose text does not name the file, for a picture that is too large to decode."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels, but at most {MAX_PIXELS:,} pixels are decoded; scale it down")
