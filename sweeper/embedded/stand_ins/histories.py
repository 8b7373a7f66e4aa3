"""`History`: what lies upstream of a stand-in, as the features from which scenes are drawn, sizes, a seed and a text.

Any value and any input of a node adds to it: numbers smoothly, texts and choices by their hash. So a stand-in loader, a
KSampler of the server and a stand-in upscaler work in one graph. All depends on the values alone, never on the process.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from sweeper.embedded.diffusion.arrays import Array, draw_normal, resize
from sweeper.embedded.diffusion.models import Clip, Model, Vae, digest_normals, encode, pool
from sweeper.embedded.diffusion.painter import Guider, Hand
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX, to_yuv
from sweeper.embedded.nodes.media_files import Film
from sweeper.embedded.nodes.model_nodes import UpscaleModel
from sweeper.embedded.nodes.sampling import SeededNoise
from sweeper.schemas.values import is_number

SIDE_NAMES = frozenset({"width", "height", "aspect", "short_side", "megapixels"})  # sizes that ask for sides
MAX_TEXT = 4000  # characters of the text that a history carries
# How much one unit of an input may move each feature of light and style. None of them brings a thing into the picture.
_REACH = {"dark": 0.2, "warm": 0.5, "saturation": 0.3, "contrast": 0.2, "facets": 0.3, "tint_u": 0.15, "tint_v": 0.15}
_TINT = 0.1  # how strongly the tint of such an input shows
_LAYOUT_REACH = 0.25
# The most of each of these features, however many nodes add to it.
_MOST = {"dark": 0.5, "warm": 1.2, "saturation": 0.6, "contrast": 0.4, "facets": 0.8, "tint_u": 0.25, "tint_v": 0.25}
_MOST_TINT, _MOST_LAYOUT = 0.6, 1.5
_STYLE = [INDEX[name] for name in _MOST]
_STYLE_MOST = np.array([*_MOST.values()], np.float32)
_MAX_PROMPT, _MAX_BRACKETS = 20_000, 50  # characters of a prompt that count; with more brackets, a text is code
_MAX_DEPTH, _MAX_ITEMS = 5, 64  # of values within values
_SIDE = 512  # pixels of the longer side of a picture that a history carries
_PROJECTION_SEED = 0x1A6E
_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (str, "STRING"), (bool, "BOOLEAN"), (int, "INT"), (float, "FLOAT"), (Model, "MODEL"), (Clip, "CLIP"), (Vae, "VAE"),
    (Film, "VIDEO"), (Guider, "GUIDER"), (SeededNoise, "NOISE"), (Hand, "SAMPLER"),
    (UpscaleModel, "UPSCALE_MODEL"),
)  # fmt: skip


def find_kind(value: Any) -> str:
    """The type of a value as `object_info` names it; "*" if the value does not show it."""
    if isinstance(value, np.ndarray):
        if value.ndim == 4 and value.shape[-1] in {1, 3, 4}:
            return "IMAGE"
        return {1: "SIGMAS", 2: "MASK", 3: "MASK"}.get(value.ndim, "*")
    if isinstance(value, Mapping):
        return "LATENT" if "samples" in value else "AUDIO" if "waveform" in value else "*"
    if isinstance(value, list) and value and isinstance(value[0], list) and len(value[0]) == 2:
        return "CONDITIONING" if isinstance(value[0][0], np.ndarray) else "*"
    return next((kind for known, kind in _KINDS if isinstance(value, known)), "*")


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What lies upstream: features [F], a seed, sizes by name, a picture [1, H, W, 3] or none, and the text."""

    features: Array
    seed: int = 0
    sizes: Mapping[str, float] = field(default_factory=dict)
    picture: Array | None = None
    text: str = ""

    def __repr__(self) -> str:
        return "<what a stand-in made>"


def merge_histories(histories: Iterable[History]) -> History:
    """All of them at once: features add up, and of sizes and pictures the first one counts."""
    features, seed, picture = make_no_features(), 0, None
    sizes: dict[str, float] = {}
    texts: dict[str, None] = {}
    for history in histories:
        features = features + history.features
        seed = (seed * 31 + history.seed) % 2**64 if history.seed else seed
        sizes = {**history.sizes, **sizes}
        picture = history.picture if picture is None else picture
        texts[history.text] = None
    text = ", ".join(text for text in texts if text)[:MAX_TEXT]
    return History(limit_style(features), seed, sizes, picture, text)


def digest_history(history: History) -> str:
    """Twelve hexadecimal digits that any change of a history changes."""
    content = history.features.astype("<f4").tobytes() + history.seed.to_bytes(8, "little") + history.text.encode()
    return hashlib.blake2b(content, digest_size=6).hexdigest()


# --- features --------------------------------------------------------------------------------------------------------


def make_no_features() -> Array:
    return np.zeros(len(FEATURES), np.float32)


@lru_cache(maxsize=4096)
def make_direction(key: str) -> Array:
    """The features towards which an input or a choice pulls, [F]."""
    draw = digest_normals(f"stand-in/{key}", len(_REACH) + HASHED)
    features = make_no_features()
    for (name, reach), value in zip(_REACH.items(), draw.tolist(), strict=False):
        features[INDEX[name]] = reach * value
    features[INDEX["tint"]] = _TINT
    features[-HASHED:] = _LAYOUT_REACH * draw[len(_REACH) :]
    features.flags.writeable = False
    return features


def _measure_number(value: float, options: Mapping[str, Any]) -> float:
    """A number in units of its input: 0 at 0, about 0.9 at its default, and slower and slower beyond.

    So strengths 0.4 and 0.5 look alike and 0 and 1 do not, and the same holds for 20 and 25 steps of 20.
    """
    if math.isnan(value):
        return 0.0
    default, low, high = (
        float(limit) if is_number(limit) and abs(limit) < 1e15 else None
        for limit in (options.get(name) for name in ("default", "min", "max"))
    )
    if default:
        unit = abs(default)
    elif low is not None and high is not None and 0 < high - low <= 1000:
        unit = (high - low) / 2
    else:
        unit = 1.0
    return math.asinh(float(min(max(value, -1e15), 1e15)) / unit)


def read_literal(key: str, value: Any, options: Mapping[str, Any], depth: int = 0) -> Array:
    """The features of a JSON value at the input `key`, [F]."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return make_direction(f"{key}={value}")
    if isinstance(value, int | float):
        return make_direction(key) * np.float32(_measure_number(value, options))
    features = make_no_features()
    if depth < _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in [*items][:_MAX_ITEMS]:
            features += read_literal(f"{key}/{name}", item, {}, depth + 1)
    return features


def read_prompt(text: str) -> Array:
    """The features of a text that describes a picture, [F]."""
    text = text[:_MAX_PROMPT]
    if text.count("(") + text.count("[") > _MAX_BRACKETS:
        text = re.sub(r"[()\[\]]", " ", text)
    return pool(encode(text))


def limit_style(features: Array) -> Array:
    """The same features with light, style and layout folded into bounds, because many nodes add to them.

    A sine is smooth and, unlike a limit, leaves the last node as much to say as the first.
    """
    limited = features.astype(np.float32)
    limited[_STYLE] = _STYLE_MOST * np.sin(limited[_STYLE] / _STYLE_MOST)
    limited[-HASHED:] = np.float32(_MOST_LAYOUT) * np.sin(limited[-HASHED:] / np.float32(_MOST_LAYOUT))
    tint = INDEX["tint"]
    limited[tint] = np.float32(_MOST_TINT) * np.tanh(limited[tint] / np.float32(_MOST_TINT))
    return limited


# --- what values say -------------------------------------------------------------------------------------------------


def read_value(key: str, value: Any, depth: int = 0) -> History:
    """The history of any value at the input `key`. Objects without fields count by their class alone."""
    if isinstance(value, History):
        return value
    if isinstance(value, str | int | float) or value is None:
        return History(read_literal(key, value, {}))
    kind = find_kind(value)
    if isinstance(value, np.ndarray):
        return _read_array(key, value, kind)
    if kind in _READERS:
        return _READERS[kind](key, value)
    if isinstance(value, Mapping):
        items = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    elif is_dataclass(value):
        items = [(part.name, getattr(value, part.name)) for part in fields(value)]
    else:
        name = getattr(value, "name", "")  # vision models have one
        return History(make_direction(f"{key}/{type(value).__name__}/{name if isinstance(name, str) else ''}"))
    few = items[: 8 if depth < 3 else 0]
    return merge_histories(read_value(f"{key}/{name}", item, depth + 1) for name, item in few)


@lru_cache(maxsize=4)
def _make_projection(count: int) -> Array:
    return draw_normal(_PROJECTION_SEED, 0, 0, (HASHED, count)) * np.float32(1 / 8)


def _read_array(key: str, array: Array, kind: str) -> History:
    """A picture [B, H, W, C] or mask [B, H, W]: tint, light and layout. Of other numbers mean and spread count."""
    if kind not in {"IMAGE", "MASK"} or array.ndim < 3 or not array.size:
        if not array.size or array.dtype.kind not in "fiu":
            return History(make_no_features())
        return History(read_literal(key, [float(array.mean()), float(array.std()), float(array.flat[0])], {}))
    sizes = {"height": float(array.shape[1]), "width": float(array.shape[2]), "batch": float(len(array))}
    pictures = array if array.ndim == 4 else array[..., None]
    colours = pictures[..., :3] if pictures.shape[-1] >= 3 else np.repeat(pictures[..., :1], 3, axis=-1)
    some = colours[:: max(1, len(colours) // 8)][:8].mean(axis=0, dtype=np.float32)
    small = resize(np.ascontiguousarray(np.moveaxis(some, -1, 0)[None]), 8, 8, "area")[0]
    features = make_no_features()
    y, u, v = to_yuv(*small)
    features[[INDEX["tint_y"], INDEX["tint_u"], INDEX["tint_v"]]] = y.mean(), u.mean(), v.mean()
    features[INDEX["tint"]], features[INDEX["dark"]] = 0.8, -1.6 * y.mean()
    features[INDEX["contrast"]] = 2 * (y.std() - 0.18)
    turn = np.float32(1) + np.float32(0.1) * digest_normals(f"vision/{key}", HASHED)
    features[-HASHED:] = turn * (_make_projection(small.size) @ (small.ravel() - np.float32(0.5)))
    return History(features, 0, sizes, _shrink_picture(colours[:1]) if kind == "IMAGE" else None)


def _shrink_picture(image: Array) -> Array:
    """[1, H, W, 3] with its longer side at most `_SIDE` pixels."""
    height, width = image.shape[1:3]
    factor = min(1.0, _SIDE / max(height, width))
    if factor == 1:
        return image
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 1), np.float32)
    small = resize(planes, max(1, round(width * factor)), max(1, round(height * factor)), "bilinear")
    return np.ascontiguousarray(np.moveaxis(small, 1, -1))


def _read_latent(key: str, latent: Mapping[str, Any]) -> History:
    samples: Array = latent["samples"]
    sizes = {"batch": float(len(samples)), **({"seconds": float(latent["seconds"])} if "seconds" in latent else {})}
    if samples.ndim >= 4:
        sizes |= {"width": samples.shape[-1] * 8.0, "height": samples.shape[-2] * 8.0}
    if samples.ndim == 5:
        sizes["frames"] = (samples.shape[2] - 1) * 4.0 + 1
        samples = samples[:, :, 0]
    if samples.ndim == 4 and np.any(samples):
        planes = np.clip(np.moveaxis(samples[:, :3], 1, -1) / np.float32(6) + np.float32(0.5), 0, 1)
        return History(_read_array(key, planes, "IMAGE").features, 0, sizes)
    return History(make_no_features(), 0, sizes)


def _read_sound(key: str, audio: Mapping[str, Any]) -> History:
    waveform: Array = audio["waveform"]
    if not waveform.size:
        return History(make_no_features())
    seconds = waveform.shape[-1] / max(int(audio.get("sample_rate", 1)), 1)
    parts = np.array_split(np.square(waveform.reshape(-1, waveform.shape[-1])).mean(axis=0), 8)
    loudness = [float(np.sqrt(part.mean())) if part.size else 0.0 for part in parts]
    return History(read_literal(key, loudness, {}), 0, {"seconds": seconds})


def _read_film(key: str, film: Film) -> History:
    seen = _read_array(key, film.images, "IMAGE")
    sizes = {**seen.sizes, "frames": float(len(film.images)), "fps": float(film.rate)}
    return History(seen.features, 0, sizes, seen.picture)


def _read_conditioning(key: str, entries: list[list[Any]]) -> History:
    read = [(pool(rows), read_value(key, options, 1)) for rows, options in entries]
    return merge_histories(History(rows + more.features, more.seed, more.sizes) for rows, more in read)


_READERS: Final[Mapping[str, Callable[[str, Any], History]]] = {
    "AUDIO": _read_sound,
    "CLIP": lambda key, clip: History(np.array(clip.bias, np.float32) + make_direction(f"{key}/Clip")),
    "CONDITIONING": _read_conditioning,
    "LATENT": _read_latent,
    "MODEL": lambda key, model: History(np.array(model.style, np.float32) + make_direction(f"{key}/Model")),
    "VIDEO": _read_film,
}
