"""What the stand-in of an output node saves or shows: pictures, films, sounds, texts; else a picture of its own."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from sweeper.embedded.nodes import media_files, picture_files
from sweeper.embedded.nodes.media_files import Film, FilmFile
from sweeper.embedded.nodes.output_naming import save_files, to_pil_images
from sweeper.embedded.stand_ins import drawing
from sweeper.embedded.stand_ins.value_changes import CHANGED, make_even

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.nodes.base import Context
    from sweeper.embedded.stand_ins.node_reading import NodeReading

    Array = NDArray[Any]

Ui = dict[str, list[Any]]
_SHOWS: Final = re.compile(r"preview|show|display|compare|view", re.IGNORECASE)
_ANIMATIONS: Final = ("webp", "gif", "png")
_FIRST_TAG: Final = 0x0110  # of EXIF, and those below: where ComfyUI writes the metadata of an animated WebP
_MAX_TEXT = 1_000_000  # characters of a text that a job keeps


def save_inputs(context: Context, reading: NodeReading) -> Ui:
    """Save what reaches an output node, and return its `ui`."""
    shows = bool(_SHOWS.search(reading.class_type))
    prefix = _find_prefix(reading)
    ui: Ui = {}
    for saved in _iter_media(context, reading, prefix, shows=shows):
        for name, entries in saved.items():
            ui.setdefault(name, []).extend(entries)
    texts = [one.value[:_MAX_TEXT] for one in reading.linked if isinstance(one.value, str)]
    if not texts and not ui and reading.prompt and not reading.linked:
        texts = [reading.prompt]
    if shows:
        texts += [json.dumps(one.value) for one in reading.linked if isinstance(one.value, bool | int | float)]
    if texts:
        ui["text"] = texts
    if not ui:
        size = drawing.plan_size({**reading.merge().sizes, **reading.sizes})
        ui = _save_images(context, mark_images(drawing.draw_image(context, reading.merge(), size)), prefix, shows=shows)
    return ui


def _find_prefix(reading: NodeReading) -> str:
    prefix = next((value for name, value in reading.widgets.items() if name.endswith("prefix")), None)
    return prefix if isinstance(prefix, str) and prefix.strip() else "ComfyUI"


def _transform_inputs(context: Context, reading: NodeReading) -> Iterator[tuple[str, Any]]:
    """The pictures, films and sounds that reach the node, by type, changed by its own values if it has any."""
    media = [one for one in reading.linked if one.kind in {"IMAGE", "MASK", "VIDEO", "AUDIO"}]
    history = reading.merge(*media)
    for one in media:
        value = CHANGED[one.kind](context, one.value, history) if np.any(history.features) else one.value
        yield one.kind, mark_value(value) if value is not one.value else value


def _iter_media(context: Context, reading: NodeReading, prefix: str, *, shows: bool) -> Iterator[Ui]:
    media = list(_transform_inputs(context, reading))
    sounds = [value for kind, value in media if kind == "AUDIO"]
    for kind, value in media:
        if kind == "IMAGE":
            rate = reading.sizes.get("fps")
            if rate is not None and len(value) > 1 and _is_animation(reading):
                yield _save_animation(context, value, rate, prefix, reading)
            elif rate is not None and len(value) > 1:
                sound, sounds = (sounds[0], []) if sounds else (None, sounds)
                frames = media_files.Film(make_even(value)[..., :3], Fraction(rate).limit_denominator(1000), sound)
                yield _save_film(context, frames, prefix)
            else:
                yield _save_images(context, value, prefix, shows=shows)
        elif kind == "MASK":
            grey = np.repeat(value.reshape(-1, *value.shape[-2:])[..., None], 3, axis=-1)
            yield _save_images(context, grey, prefix, shows=shows)
        elif kind == "VIDEO":
            yield _save_film(context, value, prefix)
    for sound in sounds:
        save = media_files.preview_audio if shows else media_files.save_flac
        named = {} if shows else {"filename_prefix": prefix}
        yield dict(save(context, sound, **named).ui or {})


def _save_images(context: Context, images: Any, prefix: str, *, shows: bool) -> Ui:
    saved = picture_files.preview_image(context, images) if shows else picture_files.save_image(context, images, prefix)
    return dict(saved.ui or {})


def _is_animation(reading: NodeReading) -> bool:
    """Whether frames become an animated picture: if the node says so, or if nothing here writes films."""
    said = f"{reading.class_type} {reading.widgets.get('format', '')}".lower()
    return any(word in said for word in _ANIMATIONS) or importlib.util.find_spec("av") is None


def _save_animation(context: Context, images: Any, rate: float, prefix: str, reading: NodeReading) -> Ui:
    first, *others = to_pil_images(images)
    exif = Image.Exif()
    for number, (key, text) in enumerate(picture_files.make_metadata(context).items()):
        exif[_FIRST_TAG - number] = f"{key}:{text}"
    options = {"duration": round(1000 / rate), "exif": exif, "lossless": reading.widgets.get("lossless") is True}
    if isinstance(quality := reading.widgets.get("quality"), int):
        options["quality"] = min(max(quality, 0), 100)

    def write(path: Path, picture: Image.Image) -> None:
        picture.save(path, "WEBP", save_all=True, append_images=others, **options)

    return {"images": save_files(context, prefix, ".webp", [first], write, size=first.size), "animated": [True]}


def _save_film(context: Context, film: Any, prefix: str) -> Ui:
    saved = media_files.save_video(context, video=film, filename_prefix=prefix, format="auto", codec="auto")
    return dict(saved.ui or {})


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
