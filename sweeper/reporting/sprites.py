"""Sprite sheets: all pictures of a report again, very small, hundreds of them in one file.

A browser spends a third of a millisecond on each file it requests, so ten thousand files cannot keep up with a scroll.
The page loads a few sheets when it opens; a cell then shows a blurred picture at once, until its thumbnail is loaded.
`page/js/sprites.js` shows them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sweeper.errors import ImageError, ResultsError
from sweeper.files import atomic_write
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels
from sweeper.reporting.thumbnails import SMALLER_SIDES, SPRITE_SIDE, THUMBS_FOLDER, make_sprite

SPRITES_PER_LINE: Final = 40  # sprites in a line of a sheet, and lines of a full sheet
_SPRITES_PER_SHEET: Final = SPRITES_PER_LINE * SPRITES_PER_LINE
_QUALITY: Final = 75
_SHEET_NAME: Final = re.compile(r"sprites-[0-9a-f]{20}\.webp")


@dataclass(frozen=True, slots=True)
class Sprites:
    """The sheets, and by SHA-256 the index of each picture's sprite, counted line by line through all sheets."""

    sheets: tuple[str, ...]
    indices: dict[str, int]

    def as_data(self) -> dict[str, Any]:
        """The page's `sprites`; paths are relative to the report."""
        return {"across": SPRITES_PER_LINE, "sheets": list(self.sheets), "count": len(self.indices)}


def make_sprites(report: Path, shas: Sequence[str], loaded: Mapping[str, Any]) -> Sprites:
    """Make the sprite sheets of these pictures, in this order. All must have a thumbnail in the report's folder.

    `loaded`: sprites that are already in memory, by SHA-256. Pictures that are neighbours in the run share a sheet. A
    sheet is named by its content and made once. Raises ResultsError if the folder cannot be read or written.
    """
    folder = report / THUMBS_FOLDER
    parts = [shas[start : start + _SPRITES_PER_SHEET] for start in range(0, len(shas), _SPRITES_PER_SHEET)]
    names = [f"sprites-{sha256(' '.join([str(SPRITE_SIDE), *part]).encode()).hexdigest()[:20]}.webp" for part in parts]
    try:
        for part, name in zip(parts, names, strict=True):
            if not (folder / name).is_file():
                _make_sheet(folder, part, folder / name, loaded)
    except OSError as error:
        raise ResultsError(f"{folder}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError, ImageError) as error:
        raise ResultsError(f"{folder}: has a thumbnail that cannot be read: {error}; delete this folder") from error
    return Sprites(tuple(f"{THUMBS_FOLDER}/{name}" for name in names), {sha: index for index, sha in enumerate(shas)})


def is_sprite_sheet(name: str) -> bool:
    """Whether a file in the folder of thumbnails is a sheet of sprites."""
    return _SHEET_NAME.fullmatch(name) is not None


def _make_sheet(folder: Path, shas: Sequence[str], path: Path, loaded: Mapping[str, Any]) -> None:
    sprites = _load_sprites(folder, shas, loaded)
    mode = "RGBA" if any(sprite.mode == "RGBA" for sprite in sprites) else "RGB"
    sheet = Image.new(mode, (SPRITES_PER_LINE * SPRITE_SIDE, -(-len(shas) // SPRITES_PER_LINE) * SPRITE_SIDE))
    for index, sprite in enumerate(sprites):
        line, column = divmod(index, SPRITES_PER_LINE)
        sheet.paste(sprite, (column * SPRITE_SIDE, line * SPRITE_SIDE))
    with atomic_write(path) as file:
        sheet.save(file, "WEBP", quality=_QUALITY, method=1)


def _load_sprites(folder: Path, shas: Sequence[str], loaded: Mapping[str, Any]) -> list[Any]:
    def load_sprite(sha: str) -> Any:
        if sha in loaded:
            return loaded[sha]
        with Image.open(folder / f"{sha}-{SMALLER_SIDES[-1]}.webp", formats=PICTURE_FORMATS) as image:
            check_pixels(image.size)
            return make_sprite(image)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        return list(pool.map(load_sprite, shas))
