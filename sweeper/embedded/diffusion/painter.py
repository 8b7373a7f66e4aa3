"""Paints the scene of a conditioning into a latent, as a sampler would leave it. It runs no model.

The prompt makes the scene, the seed its layout and the tones of its patches. Steps, sampler and scheduler decide how
sharp and how textured it becomes, cfg and the negative prompt how strong its contrast and colours are, and the first
noise level how much of a given picture stays. All of it is smooth, but for names, which each have a hand of their own.

A level is the share of noise in a latent: 1 at the start of a schedule, 0 at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import PARAMETERS, Array, draw_normal, resize
from sweeper.embedded.diffusion.models import Model, digest_normals, pool
from sweeper.embedded.diffusion.scene import compose
from sweeper.embedded.diffusion.vae import SCALE
from sweeper.embedded.diffusion.vocabulary import INDEX

Conditioning = list[list[Any]]  # [[embedding, options], ...]

# How each scheduler bends the line from 1 to 0: level = (1 - f)^power * (1 + bend * f * (1 - f)).
_BENDS = {
    "simple": (1.0, 0.0), "sgm_uniform": (1.15, 0.1), "karras": (1.9, 0.0), "exponential": (2.6, 0.2),
    "ddim_uniform": (1.0, -0.3), "beta": (0.95, 0.7), "normal": (0.88, 0.0), "linear_quadratic": (0.7, -0.2),
    "kl_optimal": (1.45, 0.3),
}  # fmt: skip
# The steps after which half of the detail is there, by a part of the sampler's name: it looks twice in each step, or
# uses the steps before.
_PACES = {"heun": 1.7, "dpm_2": 1.9, "2s": 1.8, "dpmpp_sde": 1.8, "seeds": 1.6, "2m": 2.1, "3m": 2.3, "uni_pc": 1.9}
_PACES |= {"lms": 2.5, "ipndm": 2.4, "deis": 2.2, "res": 2.1, "er_sde": 2.3, "sa_solver": 2.3, "lcm": 1.4}
_USUAL_PACE = 2.9
_WANDERING = ("ancestral", "sde", "ddpm", "lcm", "seeds", "sa_solver")  # samplers that add noise of their own
_UNGUIDED, _GUIDANCE = 0.84, 0.048  # contrast without guidance, and what one unit of cfg adds
_GUIDED = np.array([1.0, 1.15, 1.15], np.float32)[:, None, None]  # guidance moves colours a little more than light
_COOL = np.array([0, 0.3, -0.24], np.float32)[:, None, None]  # what guidance pushes away from, in latent units
_AVOIDED = 0.3  # how much of a negative prompt's light and style features is taken off the positive's
_PATCH = 5  # mean width of a patch in latent pixels
_TONES = np.array([0.24, 0.08, 0.08], np.float32)[:, None, None]  # of patches, in latent units
_GRAIN = np.array([0.08, 0.05, 0.05], np.float32)[:, None, None]  # of pixels
_LARGEST = 512 * 512  # latent pixels of the largest picture
_AT_ONCE = 128 * 128  # latent pixels that are composed at once
_LAYOUT, _PATCHES, _PIXELS, _WANDER, _MOSAIC = 1, 2, 3, 4, 5  # uses of noise


@dataclass(frozen=True, slots=True)
class Guider:
    """A model with what to draw, what to avoid (None: BasicGuider) and how strongly."""

    model: Model
    positive: Conditioning
    negative: Conditioning | None
    cfg: float


@dataclass(frozen=True, slots=True)
class Hand:
    """SAMPLER: how a sampler paints. `pace`: the effort after which half of the detail is there.

    `wander`: how far noise of its own moves the layout; `guidance`: how much it makes of cfg; `touch`: small numbers
    around 0 for contrast, colour, texture and detail.
    """

    pace: float
    wander: float
    guidance: float
    touch: tuple[float, ...]


@lru_cache(maxsize=128)
def find_hand(sampler_name: str) -> Hand:
    """The hand of a sampler, of which every name has one."""
    pace = next((pace for part, pace in _PACES.items() if part in sampler_name), _USUAL_PACE)
    wander = 1.0 if any(part in sampler_name for part in _WANDERING) else 0.0
    touch = (0.01 + 0.03 * wander) * np.tanh(digest_normals(f"sampler/{sampler_name}", 4))
    return Hand(pace, wander, 1.35 if "cfg_pp" in sampler_name else 1.0, tuple(touch.tolist()))


def make_levels(scheduler: str, steps: int, shift: float = 1.0) -> Array:
    """The levels [steps + 1] of a scheduler, of which every name has some; `shift` above 1 keeps them high for longer.

    The shift is that of rectified flows, s t / (1 + (s - 1) t) (Esser et al. 2024).
    """
    if scheduler not in _BENDS:
        draw = np.tanh(digest_normals(f"scheduler/{scheduler}", 2)).tolist()
        power, bend = 1.3 + 0.5 * draw[0], 0.4 * draw[1]
    else:
        power, bend = _BENDS[scheduler]
    done = np.linspace(0, 1, steps + 1)
    levels = (1 - done) ** power * (1 + bend * done * (1 - done))
    return np.asarray(shift * levels / (1 + (shift - 1) * levels), np.float32)


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a run of a sampler starts from: latents [B, 4, h, w] and the layouts [B, P] of their scenes.

    `effort`: what earlier runs have done to the same picture, which this one continues; 0 if it begins one.
    """

    samples: Array
    layouts: Array
    seed: int
    items: tuple[int, ...]  # the index of each picture in its batch
    effort: float = 0.0
    mask: Array | None = None  # [B, 1, h, w], 1 where the picture may change


def draw_layouts(seed: int, items: tuple[int, ...]) -> Array:
    """The random part of the layout of each picture, [B, P]."""
    return np.stack([draw_normal(seed, item, _LAYOUT, (PARAMETERS,)) for item in items])


def paint(
    guider: Guider, hand: Hand, levels: Array, canvas: Canvas, *, noisy: bool, report: Callable[[int, Array], None]
) -> tuple[Array, Canvas]:
    """Run a sampler over `levels` [n + 1]. `noisy`: add noise first. `report(step, estimate)` is called for each step.

    Returns the latents with the noise that is left in them, and the canvas without it, for a later run. Raises
    ValueError for a picture that is too large.
    """
    start, end = float(levels[0]), float(levels[-1])
    effort = canvas.effort + float((1.5 - levels[:-1]).sum())
    blur = 1 / (1 + (effort / hand.pace) ** 2)
    given = bool(np.any(canvas.samples))
    if not (noisy or given or canvas.effort):
        blur = 0.5 + blur / 2  # nothing to make details of
    done = np.linspace(0, 1, len(levels))
    bends = np.interp((0.3, 0.7), done, levels / max(start, 1e-6)) - (0.7, 0.3)  # of the schedule against a line
    scene = _paint_scene(guider, hand, canvas, blur, bends)
    height, width = scene.shape[2:]
    small = resize(scene, max(1, width // 4), max(1, height // 4), "area")
    coarse = resize(small, width, height, "bicubic")  # without anything finer than four latent pixels
    scene += (coarse - scene) * np.float32(0.9 * blur)
    scene[:, 3] *= np.float32(1 - 0.8 * blur)
    share = (start * start * (3 - 2 * start)) ** 2 * (1.0 if noisy else 0.6) if given else 1.0
    share = start**0.5 if canvas.effort else share
    clean = canvas.samples + (scene - canvas.samples) * np.float32(share)
    if canvas.mask is not None:
        clean = clean * canvas.mask + canvas.samples * (1 - canvas.mask)
    count = len(levels) - 1
    for step in range(count):
        report(step, coarse[0] + (clean[0] - coarse[0]) * np.float32((step + 1) / count))
    left = clean * np.float32(1 - end) + _draw_pixels(canvas) * np.float32(SCALE * end / 2) if end > 0 else clean
    later = replace(canvas, samples=np.ascontiguousarray(clean, np.float32), effort=effort)
    return np.ascontiguousarray(left, np.float32), later


def _paint_scene(guider: Guider, hand: Hand, canvas: Canvas, blur: float, bends: Array) -> Array:
    """The finished scene [B, 4, h, w] of a guider, with the tones of its patches, before it is blurred."""
    height, width = canvas.samples.shape[2:]
    if height * width > _LARGEST:
        raise ValueError(
            f"a picture of {width * 8} x {height * 8} needs more memory than this server spends on one: "
            f"the procedural models draw up to {_LARGEST * 64 // 10**6} megapixels"
        )
    own = np.stack([draw_normal(canvas.seed, item, _WANDER, (PARAMETERS,)) for item in canvas.items])
    layouts = canvas.layouts + own * np.float32(hand.wander * (0.05 + 0.12 * blur))
    turn = float(bends.mean())
    negative = [pool(embedding) for embedding, _ in guider.negative or []]
    avoided = np.stack(negative).mean(axis=0, dtype=np.float32) if negative and guider.cfg > 1 else None
    scene = np.zeros(canvas.samples.shape, np.float32)
    count = max(1, _AT_ONCE // (height * width))
    for embedding, options in guider.positive:
        features = pool(embedding) + np.array(guider.model.style, np.float32)
        if avoided is not None:
            features = _subtract_avoided(features, avoided)
        parts = [compose(features, height, width, layouts[i : i + count]) for i in range(0, len(layouts), count)]
        part = np.asarray(np.concatenate(parts) * np.float32(SCALE), np.float32)  # [B, 3, h, w] in latent units
        distilled = max(float(options.get("guidance", 0.0) or 0.0) - 1, 0.0)
        push = _GUIDANCE * (1 + 0.5 * turn) * ((guider.cfg - 1) * hand.guidance + distilled)
        contrast = np.float32(_UNGUIDED * (1 + hand.touch[0] - 0.2 * turn))
        part = part * contrast + (part - _COOL) * (_GUIDED * np.float32(push))
        part[:, 1:] *= 1 + hand.touch[1]
        facets = max(0.0, 0.4 + 0.8 * float(np.tanh(features[INDEX["facets"]]))) * (1 + 4 * hand.touch[2])
        part += _draw_tones(canvas, hand, bends) * (_TONES * np.float32(facets * (1 - blur)))
        scene[:, :3] += part / np.float32(len(guider.positive))
        sharp = max(0.0, 1.0 + 0.9 * float(np.tanh(features[INDEX["sharp"]]))) * (1 + 2 * hand.touch[3])
        scene[:, 3] += np.float32(sharp / len(guider.positive))
    pixels = _draw_pixels(canvas)
    scene[:, :3] += pixels[:, :3] * (_GRAIN * np.float32(1 + hand.wander))
    scene[:, 3] *= 1 - np.float32(0.2) * np.abs(pixels[:, 3])
    return scene


def _subtract_avoided(features: Array, avoided: Array) -> Array:
    """Features with some of a negative prompt's light, style and colours taken off."""
    features = features.copy()
    style = slice(INDEX["dark"], INDEX["sharp"] + 1)
    features[style] -= np.float32(_AVOIDED) * avoided[style]
    for channel in "uv":  # a colour to avoid is taken out of the subject's too
        features[INDEX[f"subject_{channel}"]] -= np.float32(0.6) * avoided[INDEX[f"tint_{channel}"]]
    return features


@lru_cache(maxsize=16)
def _make_mosaic(height: int, width: int) -> tuple[Array, Array, int]:
    """A jittered Voronoi mosaic: the patch of each pixel [h, w], a slope across each [h, w], and how many there are."""
    rows, columns = height // _PATCH + 3, width // _PATCH + 3
    jitter = np.clip(draw_normal(0, 0, _MOSAIC, (2, rows, columns)) * 0.28, -0.49, 0.49)
    y, x = np.mgrid[:height, :width]
    cell_y, cell_x = y // _PATCH + 1, x // _PATCH + 1
    nearest, labels = np.full((height, width), np.inf), np.zeros((height, width), np.intp)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            j, i = cell_y + dy, cell_x + dx
            centre_y, centre_x = (j - 0.5 + jitter[0, j, i]) * _PATCH, (i - 0.5 + jitter[1, j, i]) * _PATCH
            distance = (y + 0.5 - centre_y) ** 2 + (x + 0.5 - centre_x) ** 2
            nearest, labels = np.minimum(distance, nearest), np.where(distance < nearest, j * columns + i, labels)
    return labels, ((y + x) % (2 * _PATCH) / _PATCH - 1).astype(np.float32), rows * columns


def _draw_tones(canvas: Canvas, hand: Hand, bends: Array) -> Array:
    """The tone of each patch, [B, 3, h, w], about standard normal; wandering samplers and schedules add their own."""
    labels, across, count = _make_mosaic(*canvas.samples.shape[2:])
    shares = np.array(
        [1 - 0.3 * hand.wander, 0.7 * hand.wander, *(2 * bends + 6 * np.array(hand.touch[2:]))], np.float32
    )
    tones = []
    for item in canvas.items:
        tone = np.tensordot(shares, draw_normal(canvas.seed, item, _PATCHES, (4, 4, count)), 1)
        laid = tone[:3, labels]
        laid[0] += np.float32(0.5) * tone[3, labels] * across
        tones.append(laid)
    return np.stack(tones)


def _draw_pixels(canvas: Canvas) -> Array:
    """Noise of each pixel, [B, 4, h, w]."""
    return np.stack([draw_normal(canvas.seed, item, _PIXELS, canvas.samples.shape[1:]) for item in canvas.items])
