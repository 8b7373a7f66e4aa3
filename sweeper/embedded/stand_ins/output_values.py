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

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.models import Clip
from sweeper.embedded.diffusion.painter import Guider, find_hand, make_levels
from sweeper.embedded.diffusion.scaling import check_size
from sweeper.embedded.diffusion.vocabulary import FEATURES
from sweeper.embedded.nodes import latents, media_files
from sweeper.embedded.nodes.base import Context
from sweeper.embedded.nodes.media_files import Film
from sweeper.embedded.nodes.model_nodes import load_upscaler
from sweeper.embedded.nodes.sampling import SeededNoise
from sweeper.embedded.stand_ins import drawing
from sweeper.embedded.stand_ins.class_shape import WITH_ALPHA
from sweeper.embedded.stand_ins.histories import SIDE_NAMES, digest_history, merge_histories
from sweeper.embedded.stand_ins.scalar_outputs import make_scalar
from sweeper.embedded.stand_ins.value_changes import CHANGED, change_film, change_image, change_samples, make_even

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.stand_ins.node_reading import LinkedInput, NodeReading, OutputRequest

    Array = NDArray[Any]

_LARGEST_RESIZED = 16 * 2**20  # pixels of a picture in a new size
_MAX_LAYERS = 32  # of a picture in layers
_FRAME_STEP = 4  # frames for each latent of a film, as Wan's
_MODEL_SUFFIX: Final = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx)$", re.IGNORECASE)
_SCALARS: Final = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"})


def make_output(context: Context, reading: NodeReading, request: OutputRequest) -> Any:
    """Make the value of an output."""
    if request.type in _SCALARS:
        return make_scalar(reading, request)
    found = reading.list_kind(request.type)
    return _make(context, reading, request, found[min(request.number, len(found) - 1)] if found else None)


def transform_value(context: Context, reading: NodeReading, source: LinkedInput, request: OutputRequest) -> Any:
    """What comes in at one input, as an output of a type that follows it."""
    if source.kind not in _NEW and source.kind not in _DRAWN:
        return source.value
    return _make(context, reading, replace(request, type=source.kind), source)


def _make(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Any:
    """What comes in, else a new value, changed by everything else that the node knows."""
    if request.type == "UPSCALE_MODEL":  # a value of the server that is only a name: another history is another name
        name = _name_model(reading) if source is None else str(getattr(source.value, "name", "")) or request.type
        return load_upscaler(f"{name}~{digest_history(reading.merge(source))}")
    if request.type == "NOISE":
        return SeededNoise(int(digest_history(reading.merge()), 16))
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
    return CHANGED[request.type](context, value, history)


def _name_model(reading: NodeReading) -> str:
    """The model file that the node names, else its class; it never leads out of a folder."""
    texts = [value for value in reading.widgets.values() if isinstance(value, str) and _MODEL_SUFFIX.search(value)]
    name = texts[0] if texts else reading.class_type
    return re.sub(r"[^\w.\- ]+", "_", re.split(r"[\\/]", name)[-1])[:200].strip(". ") or "stand-in"


def _make_conditioning(_context: Context, reading: NodeReading, request: OutputRequest) -> list[list[Any]]:
    clip = next((one.value for one in reading.list_kind("CLIP")), Clip("stand-in", (0.0,) * len(FEATURES)))
    return [[models.embed(clip, reading.negative if "neg" in request.name.lower() else ""), {}]]


def _make_image(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Array:
    image = _make_colours(context, reading, request, source)
    if request.name != WITH_ALPHA or image.shape[-1] > 3:
        return image
    alpha = drawing.draw_mask(reading.merge(source), image, drawing.plan_size({}))
    return np.concatenate([image, alpha[..., None]], axis=-1)


def _make_colours(context: Context, reading: NodeReading, request: OutputRequest, source: LinkedInput | None) -> Array:
    if source is None:
        coded = reading.list_kind("LATENT")
        if coded and np.any(coded[0].value["samples"]) and coded[0].value["samples"].shape[1] == 4:
            vae = next((one.value for one in reading.list_kind("VAE")), drawing.PLAIN_VAE)
            decoded = latents.vae_decode(context, coded[0].value, vae)
            return change_image(context, decoded, reading.merge(coded[0]))
        films = reading.list_kind("VIDEO")
        if films:
            return change_image(context, films[0].value.load().images, reading.merge(films[0]))
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
    return change_image(context, image, history)


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
    if "frames" in own:
        upstream.pop("batch", None)  # the pictures upstream are frames too
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


def _make_mask(_context: Context, reading: NodeReading, _request: OutputRequest) -> Array:
    picture = next((one.value for one in reading.list_kind("IMAGE")), None)
    return drawing.draw_mask(reading.merge(), picture, drawing.plan_size(_all_sizes(reading)))


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
        return {**source.value, "samples": change_samples(samples, history)}
    if pictures and "CONDITIONING" not in request.siblings:
        return _encode_picture(reading, pictures[0], source)
    tells = reading.merge().text or reading.list_kind("AUDIO") or reading.list_kind("VIDEO")
    if tells and "CONDITIONING" not in request.siblings:
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
    samples = change_samples(encoded, reading.merge(picture))
    if into is not None:
        samples = np.repeat(samples, len(into.value["samples"]), axis=0)
        if into.value["samples"].ndim == 5:
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
        resized = replace(film, images=_resize_as_asked(reading, film.images), audio=audio or film.audio)
        return change_film(context, resized, reading.merge(source))
    size = drawing.plan_size(_all_sizes(reading), film=True)
    pictures = reading.list_kind("IMAGE")
    if pictures and len(pictures[0].value) > 1 and not reading.prompt:
        frames = change_image(context, make_even(pictures[0].value), reading.merge(pictures[0]))
    else:
        frames = _draw(context, reading, film=True)
    context.check()
    return Film(frames, Fraction(size.fps).limit_denominator(1000), audio)


def _make_audio(context: Context, reading: NodeReading, _request: OutputRequest) -> dict[str, Any]:
    for one in reading.list_kind("VIDEO"):
        audio = one.value.load().audio
        if audio is not None:
            return dict(audio)
    seconds = drawing.plan_size(_all_sizes(reading)).seconds
    score = drawing.draw_latent(reading.merge(), 256, 128)[None]
    return media_files.play(context, score, int(seconds * media_files.RATE), drawing.PLAIN_VAE)


def _make_sigmas(_context: Context, reading: NodeReading, _request: OutputRequest) -> Array:
    steps = int(min(max(_find_number(reading, "steps", 12), 1), 1000))
    denoise = min(max(_find_number(reading, "denoise", 1.0), 0.0), 1.0)
    return make_levels("normal", max(int(steps / max(denoise, 0.01)), 1))[-(steps + 1) :]


def _make_guider(context: Context, reading: NodeReading, request: OutputRequest) -> Guider:
    found = [one.value for one in reading.list_kind("CONDITIONING")] or [_make_conditioning(context, reading, request)]
    model = next((one.value for one in reading.list_kind("MODEL")), None) or models.load_model(_name_model(reading))
    return Guider(model, found[0], found[1] if len(found) > 1 else None, _find_number(reading, "cfg", 5.0))


_NEW: Final[Mapping[str, Callable[[Context, NodeReading, OutputRequest], Any]]] = {
    "AUDIO": _make_audio,
    "CLIP": lambda _context, reading, _: models.load_clip(_name_model(reading)),
    "CONDITIONING": _make_conditioning,
    "GUIDER": _make_guider,
    "MASK": _make_mask,
    "MODEL": lambda _context, reading, _: models.load_model(_name_model(reading)),
    "SAMPLER": lambda _context, reading, _: find_hand(reading.class_type),
    "SIGMAS": _make_sigmas,
    "VAE": lambda _context, reading, _: models.load_vae(_name_model(reading)),
}
_DRAWN: Final[Mapping[str, Callable[[Context, Any, OutputRequest, Any], Any]]] = {
    "IMAGE": _make_image, "LATENT": _make_latent, "VIDEO": _make_video
}  # fmt: skip
