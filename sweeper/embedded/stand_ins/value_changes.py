"""Changes a value by what a history adds to it, by one function for each type of ComfyUI. All of it is smooth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sweeper.embedded.diffusion.models import Clip, Model, Vae
from sweeper.embedded.diffusion.painter import Guider, Hand
from sweeper.embedded.nodes.media_files import Film, FilmFile
from sweeper.embedded.stand_ins import drawing
from sweeper.embedded.stand_ins.features import limit_style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.nodes.base import Context
    from sweeper.embedded.stand_ins.histories import History

    Array = NDArray[Any]

_VEIL = 0.12  # how strongly a pattern lies over a picture: seen even where it is black or white


def _make_field(numbers: Array, height: int, width: int) -> Array:
    """A broad pattern [height, width], 0-1."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    a, b, c, d = (float(number) for number in numbers[8:12])
    return np.asarray(0.5 + 0.5 * np.sin(x * (2 + 1.5 * a) + y * (2 + 1.5 * b) + 3 * c + 1.5 * d * x * y), np.float32)


def change_image(context: Context, image: Array, history: History) -> Array:
    """IMAGE with its tones, colours and a broad veil changed; alpha stays. One picture at a time, to save memory."""
    numbers = drawing.project(history)
    veil = (_VEIL * _make_field(numbers, *image.shape[1:3]))[:, :, None]
    target = np.float32(0.5) + np.float32(0.5) * numbers[4:7]
    changed = np.empty((*image.shape[:3], max(image.shape[3], 3)), np.float32)
    changed[..., 3:] = image[..., 3:]
    for index, picture in enumerate(image):
        context.check()
        colours = np.clip(drawing.match_channels(picture[None, ..., :3], 3)[0], 0, 1)
        toned = colours ** np.exp(np.float32(0.4) * numbers[:3])
        grey = toned.mean(axis=-1, keepdims=True)
        toned = grey + (toned - grey) * np.float32(1 + 0.4 * numbers[3])
        changed[index, ..., :3] = np.clip(toned + (target - toned) * veil, 0, 1)
    return changed


def _change_mask(_context: Context, mask: Array, history: History) -> Array:
    """MASK [B, H, W] with its tones and a broad veil changed."""
    mask = mask.reshape(-1, *mask.shape[-2:])
    numbers = drawing.project(history)
    toned = np.clip(mask, 0, 1) ** np.exp(np.float32(0.4) * numbers[0])
    veil = np.float32(_VEIL) * _make_field(numbers, *mask.shape[-2:])
    return np.asarray(toned + (np.float32(0.5) + np.float32(0.5) * numbers[4] - toned) * veil, np.float32)


def change_film(context: Context, film: Film | FilmFile, history: History) -> Film:
    loaded = film.load()
    return replace(loaded, images=change_image(context, make_even(loaded.images), history))


def make_even(images: Array) -> Array:
    """The pictures with even sides, as H.264 needs them."""
    return images[:, : max(images.shape[1] // 2 * 2, 1), : max(images.shape[2] // 2 * 2, 1)]


def change_samples(samples: Array, history: History) -> Array:
    """Latents [B, C, ..., h, w] with a broad pattern added to each channel; empty ones stay empty."""
    if not np.any(samples):
        return samples
    numbers = drawing.project(history)
    field = _make_field(numbers, *samples.shape[-2:]) - np.float32(0.5)
    shape = (1, samples.shape[1], *(1,) * (samples.ndim - 2))
    channels = np.resize(numbers, samples.shape[1]).reshape(shape)
    return np.asarray(samples * np.float32(1 + 0.15 * numbers[0]) + field * channels * np.float32(2), np.float32)


def _change_sound(_context: Context, audio: dict[str, Any], history: History) -> dict[str, Any]:
    """AUDIO with its loudness and its treble changed."""
    numbers = drawing.project(history)
    waveform = audio["waveform"]
    later = np.roll(waveform, 1, axis=-1)
    changed = (waveform + later * np.float32(0.6 * numbers[0])) * np.float32(0.6 + 0.3 * numbers[1])
    # A quiet tone, because a loud or an empty sound would show none of this.
    pitch = (220 * (2 + numbers[2:5])) @ np.array([1, 0.1, 0.01], np.float32)
    samples = np.arange(waveform.shape[-1], dtype=np.float64) * (2 * math.pi * float(pitch) / audio["sample_rate"])
    changed = changed * np.float32(0.95) + (0.02 * np.sin(samples)).astype(np.float32)
    return {**audio, "waveform": np.asarray(np.clip(changed, -1, 1), np.float32)}


def _change_model(_context: Context, model: Model, history: History) -> Model:
    return replace(model, style=tuple(limit_style(np.array(model.style, np.float32) + history.features).tolist()))


def _change_clip(_context: Context, clip: Clip, history: History) -> Clip:
    return replace(clip, bias=tuple(limit_style(np.array(clip.bias, np.float32) + history.features).tolist()))


def _change_vae(_context: Context, vae: Vae, history: History) -> Vae:
    numbers = drawing.project(history).tolist()
    textures = [min(max(old + 0.3 * new, 0.0), 1.0) for old, new in zip(vae.textures, numbers, strict=False)]
    strokes, grain, hatch, paper = textures
    return replace(vae, textures=(strokes, grain, hatch, paper), crisp=min(max(vae.crisp + 0.2 * numbers[4], 0.3), 1.2))


def _change_conditioning(_context: Context, entries: list[list[Any]], history: History) -> list[list[Any]]:
    changed = [[rows.copy(), dict(options)] for rows, options in entries]
    for rows, _ in changed:
        rows[:, 0] += history.features
    return changed


def _change_sigmas(_context: Context, sigmas: Array, history: History) -> Array:
    return np.asarray(sigmas ** np.exp(0.5 * drawing.project(history)[0]), np.float32)


def _change_sampler(_context: Context, sampler: Hand, history: History) -> Hand:
    numbers = drawing.project(history)[:4].tolist()
    return replace(sampler, touch=tuple(a + 0.1 * b for a, b in zip(sampler.touch, numbers, strict=True)))


def _change_guider(context: Context, guider: Guider, history: History) -> Guider:
    return replace(guider, model=_change_model(context, guider.model, history))


CHANGED: Final[Mapping[str, Callable[[Context, Any, History], Any]]] = {
    "AUDIO": _change_sound, "CLIP": _change_clip, "CONDITIONING": _change_conditioning, "GUIDER": _change_guider,
    "IMAGE": change_image, "MASK": _change_mask, "MODEL": _change_model,
    "SAMPLER": _change_sampler, "SIGMAS": _change_sigmas, "VAE": _change_vae, "VIDEO": change_film,
}  # fmt: skip
