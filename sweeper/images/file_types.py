"""Which outputs are pictures, by the suffix of their file; cheap to ask, as nothing is opened or imported for it."""

from __future__ import annotations

from typing import Final

PICTURE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".apng"}
)
