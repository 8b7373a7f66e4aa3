"""Runs one node of a stand-in: makes its outputs, and saves what reaches it if it is an output node."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.nodes import Context, NodeOutput, images, media_files
from sweeper.embedded.nodes.media_files import Film, save_files, to_pil_images
from sweeper.embedded.stand_ins import ClassShape, OutputRequest
from sweeper.embedded.stand_ins.drawing import CHANGES, draw_image, make_even, plan_size
from sweeper.embedded.stand_ins.histories import NodeReading, find_kind, read_inputs
from sweeper.embedded.stand_ins.output_values import join_images, make_output, transform_value
from sweeper.embedded.validation import is_link

Ui = dict[str, list[Any]]
_MAX_LIST = 64  # items that an output with OUTPUT_IS_LIST gives, or that are joined
_SHOWS: Final = re.compile(r"preview|show|display|compare|view", re.IGNORECASE)
_ANIMATIONS: Final = re.compile(r"webp|gif|png", re.IGNORECASE)
_FIRST_TAG: Final = 0x0110  # of EXIF, and those below: where ComfyUI writes the metadata of an animated WebP
_MAX_TEXT = 1_000_000  # characters of a text that a job keeps
METADATA_KEY: Final = "sweeper_stand_ins"
_LIGHT, _DARK = 0.85, 0.15  # of the mark on pictures


def run_stand_in(shape: ClassShape, context: Context, inputs: Mapping[str, Any]) -> NodeOutput:
    """Make the outputs of a node from its inputs, and save what reaches it if it is an output node."""
    context.check()
    written = context.prompt.get(context.node_id, {}).get("inputs", {})
    links = [name for name in inputs if is_link(written.get(name))]
    if shape.input_is_list:
        inputs = {name: _join_items(items) for name, items in inputs.items() if items}
    required, optional = shape.select_inputs(written)
    reading = read_inputs(shape.spec.class_type, {**required, **optional}, inputs, links)
    values = tuple(_iter_values(shape, context, reading))
    return NodeOutput(values, _save_inputs(context, reading) if shape.spec.is_output else None)


def _iter_values(shape: ClassShape, context: Context, reading: NodeReading) -> Iterator[Any]:
    for request in shape.outputs:
        context.check()
        value = _make_value(context, shape, reading, request)
        yield _split_items(value) if request.is_list else value


def _make_value(context: Context, shape: ClassShape, reading: NodeReading, request: OutputRequest) -> Any:
    if "," in request.type:  # a union
        kinds = [kind.strip() for kind in request.type.split(",")]
        kind = next((linked.kind for linked in reading.linked if linked.kind in kinds), kinds[0])
        request = replace(request, type=kind)
    if request.type != "*":
        return make_output(context, reading, request)
    template = request.template  # the output follows an input: one of its template, if it has one
    linked = [given for given in reading.linked if not template or shape.find_template(given.name) == template]
    values = {given.name: given.value for given in linked}
    if template:
        values |= {name: value for name, value in reading.widgets.items() if shape.find_template(name) == template}
    chosen = reading.choose(values)
    if chosen is not None:
        return values[chosen]
    if linked:
        return transform_value(context, reading, linked[0], request)
    literals = [value for value in reading.widgets.values() if not template and value is not None]
    return literals[0] if literals and not reading.linked else make_output(context, reading, request)


def _join_items(items: list[Any]) -> Any:
    """One value of a list: pictures become a batch, texts one text; of others the first one goes on."""
    kinds = {find_kind(item) for item in items}
    if kinds == {"IMAGE"}:
        return join_images(items[:_MAX_LIST])
    return ", ".join(items[:_MAX_LIST]) if kinds == {"STRING"} else items[0]


def _split_items(value: Any) -> list[Any]:
    """The list of a list output: the pictures of a batch one by one, other values alone."""
    if find_kind(value) in {"IMAGE", "MASK"} and value.ndim >= 3:
        return [value[index : index + 1] for index in range(min(len(value), _MAX_LIST))]
    return [value]


# --- what is saved and shown ------------------------------------------------------------------------------------------


def _save_inputs(context: Context, reading: NodeReading) -> Ui:
    """Save what reaches an output node, and return its `ui`."""
    shows = bool(_SHOWS.search(reading.class_type))
    prefix = next((value for name, value in reading.widgets.items() if name.endswith("prefix")), None)
    prefix = prefix if isinstance(prefix, str) and prefix.strip() else "ComfyUI"
    ui: Ui = {}
    shown = None if shows else prefix  # as previews, which are temporary
    for saved in _iter_media(context, reading, prefix, shown):
        for name, entries in (saved or {}).items():
            ui.setdefault(name, []).extend(entries)
    texts = [given.value[:_MAX_TEXT] for given in reading.linked if isinstance(given.value, str)]
    if not texts and not ui and reading.prompt and not reading.linked:
        texts = [reading.prompt]
    if shows:
        texts += [json.dumps(given.value) for given in reading.linked if isinstance(given.value, bool | int | float)]
    if texts:
        ui["text"] = texts
    if not ui:
        size = plan_size({**reading.merge().sizes, **reading.sizes})
        scene = mark_images(draw_image(context, reading.merge(), size))
        ui |= media_files.save_image(context, scene, shown).ui or {}
    return ui


def _iter_media(
    context: Context, reading: NodeReading, prefix: str, shown: str | None
) -> Iterator[Mapping[str, list[Any]] | None]:
    """Save the pictures, films and sounds that reach the node, changed by its own values if it has any.

    `shown` is the prefix of pictures and sounds.
    """
    linked = [given for given in reading.linked if given.kind in {"IMAGE", "MASK", "VIDEO", "AUDIO"}]
    history = reading.merge(*linked)
    media = [(given.kind, given.value) for given in linked]
    if np.any(history.features):
        media = [(kind, mark_value(CHANGES[kind](context, value, history))) for kind, value in media]
    sounds = [value for kind, value in media if kind == "AUDIO"]
    said = f"{reading.class_type} {reading.widgets.get('format', '')}"
    is_animation = _ANIMATIONS.search(said) or importlib.util.find_spec("av") is None  # nothing here writes films
    for kind, value in media:
        if kind == "IMAGE":
            rate = reading.sizes.get("fps")
            if rate is not None and len(value) > 1 and is_animation:
                yield _save_animation(context, value, rate, prefix, reading)
            elif rate is not None and len(value) > 1:
                sound, sounds = (sounds[0], []) if sounds else (None, sounds)
                frames = media_files.Film(make_even(value)[..., :3], Fraction(rate).limit_denominator(1000), sound)
                yield media_files.save_video(context, video=frames, filename_prefix=prefix).ui
            else:
                yield media_files.save_image(context, value, shown).ui
        elif kind == "MASK":
            yield media_files.save_image(context, images.to_image(value), shown).ui
        elif kind == "VIDEO":
            yield media_files.save_video(context, video=value, filename_prefix=prefix).ui
    for sound in sounds:
        yield media_files.save_flac(context, sound, shown).ui


def _save_animation(context: Context, images: Any, rate: float, prefix: str, reading: NodeReading) -> Ui:
    first, *others = to_pil_images(images)
    exif = Image.Exif()
    for number, (key, text) in enumerate(media_files.make_metadata(context).items()):
        exif[_FIRST_TAG - number] = f"{key}:{text}"
    options = {"duration": round(1000 / rate), "exif": exif, "lossless": reading.widgets.get("lossless") is True}

    def write(file: BinaryIO, picture: Image.Image) -> None:
        picture.save(file, "WEBP", save_all=True, append_images=others, **options)

    return {"images": save_files(context, prefix, ".webp", [first], write), "animated": [True]}


def mark_value(value: Any) -> Any:
    """The same pictures or film with the mark; other values as they are."""
    if isinstance(value, np.ndarray) and (value.ndim == 3 or (value.ndim == 4 and value.shape[-1] in {1, 3, 4})):
        return mark_images(value)
    if isinstance(value, Film):
        return replace(value, images=mark_images(value.images))
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
    corner = marked[:, bottom - side : bottom, right - side : right]
    if images.ndim == 3:
        corner[:] = square
    else:
        corner[..., :3], corner[..., 3:] = square[..., None], 1
    return marked
