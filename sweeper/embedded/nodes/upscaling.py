"""Upscale models: a factor read off the file's name, and a sharpening of its own. No network is run."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.diffusion.text import digest_normals
from sweeper.embedded.nodes.base import Context
from sweeper.embedded.nodes.images import blur_image, resize_image

_LARGEST = 64 * 10**6  # pixels of one upscaled picture


@dataclass(frozen=True, slots=True)
class UpscaleModel:
    """UPSCALE_MODEL: how many times larger, and how much it sharpens (0-1)."""

    name: str
    factor: int
    crisp: float

    def __repr__(self) -> str:
        return f"<procedural upscaler {self.name!r}>"


def load(model_name: str) -> UpscaleModel:
    """`4x-UltraSharp`, `RealESRGAN_x2`, `x8`: the factor in the name, 4 where it names none."""
    check_name(model_name)
    stem = re.split(r"[\\/]", model_name)[-1].lower()
    match = re.search(r"(?<!\d)([1248])\s*x|x\s*([1248])(?!\d)", stem)
    factor = int(match.group(1) or match.group(2)) if match else 4
    crisp = 0.45 + 0.15 * float(np.tanh(digest_normals(f"upscale/{model_name}", 1)[0]))
    return UpscaleModel(model_name, factor, crisp)


def upscale(context: Context, upscale_model: UpscaleModel, image: Array) -> Array:
    """Bicubic, then unsharp masking; raises ValueError for a picture that would be larger than `_LARGEST`."""
    height, width = (side * upscale_model.factor for side in image.shape[1:3])
    if height * width > _LARGEST:
        raise ValueError(f"a picture of {width} x {height} is larger than this server makes one")
    done = []
    for number, picture in enumerate(image[..., :3]):
        large = resize_image(picture[None], width, height, "bicubic")
        if min(height, width) > 2 * upscale_model.factor:
            large += (large - blur_image(large, 2, 0.6)) * np.float32(upscale_model.crisp * 2)
        done.append(np.clip(large[0], 0, 1))
        context.progress(number + 1, len(image))
    return np.stack(done)
