"""Draws pictures, masks and latents from the features of a history, and changes values by them, smoothly.

What a history adds to a value is twelve numbers, `project`ed from its features: they tone, tint and veil pictures, and
bend sounds and levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.arrays import Array, draw_normal
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.painter import draw_layouts
from sweeper.embedded.diffusion.scene import compose
from sweeper.embedded.diffusion.vae import SCALE
from sweeper.embedded.diffusion.vocabulary import FEATURES
from sweeper.embedded.nodes import Context
from sweeper.embedded.nodes.images import match_channels, resize_image
from sweeper.embedded.nodes.media_files import Film
from sweeper.embedded.stand_ins.histories import History, limit_style

PLAIN_VAE: Final = Vae("stand-in", (0.2, 0.1, 0.0, 0.0))
_SIDE = 512  # pixels, if nothing says a size
_LARGEST = 2 * 2**20  # pixels of a drawn picture
LARGEST_FILM = 8 * 2**20  # pixels of all frames of a drawn film, or of a batch
_MAX_FRAMES, _MAX_SECONDS = 600, 60.0
_SWAY = 0.12  # of its width that a drawn film wanders over a scene
_PROJECTION_SEED, _NUMBERS = 0x57A4D1, 12
_VEIL = 0.12  # how strongly a pattern lies over a picture: seen even where it is black or white


@dataclass(frozen=True, slots=True)
class DrawnSize:
    """The size of what a stand-in draws: pixels, pictures, frames of a film, its rate and seconds."""

    width: int
    height: int
    batch: int
    frames: int
    fps: float
    seconds: float


def find_sides(sizes: Mapping[str, float]) -> tuple[float, float]:
    """The width and the height that inputs ask for, without bounds: by sides, or by an aspect ratio and an area."""
    width, height = sizes.get("width"), sizes.get("height")
    usual = width / height if width and height else 16 / 9 if "short_side" in sizes else 1.0
    aspect = min(max(sizes.get("aspect", usual), 0.1), 10.0)
    if area := sizes.get("megapixels"):
        side = (min(max(area, 0.01), 100.0) * 1e6) ** 0.5
    elif short := sizes.get("short_side"):
        return short * max(aspect, 1.0), short * max(1 / aspect, 1.0)
    elif (width or height) and "aspect" not in sizes:
        return width or height or 0, height or width or 0
    else:
        side = _SIDE
    return side * aspect**0.5, side * aspect**-0.5


def plan_size(sizes: Mapping[str, float], *, film: bool = False) -> DrawnSize:
    """The size that inputs ask for, in bounds: sides are multiples of 8, and a long film shrinks evenly."""
    fps = min(max(sizes.get("fps", 16.0), 1.0), 120.0)
    seconds = min(max(sizes.get("seconds", sizes.get("frames", 0.0) / fps) or 2.0, 0.1), _MAX_SECONDS)
    frames = min(max(int(sizes.get("frames") or seconds * fps), 1), _MAX_FRAMES)
    batch = min(max(int(sizes.get("batch", 1)), 1), _MAX_FRAMES)
    most = min(_LARGEST, LARGEST_FILM // (frames if film else batch))
    return DrawnSize(*fit_sides(*find_sides(sizes), most), batch, frames, fps, seconds)


def fit_sides(width: float, height: float, most: float) -> tuple[int, int]:
    """Sides that are multiples of 8 and have at most about `most` pixels together."""
    factor = min(1.0, (most / max(width * height, 1)) ** 0.5)
    sides = [min(max(int(side * factor) // 8 * 8, 16), 8192) for side in (width, height)]
    return sides[0], sides[1]


def draw_latent(history: History, width: int, height: int, item: int = 0) -> Array:
    """A scene as latent [4, height // 8, width // 8]. The seed chooses the composition."""
    layouts = draw_layouts(history.seed, (item,))
    planes = compose(history.features, max(height // 8, 2), max(width // 8, 2), layouts)[0]
    scene = np.concatenate([planes * np.float32(SCALE), np.ones((1, *planes.shape[1:]), np.float32)])
    return scene.astype(np.float32)


def draw_image(context: Context, history: History, size: DrawnSize) -> Array:
    """IMAGE [batch, height, width, 3] of the scene of a history, with the picture that it carries in it."""
    images = []
    for item in range(size.batch):
        context.check()
        images.append(_draw_scene(history, size.width, size.height, item))
    return np.stack(images)


def draw_frames(history: History, size: DrawnSize) -> Array:
    """IMAGE [frames, height, width, 3]: a view that wanders over one scene."""
    scene = _draw_scene(history, size.width, size.height, 0)
    sway = _SWAY * size.width * np.sin(np.linspace(0, math.pi, size.frames))
    return np.stack([np.roll(scene, round(step), axis=1) for step in sway.tolist()])


def _draw_scene(history: History, width: int, height: int, item: int) -> Array:
    image = coder.decode_one(draw_latent(history, width, height, item), PLAIN_VAE).astype(np.float32)
    return image if history.picture is None else mix_images(image[None], history.picture, 0.6)[0]


def mix_images(image: Array, other: Array, share: float) -> Array:
    """A batch with the first picture of another one mixed in."""
    fitted = resize_image(match_channels(other[:1], image.shape[-1]), image.shape[2], image.shape[1], "bilinear")
    return np.asarray(np.clip(image + (fitted - image) * np.float32(share), 0, 1), np.float32)


def draw_mask(context: Context, history: History, image: Array | None, size: DrawnSize) -> Array:
    """MASK [B, H, W]: what is light in a picture, or else in a scene."""
    image = draw_image(context, history, size) if image is None else image
    a, b, *_ = project(history)
    luma = image[..., : min(image.shape[-1], 3)].mean(axis=-1)
    return np.asarray(np.clip((luma - 0.45 - 0.2 * a) * (4 + 2 * b) + 0.5, 0, 1), np.float32)


# --- changes of values ------------------------------------------------------------------------------------------------


def project(history: History) -> Array:
    """A history as 12 numbers between -1 and 1, smooth in its features."""
    table = draw_normal(_PROJECTION_SEED, 0, 0, (_NUMBERS, len(FEATURES))) * np.float32(0.6)
    return np.asarray(np.tanh((table * history.features).sum(axis=1)), np.float32)


def _make_field(numbers: Array, height: int, width: int) -> Array:
    """A broad pattern [height, width], 0-1."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    a, b, c, d = (float(number) for number in numbers[8:12])
    return np.asarray(0.5 + 0.5 * np.sin(x * (2 + 1.5 * a) + y * (2 + 1.5 * b) + 3 * c + 1.5 * d * x * y), np.float32)


def change_image(context: Context, image: Array, history: History) -> Array:
    """IMAGE with its tones, colours and a broad veil changed; alpha stays. One picture at a time, to save memory."""
    numbers = project(history)
    veil = (_VEIL * _make_field(numbers, *image.shape[1:3]))[:, :, None]
    target = np.float32(0.5) + np.float32(0.5) * numbers[4:7]
    changed = np.empty((*image.shape[:3], max(image.shape[3], 3)), np.float32)
    changed[..., 3:] = image[..., 3:]
    for index, picture in enumerate(image):
        context.check()
        colours = np.clip(match_channels(picture[None, ..., :3], 3)[0], 0, 1)
        toned = colours ** np.exp(np.float32(0.4) * numbers[:3])
        grey = toned.mean(axis=-1, keepdims=True)
        toned = grey + (toned - grey) * np.float32(1 + 0.4 * numbers[3])
        changed[index, ..., :3] = np.clip(toned + (target - toned) * veil, 0, 1)
    return changed


def _change_mask(context: Context, mask: Array, history: History) -> Array:
    """MASK [B, H, W], as the greys of a picture."""
    return change_image(context, mask.reshape(-1, *mask.shape[-2:])[..., None], history)[..., 0]


def change_film(context: Context, film: Film, history: History) -> Film:
    return replace(film, images=change_image(context, make_even(film.images), history))


def make_even(images: Array) -> Array:
    """The pictures with even sides, as H.264 needs them."""
    return images[:, : max(images.shape[1] // 2 * 2, 1), : max(images.shape[2] // 2 * 2, 1)]


def change_samples(samples: Array, history: History) -> Array:
    """Latents [B, C, ..., h, w] with a broad pattern added to each channel; empty ones stay empty."""
    if not np.any(samples):
        return samples
    numbers = project(history)
    field = _make_field(numbers, *samples.shape[-2:]) - np.float32(0.5)
    channels = np.resize(numbers, samples.shape[1]).reshape(1, -1, *(1,) * (samples.ndim - 2))
    return np.asarray(samples * np.float32(1 + 0.15 * numbers[0]) + field * channels * np.float32(2), np.float32)


def _change_sound(_context: Context, audio: dict[str, Any], history: History) -> dict[str, Any]:
    """AUDIO with its loudness changed, and a quiet tone, because an empty sound would show none of this."""
    numbers = project(history)
    pitch = 220 * (2 + numbers[2:5]) @ np.array([1, 0.1, 0.01], np.float32)
    samples = np.arange(audio["waveform"].shape[-1]) * (2 * math.pi * float(pitch) / audio["sample_rate"])
    changed = audio["waveform"] * np.float32(0.6 + 0.3 * numbers[1]) + (0.02 * np.sin(samples)).astype(np.float32)
    return {**audio, "waveform": np.asarray(np.clip(changed, -1, 1), np.float32)}


def _change_conditioning(_context: Context, entries: list[list[Any]], history: History) -> list[list[Any]]:
    changed = [[rows.copy(), dict(options)] for rows, options in entries]
    for rows, _ in changed:
        rows[:, 0] += history.features
    return changed


def _add_style(style: tuple[float, ...], history: History) -> tuple[float, ...]:
    return tuple(limit_style(np.array(style, np.float32) + history.features).tolist())


# By the type of ComfyUI.
CHANGES: Final[Mapping[str, Callable[[Context, Any, History], Any]]] = {
    "AUDIO": _change_sound,
    "CLIP": lambda _, clip, history: replace(clip, bias=_add_style(clip.bias, history)),
    "CONDITIONING": _change_conditioning,
    "GUIDER": lambda context, guider, history: replace(guider, model=CHANGES["MODEL"](context, guider.model, history)),
    "IMAGE": change_image,
    "MASK": _change_mask,
    "MODEL": lambda _, model, history: replace(model, style=_add_style(model.style, history)),
    "SIGMAS": lambda _, sigmas, history: np.asarray(sigmas ** np.exp(0.5 * project(history)[0]), np.float32),
    "VIDEO": change_film,
}
