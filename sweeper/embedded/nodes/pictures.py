"""Image nodes: IMAGE is float32 [B, H, W, C], 0-1. Pixels as ComfyUI 0.3.64's (nodes.py, nodes_post_processing.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.scaling import check_size, resize
from sweeper.embedded.nodes.base import Context, NodeOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def empty(_context: Context, *, width: int, height: int, batch_size: int = 1, color: int = 0) -> NodeOutput:
    """One colour, 0xRRGGBB."""
    check_size(batch_size, height, width, 3)
    rgb = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], np.float64) / 255
    return NodeOutput((np.broadcast_to(rgb.astype(np.float32), (batch_size, height, width, 3)).copy(),))


def resize_image(image: Array, width: int, height: int, method: str, *, centre: bool = False) -> Array:
    """IMAGE [B, h, w, C] to [B, height, width, C]; see `scaling.resize`."""
    planes = resize(np.moveaxis(image, -1, 1), width, height, method, centre=centre)
    return np.ascontiguousarray(np.moveaxis(planes, 1, -1))


def scale(_context: Context, *, image: Array, upscale_method: str, width: int, height: int, crop: str) -> NodeOutput:
    """A side of 0 follows the other one; both 0 changes nothing."""
    if width == 0 and height == 0:
        return NodeOutput((image,))
    if width == 0:
        width = max(1, round(image.shape[2] * height / image.shape[1]))
    elif height == 0:
        height = max(1, round(image.shape[1] * width / image.shape[2]))
    return NodeOutput((resize_image(image, width, height, upscale_method, centre=crop == "center"),))


def scale_by(_context: Context, image: Array, upscale_method: str, scale_by: float) -> NodeOutput:
    width, height = round(image.shape[2] * scale_by), round(image.shape[1] * scale_by)
    return NodeOutput((resize_image(image, width, height, upscale_method),))


def invert(_context: Context, image: Array) -> NodeOutput:
    return NodeOutput((1.0 - image,))


def blur_image(image: Array, radius: int, sigma: float) -> Array:
    """Gaussian blur with reflected edges. `sigma` counts in kernels: the kernel spans -1 .. 1, whatever its radius.

    ComfyUI's kernel is exp(-(x^2 + y^2) / 2 sigma^2) normalised to 1, which is the product of two of one dimension.
    """
    if radius >= min(image.shape[1:3]):
        short = 3 if radius >= image.shape[2] else 2
        raise RuntimeError(  # PyTorch's own words, as a client of ComfyUI reads them
            "Argument #6: Padding size should be less than the corresponding input dimension, but got: padding "
            f"({radius}, {radius}) at dimension {short} of input {[len(image), image.shape[3], *image.shape[1:3]]}"
        )
    offsets = np.linspace(-1, 1, 2 * radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode="reflect")
    height, width = image.shape[1:3]
    rows = padded[:, :height] * kernel[0]
    for offset in range(1, len(kernel)):
        rows += padded[:, offset : offset + height] * kernel[offset]
    result = rows[:, :, :width] * kernel[0]
    for offset in range(1, len(kernel)):
        result += rows[:, :, offset : offset + width] * kernel[offset]
    return np.asarray(result)


def blur(_context: Context, image: Array, blur_radius: int, sigma: float) -> NodeOutput:
    return NodeOutput((blur_image(image, blur_radius, sigma) if blur_radius else image,))


def sharpen(_context: Context, image: Array, sharpen_radius: int, sigma: float, alpha: float) -> NodeOutput:
    """Add ten times `alpha` of what blurring takes away, clipped to 0-1: ComfyUI's kernel as an unsharp mask."""
    if not sharpen_radius:
        return NodeOutput((image,))
    added = (image - blur_image(image, sharpen_radius, sigma)) * np.float32(alpha * 10)
    return NodeOutput((np.clip(image + added, 0, 1),))


def _soft_light(under: Array, over: Array) -> Any:
    """W3C compositing's soft light."""
    curve = np.where(under <= 0.25, ((16 * under - 12) * under + 4) * under, np.sqrt(np.maximum(under, 0)))
    dark = under - (1 - 2 * over) * under * (1 - under)
    return np.where(over <= 0.5, dark, under + (2 * over - 1) * (curve - under))


def _blend_pixels(under: Array, over: Array, mode: str) -> Any:
    if mode == "normal":
        return over
    if mode == "multiply":
        return under * over
    if mode == "screen":
        return 1 - (1 - under) * (1 - over)
    if mode == "overlay":
        return np.where(under <= 0.5, 2 * under * over, 1 - 2 * (1 - under) * (1 - over))
    if mode == "soft_light":
        return _soft_light(under, over)
    if mode == "difference":
        return under - over
    raise ValueError(f"Unsupported blend mode: {mode}")


def blend(_context: Context, image1: Array, image2: Array, blend_factor: float, blend_mode: str) -> NodeOutput:
    """Blend `image2` over `image1`; it is scaled to the first one's size, and an alpha channel follows the first."""
    if image1.shape[3] < image2.shape[3]:
        image2 = image2[..., : image1.shape[3]]
    elif image1.shape[3] > image2.shape[3]:
        # ComfyUI gives the *destination* one more, opaque channel here; the shapes then fail to match unless they
        # broadcast. What was meant is done: the source becomes opaque.
        image2 = np.concatenate([image2, np.ones((*image2.shape[:3], 1), np.float32)], axis=-1)
    if image1.shape != image2.shape:
        image2 = resize_image(image2, image1.shape[2], image1.shape[1], "bicubic", centre=True)
    factor = np.float32(blend_factor)
    mixed = image1 * (1 - factor) + _blend_pixels(image1, image2, blend_mode) * factor
    return NodeOutput((np.clip(mixed, 0, 1).astype(np.float32),))


def batch(_context: Context, image1: Array, image2: Array) -> NodeOutput:
    if image1.shape[1:] != image2.shape[1:]:
        image2 = resize_image(image2, image1.shape[2], image1.shape[1], "bilinear", centre=True)
    return NodeOutput((np.concatenate([image1, image2], axis=0),))


def crop(_context: Context, *, image: Array, width: int, height: int, x: int, y: int) -> NodeOutput:
    """Cut out; a corner outside is moved to the last pixel, and what hangs over is left out."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return NodeOutput((np.ascontiguousarray(image[:, y : y + height, x : x + width]),))
