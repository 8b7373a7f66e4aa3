"""What a picture says of itself: its colours and light, and a smooth projection of its coarse layout.

Nothing is learned here. Two similar pictures give similar rows of an embedding.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.latent_noise import draw_normal
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.text import digest_normals
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX, to_yuv

_PROJECTION_SEED = 0x1A6E


@lru_cache(maxsize=1)
def _make_projection() -> Array:
    return draw_normal(_PROJECTION_SEED, 0, 0, 0, (HASHED, 3 * 64)) * np.float32(1 / 8)


def embed_pictures(image: Array, name: str) -> Array:
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
