"""Read films as frames and sounds as waveforms, by PyAV (FFmpeg, extra `media`).

Frames are always 8-bit RGB. Of several video or audio streams only the first is read. The measures of two sounds and of
two texts are:

============ ========= ======= =========================================================================
name         range     equal   meaning
============ ========= ======= =========================================================================
sound_snr    dB        inf     the accepted waveform's power over that of the difference
sound_mae    0 to 2    0       mean absolute difference of samples from -1 to 1
sound_max    0 to 2    0       the largest
text_ratio   0 to 1    1       share of the two texts that is common to both, in order
============ ========= ======= =========================================================================
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path, PurePath
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import ImageError
from sweeper.images.decoding import Pixels
from sweeper.model.picture_size import FILM_OPTIONS, FILM_TYPES, SOUND_TYPES, check_pixels
from sweeper.wording import format_install

_PEAK_SAMPLES: Final = 64  # of which `read_peaks` keeps one


def load_av(path: Path) -> Any:
    """The package PyAV (extra `media`). Raises ImageError, for the file that needs it, if it is not installed."""
    try:
        import av  # noqa: PLC0415 - of an extra
    except ImportError:
        raise ImageError(f"{path}: sweeper reads films and sounds with PyAV: {format_install('av')}") from None
    return av


@dataclass(frozen=True, slots=True)
class Sound:
    """A waveform: `samples` (frames, channels) from -1 to 1, `rate` in frames a second."""

    rate: int
    samples: NDArray[np.float64]


def is_film(path: PurePath) -> bool:
    return path.suffix[1:].lower() in FILM_TYPES


def is_sound(path: PurePath) -> bool:
    return path.suffix[1:].lower() in SOUND_TYPES


@contextmanager
def _open(path: Path, kind: str) -> Iterator[Any]:
    """The container of a film or sound. Raises ImageError, also for what fails in the block."""
    av = load_av(path)
    try:
        with av.open(str(path), options=FILM_OPTIONS) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError, ImageError) as error:
        raise ImageError(f"{path}: cannot be read as a {kind}: {error}") from error


def iter_film_frames(path: Path) -> Generator[Pixels, None, None]:
    """Decode the frames of a film one by one, as uint8 RGB.

    Raises ImageError if the film cannot be read or has no frame, because two films without frames would seem equal.
    """
    count = 0
    with _open(path, "film") as container:
        for stream in container.streams.video[:1]:
            stream.thread_count = 1  # the cores already run several comparisons
            for frame in container.decode(stream):
                count += 1
                check_pixels((frame.width, frame.height), count)
                yield frame.to_ndarray(format="rgb24")
    if not count:
        raise ImageError(f"{path}: the film has no frame")


def read_film_rate(path: Path) -> float | None:
    """The average number of frames per second; None if the film does not say. Raises ImageError if it is unreadable."""
    with _open(path, "film") as container:
        rate = container.streams.video[0].average_rate if container.streams.video else None
        return None if rate is None else float(rate)


def _iter_samples(path: Path, stream: Any, form: str, layout: Any) -> Iterator[NDArray[Any]]:
    """The samples of a sound as arrays of PyAV in this format and layout, by and by."""
    stream.thread_count = 1
    resampler = load_av(path).AudioResampler(format=form, layout=layout, rate=stream.rate)
    for frame in chain(stream.container.decode(stream), [None]):  # None flushes the resampler
        yield from (part.to_ndarray() for part in resampler.resample(frame))


def read_sound(path: Path) -> Sound | None:
    """Read the waveform of a file; None for a film without sound. Raises ImageError if it cannot be read."""
    with _open(path, "sound") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        planes = [*_iter_samples(path, stream, "dblp", stream.layout)]
        channels = len(stream.layout.channels)
        return Sound(int(stream.rate), np.concatenate(planes, axis=1).T if planes else np.zeros((0, channels)))


def read_peaks(path: Path, count: int) -> list[float]:
    """The loudest sample, from 0 to 1, in each of `count` equal parts of a sound. Raises ImageError.

    The samples are not kept, because an hour of them takes gigabytes.
    """
    peaks: list[float] = []
    with _open(path, "sound") as container:
        for stream in container.streams.audio[:1]:
            for samples in (np.abs(part[0]) for part in _iter_samples(path, stream, "flt", "mono") if part.size):
                peaks += np.maximum.reduceat(samples, np.arange(0, len(samples), _PEAK_SAMPLES)).tolist()
    if not peaks:
        raise ImageError(f"{path}: has no sound")
    edges = [len(peaks) * index // count for index in range(count + 1)]
    return [max(peaks[start : max(end, start + 1)]) for start, end in pairwise(edges)]


SOUND_METRICS: Final = ("sound_snr", "sound_mae", "sound_max")
TEXT_METRICS: Final = ("text_ratio",)

# Longer texts are compared by word or by line instead of by letter, because difflib's time grows with the square.
_MAX_LETTERS, _MAX_WORDS = 2_000, 5_000


def find_sound_mismatch(accepted: Sound, now: Sound) -> tuple[Literal["channels", "rate", "length"], str] | None:
    """Why two sounds cannot be compared sample by sample: (what differs, explanation); None if they can."""
    (frames, channels), (frames_2, channels_2) = accepted.samples.shape, now.samples.shape
    if channels != channels_2:
        return "channels", f"the accepted sound has {channels}, today's {channels_2}"
    if accepted.rate != now.rate:
        return "rate", f"the accepted sound has {accepted.rate} samples a second, today's {now.rate}"
    if frames != frames_2:
        return "length", f"the accepted sound has {frames} samples, today's {frames_2}"
    return None


def measure_sound(accepted: Sound, now: Sound) -> dict[str, float]:
    """Compute the measures of two sounds of the same shape."""
    if not accepted.samples.size:
        return {"sound_snr": math.inf, "sound_mae": 0.0, "sound_max": 0.0}
    error = np.abs(accepted.samples - now.samples)
    power, noise = float(np.square(accepted.samples).mean()), float(np.square(error).mean())
    snr = math.inf if noise == 0 else 10.0 * math.log10(power / noise) if power > 0 else -math.inf
    return {"sound_snr": snr, "sound_mae": float(error.mean()), "sound_max": float(error.max())}


def text_ratio(a: str, b: str) -> float:
    """Twice the number of common letters divided by the letters of both texts, 0 to 1; symmetric.

    Longer texts are compared by word or by line, which never finds more in common.
    """
    if a == b:
        return 1.0
    first, second = sorted((a, b))  # sorted, because difflib's result may depend on the order
    pieces = _split_texts(first, second)
    blocks = difflib.SequenceMatcher(None, *pieces, autojunk=False).get_matching_blocks()
    common = sum(len(piece) for block in blocks for piece in pieces[0][block.a : block.a + block.size])
    return 2.0 * common / (len(a) + len(b))


def _split_texts(a: str, b: str) -> tuple[Sequence[str], Sequence[str]]:
    if max(len(a), len(b)) <= _MAX_LETTERS:
        return a, b
    words = [re.findall(r"\w+|\s+|[^\w\s]", text) for text in (a, b)]
    if max(map(len, words)) <= _MAX_WORDS:
        return words[0], words[1]
    return a.splitlines(keepends=True), b.splitlines(keepends=True)
