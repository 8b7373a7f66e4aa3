"""Sounds and films on disk, through PyAV (the extra `media`, imported when one is written or read).

Names, containers, codecs, metadata and what the nodes show are ComfyUI 0.3.64's: flac; mp4 with H.264 and AAC. A VIDEO
is a `Film`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.picture_files import find_input, make_metadata, make_preview_prefix, save_files
from sweeper.model.picture_size import FILM_OPTIONS
from sweeper.wording import format_install

Audio = dict[str, Any]

_TAGS = {"movflags": "use_metadata_tags"}  # MP4 keeps only known tags otherwise


def _import_av() -> Any:
    """PyAV. Raises RuntimeError that says how to install it."""
    try:
        return importlib.import_module("av")
    except ImportError:
        raise RuntimeError(
            f"this server writes and reads sounds and films with PyAV, which is not installed: {format_install('av')}"
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """Pictures [n, H, W, 3], 0-1, their rate in frames a second, a sound or none, and the bits of a colour."""

    images: Array
    rate: Fraction
    audio: Audio | None = None
    bit_depth: int = 8

    def __repr__(self) -> str:
        return f"<film of {len(self.images)} frames, {self.images.shape[2]} x {self.images.shape[1]}>"


def read_film(path: Path) -> Film:
    """A film from disk. Raises ValueError for a file without pictures."""
    with _import_av().open(str(path), options=FILM_OPTIONS) as container:
        if not container.streams.video:
            raise ValueError(f"no video stream found in {path.name}")
        stream, has_sound = container.streams.video[0], bool(container.streams.audio)
        rate, bits = Fraction(stream.average_rate or 1), stream.format.components[0].bits
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    images = np.stack(frames).astype(np.float32) / np.float32(255) if frames else np.zeros((0, 0, 0, 3), np.float32)
    return Film(images, rate, read_sound(path) if has_sound else None, bits)


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


def load_video(context: Context, file: str) -> Film:
    return read_film(find_input(context, file, "video"))


def _make_sound_frame(waveform: Array, rate: int) -> Any:
    """One frame of all samples of [C, N]; PyAV cuts it up."""
    layout = "mono" if len(waveform) == 1 else "stereo"
    packed = np.ascontiguousarray(waveform.T.reshape(1, -1), np.float32)
    frame = _import_av().AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    return frame


def _write_flac(file: BinaryIO, waveform: Array, rate: int, metadata: dict[str, str]) -> None:
    """Encode [C, N]. Raises ValueError for more than two channels."""
    if len(waveform) > 2:
        raise ValueError(f"a sound of {len(waveform)} channels cannot be saved; one or two can")
    with _import_av().open(file, mode="w", format="flac") as container:
        container.metadata.update(metadata)
        stream = container.add_stream("flac", rate=rate, layout="mono" if len(waveform) == 1 else "stereo")
        if waveform.shape[1]:
            container.mux(stream.encode(_make_sound_frame(waveform, rate)))
        container.mux(stream.encode(None))


def _save_sounds(context: Context, audio: Audio, prefix: str, *, temporary: bool = False) -> NodeOutput:
    def write(file: BinaryIO, waveform: Array) -> None:
        _write_flac(file, waveform, int(audio["sample_rate"]), make_metadata(context))

    saved = save_files(context, prefix, ".flac", audio["waveform"], write, temporary=temporary)
    return NodeOutput((audio,), ui={"audio": saved})


def save_flac(context: Context, audio: Audio, filename_prefix: str = "ComfyUI") -> NodeOutput:
    return _save_sounds(context, audio, filename_prefix)


def preview_audio(context: Context, audio: Audio) -> NodeOutput:
    return _save_sounds(context, audio, make_preview_prefix(), temporary=True)


def create_video(images: Array, fps: float, audio: Audio | None = None, bit_depth: int = 8) -> Film:
    return Film(images, Fraction(fps), audio, bit_depth)


def components(video: Film) -> tuple[Array, Audio | None, float, int, str]:
    """Its pictures, sound, rate, bits of a colour, and colour space, which is always sRGB here."""
    return video.images, video.audio, float(video.rate), video.bit_depth, "sRGB"


def _iter_frames(context: Context, images: Array) -> Iterator[Any]:
    video_frame = _import_av().VideoFrame
    for image in images:
        context.check()
        pixels = np.clip(np.float32(255) * image[..., :3], 0, 255).astype(np.uint8)
        yield video_frame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def save_video(context: Context, *, video: Film, filename_prefix: str, **_form: str) -> NodeOutput:
    """MP4 with H.264, whatever format and codec the node asks for."""

    def write(file: BinaryIO, film: Film) -> None:
        _write_mp4(context, file, film)

    saved = save_files(context, filename_prefix, ".mp4", [video], write)
    return NodeOutput((video,), ui={"images": saved, "animated": [True]})


def _write_mp4(context: Context, file: BinaryIO, film: Film) -> None:
    rate = Fraction(round(film.rate * 1000), 1000)
    with _import_av().open(file, mode="w", format="mp4", options=_TAGS) as container:
        container.metadata.update(make_metadata(context))
        stream = container.add_stream("h264", rate=rate)
        stream.height, stream.width = film.images.shape[1:3]
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
# Of the minor pentatonic scale from A3, in equal temperament.
_NOTES = [220.0 * 2 ** (semitone / 12) for semitone in (0, 3, 5, 7, 10, 12, 15, 17)]  # Hz


def play(numbers: Array, length: int) -> Audio:
    """Play `length` samples in stereo: a bar of notes that the numbers, about -1 .. 1, choose, again and again."""
    samples = np.arange(length)
    beat = samples * 4 // RATE % len(numbers)
    pitch = np.interp(numbers, np.linspace(-1, 1, len(_NOTES)), np.arange(len(_NOTES)))
    turn = samples * (2 * math.pi / RATE) * np.array(_NOTES)[np.rint(pitch).astype(int)][beat]
    fade = np.exp(-3 * (samples * 4 / RATE % 1)) * (0.3 + 0.1 * numbers[beat])
    sound = fade * (np.sin(turn) + 0.2 * np.sin(2 * turn))
    right = 0.5 + 0.4 * numbers[beat]
    return {"waveform": np.stack([sound * (1 - right), sound * right])[None].astype(np.float32), "sample_rate": RATE}
