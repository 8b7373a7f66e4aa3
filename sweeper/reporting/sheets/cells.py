"""The cells of a contact sheet: their size, and the pictures in them. A film appears as its first frame.

`pages` decides where a cell is and writes its labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sweeper.errors import ImageError
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels
from sweeper.reporting.thumbnails import is_film, read_first_frame

LABEL_SIZE: Final = 15  # pixels, as all sizes below: the letters of a label
TILE_GAP: Final = 2  # between the pictures of one trial
_MIN_CELL_WIDTH: Final = 96


@dataclass(frozen=True, slots=True)
class Cell:
    """The pictures of a trial, which share a cell, or the reason why there is none."""

    paths: tuple[Path, ...]
    reason: str


def compute_cell_size(cells: Iterable[Cell], label_length: int, max_side: int) -> tuple[int, int]:
    """Compute width and height of a cell in pixels: as the pictures need, but no side longer than `max_side`.

    `label_length`: letters of the longest column label.
    """
    sizes = [size for cell in cells if (size := _measure_cell(cell, max_side)) is not None]
    if not sizes:
        return max_side, max_side
    # Small pictures must leave room for labels; a long label gets about eight lines.
    words = label_length * LABEL_SIZE // 2 // 8
    return max(min(max_side, max(_MIN_CELL_WIDTH, words)), *(width for width, _ in sizes)), max(
        high for _, high in sizes
    )


def _measure_cell(cell: Cell, max_side: int) -> tuple[int, int] | None:
    if not cell.paths:
        return None
    try:
        if is_film(cell.paths[0]):
            width, height = read_first_frame(cell.paths[0]).size
        else:
            with Image.open(cell.paths[0], formats=PICTURE_FORMATS) as image:
                width, height = image.size
    except (ImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    across, down = arrange_tiles(len(cell.paths))
    width, height = across * (width + TILE_GAP) - TILE_GAP, down * (height + TILE_GAP) - TILE_GAP
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def arrange_tiles(count: int) -> tuple[int, int]:
    """Columns and rows of a nearly square arrangement of `count` pictures."""
    across = math.ceil(math.sqrt(count))
    return across, math.ceil(count / across)


def load_small_picture(path: Path, box: tuple[int, int]) -> Any:
    """Load a picture scaled down to `box`, in RGBA; None if it cannot be read."""
    try:
        if is_film(path):
            small = read_first_frame(path).convert("RGBA")
        else:
            with Image.open(path, formats=PICTURE_FORMATS) as opened:
                opened.draft("RGB", box)  # makes JPEG decode at about this size
                check_pixels(opened.size)
                small = opened.convert("RGBA")
    except (ImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((max(1, box[0]), max(1, box[1])), Image.Resampling.LANCZOS)
    return small
