"""Latents to pictures and back, at factor 8, without any learning.

A latent pixel holds luma, U, V and an amount of detail. Decoding interpolates them with Catmull-Rom splines, then
steepens every transition between the local darkest and lightest value, which turns the soft edges of the small
picture into crisp contours at full size (the more so the more detail the latent holds), and lays the decoder's own
texture over it. Encoding is the box mean of each 8 x 8 block; what that loses travels beside the latent as a residue,
which decoding adds back wherever the latent is still what was encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np

from sweeper.embedded.diffusion.arrays import Array, draw_normal, resize, smooth
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.vocabulary import to_yuv, yuv_to_rgb

FACTOR = 8
SCALE = 6.0  # latent units per unit of luma; black to white is 6
_TILE = 256
_TILE_SEED = 0x7E57
_ENCODED_DETAIL = 0.9  # of an encoded picture: what the procedural ones have on the average
_CRISP = 0.85  # how steep edges become, 0-1
_STILL = 0.5  # latent distance at which a residue has lost 63% of its weight


def enlarge(image: Array) -> Array:
    """[C, h, w] to [C, 8h, 8w] by Catmull-Rom (Pillow's bicubic filter)."""
    return np.asarray(resize(image[None], image.shape[2] * FACTOR, image.shape[1] * FACTOR, "bicubic")[0])


def _filter(image: Array, combine: Callable[[Array, Array, Array], Array]) -> Array:
    """Three pixels in a row combined, down and then across, edges repeated: [C, h, w]."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = combine(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    return combine(rows[..., :-2], rows[..., 1:-1], rows[..., 2:])


def _blur(image: Array) -> Array:
    return _filter(image, lambda before, pixel, after: (before + pixel * 2 + after) / 4)


@lru_cache(maxsize=1)
def _tiles() -> tuple[Array, Array, Array]:
    """Tileable textures [256, 256], mean 0, deviation 1: brush strokes, fine grain, paper fibre."""
    white = draw_normal(_TILE_SEED, 0, 0, (3, _TILE, _TILE))

    def spread(field: Array, down: int, across: int) -> Array:
        for axis, times in ((0, down), (1, across)):
            for _ in range(times):  # repeated [1 2 1] is a Gaussian, and stays the same on every machine
                field = (np.roll(field, 1, axis) + field * 2 + np.roll(field, -1, axis)) / 4
        return np.asarray((field - field.mean()) / field.std(), np.float32)

    return spread(white[0], 3, 60), spread(white[1], 1, 1), spread(white[2], 14, 14)


def _repeat_tile(tile: Array, height: int, width: int) -> Array:
    return np.tile(tile, (-(-height // _TILE), -(-width // _TILE)))[:height, :width]


def _make_texture(vae: Vae, luma: Array, detail: Array) -> Array:
    """What the decoder adds to luma (0-1), [H, W]."""
    strokes, grain, hatch, paper = vae.textures
    height, width = luma.shape
    brush, fine, fibre = _tiles()
    added = np.zeros_like(luma)
    if strokes:
        # Strokes lie along the contours of broad light and dark: two directions, chosen by luma.
        turned = smooth(np.sin(luma * 9) * 2.5 + 0.5)
        lie = _repeat_tile(brush, height, width) * (1 - turned) + _repeat_tile(brush.T, height, width) * turned
        added += lie * np.float32(0.03 * strokes)
    if grain:
        added += _repeat_tile(fine, height, width) * np.float32(0.03 * grain)
    if paper:
        added += _repeat_tile(fibre, height, width) * np.float32(0.02 * paper)
    if hatch:
        y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
        wobble = _repeat_tile(fibre, height, width) * 0.5
        lines = np.maximum(np.sin((x + y) * 0.9 + wobble), np.sin((x - y * 0.6) * 0.8 + wobble) - 2 * luma)
        added -= smooth((0.52 - luma) * 2.2) * smooth(lines) * np.float32(0.3 * hatch)
    return np.asarray(added * np.clip(detail, 0.15, 1.2))


def _sharpen(latent: Array, detail: Array) -> Array:
    """YUV [3, H, W] of [3, h, w] with its transitions steepened by `detail` [H, W]."""
    low = _filter(latent, lambda *pixels: reduce(np.minimum, pixels))
    high = _filter(latent, lambda *pixels: reduce(np.maximum, pixels))
    planes = enlarge(np.concatenate([latent, low, high - low]))
    flat, base, span = planes[:3], planes[3:6], np.maximum(planes[6:], 1e-4)
    position = np.clip((flat - base) / span, 0, 1)
    # Steeper where there is a real edge; where the span is only noise it stays as it is.
    contrast = smooth((span - 0.35) / 0.9)
    steep = 1 + 5.0 * contrast * (detail * np.float32(_CRISP))
    edge = np.clip((position - 0.5) * steep + 0.5, 0, 1)
    return flat + (base + edge * edge * (3 - 2 * edge) * span - flat) * np.clip(contrast * detail * 1.3, 0, 1)


def decode_one(latent: Array, vae: Vae) -> Array:
    """[4, h, w] to sRGB [8h, 8w, 3], 0-1."""
    detail = np.clip(enlarge(_blur(np.abs(latent[3:]))), 0, 1.4)[0]
    y, u, v = _sharpen(latent[:3], detail) / np.float32(SCALE)
    luma = y + np.float32(0.5)
    if any(vae.textures):
        luma = luma + _make_texture(vae, np.clip(luma, 0, 1), detail)
    rgb = yuv_to_rgb(np.stack([luma - np.float32(0.5), u, v]))
    return np.asarray(np.clip(np.moveaxis(rgb, 0, -1), 0, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Residue:
    """What encoding lost: the latent as encoded [B, 4, h, w], and pixels minus its decoding [B, 8h, 8w, 3]."""

    latent: Array
    pixels: Array

    def restore(self, samples: Array, index: int) -> Array:
        """What to add to the decoded item `index`, fading where `samples` [4, h, w] has moved away."""
        source = index % len(self.latent)
        # By colour alone: detail has two signs that mean the same.
        moved = np.square(samples[:3] - self.latent[source, :3]).sum(axis=0, dtype=np.float32)[None]
        share = np.clip(enlarge(np.exp(-_blur(moved) / np.float32(_STILL**2))), 0, 1)[0]
        return np.asarray(self.pixels[source] * share[..., None])


def decode(samples: Array, vae: Vae, residue: Residue | None = None) -> Array:
    """[B, 4, h, w] to sRGB [B, 8h, 8w, 3], 0-1."""
    images = []
    for index, latent in enumerate(samples):
        image = decode_one(latent, vae)
        if residue is not None and residue.latent.shape[1:] == latent.shape:
            image = np.clip(image + residue.restore(latent, index), 0, 1)
        images.append(image)
    return np.stack(images).astype(np.float32)


def encode(pixels: Array, vae: Vae) -> tuple[Array, Residue]:
    """Encode sRGB [B, H, W, 3], 0-1, to a latent [B, 4, H//8, W//8] and its residue; sides are cropped to n * 8."""
    batch, height, width = pixels.shape[0], pixels.shape[1] // FACTOR, pixels.shape[2] // FACTOR
    # As ComfyUI does, what is over is cut evenly from both sides.
    top, left = (pixels.shape[1] % FACTOR) // 2, (pixels.shape[2] % FACTOR) // 2
    image = pixels[:, top : top + height * FACTOR, left : left + width * FACTOR, :3].astype(np.float32)
    mean = image.reshape(batch, height, FACTOR, width, FACTOR, 3).mean(axis=(2, 4))
    planes = [plane * SCALE for plane in to_yuv(*np.moveaxis(mean, -1, 0))]
    latent = np.stack([*planes, np.full_like(planes[0], _ENCODED_DETAIL)], axis=1)
    latent = latent.astype(np.float32)
    return latent, Residue(latent, image - decode(latent, vae))
