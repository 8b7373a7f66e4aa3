"""Types of output files, by the suffix of their name. Importing this module loads nothing heavy."""

from __future__ import annotations

from typing import Final

PICTURE_TYPES: Final = frozenset(("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "apng"))
PICTURE_SUFFIXES: Final = frozenset(f".{name}" for name in PICTURE_TYPES)
FILM_TYPES: Final = frozenset(("mp4", "webm", "mkv", "mov", "avi", "m4v"))
SOUND_TYPES: Final = frozenset(("wav", "flac", "mp3", "opus", "ogg", "m4a", "aac"))
TEXT_TYPES: Final = frozenset(("txt", "json", "csv", "md", "yaml", "srt", "vtt"))
