"""Makes the outputs of a stand-in, one function for each type of ComfyUI; other types get a `History`.

What comes in goes on, transformed; the second output of a type gets the second input of it. What does not come in is
made of everything upstream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sweeper.embedded.diffusion import models, schedules
from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.guidance import Guider
from sweeper.embedded.diffusion.models import Clip, Model, Vae
from sweeper.embedded.diffusion.scaling import check_size
from sweeper.embedded.diffusion.schedules import Sampling
from sweeper.embedded.diffusion.vocabulary import FEATURES
from sweeper.embedded.nodes import conditioning, latents, sound, upscaling
from sweeper.embedded.nodes.base import Context
from sweeper.embedded.nodes.media_files import Film
from sweeper.embedded.nodes.sampling import NamedSampler, SeededNoise
from sweeper.embedded.stand_ins import drawing
from sweeper.embedded.stand_ins.features import limit_style
from sweeper.embedded.stand_ins.histories import SIDE_NAMES, History, digest_history, merge_histories
from sweeper.embedded.stand_ins.scalar_outputs import make_scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.stand_ins.node_reading import LinkedInput, NodeReading, OutputRequest

    Array = NDArray[Any]

_LARGEST_RESIZED = 16 * 2**20  # pixels of a picture in a new size
_MAX_LAYERS = 32  # of a picture in layers
_FRAME_STEP = 4  # frames for each latent of a film, as Wan's
_MODEL_SUFFIX: Final = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx)$", re.IGNORECASE)
_SCALARS: Final = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"})
_LOADERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "CONTROL_NET": conditioning.load_control_net,
    "UPSCALE_MODEL": upscaling.load,
}


def make_output(context: Context, reading: NodeReading, request: OutputRequest) -> Any:
    """Make the value of an output."""
    if request.type in _SCALARS:
        return make_scalar(reading, request)
    if request.type in _LOADERS:
        return _load_named(reading, request)
    source = _pick_source(reading, request)
    make = _MAKERS.get(request.type)
    if make is None:
        return reading.merge()
    return make(context, reading, request, source)


def _pick_source(reading: NodeReading, request: OutputRequest) -> LinkedInput | None:
    found = reading.list_kind(request.type)
    return found[min(request.number, len(found) - 1)] if found else None


def _rest(reading: NodeReading, source: LinkedInput | None) -> History:
    """Everything but the value that goes on."""
    return reading.merge() if source is None else reading.merge(source)


def _name_model(reading: NodeReading) -> str:
    """The model file that the node names, else its class; it never leads out of a folder."""
    texts = [value for value in reading.widgets.values() if isinstance(value, str) and _MODEL_SUFFIX.search(value)]
    name = texts[0] if texts else reading.class_type
    return re.sub(r"[^\w.\- ]+", "_", re.split(r"[\\/]", name)[-1])[:200].strip(". ") or "stand-in"


def _load_named(reading: NodeReading, request: OutputRequest) -> Any:
    """A value of the server that is only a name: another history is another name."""
    source = _pick_source(reading, request)
    name = _name_model(reading) if source is None else str(getattr(source.value, "name", "")) or request.type
    return _LOADERS[request.type](f"{name}~{digest_history(_rest(reading, source))}")


def _make_model(_context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Model:
    model = models.load_model(_name_model(reading)) if source is None else source.value
    return replace(model, style=_add(model.style, _rest(reading, source).features))


def _make_clip(_context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Clip:
    clip = models.load_clip(_name_model(reading)) if source is None else source.value
    return replace(clip, bias=_add(clip.bias, _rest(reading, source).features))


def _add(own: models.Features, features: Array) -> models.Features:
    total: models.Features = tuple(limit_style(np.array(own, np.float32) + features).tolist())
    return total


def _make_vae(_context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Vae:
    vae = models.load_vae(_name_model(reading)) if source is None else source.value
    numbers = drawing.project(_rest(reading, source)).tolist()
    textures = [min(max(old + 0.3 * new, 0.0), 1.0) for old, new in zip(vae.textures, numbers, strict=False)]
    strokes, grain, hatch, paper = textures
    return replace(vae, textures=(strokes, grain, hatch, paper), crisp=min(max(vae.crisp + 0.2 * numbers[4], 0.3), 1.2))


def _make_conditioning(
    _context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None
) -> list[list[Any]]:
    others = reading.list_kind("CONDITIONING")
    history = reading.merge(*others)  # the positive prompt must not colour the negative one
    if source is not None:
        return [[_add_to_rows(rows, history.features), dict(options)] for rows, options in source.value]
    is_negative = "neg" in request.name.lower()
    clip = next((one.value for one in reading.list_kind("CLIP")), Clip("stand-in", (0.0,) * len(FEATURES)))
    text = reading.negative if is_negative else ""
    features = reading.features if is_negative else history.features
    return [[_add_to_rows(models.embed(clip, text), features), {}]]


def _add_to_rows(rows: Array, features: Array) -> Array:
    changed = rows.copy()
    changed[:, 0] += features
    return changed


def _make_image(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Array:
    if source is None:
        coded = reading.list_kind("LATENT")
        if coded and np.any(coded[0].value["samples"]) and coded[0].value["samples"].shape[1] == 4:
            vae = next((one.value for one in reading.list_kind("VAE")), drawing.PLAIN_VAE)
            decoded = latents.vae_decode(context, coded[0].value, vae)
            return drawing.transform_image(context, decoded, reading.merge(coded[0]))
        films = reading.list_kind("VIDEO")
        if films:
            return drawing.transform_image(context, films[0].value.load().images, reading.merge(films[0]))
        return _draw(context, reading, film=_shows_film(reading), item=request.number)
    history = reading.merge(source)
    image = _resize_as_asked(reading, source.value)
    others = [one.value for one in reading.list_kind("IMAGE") if one.name != source.name]
    if others and "batch" in reading.class_type.lower():
        image = join_images([image, *others])
    elif others:
        image = drawing.mix_images(image, others, 0.4)
    if reading.is_seeded and reading.prompt:  # an edit: the scene that it describes shows
        height, width = image.shape[1:3]
        scene = drawing.draw_image(
            context, history, drawing.plan_size({"width": float(width), "height": float(height)})
        )
        image = drawing.mix_images(image, [scene], 0.45)
    return drawing.transform_image(context, image, history)


def join_images(images: list[Array]) -> Array:
    """One batch of several, in the size and with the channels of the first."""
    first = images[0]
    height, width, channels = first.shape[1:]
    check_size(sum(len(image) for image in images), height, width, channels)
    fitted = [drawing.fit_image(drawing.match_channels(image, channels), width, height) for image in images]
    return np.concatenate(fitted)


def _all_sizes(reading: NodeReading) -> Mapping[str, float]:
    """The sizes that the node asks for, else those upstream; its own `aspect` or side replaces theirs as a whole."""
    upstream = dict(merge_histories(one.history for one in reading.linked).sizes)
    own = reading.sizes
    if SIDE_NAMES & own.keys():
        upstream = {name: size for name, size in upstream.items() if name not in SIDE_NAMES}
    return {**upstream, **own}


def _shows_film(reading: NodeReading) -> bool:
    """Whether the pictures are frames of one scene: a length says so, or the pictures upstream."""
    return "frames" in _all_sizes(reading) or any(one.history.sizes.get("batch", 1) > 1 for one in reading.linked)


def _draw(context: Context, reading: NodeReading, *, film: bool, item: int = 0) -> Array:
    sizes = _all_sizes(reading)
    history, size = reading.merge(), drawing.plan_size({"frames": sizes.get("batch", 0.0), **sizes}, film=film)
    history = replace(history, seed=(history.seed + item) % 2**64)
    return drawing.draw_frames(history, size) if film else drawing.draw_image(context, history, size)


def _resize_as_asked(reading: NodeReading, image: Array) -> Array:
    """The image in the size that the node's own inputs name, if they name one."""
    height, width = image.shape[1:3]
    wanted_width, wanted_height = reading.sizes.get("width"), reading.sizes.get("height")
    factor = reading.sizes.get("scale", 1.0)
    if wanted_width or wanted_height:
        new_width = wanted_width or width * (wanted_height or height) / height
        new_height = wanted_height or height * (wanted_width or width) / width
    else:
        if area := reading.sizes.get("megapixels"):
            factor = (area * 1e6 / (width * height)) ** 0.5
        new_width, new_height = width * factor, height * factor
    most = drawing.LARGEST_FILM / len(image) if len(image) > 1 else _LARGEST_RESIZED
    if new_width * new_height > most:
        return drawing.fit_image(image, *drawing.fit_sides(new_width, new_height, most))
    return drawing.fit_image(image, max(1, round(new_width)), max(1, round(new_height)))


def _make_mask(_context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Array:
    if source is not None:
        mask = source.value if source.value.ndim == 3 else source.value[None]
        return drawing.transform_mask(mask, reading.merge(source))
    pictures = reading.list_kind("IMAGE")
    size = drawing.plan_size(_all_sizes(reading))
    return drawing.draw_mask(reading.merge(), pictures[0].value if pictures else None, size)


def _make_latent(
    _context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None
) -> dict[str, Any]:
    """Sampled if the node has a seed; else what comes in, an encoded picture, or an empty latent of the size."""
    samples = None if source is None else source.value["samples"]
    if reading.is_seeded and (samples is None or not np.any(samples)):
        return _draw_latents(reading, source)
    pictures = reading.list_kind("IMAGE")
    if samples is not None and source is not None and (np.any(samples) or not pictures):
        history = reading.merge(source)
        if reading.is_seeded and samples.ndim == 4 and samples.shape[1] == 4:  # from one latent to another
            share = np.float32(min(max(float(_find_number(reading, "denoise", 0.6)), 0.0), 1.0))
            scene = drawing.draw_latent(history, samples.shape[3] * 8, samples.shape[2] * 8)
            if scene.shape[1:] == samples.shape[2:]:
                samples = np.asarray(samples + (scene[None] - samples) * share, np.float32)
        return {**source.value, "samples": drawing.transform_latent(samples, history)}
    if pictures and "CONDITIONING" not in request.siblings:
        return _encode_picture(reading, pictures[0], source)
    if reading.merge().text and "CONDITIONING" not in request.siblings:
        return _draw_latents(reading, None)
    size = drawing.plan_size(_all_sizes(reading), film="frames" in _all_sizes(reading))
    return _shape_latent(np.zeros((size.batch, 4, size.height // 8, size.width // 8), np.float32), reading, size)


def _encode_picture(reading: NodeReading, picture: LinkedInput, into: LinkedInput | None) -> dict[str, Any]:
    """A picture as latent; in the shape of an empty latent if it goes `into` one."""
    vae = next((one.value for one in reading.list_kind("VAE")), drawing.PLAIN_VAE)
    image = drawing.match_channels(_resize_as_asked(reading, picture.value), 3)
    if into is not None:
        shape = into.value["samples"].shape
        image = drawing.fit_image(image[:1], max(shape[-1], 1) * 8, max(shape[-2], 1) * 8)
    encoded, _ = coder.encode(image, vae)
    samples = drawing.transform_latent(encoded, reading.merge(picture))
    if into is not None and into.value["samples"].ndim == 5:
        samples = np.repeat(samples[:, :, None], into.value["samples"].shape[2], axis=2)
    return {"samples": samples}


def _draw_latents(reading: NodeReading, source: LinkedInput | None) -> dict[str, Any]:
    sizes = _all_sizes(reading)
    size, history = drawing.plan_size(sizes, film="frames" in sizes), reading.merge()
    samples = np.stack([drawing.draw_latent(history, size.width, size.height, item) for item in range(size.batch)])
    kept = {} if source is None else {key: value for key, value in source.value.items() if key != "pixels"}
    return {**kept, **_shape_latent(samples, reading, size)}


def _shape_latent(samples: Array, reading: NodeReading, size: drawing.DrawnSize) -> dict[str, Any]:
    """A film's latents are [B, 4, t, h, w], one for every four frames, and wander a little; layers have one each.

    Those of a sound have no frames, so its `seconds` travel beside them.
    """
    sizes = _all_sizes(reading)
    length = {"seconds": size.seconds} if "seconds" in sizes else {}
    if "frames" not in sizes and "layers" not in sizes:
        return {"samples": samples, **length}
    layers = min(max(int(sizes.get("layers", 0)), 0), _MAX_LAYERS)
    count = (size.frames - 1) // _FRAME_STEP + 1 if "frames" in sizes else layers + 1
    moved = [np.roll(samples, round(3 * np.sin(index / max(count, 1) * 6.28)), axis=-1) for index in range(count)]
    return {"samples": np.stack(moved, axis=2), **length}


def _find_number(reading: NodeReading, name: str, default: float) -> float:
    value = reading.widgets.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _make_video(context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Film:
    sounds = reading.list_kind("AUDIO")
    audio = sounds[0].value if sounds else None
    if source is not None:
        film = source.value.load()
        images = drawing.transform_image(
            context, _make_even(_resize_as_asked(reading, film.images)), reading.merge(source)
        )
        return Film(images, film.rate, audio or film.audio)
    size = drawing.plan_size(_all_sizes(reading), film=True)
    pictures = reading.list_kind("IMAGE")
    if pictures and len(pictures[0].value) > 1 and not reading.prompt:
        frames = drawing.transform_image(context, _make_even(pictures[0].value), reading.merge(pictures[0]))
    else:
        frames = _draw(context, reading, film=True)
    context.check()
    return Film(frames, Fraction(size.fps).limit_denominator(1000), audio)


def _make_even(images: Array) -> Array:
    """The pictures with even sides, as H.264 needs them."""
    return images[:, : max(images.shape[1] // 2 * 2, 1), : max(images.shape[2] // 2 * 2, 1)]


def _make_audio(
    context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None
) -> dict[str, Any]:
    if source is not None:
        return drawing.transform_sound(source.value, reading.merge(source))
    films = [one.value.load() for one in reading.list_kind("VIDEO")]
    sounds = [film.audio for film in films if film.audio is not None]
    if sounds:
        return drawing.transform_sound(sounds[0], reading.merge())
    seconds = drawing.plan_size(_all_sizes(reading)).seconds
    score = drawing.draw_latent(reading.merge(), 256, 128)[None]
    return sound.play(context, score, int(seconds * sound.RATE), drawing.PLAIN_VAE)


def _make_sigmas(_context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None) -> Array:
    numbers = drawing.project(_rest(reading, source))
    if source is not None:
        return np.asarray(source.value * np.float32(1 + 0.2 * numbers[0]), np.float32)
    steps = int(min(max(_find_number(reading, "steps", 12), 1), 1000))
    sampling = next((one.value.sampling for one in reading.list_kind("MODEL")), Sampling())
    denoise = min(max(_find_number(reading, "denoise", 1.0), 0.0), 1.0)
    levels = schedules.schedule(sampling, "normal", max(int(steps / max(denoise, 0.01)), 1))[-(steps + 1) :]
    return np.asarray(levels * np.float32(1 + 0.1 * numbers[0]), np.float32)


def _make_sampler(
    _context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None
) -> NamedSampler:
    """Ancestral Euler, whose noise depends smoothly on everything that the node knows."""
    numbers = drawing.project(_rest(reading, source)).tolist()
    if source is not None:
        sampler: NamedSampler = source.value
        return replace(sampler, s_noise=sampler.s_noise * (1 + 0.1 * numbers[0]))
    return NamedSampler("euler_ancestral", 1 + 0.05 * numbers[0], (("eta", 0.5 + 0.45 * numbers[1]),))


def _make_noise(
    _context: Context, reading: NodeReading, _request: OutputRequest, source: LinkedInput | None
) -> SeededNoise:
    history = reading.merge()
    return SeededNoise(int(digest_history(history), 16)) if source is None else source.value


def _make_guider(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Guider:
    if source is not None:
        guider: Guider = source.value
        return replace(
            guider, model=replace(guider.model, style=_add(guider.model.style, _rest(reading, source).features))
        )
    found = [one.value for one in reading.list_kind("CONDITIONING")]
    models_in = reading.list_kind("MODEL")
    model = _make_model(context, reading, request, models_in[0] if models_in else None)
    positive = found[0] if found else _make_conditioning(context, reading, request, None)
    return Guider(model, positive, found[1] if len(found) > 1 else None, _find_number(reading, "cfg", 5.0))


_MAKERS: Final[Mapping[str, Callable[[Context, Any, OutputRequest, Any], Any]]] = {
    "AUDIO": _make_audio,
    "CLIP": _make_clip,
    "CONDITIONING": _make_conditioning,
    "GUIDER": _make_guider,
    "IMAGE": _make_image,
    "LATENT": _make_latent,
    "MASK": _make_mask,
    "MODEL": _make_model,
    "NOISE": _make_noise,
    "SAMPLER": _make_sampler,
    "SIGMAS": _make_sigmas,
    "VAE": _make_vae,
    "VIDEO": _make_video,
}


def transform_value(context: Context, reading: NodeReading, source: LinkedInput, request: OutputRequest) -> Any:
    """What comes in at one input, as an output of a type that follows it."""
    kind = source.kind
    if kind in _SCALARS or kind not in _MAKERS:
        return source.value
    return _MAKERS[kind](context, reading, replace(request, type=kind), source)
