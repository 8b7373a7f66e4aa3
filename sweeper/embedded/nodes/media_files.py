"""Sounds and films on disk, through PyAV (the extra `media`, imported when one is written or read).

Names, containers, codecs, metadata and what the nodes show are ComfyUI 0.3.64's: flac; mp4 with H.264 and AAC. A VIDEO
is a `Film`, or a `FilmFile` that is read when it is needed.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.scaling import check_size
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.output_naming import save_files
from sweeper.embedded.nodes.picture_files import find_input, make_metadata, make_preview_prefix
from sweeper.model.picture_size import FILM_OPTIONS

Audio = dict[str, Any]

_TAGS = {"movflags": "use_metadata_tags"}  # MP4 keeps only known tags otherwise


def _import_av() -> Any:
    """PyAV. Raises RuntimeError that says how to install it."""
    try:
        return importlib.import_module("av")
    except ImportError:
        raise RuntimeError(
            "this server writes and reads sounds and films with PyAV, which is not installed: "
            'python -m pip install "comfy-sweeper[media]"'
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """Pictures [n, H, W, 3], 0-1, their rate in frames a second, a sound or none, and the bits of a colour."""

    images: Array
    rate: Fraction
    audio: Audio | None = None
    bit_depth: int = 8

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.images.shape[2], self.images.shape[1]

    def load(self) -> Film:
        return self

    def __repr__(self) -> str:
        return f"<film of {len(self.images)} frames, {self.size[0]} x {self.size[1]}>"


@dataclass(frozen=True, slots=True)
class FilmFile:
    """A film on disk, not read yet."""

    path: Path

    @property
    def size(self) -> tuple[int, int]:
        """Width and height. Raises ValueError for a file without pictures."""
        with _import_av().open(str(self.path), options=FILM_OPTIONS) as container:
            for stream in container.streams.video:
                return int(stream.width), int(stream.height)
        raise ValueError(f"no video stream found in {self.path.name}")

    def load(self) -> Film:
        """All of it."""
        with _import_av().open(str(self.path), options=FILM_OPTIONS) as container:
            if not container.streams.video:
                raise ValueError(f"no video stream found in {self.path.name}")
            rate = Fraction(container.streams.video[0].average_rate or 1)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            sounds = bool(container.streams.audio)
            bits = container.streams.video[0].format.components[0].bits
        images = np.stack(frames).astype(np.float32) / np.float32(255) if frames else np.zeros((0, 0, 0, 3), np.float32)
        return Film(images, rate, read_sound(self.path) if sounds else None, bits)


def read_sound(path: Path) -> Audio:
    """The first sound of a file, as it is sampled there. Raises ValueError where there is none."""
    av = _import_av()
    with av.open(str(path), options=FILM_OPTIONS) as container:
        if not container.streams.audio:
            raise ValueError(f"No audio stream found in the file {path.name}.")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        parts = [part.to_ndarray() for frame in [*container.decode(stream), None] for part in resampler.resample(frame)]
        rate = int(stream.rate)
    if not parts:
        raise ValueError(f"No audio frames decoded from {path.name}.")
    return {"waveform": np.concatenate(parts, axis=1)[None].astype(np.float32), "sample_rate": rate}


def load_audio(context: Context, audio: str) -> Audio:
    return read_sound(find_input(context, audio, "audio"))


def load_video(context: Context, file: str) -> FilmFile:
    return FilmFile(find_input(context, file, "video"))


def _make_sound_frame(waveform: Array, rate: int) -> Any:
    """One frame of all samples of [C, N]; PyAV cuts it up."""
    layout = "mono" if len(waveform) == 1 else "stereo"
    packed = np.ascontiguousarray(waveform.T.reshape(1, -1), np.float32)
    frame = _import_av().AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    return frame


def _encode_flac(waveform: Array, rate: int, metadata: dict[str, str]) -> bytes:
    """Encode [C, N]. Raises ValueError for more than two channels."""
    if len(waveform) > 2:
        raise ValueError(f"a sound of {len(waveform)} channels cannot be saved; one or two can")
    buffer = io.BytesIO()
    with _import_av().open(buffer, mode="w", format="flac") as container:
        container.metadata.update(metadata)
        stream = container.add_stream("flac", rate=rate, layout="mono" if len(waveform) == 1 else "stereo")
        if waveform.shape[1]:
            container.mux(stream.encode(_make_sound_frame(waveform, rate)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _save_sounds(context: Context, audio: Audio, prefix: str, *, temporary: bool = False) -> NodeOutput:
    def write(path: Path, waveform: Array) -> None:
        path.write_bytes(_encode_flac(waveform, int(audio["sample_rate"]), make_metadata(context)))

    saved = save_files(context, prefix, ".flac", audio["waveform"], write, temporary=temporary)
    return NodeOutput((audio,), ui={"audio": saved})


def save_flac(context: Context, audio: Audio, filename_prefix: str = "ComfyUI") -> NodeOutput:
    return _save_sounds(context, audio, filename_prefix)


def preview_audio(context: Context, audio: Audio) -> NodeOutput:
    return _save_sounds(context, audio, make_preview_prefix(), temporary=True)


def create_video(images: Array, fps: float, audio: Audio | None = None, bit_depth: int = 8) -> Film:
    return Film(images, Fraction(fps), audio, bit_depth)


def components(video: Film | FilmFile) -> tuple[Array, Audio | None, float, int, str]:
    """Its pictures, sound, rate, bits of a colour, and colour space, which is always sRGB here."""
    film = video.load()
    return film.images, film.audio, float(film.rate), film.bit_depth, "sRGB"


def _iter_frames(context: Context, images: Array) -> Iterator[Any]:
    video_frame = _import_av().VideoFrame
    for image in images:
        context.check()
        pixels = np.clip(np.float32(255) * image[..., :3], 0, 255).astype(np.uint8)
        yield video_frame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def save_video(
    context: Context,
    *,
    video: Film | FilmFile,
    filename_prefix: str,
    format: str,
    codec: str,
) -> NodeOutput:
    """MP4 with H.264, the only ones there are."""
    if format not in {"auto", "mp4"}:
        raise ValueError("Only MP4 format is supported for now")
    if codec not in {"auto", "h264"}:
        raise ValueError("Only H264 codec is supported for now")

    def write(path: Path, film: Film | FilmFile) -> None:
        _write_mp4(context, path, film.load())

    saved = save_files(context, filename_prefix, ".mp4", [video], write, size=video.size)
    return NodeOutput((video,), ui={"images": saved, "animated": [True]})


def _write_mp4(context: Context, path: Path, film: Film) -> None:
    rate = Fraction(round(film.rate * 1000), 1000)
    with _import_av().open(str(path), mode="w", format="mp4", options=_TAGS) as container:
        container.metadata.update(make_metadata(context))
        stream = container.add_stream("h264", rate=rate)
        stream.width, stream.height = film.size
        stream.pix_fmt = "yuv420p10le" if film.bit_depth > 8 else "yuv420p"
        sound = None
        if film.audio is not None:
            sound = container.add_stream("aac", rate=int(film.audio["sample_rate"]))
        for frame in _iter_frames(context, film.images):
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
        if sound is not None and film.audio is not None:
            samples = int(film.audio["sample_rate"])
            waveform = film.audio["waveform"][0, :, : math.ceil(samples / rate * len(film.images))]
            container.mux(sound.encode(_make_sound_frame(waveform, samples)))
            container.mux(sound.encode(None))


RATE = 44100  # Hz
_ROWS = 16  # of the score
# Three octaves of the minor pentatonic scale from A2, in equal temperament, high notes at the top.
_SEMITONES = [12 * octave + step for octave in range(4) for step in (0, 3, 5, 7, 10)][:_ROWS]
_NOTES = [110.0 * 2 ** (semitone / 12) for semitone in reversed(_SEMITONES)]  # Hz
_BLOCK = 2**18  # samples that are worked on at once


def play(context: Context, score: Array, length: int, vae: Vae) -> Audio:
    """Play latents [B, 4, rows, columns] as scores for `length` samples, in stereo.

    Time goes from left to right. Each row is a note of a pentatonic scale, as loud as it is light and as far right as
    it is blue.
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
