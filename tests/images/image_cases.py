"""Pairs of pictures for which scikit-image's answers are stored in `reference.json`, the same on every machine.

Noise comes from SHAKE-256, not from a random generator whose stream a new NumPy may change.
`python tests/images/image_cases.py` writes the file anew; it needs scikit-image and ImageHash, the tests do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCE = Path(__file__).with_name("reference.json")
COUNT = 240
Array = NDArray[Any]


def noise(key: str, *shape: int) -> NDArray[np.uint8]:
    """uint8 noise, a function of the key."""
    data = hashlib.shake_256(key.encode()).digest(int(np.prod(shape)))
    return np.frombuffer(data, dtype=np.uint8).reshape(shape).copy()


def shift(picture: Array, by: NDArray[np.uint8], reach: int) -> NDArray[np.uint8]:
    """The picture with each value moved by up to `reach`, kept within 0-255."""
    moves = by.astype(np.int64) % (2 * reach + 1) - reach
    return np.clip(picture.astype(np.int64) + moves, 0, 255).astype(np.uint8)


def gradient(key: str, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    slopes = noise(key, 2, channels).astype(np.float64) / 64.0
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    return ((rows * slopes[0] + columns * slopes[1]) % 256).astype(np.uint8)


def pair(number: int) -> tuple[Array, Array]:
    """Pair `number`: sides of 11 to 74 pixels, 1 to 4 channels, six kinds of difference, every fifth in 16 bits."""
    key = f"pair {number}"
    sides = noise(key + " sides", 3)
    height, width, channels = 11 + int(sides[0]) % 64, 11 + int(sides[1]) % 64, (3, 1, 3, 4, 3, 2)[int(sides[2]) % 6]
    shape = (height, width, channels)
    first, second = noise(key + " a", *shape), noise(key + " b", *shape)
    a: Array
    b: Array
    match number % 6:
        case 0:  # two that have nothing in common
            a, b = first, second
        case 1:  # speckle on noise
            a, b = first, shift(first, second, 9)
        case 2:  # speckle on a gradient, where variances are small beside the means
            a = gradient(key, *shape)
            b = shift(a, second, 2)
        case 3:  # a local defect
            a, b = first, first.copy()
            b[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] ^= 0xFF
        case 4:  # two constants
            a, b = np.full(shape, first[0, 0, 0]), np.full(shape, second[0, 0, 0])
        case _:  # two flat halves, as of a drawing, in other tones
            a, b = np.full(shape, 250, np.uint8), np.full(shape, 243, np.uint8)
            a[:, width // 2 :], b[:, width // 2 :] = 3, 1
    if number % 5 == 4:
        return a.astype(np.uint16) * 256 + second, b.astype(np.uint16) * 256 + first
    return a, b


def pairs() -> Iterator[tuple[int, Array, Array]]:
    for number in range(COUNT):
        yield (number, *pair(number))


def on_scale(picture: Array) -> Array:
    """float64, 0-255."""
    return picture.astype(np.float64) / (257.0 if picture.dtype == np.uint16 else 1.0)


def reference(a: Array, b: Array) -> dict[str, float]:
    """What scikit-image and ImageHash say of a pair; colour and hash only where there is no alpha."""
    import imagehash
    from PIL import Image
    from skimage.color import deltaE_ciede2000, rgb2lab
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    a_255, b_255 = on_scale(a), on_scale(b)
    said = {
        "ssim": structural_similarity(
            a_255,
            b_255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        ),
        "psnr": peak_signal_noise_ratio(a_255, b_255, data_range=255),
    }
    if a.shape[2] in (1, 3):
        rgb = [np.broadcast_to(x / 255.0, (*x.shape[:2], 3)) for x in (a_255, b_255)]
        said["ciede2000"] = deltaE_ciede2000(*(rgb2lab(x) for x in rgb)).mean()
        images = [Image.fromarray(np.rint(x).astype(np.uint8).squeeze()) for x in (a_255, b_255)]
        if not any(image.getextrema() == (x, x) for image in images for x in range(256)):
            said["phash"] = imagehash.phash(images[0]) - imagehash.phash(images[1])
    return {name: float(value) for name, value in said.items()}


if __name__ == "__main__":
    lines = [f'  "{number}": {json.dumps(reference(a, b))}' for number, a, b in pairs()]
    REFERENCE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
