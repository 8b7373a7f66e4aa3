"""Which pictures and films sweeper decodes: by their formats and their size.

Servers and strangers make these files, and a file's name says nothing about its content. Of all the formats that Pillow
and FFmpeg know, some reach beyond the file: for PostScript, Pillow starts Ghostscript, and a playlist makes FFmpeg open
other files and hosts. So whoever opens a file names the formats of this module; tests/test_architecture.py checks it.

A PNG of half a megabyte may declare 178 million pixels, which is where Pillow begins to refuse, and a metric would need
nine gigabytes for them. So the size in the header is checked before the pixels are decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sweeper.errors import ImageError

# For `PIL.Image.open(..., formats=)`. The first five load with Pillow, the others make it import all of its plugins.
PICTURE_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF")
# For `av.open(..., options=)`: FFmpeg's containers of the films and sounds that servers write, and no protocol but
# plain files. In a QuickTime file FFmpeg follows no reference to another file unless an option says so.
FILM_OPTIONS: Final[Mapping[str, str]] = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,flac,mp3,ogg,aac",
    "protocol_whitelist": "file",
}

# The types of output files, by the suffix of their name.
PICTURE_TYPES: Final = frozenset(("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "apng"))
PICTURE_SUFFIXES: Final = frozenset(f".{name}" for name in PICTURE_TYPES)
FILM_TYPES: Final = frozenset(("mp4", "webm", "mkv", "mov", "avi", "m4v"))
SOUND_TYPES: Final = frozenset(("wav", "flac", "mp3", "opus", "ogg", "m4a", "aac"))
TEXT_TYPES: Final = frozenset(("txt", "json", "csv", "md", "yaml", "srt", "vtt"))

MAX_PIXELS: Final = 100_000_000  # 10,000 x 10,000; with Pillow's copy and a metric about 3 GB
MAX_SHEET_MEGAPIXELS: Final = 178  # of a page of a contact sheet; Pillow takes a larger one for a decompression bomb
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
