"""Files measured: the picture read, every metric computed that is not known yet, and each failure told.

Which metrics there are is `naming`'s; where values are kept is the store's. NumPy and Pillow are imported here when a
picture is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ImageError
from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.images.metrics.registry import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Value = float | str

_UNREADABLE: Final = "no metric can be measured, as it cannot be read as a picture; is it whole?"


@dataclass(frozen=True, slots=True)
class MetricInput:
    """An artifact to be measured: the hash of its content, where it lies, and the trial that it came from."""

    sha256: str
    path: Path
    digest: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)

    def cache_key(self, metric: Metric) -> str:
        """What the value hangs on, for the store's cache: the content, and the trial too where params are read."""
        return f"{self.sha256}:{self.digest}" if metric.reads_params else self.sha256


def measure(
    picture: NDArray[np.uint8], metrics: Mapping[str, Metric], params: Mapping[str, Any] | None = None
) -> dict[str, Value]:
    """Each metric of one picture: `picture` is uint8 RGB of shape (height, width, 3), `params` the trial's slots.

    Raises ImageError when a function fails, or gives what is neither a finite number nor a text.
    """
    values: dict[str, Value] = {}
    for name, metric in metrics.items():
        try:
            found = metric.function(picture, params or {}) if metric.reads_params else metric.function(picture)
            value = found if isinstance(found, str) else float(found)
        except Exception as error:  # whatever the user's function raises
            raise ImageError(f"metric '{name}' failed: {type(error).__name__}: {error}") from error
        if isinstance(value, float) and value - value != 0:  # NaN and both infinities
            raise ImageError(f"metric '{name}' gave {value}, which is no finite number")
        values[name] = value
    return values


def measure_missing(
    files: Iterable[MetricInput],
    metrics: Mapping[str, Metric],
    cached: Mapping[str, Collection[str]],
    problems: dict[str, list[Path]],
) -> Iterator[tuple[str, str, Value | None]]:
    """(key, metric, value) for what is not measured yet, each key once: rows for the store's cache.

    `cached` tells by metric which keys are known. The value is None for a file that is no picture (a video, a text).
    A metric that fails is no row, and stands in `problems`: the sentence, and the files of which it is true; so does a
    picture that is broken. A file that is not there is left out: it may come again.
    """
    seen: set[tuple[str, str]] = set()
    for file in files:
        wanted = {
            name: key
            for name, metric in metrics.items()
            if (key := file.cache_key(metric)) not in cached.get(name, ()) and (key, name) not in seen
        }
        if not wanted:
            continue
        seen.update((key, name) for name, key in wanted.items())
        if not file.path.is_file():
            continue
        try:
            picture = read_picture(file.path)
        except ImageError:
            if file.path.suffix.lower() in PICTURE_SUFFIXES:
                problems.setdefault(_UNREADABLE, []).append(file.path)
            else:
                yield from ((key, name, None) for name, key in wanted.items())
            continue
        for name, key in wanted.items():
            try:
                yield key, name, measure(picture, {name: metrics[name]}, file.params)[name]
            except ImageError as error:
                problems.setdefault(str(error), []).append(file.path)


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
