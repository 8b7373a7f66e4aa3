"""`History`: what a value of a type that only stand-ins know carries, and what any value of the server says to one.

So a stand-in loader, a KSampler of the server and a stand-in upscaler work in one graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.arrays import draw_normal
from sweeper.embedded.diffusion.models import Clip, Model, Vae
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.text import digest_normals, pool
from sweeper.embedded.diffusion.vae import SCALE
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX, to_yuv, yuv_to_rgb
from sweeper.embedded.nodes.media_files import Film, FilmFile
from sweeper.embedded.stand_ins.features import limit_style, make_direction, make_no_features, read_literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SIDE_NAMES = frozenset({"width", "height", "aspect", "short_side", "megapixels"})  # sizes that ask for sides
MAX_TEXT = 4000  # characters of the text that a history carries
_SIDE = 512  # pixels of the longer side of a picture that a history carries
_MAX_DEPTH, _MAX_ITEMS = 3, 8  # of values within values


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
    for one in histories:
        features = features + one.features
        seed = (seed * 31 + one.seed) % 2**64 if one.seed else seed
        sizes = {**one.sizes, **sizes}
        picture = one.picture if picture is None else picture
        texts[one.text] = None
    text = ", ".join(text for text in texts if text)[:MAX_TEXT]
    return History(limit_style(features), seed, sizes, picture, text)


def digest_history(history: History) -> str:
    """Twelve hexadecimal digits that any change of a history changes."""
    content = history.features.astype("<f4").tobytes() + history.seed.to_bytes(8, "little") + history.text.encode()
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def read_value(key: str, value: Any, depth: int = 0) -> History:
    """The history of any value at the input `key`. Objects without fields count by their class alone."""
    if isinstance(value, History):
        return value
    if isinstance(value, np.ndarray):
        return _read_array(key, value)
    if isinstance(value, Model | Clip):
        features = value.style if isinstance(value, Model) else value.bias
        return History(np.array(features, np.float32) + make_direction(f"{key}/{type(value).__name__}"))
    if isinstance(value, Vae):
        return History(read_literal(key, [*value.textures, value.crisp], {}))
    if isinstance(value, Film | FilmFile):
        film = value.load()
        sizes = {"frames": float(len(film.images)), "fps": float(film.rate)}
        seen = _read_array(key, film.images)
        return History(seen.features, 0, {**seen.sizes, **sizes}, seen.picture)
    if depth >= _MAX_DEPTH:
        return History(make_no_features())
    return _read_container(key, value, depth)


def _read_container(key: str, value: Any, depth: int) -> History:
    if isinstance(value, Mapping):
        if isinstance(value.get("samples"), np.ndarray):
            return _read_latent(key, value)
        if isinstance(value.get("waveform"), np.ndarray):
            return _read_sound(key, value)
        items = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list | tuple):
        if len(value) == 2 and isinstance(value[0], np.ndarray) and value[0].ndim == 3 and isinstance(value[1], dict):
            options = _read_container(key, value[1], depth + 1)  # one entry of a conditioning
            return History(pool(value[0]) + options.features, options.seed, options.sizes, options.picture)
        items = [(str(index), item) for index, item in enumerate(value)]
    elif is_dataclass(value):
        items = [(one.name, getattr(value, one.name)) for one in fields(value)]
    elif isinstance(value, str | int | float) or value is None:
        return History(read_literal(key, value, {}))
    else:
        name = getattr(value, "name", "")  # vision models have one
        return History(make_direction(f"{key}/{type(value).__name__}/{name if isinstance(name, str) else ''}"))
    return merge_histories(read_value(f"{key}/{name}", item, depth + 1) for name, item in items[:_MAX_ITEMS])


def _read_array(key: str, array: Array) -> History:
    """A picture [B, H, W, C], a mask [B, H, W], or other numbers, whose mean and spread count."""
    if array.ndim == 4 and array.shape[-1] in {1, 3, 4} and array.size:
        rgb = array[..., :3] if array.shape[-1] >= 3 else np.repeat(array[..., :1], 3, axis=-1)
        sizes = {"height": float(array.shape[1]), "width": float(array.shape[2]), "batch": float(len(array))}
        features = _embed_pictures(_sample_items(rgb), key).mean(axis=0, dtype=np.float32)
        return History(features, 0, sizes, shrink_picture(rgb[:1]))
    if array.ndim == 3 and array.size:
        sizes = {"height": float(array.shape[1]), "width": float(array.shape[2]), "batch": float(len(array))}
        grey = np.repeat(_sample_items(array)[..., None], 3, axis=-1)
        return History(_embed_pictures(grey, key).mean(axis=0, dtype=np.float32), 0, sizes)
    if not array.size or array.dtype.kind not in "fiu":
        return History(make_no_features())
    return History(read_literal(key, [float(array.mean()), float(array.std()), float(array.flat[0])], {}))


def _sample_items(array: Array) -> Array:
    """At most eight of a batch, evenly."""
    return array[:: max(1, len(array) // 8)][:8]


def shrink_picture(image: Array) -> Array:
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
    if "pixels" in latent or samples.ndim >= 4:
        width, height = latent.get("pixels", (samples.shape[-1] * 8, samples.shape[-2] * 8))
        sizes |= {"width": float(width), "height": float(height)}
    if samples.ndim == 5:
        sizes["frames"] = float((samples.shape[2] - 1) * int(latent.get("frame_step", 4)) + 1)
        samples = samples[:, :, 0]
    if samples.ndim == 4 and samples.shape[1] == 4 and np.any(samples):
        colours = yuv_to_rgb(np.moveaxis(samples[:8, :3], 1, 0) / np.float32(SCALE))
        seen = _read_array(key, np.clip(np.moveaxis(colours, 0, -1), 0, 1))
        return History(seen.features, 0, sizes)
    return History(make_no_features(), 0, sizes)


def _read_sound(key: str, audio: Mapping[str, Any]) -> History:
    waveform: Array = audio["waveform"]
    if not waveform.size:
        return History(make_no_features())
    seconds = waveform.shape[-1] / max(int(audio.get("sample_rate", 1)), 1)
    parts = np.array_split(np.square(waveform.reshape(-1, waveform.shape[-1])).mean(axis=0), 8)
    loudness = [float(np.sqrt(part.mean())) if part.size else 0.0 for part in parts]
    return History(read_literal(key, loudness, {}), 0, {"seconds": seconds})


# --- What a picture says of itself: its colours and light, and a smooth projection of its coarse layout ---

_PROJECTION_SEED = 0x1A6E


@lru_cache(maxsize=1)
def _make_projection() -> Array:
    return draw_normal(_PROJECTION_SEED, 0, 0, (HASHED, 3 * 64)) * np.float32(1 / 8)


def _embed_pictures(image: Array, name: str) -> Array:
    """What a vision model of this name sees in pictures [B, H, W, 3], 0-1: one row of an embedding each, [B, F]."""
    planes = np.moveaxis(image[..., :3], -1, 1).astype(np.float32)
    small = resize(np.ascontiguousarray(planes), 8, 8, "area")
    rows = np.zeros((len(image), len(FEATURES)), np.float32)
    turn = np.float32(1) + np.float32(0.1) * digest_normals(f"vision/{name}", HASHED)
    for row, picture in zip(rows, small, strict=True):
        y, u, v = to_yuv(*picture)
        row[INDEX["tint_y"]], row[INDEX["tint_u"]], row[INDEX["tint_v"]] = y.mean(), u.mean(), v.mean()
        row[INDEX["tint"]] = 0.8
        row[INDEX["dark"]] = -1.6 * y.mean()
        row[INDEX["contrast"]] = 2 * (y.std() - 0.18)
        row[INDEX["saturation"]] = 2 * (np.sqrt(u * u + v * v).mean() - 0.1)
        row[-HASHED:] = turn * (_make_projection() @ (picture.ravel() - np.float32(0.5)))
    return rows
