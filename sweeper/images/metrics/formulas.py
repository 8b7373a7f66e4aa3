"""The built-in metrics: functions from a picture to one number or text, each with its unit and its source.

A picture is uint8 RGB of shape (height, width, 3). `registry` has the names, because commands that never open a picture
check names and must not load NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sweeper.images.measures import phash

_EDGE: Final = 100.0  # grey levels of 0-255: a pixel with this gradient or more is an edge


_STRIP_ROWS: Final = 256  # at a time: a whole large picture in float64 would take gigabytes


def _iter_strips(picture: NDArray[np.uint8]) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Yield the picture in strips of rows, each with the rows where it belongs."""
    for top in range(0, picture.shape[0], _STRIP_ROWS):
        rows = slice(top, top + _STRIP_ROWS)
        yield rows, picture[rows]


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Rec. ITU-R BT.601 luma, 0-255."""
    luma = np.empty(picture.shape[:2])
    for rows, strip in _iter_strips(picture):
        red, green, blue = np.moveaxis(strip.astype(np.float64), 2, 0)
        luma[rows] = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma


def brightness(picture: NDArray[np.uint8]) -> float:
    """Mean luma, 0-255."""
    return float(_luma(picture).mean())


def contrast(picture: NDArray[np.uint8]) -> float:
    """RMS contrast: the standard deviation of luma, 0-127.5 (Peli 1990, without the division by 255)."""
    return float(_luma(picture).std())


def sharpness(picture: NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian of luma over the inner pixels (Pech-Pacheco et al. 2000); 0 without any."""
    luma = _luma(picture)
    if min(luma.shape) < 3:
        return 0.0
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1]
    laplacian += luma[1:-1, :-2]
    laplacian += luma[1:-1, 2:]
    luma *= 4.0
    laplacian -= luma[1:-1, 1:-1]
    return float(laplacian.var())


def colourfulness(picture: NDArray[np.uint8]) -> float:
    """Colourfulness M(3) of Hasler and Suesstrunk 2003, "Measuring colourfulness in natural images".

    0 is grey, 15 slightly, 33 moderately, 59 quite and 109 extremely colourful.
    """
    red_green, yellow_blue = np.empty(picture.shape[:2]), np.empty(picture.shape[:2])
    for rows, strip in _iter_strips(picture):
        red, green, blue = np.moveaxis(strip.astype(np.float64), 2, 0)
        red_green[rows], yellow_blue[rows] = red - green, (red + green) / 2.0 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def entropy(picture: NDArray[np.uint8]) -> float:
    """Shannon entropy in bits, 0-8, of luma rounded to 256 levels."""
    counts = np.zeros(256, dtype=np.int64)
    for _, strip in _iter_strips(picture):
        counts += np.bincount(np.rint(_luma(strip)).astype(np.int64).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(abs(-(shares * np.log2(shares)).sum()))  # abs, because a single level gives -0.0


def edge_density(picture: NDArray[np.uint8]) -> float:
    """Share, 0-1, of the inner pixels whose Sobel gradient of luma (kernel sums of 4, so 0-1443) reaches 100."""
    luma = _luma(picture)
    if min(luma.shape) < 3:
        return 0.0
    edges = 0
    for top in range(0, luma.shape[0] - 2, _STRIP_ROWS):
        strip = luma[top : top + _STRIP_ROWS + 2]
        down = strip[2:] - strip[:-2]
        right = strip[:, 2:] - strip[:, :-2]
        vertical = down[:, :-2] + 2.0 * down[:, 1:-1] + down[:, 2:]
        horizontal = right[:-2] + 2.0 * right[1:-1] + right[2:]
        edges += int(np.count_nonzero(np.hypot(vertical, horizontal) >= _EDGE))
    return float(edges / ((luma.shape[0] - 2) * (luma.shape[1] - 2)))


def unique_colours(picture: NDArray[np.uint8]) -> float:
    """The number of different RGB triples."""
    present = np.zeros(1 << 24, dtype=np.bool_)  # 16 MB, and thirty times as fast as sorting a megapixel
    for _, strip in _iter_strips(picture):
        wide = strip.astype(np.uint32)
        present[(wide[:, :, 0] << 16) | (wide[:, :, 1] << 8) | wide[:, :, 2]] = True
    return float(np.count_nonzero(present))


def perceptual_hash(picture: NDArray[np.uint8]) -> str:
    """The 64-bit DCT hash (Zauner 2010) as 16 hex digits, row by row, as the ImageHash package prints it.

    The hashes of similar pictures differ in few bits; `sweeper.compare_images` counts them as `phash`.
    """
    bits = "".join("1" if bit else "0" for bit in phash(picture)[0].ravel())
    return f"{int(bits, 2):016x}"


FORMULAS: Final[Mapping[str, Callable[[NDArray[np.uint8]], float | str]]] = {
    formula.__name__: formula
    for formula in (
        brightness, contrast, sharpness, colourfulness, entropy, edge_density, unique_colours, perceptual_hash,
    )
}  # fmt: skip
