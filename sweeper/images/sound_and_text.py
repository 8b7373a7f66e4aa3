"""Measures of two sounds and of two texts.

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
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from sweeper.images.media import Sound

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
    snr = _to_decibels(float(np.square(accepted.samples).mean()), float(np.square(error).mean()))
    return {"sound_snr": snr, "sound_mae": float(error.mean()), "sound_max": float(error.max())}


def _to_decibels(power: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10.0 * math.log10(power / noise) if power > 0 else -math.inf


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
