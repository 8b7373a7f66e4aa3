"""Metrics of one picture as columns of the table: brightness, contrast, sharpness, ..., or a function of the user's.

Each takes the picture as an array of 8-bit RGB and gives one number. How two pictures compare is `images`' business;
where numbers are kept, so that no file is measured twice, is the store's. NumPy and Pillow are imported when a picture
is measured, because names are checked by commands that never open one.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sweeper.errors import ExperimentError, ImageError
from sweeper.nearest import hint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Metric = Callable[[NDArray[np.uint8]], float]

METRIC_NAMES: Final = (
    "brightness", "contrast", "sharpness", "colourfulness", "entropy", "edge_density", "unique_colours",
)  # fmt: skip

_FUNCTION: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_EDGE: Final = 100.0  # the gradient, in grey levels of 0-255, from which a pixel counts as edge


def unknown_metrics(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, sentence) for each that is no metric; `module:function` passes here and is not imported."""
    return [
        (name, f"unknown metric '{name}'{hint(name, METRIC_NAMES)}; your own is written module:function")
        for name in names
        if name not in METRIC_NAMES and not _FUNCTION.fullmatch(name)
    ]


def load_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The functions of these names, those of the user imported (from the current folder too).

    Raises ExperimentError for every name that is no metric or cannot be imported.
    """
    wanted = list(names)
    said = [sentence for _, sentence in unknown_metrics(wanted)]
    found: dict[str, Metric] = {}
    for name in wanted:
        try:
            if name in METRIC_NAMES:
                found[name] = globals()[f"_{name}"]
            elif ":" in name:
                found[name] = _imported(name)
        except (ImportError, AttributeError, TypeError) as error:
            said.append(f"metric '{name}' cannot be imported: {error}")
    if said:
        raise ExperimentError("; ".join(said))
    return found


def _imported(name: str) -> Metric:
    module, _, function = name.partition(":")
    # `sweeper` is a console script: unlike `python -m`, it does not look for modules where the user stands.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise TypeError(f"'{function}' is not a function")
    metric: Metric = found
    return metric


def measure(picture: NDArray[np.uint8], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Each metric of one picture: `picture` is uint8 RGB of shape (height, width, 3).

    Raises ImageError when a function fails, or gives something that is no finite number.
    """
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            value = float(metric(picture))
        except Exception as error:  # whatever the user's function raises
            raise ImageError(f"metric '{name}' failed: {type(error).__name__}: {error}") from error
        if value - value != 0:  # NaN and both infinities
            raise ImageError(f"metric '{name}' gave {value}, which is no finite number")
        values[name] = value
    return values


def missing_metrics(
    files: Iterable[tuple[str, Path]],
    metrics: Mapping[str, Metric],
    cached: Mapping[str, Collection[str]],
    problems: list[str],
) -> Iterator[tuple[str, str, float | None]]:
    """(sha256, metric, value) for what is not measured yet, each file once: rows for the store's cache.

    `files` are (sha256, path), `cached` tells by metric which sha256 are known. The value is None for a file that is
    no picture (a video, a text). A metric that fails is no row, and a sentence in `problems`.
    """
    seen: set[str] = set()
    for sha256, path in files:
        wanted = {name: metric for name, metric in metrics.items() if sha256 not in cached.get(name, ())}
        if not wanted or sha256 in seen:
            continue
        seen.add(sha256)
        try:
            picture = read_picture(path)
        except ImageError:
            yield from ((sha256, name, None) for name in wanted)
            continue
        for name, metric in wanted.items():
            try:
                yield sha256, name, measure(picture, {name: metric})[name]
            except ImageError as error:
                problems.append(f"{path}: {error}")


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as uint8 RGB (height, width, 3): alpha dropped, 16-bit scaled to 8, the first frame of several.

    Raises ImageError when it cannot be read as a picture.
    """
    import numpy as np  # noqa: PLC0415 - see the module's docstring
    from PIL import Image  # noqa: PLC0415

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255 instead of scaling them
                grey = np.asarray(image, dtype=np.float64) / 257.0
                levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
                return np.repeat(levels[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as a picture: {error}") from error


# --- the metrics: uint8 RGB in, one float out


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Rec. ITU-R BT.601 luma, 0-255."""
    import numpy as np  # noqa: PLC0415

    red, green, blue = np.moveaxis(picture.astype(np.float64), 2, 0)
    luma: NDArray[np.float64] = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma


def _brightness(picture: NDArray[np.uint8]) -> float:
    """Mean luma, 0-255."""
    return float(_luma(picture).mean())


def _contrast(picture: NDArray[np.uint8]) -> float:
    """RMS contrast: the standard deviation of luma, 0-127.5 (Peli 1990, without the division by 255)."""
    return float(_luma(picture).std())


def _sharpness(picture: NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian of luma over the inner pixels (Pech-Pacheco et al. 2000); 0 if there are
    none.
    """
    luma = _luma(picture)
    if min(luma.shape) < 3:
        return 0.0
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4.0 * luma[1:-1, 1:-1]).var())


def _colourfulness(picture: NDArray[np.uint8]) -> float:
    """Hasler and Suesstrunk 2003, "Measuring colourfulness in natural images", the metric of their equation for M(3):
    0 is grey, 15 slight, 33 moderate, 59 quite, 109 extreme.
    """
    import numpy as np  # noqa: PLC0415

    red, green, blue = np.moveaxis(picture.astype(np.float64), 2, 0)
    red_green, yellow_blue = red - green, (red + green) / 2.0 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def _entropy(picture: NDArray[np.uint8]) -> float:
    """Shannon entropy in bits, 0-8, of luma rounded to 256 levels."""
    import numpy as np  # noqa: PLC0415

    counts = np.bincount(np.rint(_luma(picture)).astype(np.int64).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(abs(-(shares * np.log2(shares)).sum()))  # abs: one level only gives -0.0


def _edge_density(picture: NDArray[np.uint8]) -> float:
    """Share, 0-1, of the inner pixels whose Sobel gradient of luma (kernel sums of 4, so 0-1443) reaches 100."""
    import numpy as np  # noqa: PLC0415

    luma = _luma(picture)
    if min(luma.shape) < 3:
        return 0.0
    down = luma[2:] - luma[:-2]
    right = luma[:, 2:] - luma[:, :-2]
    vertical = down[:, :-2] + 2.0 * down[:, 1:-1] + down[:, 2:]
    horizontal = right[:-2] + 2.0 * right[1:-1] + right[2:]
    return float((np.hypot(vertical, horizontal) >= _EDGE).mean())


def _unique_colours(picture: NDArray[np.uint8]) -> float:
    """How many different RGB triples there are."""
    import numpy as np  # noqa: PLC0415

    wide = picture.astype(np.uint32)
    packed = (wide[:, :, 0] << 16) | (wide[:, :, 1] << 8) | wide[:, :, 2]
    return float(np.unique(packed).size)
