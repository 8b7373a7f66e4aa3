"""AUDIO: sounds as numbers, and the way from a latent to a sound and back. Files are for `media_files`.

An AUDIO is {"waveform": float32 [B, C, N], -1 to 1, "sample_rate": Hz}. A procedural model knows no music: it draws a
picture 16 rows high, and the picture is played as a score, time from left to right, each row a note of a pentatonic
scale, as loud as it is light and as far right as it is blue. So prompt, seed and cfg are heard, and nothing is sung.
Semantics of the other nodes as ComfyUI 0.3.64's nodes_audio.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.hints import VisionOutput
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.diffusion.scaling import check_size
from sweeper.embedded.diffusion.text import digest_normals
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning_extras import VisionModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Latent = dict[str, Any]
    Audio = dict[str, Any]

RATE = 44100  # Hz, of both families of audio models
_ROWS, _COLUMNS = 16, 256  # of the score; longer sounds have longer columns
# Three octaves of the minor pentatonic scale from A2, in equal temperament, high notes at the top.
_SEMITONES = [12 * octave + step for octave in range(4) for step in (0, 3, 5, 7, 10)][:_ROWS]
_NOTES = [110.0 * 2 ** (semitone / 12) for semitone in reversed(_SEMITONES)]  # Hz
_BLOCK = 2**18  # samples that are worked on at once


def _make_empty(shape: tuple[int, ...], samples: int) -> NodeOutput:
    check_size(*shape)
    columns = min(max(samples // 8192, 8), _COLUMNS)
    latent: Latent = {"samples": np.zeros(shape, np.float32), "type": "audio", "audio_samples": samples}
    return NodeOutput(({**latent, "pixels": (columns * 8, _ROWS * 8)},))


def empty_latent(_context: Context, seconds: float, batch_size: int) -> NodeOutput:
    """Stable Audio's: 64 channels, 2048 samples to one number, an even count."""
    length = round((seconds * RATE / 2048) / 2) * 2
    return _make_empty((batch_size, 64, length), length * 2048)


def empty_ace_step(_context: Context, seconds: float, batch_size: int) -> NodeOutput:
    length = int(seconds * RATE / 512 / 8)
    return _make_empty((batch_size, 8, 16, length), length * 512 * 8)


def _read_score(latent: Latent) -> tuple[Array, int]:
    """The latent [B, 4, rows, columns] and the samples that it lasts."""
    samples: Array = latent["samples"]
    if not np.any(samples) and "pixels" in latent:
        width, height = latent["pixels"]
        samples = np.zeros((len(samples), 4, height // 8, width // 8), np.float32)
    if samples.ndim != 4 or samples.shape[1] != 4:
        raise ValueError(f"this decoder plays latents [B, 4, rows, columns]; it was given {list(samples.shape)}")
    return samples, int(latent.get("audio_samples", samples.shape[3] * 8192))


def decode(context: Context, samples: Latent, vae: Vae) -> NodeOutput:
    """AUDIO in stereo. A decoder's strokes and hatching are overtones; its grain is breath."""
    score, length = _read_score(samples)
    check_size(len(score), 2, length)
    played = np.stack([_play(context, item, length, vae) for item in score])
    loud = np.maximum(played.std(axis=(1, 2), keepdims=True) * 5, 1)
    return NodeOutput(({"waveform": (played / loud).astype(np.float32), "sample_rate": RATE},))


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


def encode(context: Context, audio: Audio, vae: Vae) -> NodeOutput:
    """How loud each note of the scale is over time, as a latent; what lies between the notes is lost."""
    waveform = resample(audio["waveform"], int(audio["sample_rate"]), RATE)
    length = waveform.shape[-1]
    columns = min(max(length // 8192, 8), _COLUMNS)
    items = []
    for sound in waveform:
        context.check()
        sides = np.stack([_measure_loudness(channel, columns) for channel in (sound[0], sound[-1])])
        both = sides.sum(axis=0)
        right = np.where(both > 0, sides[1] / np.where(both > 0, both, 1), 0.5)
        pan = np.arctanh(np.clip(2 * right - 1, -0.99, 0.99))
        luma = both * (2 * _ROWS**0.5)
        items.append(np.stack([luma, pan, np.zeros_like(luma), np.full_like(luma, 0.9)]))
    latent: Latent = {"samples": np.stack(items).astype(np.float32), "type": "audio", "audio_samples": length}
    return NodeOutput((latent,))


def _measure_loudness(channel: Array, columns: int) -> Array:
    """[rows, columns]: the amplitude of each note in each part of the sound."""
    edges = np.linspace(0, len(channel), columns + 1).astype(int)
    samples = np.arange(len(channel))
    amplitudes = np.zeros((_ROWS, columns))
    widths = np.maximum(np.diff(edges), 1)
    for row, note in enumerate(_NOTES):
        turned = channel * np.exp(samples * (-2j * math.pi * note / RATE))
        sums = np.append(0, np.cumsum(turned))
        amplitudes[row] = 2 * np.abs(np.diff(sums[edges])) / widths
    return amplitudes


def resample(waveform: Array, rate: int, new_rate: int) -> Array:
    """Band-limited, by its Fourier transform: [..., ceil(N * wanted / rate)]."""
    if rate == new_rate or waveform.shape[-1] == 0:
        return waveform
    if min(rate, new_rate) < 1:
        raise ValueError(f"a sound of {rate} Hz cannot become one of {new_rate} Hz")
    common = math.gcd(rate, new_rate)
    old, new = rate // common, new_rate // common
    count = waveform.shape[-1]
    padded = -(-count // old) * old
    check_size(*waveform.shape[:-1], padded // old * new)
    spectrum = np.fft.rfft(waveform, padded)
    longer = padded // old * new
    result = np.fft.irfft(spectrum[..., : longer // 2 + 1], longer) * (new / old)
    return np.asarray(result[..., : -(-count * new // old)], np.float32)


def silence(_context: Context, duration: float, sample_rate: int, channels: int) -> NodeOutput:
    if sample_rate < 1:
        raise ValueError(f"sample_rate {sample_rate} must be at least 1 Hz")
    count = round(duration * sample_rate)
    check_size(channels, count)
    return NodeOutput(({"waveform": np.zeros((1, channels, count), np.float32), "sample_rate": sample_rate},))


def _with_waveform(audio: Audio, waveform: Array) -> Audio:
    return {"waveform": waveform, "sample_rate": audio["sample_rate"]}


def trim(_context: Context, audio: Audio, start_index: float, duration: float) -> NodeOutput:
    """From `start_index` seconds on (negative: before the end). Raises ValueError for nothing at all."""
    waveform, rate = audio["waveform"], audio["sample_rate"]
    count = waveform.shape[-1]
    start = round(start_index * rate) + (count if start_index < 0 else 0)
    start = max(0, min(start, count - 1))
    end = max(0, min(start + round(duration * rate), count))
    if start >= end:
        raise ValueError("AudioTrim: Start time must be less than end time and be within the audio length.")
    return NodeOutput((_with_waveform(audio, waveform[..., start:end]),))


def split(_context: Context, audio: Audio) -> NodeOutput:
    waveform = audio["waveform"]
    if waveform.shape[1] != 2:
        raise ValueError("AudioSplit: Input audio has only one channel.")
    return NodeOutput((_with_waveform(audio, waveform[:, :1]), _with_waveform(audio, waveform[:, 1:])))


def _match_rates(first: Audio, second: Audio) -> tuple[Array, Array, int]:
    """Both at the higher of their two rates."""
    rate = max(first["sample_rate"], second["sample_rate"])
    waveforms = [resample(audio["waveform"], audio["sample_rate"], rate) for audio in (first, second)]
    return waveforms[0], waveforms[1], rate


def concat(_context: Context, audio1: Audio, audio2: Audio, direction: str) -> NodeOutput:
    """One after the other, in stereo."""
    first, second, rate = _match_rates(audio1, audio2)
    sides = [np.repeat(side, 2, axis=1) if side.shape[1] == 1 else side for side in (first, second)]
    joined = np.concatenate(sides if direction == "after" else sides[::-1], axis=2)
    return NodeOutput(({"waveform": joined, "sample_rate": rate},))


_MERGES = {
    "add": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
}


def merge(_context: Context, audio1: Audio, audio2: Audio, merge_method: str) -> NodeOutput:
    """Both at once, as long as the first; softened where it would be louder than 1."""
    first, second, rate = _match_rates(audio1, audio2)
    missing = max(first.shape[-1] - second.shape[-1], 0)
    second = np.pad(second, ((0, 0), (0, 0), (0, missing)))[..., : first.shape[-1]]
    merged = np.asarray(_MERGES[merge_method](first, second), np.float32)
    peak = float(np.abs(merged).max(initial=0))
    return NodeOutput(({"waveform": merged / np.float32(max(peak, 1)), "sample_rate": rate},))


def adjust_volume(_context: Context, audio: Audio, volume: int) -> NodeOutput:
    """By `volume` dB."""
    gain = np.float32(10 ** (volume / 20))
    return NodeOutput((audio if volume == 0 else _with_waveform(audio, audio["waveform"] * gain),))


def load_encoder(_context: Context, audio_encoder_name: str) -> NodeOutput:
    check_name(audio_encoder_name)
    return NodeOutput((VisionModel(audio_encoder_name),))


def listen(context: Context, audio_encoder: VisionModel, audio: Audio) -> NodeOutput:
    """What a sound tells a prompt: loud is light, and how loud each note is on the average lies in the layout."""
    latent = encode(context, audio, Vae("", (0.0, 0.0, 0.0, 0.0))).values[0]
    notes = latent["samples"][:, 0].mean(axis=2)
    rows = np.zeros((len(notes), len(FEATURES)), np.float32)
    turns = digest_normals(f"audio/{audio_encoder.name}", HASHED * _ROWS).reshape(HASHED, _ROWS)
    for row, loudness in zip(rows, notes, strict=True):
        row[INDEX["dark"]] = 0.3 - math.tanh(float(loudness.sum()))
        row[-HASHED:] = np.tanh(turns @ loudness)
    return NodeOutput((VisionOutput(rows),))
