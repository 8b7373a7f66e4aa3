"""More image nodes: sizes, batches, turning, quantising, edges, morphology, upscaling by a "model".

IMAGE is float32 [B, H, W, C], 0-1. Sources: Canny 1986 in the form of kornia's `canny` (Sobel, 8 directions), flat
grey morphology, BT.601 for YUV; sizes and orders as ComfyUI 0.3.64 has them.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sweeper.embedded.diffusion.latent_noise import draw_normal
from sweeper.embedded.diffusion.scaling import check_size
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.pictures import resize_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# The sizes that Flux Kontext was trained on (Black Forest Labs), width and height.
_KONTEXT = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688),
    (1568, 672),
)  # fmt: skip


def scale_to_pixels(_context: Context, image: Array, upscale_method: str, megapixels: float) -> NodeOutput:
    """To about `megapixels` x 1024 x 1024 pixels, the aspect ratio kept."""
    height, width = image.shape[1:3]
    by = math.sqrt(int(megapixels * 1024 * 1024) / (width * height))
    return NodeOutput((resize_image(image, round(width * by), round(height * by), upscale_method),))


def scale_to_largest(_context: Context, image: Array, upscale_method: str, largest_size: int) -> NodeOutput:
    height, width = image.shape[1:3]
    if height > width:
        width, height = round(width / height * largest_size), largest_size
    elif width > height:
        width, height = largest_size, round(height / width * largest_size)
    else:
        width = height = largest_size
    return NodeOutput((resize_image(image, width, height, upscale_method),))


def scale_for_kontext(_context: Context, image: Array) -> NodeOutput:
    """To the trained size whose aspect ratio is nearest, centre cropped, by Lanczos."""
    ratio = image.shape[2] / image.shape[1]
    _, width, height = min((abs(ratio - w / h), w, h) for w, h in _KONTEXT)
    return NodeOutput((resize_image(image, width, height, "lanczos", centre=True),))


def size(_context: Context, image: Array) -> NodeOutput:
    return NodeOutput((image.shape[2], image.shape[1], image.shape[0]))


def repeat(_context: Context, image: Array, amount: int) -> NodeOutput:
    check_size(amount, *image.shape)
    return NodeOutput((np.tile(image, (amount, 1, 1, 1)),))


def from_batch(_context: Context, image: Array, batch_index: int, length: int) -> NodeOutput:
    start = min(len(image) - 1, batch_index)
    return NodeOutput((image[start : start + length].copy(),))


def count_turns(rotation: str) -> int:
    """Quarter turns to the right in "90 degrees", "180 degrees", "270 degrees"; 0 for anything else."""
    return {"90": 1, "180": 2, "270": 3}.get(rotation.split(" ", maxsplit=1)[0], 0)


def rotate(_context: Context, image: Array, rotation: str) -> NodeOutput:
    return NodeOutput((np.ascontiguousarray(np.rot90(image, count_turns(rotation), axes=(2, 1))),))


def flip(_context: Context, image: Array, flip_method: str) -> NodeOutput:
    return NodeOutput((np.ascontiguousarray(np.flip(image, 1 if flip_method.startswith("x") else 2)),))


def add_noise(_context: Context, image: Array, seed: int, strength: float) -> NodeOutput:
    """White noise of that deviation; from this server's own generator, not PyTorch's."""
    noise = np.stack([draw_normal(seed, item, 0, 0, image.shape[1:]) for item in range(len(image))])
    return NodeOutput((np.clip(image + np.float32(strength) * noise, 0, 1),))


def to_yuv(_context: Context, image: Array) -> NodeOutput:
    """Y, Cb and Cr as three grey pictures, the colours centred on 0.5 (kornia's rgb_to_ycbcr, which ComfyUI uses)."""
    red, green, blue = (image[..., i] for i in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = luma, (blue - luma) * 0.564 + 0.5, (red - luma) * 0.713 + 0.5
    return NodeOutput(tuple(np.repeat(plane[..., None], image.shape[-1], axis=-1) for plane in planes))


def from_yuv(_context: Context, Y: Array, U: Array, V: Array) -> NodeOutput:
    """Each plane is the mean of its picture's channels."""
    luma, u, v = Y.mean(axis=-1), U.mean(axis=-1) - 0.5, V.mean(axis=-1) - 0.5
    planes = [luma + 1.403 * v, luma - 0.714 * v - 0.344 * u, luma + 1.773 * u]
    return NodeOutput((np.clip(np.stack(planes, axis=-1), 0, 1).astype(np.float32),))


def _bayer(order: int) -> Array:
    """The ordered dither matrix of side `order`, values -0.5 .. below 0.5 (Bayer 1973)."""
    matrix = np.zeros((1, 1))
    while len(matrix) < order:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return np.asarray((matrix + 0.5) / matrix.size - 0.5)


def quantize(_context: Context, image: Array, colors: int, dither: str) -> NodeOutput:
    """Pillow's median cut to `colors`, without dither, with Floyd-Steinberg, or with a Bayer matrix added before."""
    done = []
    for pixels in image:
        picture = Image.fromarray(
            (pixels * 255).astype(np.uint8),
        )
        palette = picture.quantize(colors=colors)
        if dither.startswith("bayer"):
            count = len(palette.getpalette() or ()) // 3
            spread = 2 * 256 / max(count, 1)
            matrix = spread * _bayer(int(dither.rsplit("-", maxsplit=1)[-1])) + 0.5
            tall, wide = (-(-side // len(matrix)) for side in pixels.shape[:2])
            tiled = np.tile(matrix, (tall, wide))[: pixels.shape[0], : pixels.shape[1], None]
            raised = np.clip(np.asarray(picture, np.float32) + tiled.astype(np.float32), 0, 255)
            picture = Image.fromarray(raised.astype(np.uint8))
        kind = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
        mapped = picture.quantize(palette=palette, dither=kind)
        done.append(np.asarray(mapped.convert("RGB"), np.float32) / np.float32(255))
    return NodeOutput((np.stack(done),))


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


def canny(_context: Context, image: Array, low_threshold: float, high_threshold: float) -> NodeOutput:
    """Raises ValueError where low is above high, or for a picture smaller than the blur."""
    if low_threshold > high_threshold:
        raise ValueError(
            f"Invalid input thresholds. low_threshold should be smaller than the high_threshold. "
            f"Got: {low_threshold}>{high_threshold}"
        )
    if min(image.shape[1:3]) < 3:
        raise ValueError(f"a picture of {image.shape[2]} x {image.shape[1]} is too small to find edges in")
    edges = canny_edges(image, low_threshold, high_threshold)
    return NodeOutput((np.repeat(edges[..., None], 3, axis=-1),))


def _extreme(image: Array, count: int, axis: int, choose: Any) -> Array:
    """Maximum or minimum over `count` pixels along an axis, outside pixels ignored, by doubling windows."""
    # An even window reaches one pixel further back for a minimum, and one further on for a maximum (kornia's kernels).
    before = count // 2 if choose is np.minimum else count - count // 2 - 1
    pads = [(0, 0)] * image.ndim
    pads[axis] = (before, count - before - 1)
    edge = -np.inf if choose is np.maximum else np.inf
    window, covered = np.pad(image, pads, constant_values=edge), 1
    while covered < count:
        step = min(covered, count - covered)
        length = window.shape[axis] - step
        lower, upper = [slice(None)] * image.ndim, [slice(None)] * image.ndim
        lower[axis], upper[axis] = slice(0, length), slice(step, step + length)
        window = choose(window[tuple(lower)], window[tuple(upper)])
        covered += step
    return np.asarray(window)


def morphology(_context: Context, image: Array, operation: str, kernel_size: int) -> NodeOutput:
    def dilate(picture: Array) -> Array:
        return _extreme(_extreme(picture, kernel_size, 1, np.maximum), kernel_size, 2, np.maximum)

    def erode(picture: Array) -> Array:
        return _extreme(_extreme(picture, kernel_size, 1, np.minimum), kernel_size, 2, np.minimum)

    rules: dict[str, Any] = {
        "erode": lambda: erode(image),
        "dilate": lambda: dilate(image),
        "open": lambda: dilate(erode(image)),
        "close": lambda: erode(dilate(image)),
        "gradient": lambda: dilate(image) - erode(image),
        "top_hat": lambda: image - dilate(erode(image)),
        "bottom_hat": lambda: erode(dilate(image)) - image,
    }
    if operation not in rules:
        raise ValueError(f"Invalid operation {operation} for morphology. Must be one of {', '.join(rules)}")
    return NodeOutput((np.ascontiguousarray(rules[operation](), np.float32),))


def compress(_context: Context, image: Array, img_compression: int) -> NodeOutput:
    """LTXVPreprocess: the losses of a video frame. ComfyUI encodes it as H.264; JPEG of like quality stands for it."""
    if not img_compression:
        return NodeOutput((image,))
    done = []
    for pixels in image:
        buffer = io.BytesIO()
        picture = Image.fromarray(np.clip(pixels[..., :3] * 255, 0, 255).astype(np.uint8))
        picture.save(buffer, "JPEG", quality=max(100 - img_compression, 1))
        with Image.open(buffer) as read:
            done.append(np.asarray(read, np.float32) / np.float32(255))
    return NodeOutput((np.stack(done),))
