"""AUDIO: a picture played as a sound. Files are for `media_files`.

An AUDIO is {"waveform": float32 [B, C, N], -1 to 1, "sample_rate": Hz}. A procedural model knows no music: it draws a
picture 16 rows high, and the picture is played as a score, time from left to right, each row a note of a pentatonic
scale, as loud as it is light and as far right as it is blue. So prompt, seed and cfg are heard, and nothing is sung.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.scaling import check_size
from sweeper.embedded.nodes.base import Context

Audio = dict[str, Any]

RATE = 44100  # Hz
_ROWS = 16  # of the score
# Three octaves of the minor pentatonic scale from A2, in equal temperament, high notes at the top.
_SEMITONES = [12 * octave + step for octave in range(4) for step in (0, 3, 5, 7, 10)][:_ROWS]
_NOTES = [110.0 * 2 ** (semitone / 12) for semitone in reversed(_SEMITONES)]  # Hz
_BLOCK = 2**18  # samples that are worked on at once


def play(context: Context, score: Array, length: int, vae: Vae) -> Audio:
    """Play latents [B, 4, rows, columns] for `length` samples, in stereo.

    A decoder's strokes and hatching are overtones; its grain is breath.
    """
    check_size(len(score), 2, length)
    played = np.stack([_play(context, item, length, vae) for item in score])
    loud = np.maximum(played.std(axis=(1, 2), keepdims=True) * 5, 1)
    return {"waveform": (played / loud).astype(np.float32), "sample_rate": RATE}


def _play(context: Context, item: Array, length: int, vae: Vae) -> Array:
    """[2, length] of [4, rows, columns]."""
    loudness = np.clip(item[0] - item[0].mean() + 0.2, 0, 3)
    right = 0.5 + 0.5 * np.tanh(item[1])
    sides = np.stack([loudness * (1 - right), loudness * right])
    overtones = (1.0, 0.4 * vae.textures[0], 0.3 * vae.textures[2])
    result = np.zeros((2, length), np.float32)
    columns = item.shape[2]
    notes = _NOTES[: item.shape[1]]
    for start in range(0, length, _BLOCK):
        context.check()
        samples = np.arange(start, min(start + _BLOCK, length))
        position = np.clip((samples + 0.5) / length * columns - 0.5, 0, columns - 1)
        for row, note in enumerate(notes):
            swing = sum(
                (part / number) * np.sin(samples * (2 * math.pi * note * number / RATE))
                for number, part in enumerate(overtones, start=1)
            )
            for side in range(2):
                envelope = np.interp(position, np.arange(columns), sides[side, row])
                result[side, start : start + len(samples)] += (envelope * swing).astype(np.float32)
    return result / np.float32(2 * len(notes) ** 0.5)
