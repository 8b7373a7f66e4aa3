"""Makes the outputs of a stand-in, one function for each type of ComfyUI; other types get a `History`.

What comes in goes on, transformed; the second output of a type gets the second input of it. What does not come in is
made of everything upstream.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

import numpy as np

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.arrays import Array, check_size
from sweeper.embedded.diffusion.models import Clip
from sweeper.embedded.diffusion.painter import Guider, find_hand, make_levels
from sweeper.embedded.diffusion.vocabulary import FEATURES
from sweeper.embedded.nodes import Context, media_files
from sweeper.embedded.nodes.images import match_channels, resize_image
from sweeper.embedded.nodes.media_files import Film
from sweeper.embedded.nodes.sampling import SeededNoise, vae_decode
from sweeper.embedded.stand_ins import OutputRequest, drawing
from sweeper.embedded.stand_ins.drawing import DrawnSize, draw_image, draw_latent, find_sides, plan_size, project
from sweeper.embedded.stand_ins.histories import (
    MAX_TEXT,
    LinkedInput,
    NodeReading,
    is_switch,
    make_direction,
    merge_histories,
)
from sweeper.model.expressions import ExpressionError, compile_expression

_LARGEST_RESIZED = 16 * 2**20  # pixels of a picture in a new size
_MAX_NUMBER = 2**64  # of a computed number
_FRAME_STEP = 4  # frames for each latent of a film, as Wan's
_MODEL_SUFFIX: Final = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx)$", re.IGNORECASE)
_SIDE_NAMES: Final = frozenset({"width", "height", "aspect", "short_side", "megapixels"})  # sizes that ask for sides


def make_output(context: Context, reading: NodeReading, request: OutputRequest) -> Any:
    if request.type in _PYTHON_TYPES:
        return _make_scalar(reading, request)
    found = reading.list_kind(request.type)
    return _make(context, reading, request, found[min(request.number, len(found) - 1)] if found else None)


def transform_value(context: Context, reading: NodeReading, source: LinkedInput, request: OutputRequest) -> Any:
    """What comes in at one input, as an output of a type that follows it."""
    if source.kind not in _NEW and source.kind not in _DRAWN:
        return source.value
    return _make(context, reading, replace(request, type=source.kind), source)


def _make(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Any:
    """What comes in, else a new value, changed by everything else that the node knows."""
    if request.type in _NAMED:  # a value that is only a name: another history is another name
        name = _name_model(reading) if source is None else str(getattr(source.value, "name", "")) or request.type
        return _NAMED[request.type](f"{name}~{reading.merge(source).compute_digest()}")
    if request.type in _DRAWN:
        return _DRAWN[request.type](context, reading, request, source)
    if request.type not in _NEW:
        return reading.merge()
    history = reading.merge(source)
    if request.type == "CONDITIONING":
        history = reading.merge(*reading.list_kind("CONDITIONING"))  # the positive prompt must not colour the negative
        if source is None and "neg" in request.name.lower():
            history = replace(history, features=reading.features)
    value = _NEW[request.type](context, reading, request) if source is None else source.value
    return drawing.CHANGES[request.type](context, value, history)


def _name_model(reading: NodeReading) -> str:
    """The model file that the node names, else its class; it never leads out of a folder."""
    texts = [value for value in reading.widgets.values() if isinstance(value, str) and _MODEL_SUFFIX.search(value)]
    name = texts[0] if texts else reading.class_type
    return re.sub(r"[^\w.\- ]+", "_", re.split(r"[\\/]", name)[-1])[:200].strip(". ") or "stand-in"


# --- sizes -----------------------------------------------------------------------------------------------------------


def _all_sizes(reading: NodeReading) -> Mapping[str, float]:
    """The sizes that the node asks for, else those upstream; its own `aspect` or side replaces theirs as a whole."""
    upstream = dict(merge_histories(linked.history for linked in reading.linked).sizes)
    own = reading.sizes
    if _SIDE_NAMES & own.keys():
        upstream = {name: size for name, size in upstream.items() if name not in _SIDE_NAMES}
    if "frames" in own:
        upstream.pop("batch", None)  # the pictures upstream are frames too
    return {**upstream, **own}


def _resize_as_asked(reading: NodeReading, image: Array) -> Array:
    """The image in the size that the node's own inputs name; an upscaler that names none makes it four times larger."""
    height, width = image.shape[1:3]
    wanted_width, wanted_height = reading.sizes.get("width"), reading.sizes.get("height")
    factor = reading.sizes.get("scale", 4.0 if "upscale" in reading.class_type.lower() else 1.0)
    if wanted_width or wanted_height:
        new_width = wanted_width or width * (wanted_height or height) / height
        new_height = wanted_height or height * (wanted_width or width) / width
    else:
        if area := reading.sizes.get("megapixels"):
            factor = (area * 1e6 / (width * height)) ** 0.5
        new_width, new_height = width * factor, height * factor
    most = drawing.LARGEST_FILM / len(image) if len(image) > 1 else _LARGEST_RESIZED
    sides = max(1, round(new_width)), max(1, round(new_height))
    if new_width * new_height > most:
        sides = drawing.fit_sides(new_width, new_height, most)
    return image if sides == (width, height) else resize_image(image, *sides, "bilinear")


def _find_number(reading: NodeReading, name: str, default: float) -> float:
    value = reading.values.get(name, default)
    return float(value) if isinstance(value, int | float) else default


# --- pictures and films ----------------------------------------------------------------------------------------------


def _make_image(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Array:
    """What comes in, edited; else a decoded latent, else the frames of a film, else a new scene."""
    if source is not None:
        return _edit_image(context, reading, source)
    for coded in reading.list_kind("LATENT")[:1]:
        if np.any(coded.value["samples"]):
            decoded = vae_decode(context, coded.value, reading.find("VAE") or drawing.PLAIN_VAE)
            return drawing.change_image(context, decoded, reading.merge(coded))
    for film in reading.list_kind("VIDEO")[:1]:
        return drawing.change_image(context, film.value.images, reading.merge(film))
    # The pictures are frames of one scene if a length says so, or the pictures upstream.
    batches = any(linked.history.sizes.get("batch", 1) > 1 for linked in reading.linked)
    return _draw(context, reading, film=batches or "frames" in _all_sizes(reading), item=request.number)


def _edit_image(context: Context, reading: NodeReading, source: LinkedInput) -> Array:
    """What comes in, with the other pictures, and with the scene that an edit describes."""
    history = reading.merge(source)
    image = _resize_as_asked(reading, source.value)
    if "batch" in reading.class_type.lower():
        others = [linked.value for linked in reading.list_kind("IMAGE") if linked is not source]
        image = join_images([image, *others])
    if reading.is_seeded and reading.prompt:
        sides = {"width": float(image.shape[2]), "height": float(image.shape[1])}
        image = drawing.mix_images(image, draw_image(context, history, plan_size(sides)), 0.45)
    return drawing.change_image(context, image, history)


def join_images(images: list[Array]) -> Array:
    """One batch of several, in the size and with the channels of the first."""
    height, width, channels = images[0].shape[1:]
    check_size(sum(len(image) for image in images), height, width, channels)
    return np.concatenate(
        [resize_image(match_channels(image, channels), width, height, "bilinear") for image in images]
    )


def _draw(context: Context, reading: NodeReading, *, film: bool, item: int = 0) -> Array:
    sizes = _all_sizes(reading)
    history, size = reading.merge(), plan_size({"frames": sizes.get("batch", 0.0), **sizes}, film=film)
    history = replace(history, seed=(history.seed + item) % 2**64)
    return drawing.draw_frames(history, size) if film else draw_image(context, history, size)


def _make_video(context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Film:
    audio = reading.find("AUDIO")
    if source is not None:
        film = source.value
        resized = replace(film, images=_resize_as_asked(reading, film.images), audio=audio or film.audio)
        return drawing.change_film(context, resized, reading.merge(source))
    pictures = reading.list_kind("IMAGE")
    if pictures and len(pictures[0].value) > 1 and not reading.prompt:
        frames = drawing.change_image(context, drawing.make_even(pictures[0].value), reading.merge(pictures[0]))
    else:
        frames = _draw(context, reading, film=True)
    fps = plan_size(_all_sizes(reading), film=True).fps
    return Film(frames, Fraction(fps).limit_denominator(1000), audio)


# --- latents ---------------------------------------------------------------------------------------------------------


def _make_latent(
    _context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None
) -> dict[str, Any]:
    """Sampled if the node has a seed; else what comes in, an encoded picture, or an empty latent of the size."""
    given = source is not None and np.any(source.value["samples"])
    if reading.is_seeded and not given:
        return _draw_latents(reading, source)
    pictures = reading.list_kind("IMAGE")
    if source is not None and (given or not pictures):
        samples = drawing.change_samples(source.value["samples"], reading.merge(source))
        return {**source.value, "samples": samples}
    if "CONDITIONING" not in request.siblings:
        if pictures:
            image = match_channels(_resize_as_asked(reading, pictures[0].value), 3)
            encoded, _ = coder.encode(image, reading.find("VAE") or drawing.PLAIN_VAE)
            return {"samples": drawing.change_samples(encoded, reading.merge(pictures[0]))}
        if reading.merge().text or reading.list_kind("AUDIO") or reading.list_kind("VIDEO"):
            return _draw_latents(reading, None)
    sizes = _all_sizes(reading)
    size = plan_size(sizes, film="frames" in sizes)
    return _shape_latent(np.zeros((size.batch, 4, size.height // 8, size.width // 8), np.float32), sizes, size)


def _draw_latents(reading: NodeReading, source: LinkedInput | None) -> dict[str, Any]:
    sizes, history = _all_sizes(reading), reading.merge()
    size = plan_size(sizes, film="frames" in sizes)
    samples = np.stack([draw_latent(history, size.width, size.height, item) for item in range(size.batch)])
    return {**({} if source is None else source.value), **_shape_latent(samples, sizes, size)}


def _shape_latent(samples: Array, sizes: Mapping[str, float], size: DrawnSize) -> dict[str, Any]:
    """A film's latents are [B, 4, t, h, w], one for every four frames, and wander a little.

    Those of a sound have no frames, so its `seconds` travel beside them.
    """
    length = {"seconds": size.seconds} if "seconds" in sizes else {}
    if "frames" not in sizes:
        return {"samples": samples, **length}
    count = (size.frames - 1) // _FRAME_STEP + 1
    moved = [np.roll(samples, round(3 * np.sin(index / max(count, 1) * 6.28)), axis=-1) for index in range(count)]
    return {"samples": np.stack(moved, axis=2), **length}


# --- what samplers take ----------------------------------------------------------------------------------------------


def _make_conditioning(_context: Context, reading: NodeReading, request: OutputRequest) -> list[list[Any]]:
    clip = reading.find("CLIP") or Clip("stand-in", (0.0,) * len(FEATURES))
    return [[models.embed(clip, reading.negative if "neg" in request.name.lower() else ""), {}]]


def _make_sigmas(_context: Context, reading: NodeReading, _request: OutputRequest) -> Array:
    steps = int(min(max(_find_number(reading, "steps", 12), 1), 1000))
    denoise = min(max(_find_number(reading, "denoise", 1.0), 0.01), 1.0)
    return make_levels("normal", max(int(steps / denoise), 1))[-(steps + 1) :]


def _make_guider(context: Context, reading: NodeReading, request: OutputRequest) -> Guider:
    sides = [linked.value for linked in reading.list_kind("CONDITIONING")] or [
        _make_conditioning(context, reading, request)
    ]
    model = reading.find("MODEL") or models.load_model(_name_model(reading))
    return Guider(model, sides[0], sides[1] if len(sides) > 1 else None, _find_number(reading, "cfg", 5.0))


def _make_audio(_context: Context, reading: NodeReading, _request: OutputRequest) -> dict[str, Any]:
    for film in reading.list_kind("VIDEO"):
        if film.value.audio is not None:
            return dict(film.value.audio)
    history = reading.merge()
    tune = project(replace(history, features=history.features + make_direction(f"seed={history.seed}")))
    return media_files.play(tune, int(plan_size(_all_sizes(reading)).seconds * media_files.RATE))


_NEW: Final[Mapping[str, Callable[[Context, NodeReading, OutputRequest], Any]]] = {
    "AUDIO": _make_audio,
    "CLIP": lambda _context, reading, _: models.load_clip(_name_model(reading)),
    "CONDITIONING": _make_conditioning,
    "GUIDER": _make_guider,
    "MASK": lambda context, reading, _: drawing.draw_mask(
        context, reading.merge(), reading.find("IMAGE"), plan_size(_all_sizes(reading))
    ),
    "MODEL": lambda _context, reading, _: models.load_model(_name_model(reading)),
    "SIGMAS": _make_sigmas,
}
_DRAWN: Final[Mapping[str, Callable[[Context, Any, OutputRequest, Any], Any]]] = {
    "IMAGE": _make_image, "LATENT": _make_latent, "VIDEO": _make_video
}  # fmt: skip
_NAMED: Final[Mapping[str, Callable[[str], Any]]] = {
    "NOISE": lambda name: SeededNoise(int(name.rpartition("~")[2], 16)),
    "SAMPLER": find_hand,
    "VAE": models.load_vae,
}


# --- texts, numbers and choices: upstream values go on unless the class makes new ones

_WORDS: Final = (
    "calm", "bright", "soft", "golden", "quiet", "wide", "distant", "vivid", "pale", "warm", "cool", "clear", "old",
    "new", "fine", "bold",
)  # fmt: skip
_SIZE_WORDS: Final = {"width": "width", "height": "height", "batch": "batch", "count": "batch", "frames": "frames"}
_USUAL_SIZE: Final = {"width": 512, "height": 512, "batch": 1, "frames": 33}
_PYTHON_TYPES: Final[dict[str, type]] = {"STRING": str, "INT": int, "FLOAT": float, "BOOLEAN": bool, "COMBO": str}


def _make_scalar(reading: NodeReading, request: OutputRequest) -> Any:
    if request.type == "STRING":
        return _make_text(reading, request)
    if request.type == "COMBO":
        texts = [value for value in reading.values.values() if isinstance(value, str)]
        fitting = [text for text in texts if text in request.choices or not request.choices]
        return (fitting or [*request.choices, reading.merge().text])[0]
    found = _compute_expression(reading)
    found = _find_same(reading, request) if found is None else found
    return _measure(reading, request) if found is None else _PYTHON_TYPES[request.type](found)


def _compute_expression(reading: NodeReading) -> float | None:
    """The value of the node's `expression` over its other numbers; None if it has none that is arithmetic."""
    expression = reading.values.get("expression")
    numbers = {name.rpartition(".")[2]: value for name, value in reading.values.items() if _is_of(value, float)}
    try:
        value = compile_expression(expression).evaluate(numbers) if isinstance(expression, str) else None
    except ExpressionError:
        return None
    return value if isinstance(value, int | float) and abs(value) <= _MAX_NUMBER else None


def _find_same(reading: NodeReading, request: OutputRequest) -> Any:
    """The input of the output's name or else of its type, upstream ones first; None if there is none."""
    fitting = {name: value for name, value in reading.values.items() if _is_of(value, _PYTHON_TYPES[request.type])}
    for name, value in fitting.items():
        if name.rpartition(".")[2].lower() == request.name.lower():
            return value
    chosen = reading.choose({name: value for name, value in fitting.items() if not is_switch(name)})
    if chosen is not None:
        return fitting[chosen]
    if request.type == "INT" and _find_size_word(request) is not None:
        return None  # other numbers of the node are not sizes
    return next(iter(fitting.values()), None)


def _is_of(value: Any, wanted: type) -> bool:
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, int | float) and math.isfinite(value) if wanted is float else isinstance(value, wanted)


def _measure(reading: NodeReading, request: OutputRequest) -> Any:
    """A number of what is upstream: the size of a picture, or one between 0 and 1."""
    history = reading.merge()
    size = _find_size_word(request)
    share = 0.5 + 0.5 * float(project(history)[0])
    if request.type == "BOOLEAN":
        return share > 0.5
    if request.type == "FLOAT":
        return float(history.sizes.get("fps", share)) if "fps" in request.name.lower() else share
    if size in {"width", "height"} and _SIDE_NAMES & history.sizes.keys():
        step = int(min(max(_find_number(reading, "multiple", 8), 1), 256))
        side = find_sides(history.sizes)[size == "height"]
        return round(side) if size in history.sizes else max(round(side / step), 1) * step
    if size is not None:
        return int(history.sizes.get(size, _USUAL_SIZE[size]))
    return max(1, round(8 * share))  # it may be a count or a length


def _find_size_word(request: OutputRequest) -> str | None:
    return next((size for word, size in _SIZE_WORDS.items() if word in request.name.lower()), None)


def _make_text(reading: NodeReading, request: OutputRequest) -> str:
    """The texts that come in, joined; a class that writes (it has a seed, or reads a picture) adds words of its own."""
    given = {name: value for name, value in reading.values.items() if isinstance(value, str)}
    chosen = request.name if request.name in reading.widgets else reading.choose(given)
    if chosen in given and not reading.is_seeded:
        return str(given[chosen])
    texts = [linked.value for linked in reading.list_kind("STRING")]
    joined = ", ".join(text for text in dict.fromkeys([*texts, reading.prompt]) if text)
    reads = any(not isinstance(linked.value, str | int | float) for linked in reading.linked)
    if not joined and not reads:
        joined = ", ".join(str(value) for value in reading.widgets.values() if isinstance(value, str | int | float))
    if reading.is_seeded or reads or not joined:
        subject = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reading.class_type)
        words = " ".join(_WORDS[int(digit, 16)] for digit in reading.merge().compute_digest()[:6])
        joined = f"{joined or reading.merge().text or subject}, {words}"
    return joined[: MAX_TEXT * 4]
