"""Marks pictures that a stand-in had a part in, so that nobody takes them for those of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sweeper.embedded.nodes.media_files import Film, FilmFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

METADATA_KEY: Final = "sweeper_stand_ins"
_LIGHT, _DARK = 0.85, 0.15


def mark_inputs(inputs: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The inputs of a node that saves or shows, with the mark on each picture."""
    return {name: [mark_value(value) for value in values] for name, values in inputs.items()}


def mark_value(value: Any) -> Any:
    """The same pictures or film with the mark; other values as they are."""
    if isinstance(value, np.ndarray) and (value.ndim == 3 or (value.ndim == 4 and value.shape[-1] in {1, 3, 4})):
        return mark_images(value)
    if isinstance(value, Film | FilmFile):
        film = value.load()
        return replace(film, images=mark_images(film.images))
    return value


def mark_images(images: Array) -> Array:
    """A small square with a diagonal in the lower right corner of IMAGE [B, H, W, C] or MASK [B, H, W]."""
    height, width = images.shape[1:3]
    side = min(max(min(height, width) // 40, 6), 14, max(min(height, width) // 4, 1))
    square = np.full((side, side), _LIGHT, np.float32)
    square[[0, -1]] = square[:, [0, -1]] = _DARK
    np.fill_diagonal(square, _DARK)
    marked = images.copy()
    bottom, right = max(height - side // 2, side), max(width - side // 2, side)
    rows, columns = slice(bottom - side, bottom), slice(right - side, right)
    if images.ndim == 3:
        marked[:, rows, columns] = square
    else:
        marked[:, rows, columns, :3] = square[..., None]
        marked[:, rows, columns, 3:] = 1
    return marked
