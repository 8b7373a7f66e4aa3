"""The names and words that the procedural models know, and what each word does to the features of a picture.

Any other word still counts: `text` gives it a small vector by hash. Imports no NumPy, so that listing nodes is cheap.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

CHECKPOINTS = ("procedural-ink.safetensors", "procedural-paint.safetensors", "procedural-photo.safetensors")
LORAS = ("procedural-noir.safetensors", "procedural-vivid.safetensors")
CLIPS = ("procedural-clip-g.safetensors", "procedural-clip-l.safetensors", "procedural-t5.safetensors")
VAES = ("procedural-ink.safetensors", "procedural-paint.safetensors", "procedural-photo.safetensors", "pixel_space")

# What an embedding is made of, one dimension each. `hash*` are the dimensions of unknown words.
_GROUPS = (
    "land sea forest mountain city desert snow space room field",  # where
    "animal bird fish person house tower tree flower boat car fruit orb thing",  # what
    "ears tail legs neck",  # what kind of animal
    "subject_y subject_u subject_v subject_colour tint_y tint_u tint_v tint",  # colours
    "dark warm saturation contrast fog stars sunset clouds rain size many symmetry",  # light and composition
    "facets strokes hatch flat glow paper sharp",  # style
)
HASHED = 12
FEATURES: tuple[str, ...] = (*" ".join(_GROUPS).split(), *(f"hash{i}" for i in range(HASHED)))
INDEX = {name: i for i, name in enumerate(FEATURES)}
BACKDROPS = tuple(_GROUPS[0].split())
SUBJECTS = tuple(_GROUPS[1].split())


def yuv(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """`to_yuv` of a colour 0-255."""
    return to_yuv(*(value / 255 for value in rgb))


def to_yuv(red: Any, green: Any, blue: Any) -> tuple[Any, Any, Any]:
    """From sRGB 0-1 to Y in -0.5 .. 0.5 and U, V (BT.601 weights, analogue scaling)."""
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma - 0.5, 0.492 * (blue - luma), 0.877 * (red - luma)


_TABLES: Final = json.loads(files(__package__).joinpath("words.json").read_text("utf-8"))
# What each word does: feature -> value; an entry `colour` is what a subject has by itself.
WORDS: Final[dict[str, dict[str, Any]]] = {
    name: entry for names, entry in _TABLES["words"].items() for name in names.split()
}
COLOURS: Final[dict[str, tuple[int, int, int]]] = _TABLES["colours"]  # sRGB, 0-255
STOP: Final = frozenset(_TABLES["nothing"].split())  # words that carry nothing


def yuv_to_rgb(planes: Any) -> Any:
    """Inverse of `to_yuv` for an array [3, ...]: Y in -0.5 .. 0.5, U, V to R, G, B, 0-1 where in gamut."""
    luma = planes[0] + 0.5
    red, blue = luma + planes[2] / 0.877, luma + planes[1] / 0.492
    result = planes.copy()
    result[0], result[1], result[2] = red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue
    return result
