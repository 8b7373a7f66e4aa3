"""Edges of IMAGE [B, H, W, C]: Canny 1986 in the form of kornia's `canny` (Sobel, 8 directions)."""

from __future__ import annotations

import numpy as np

from sweeper.embedded.diffusion.arrays import Array


def _soften(plane: Array) -> Array:
    """Gaussian blur of 5 x 5, sigma 1, edges mirrored: [B, H, W]. Rows first, as kornia does: ties fall alike."""
    offset = np.arange(-2, 3, dtype=np.float32)
    kernel = np.exp(-(offset * offset) / np.float32(2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    height, width = plane.shape[1:]
    padded = np.pad(plane, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    rows = padded[:, :, :width] * kernel[0]
    for i in range(1, 5):
        rows += padded[:, :, i : i + width] * kernel[i]
    result = rows[:, :height] * kernel[0]
    for i in range(1, 5):
        result += rows[:, i : i + height] * kernel[i]
    return np.asarray(result)


def _slopes(plane: Array) -> tuple[Array, Array]:
    """Sobel's derivatives to the right and downwards, edges repeated: [B, H, W] each."""
    padded = np.pad(plane, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = plane.shape[1:]

    def shift(row: int, column: int) -> Array:
        return padded[:, row : row + height, column : column + width]

    across = -shift(0, 0) + shift(0, 2) - 2 * shift(1, 0) + 2 * shift(1, 2) - shift(2, 0) + shift(2, 2)
    down = -shift(0, 0) - 2 * shift(0, 1) - shift(0, 2) + shift(2, 0) + 2 * shift(2, 1) + shift(2, 2)
    return across, down


# (rows, columns) to the neighbour in each of the 8 directions, from the right on clockwise.
_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def _neighbour(plane: Array, direction: int) -> Array:
    down, across = _AROUND[direction]
    padded = np.pad(plane, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 + down : 1 + down + plane.shape[1], 1 + across : 1 + across + plane.shape[2]]


def canny_edges(image: Array, low: float, high: float) -> Array:
    """[B, H, W, 3] to edges [B, H, W], 0 or 1. `low` and `high` are gradient magnitudes of a picture of 0-1."""
    grey = image[..., 0] * np.float32(0.299) + image[..., 1] * np.float32(0.587) + image[..., 2] * np.float32(0.114)
    gx, gy = _slopes(_soften(grey))
    strength = np.sqrt(gx * gx + gy * gy + np.float32(1e-6))
    direction = np.rint(np.degrees(np.arctan2(gy, gx)) / 45).astype(int) % 8
    peak = np.zeros(strength.shape, bool)
    for way in range(8):
        higher = (strength > _neighbour(strength, way)) & (strength > _neighbour(strength, (way + 4) % 8))
        peak |= (direction == way) & higher
    strength = np.where(peak, strength, 0)
    strong, weak = strength > high, (strength > low) & ~(strength > high)
    while True:  # what hangs together with a strong edge is one
        touched = np.zeros_like(strong)
        for way in range(8):
            touched |= _neighbour(strong, way)
        grown = strong | (weak & touched)
        if np.array_equal(grown, strong):
            return strong.astype(np.float32)
        strong = grown


def canny(image: Array, low_threshold: float, high_threshold: float) -> Array:
    """Raises ValueError where low is above high, or for a picture smaller than the blur."""
    if low_threshold > high_threshold:
        raise ValueError(
            f"Invalid input thresholds. low_threshold should be smaller than the high_threshold. "
            f"Got: {low_threshold}>{high_threshold}"
        )
    if min(image.shape[1:3]) < 3:
        raise ValueError(f"a picture of {image.shape[2]} x {image.shape[1]} is too small to find edges in")
    edges = canny_edges(image, low_threshold, high_threshold)
    return np.repeat(edges[..., None], 3, axis=-1)
