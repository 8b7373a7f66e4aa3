"""Pictures, sounds and films on the server's disk, with ComfyUI 0.3.64's names, metadata and rules.

No two jobs share a file that any node saves. Sounds (flac) and films (mp4 with H.264 and AAC; a VIDEO is a `Film`) go
through PyAV (the extra `media`), which is imported when one is written or read.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.nodes import Context, NodeOutput
from sweeper.embedded.nodes.images import to_image
from sweeper.files import atomic_write
from sweeper.model.picture_size import FILM_OPTIONS, PICTURE_FORMATS, check_pixels
from sweeper.wording import format_install


def find_input(context: Context, name: str, kind: str = "image") -> Path:
    """The file that an input names. Raises FileNotFoundError."""
    path = context.find_input(name)
    if path is None:
        raise FileNotFoundError(f"Invalid {kind} file: {name}")
    return path


def load_image(context: Context, image: str) -> tuple[Array, Array]:
    """IMAGE [frames, H, W, 3] and MASK [frames, H, W], 1 - alpha; a picture without alpha has an empty 64 x 64 mask.

    Turned as its EXIF says; frames of another size than the first are left out; of an MPO only the first is taken.
    """
    with Image.open(find_input(context, image), formats=PICTURE_FORMATS) as file:
        check_pixels(file.size, getattr(file, "n_frames", 1))
        frames = [_decode_frame(frame) for frame in ImageSequence.Iterator(file)]
        single = file.format == "MPO"
    frames = [frame for frame in frames if frame[0].shape == frames[0][0].shape]
    if single:
        frames = frames[:1]
    return np.stack([pixels for pixels, _ in frames]), np.stack([mask for _, mask in frames])


def _decode_frame(frame: Image.Image) -> tuple[Array, Array]:
    picture = ImageOps.exif_transpose(frame)
    pixels = np.asarray(_convert_to_rgb(picture), np.float32) / np.float32(255)
    if "A" in picture.getbands():
        alpha = picture.getchannel("A")
    elif picture.mode == "P" and "transparency" in picture.info:
        alpha = picture.convert("RGBA").getchannel("A")
    else:
        return pixels, np.zeros((64, 64), np.float32)
    return pixels, 1 - np.asarray(alpha, np.float32) / np.float32(255)


def _convert_to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA").convert("RGB")  # the same colours, without Pillow's warning
    return picture.convert("RGB")


def make_metadata(context: Context) -> dict[str, str]:
    """The graph and each key of extra_pnginfo as JSON."""
    graphs = {"prompt": context.prompt, **context.extra_pnginfo}
    return {name: json.dumps(value) for name, value in graphs.items()}


def save_image(context: Context, images: Array, filename_prefix: str | None = "ComfyUI") -> NodeOutput:
    """PNG files `<prefix>_00001_.png` in the output folder, or previews (see `save_files`)."""
    info, level = PngInfo(), 1 if filename_prefix is None else 4
    for key, text in make_metadata(context).items():
        info.add_text(key, text)

    def write(file: BinaryIO, picture: Image.Image) -> None:
        picture.save(file, format="PNG", pnginfo=info, compress_level=level)

    saved = save_files(context, filename_prefix, ".png", to_pil_images(images), write)
    return NodeOutput((images,), ui={"images": saved})


def preview_image(context: Context, images: Array) -> NodeOutput:
    return save_image(context, images, None)


def send_images(context: Context, images: Array) -> NodeOutput:
    """SaveImageWebsocket: nothing on disk, every picture into the event stream."""
    for number, picture in enumerate(to_pil_images(images)):
        context.progress(number, len(images))
        context.show(picture)
    return NodeOutput()


def preview_mask(context: Context, mask: Array) -> NodeOutput:
    """MaskPreview: the mask as grey pictures in the temporary folder."""
    return NodeOutput((mask,), preview_image(context, to_image(mask)).ui)


def preview_any(source: Any = None) -> NodeOutput:
    """PreviewAny: a value as text, JSON where it has a form in it, shown and passed on."""
    try:
        text = source if isinstance(source, str) else json.dumps(source)
    except (TypeError, ValueError):
        text = str(source)
    text = str(source) if isinstance(source, bool | float) else text  # not `true` and `NaN`
    return NodeOutput((text,), ui={"text": [text]})


def load_mask(context: Context, image: str, channel: str) -> Array:
    """One channel of a file as MASK [1, H, W]; alpha turned around; empty, 64 x 64, where there is no such channel."""
    with Image.open(find_input(context, image), formats=PICTURE_FORMATS) as file:
        check_pixels(file.size)
        picture = ImageOps.exif_transpose(file)
        if picture.mode != "RGBA":
            clear = picture.mode in {"LA", "PA"} or "transparency" in picture.info
            picture = picture.convert("RGBA") if clear else _convert_to_rgb(picture).convert("RGBA")
    plane = np.asarray(picture.getchannel(channel[0].upper()), np.float32) / np.float32(255)
    return np.asarray((1 - plane if channel == "alpha" else plane)[None])


# --- names of saved files --------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _make_preview_prefix() -> str:
    """ComfyUI's temporary prefix: five random letters per start of the server."""
    return "ComfyUI_temp_" + "".join(secrets.choice("abcdefghijklmnopqrstupvxyz") for _ in range(5))


def _split_prefix(prefix: str, root: Path) -> tuple[str, str]:
    """(subfolder, file name) of a prefix. Raises Exception, as ComfyUI does, where it leads out of `root`."""
    path = os.path.normpath(prefix)
    subfolder, name = os.path.split(path)
    is_inside = "\0" not in prefix and Path(os.path.realpath(root / subfolder)).is_relative_to(root)
    if not is_inside or name == "..":
        # ComfyUI goes on to name the server's folders here; a client has no use for those.
        raise Exception(  # noqa: TRY002 - ComfyUI raises this class, and clients see its name
            f"**** ERROR: Saving image outside the output folder is not allowed.\n filename_prefix: {prefix!r}"
        )
    return subfolder, name


def _next_counter(folder: Path, name: str) -> int:
    """One more than the highest number that a file `<name>_<number>_...` in the folder has."""
    highest = 0
    start = os.path.normcase(f"{name}_")
    for entry in map(os.path.normcase, os.listdir(folder)):  # noqa: PTH208 - paths would be slow for thousands of files
        if entry.startswith(start):
            digits = entry[len(start) :].split("_")[0]
            highest = max(highest, int(digits) if digits.isdecimal() else 0)
    return highest + 1


def _reserve_file(folder: Path, name: str, counter: int, suffix: str) -> tuple[Path, int]:
    """The first free `<name>_<counter>_<suffix>`, created empty: two jobs at once can never hold the same one."""
    while True:
        path = folder / f"{name}_{counter:05}_{suffix}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            counter += 1
        else:
            return path, counter


def save_files(
    context: Context, prefix: str | None, suffix: str, items: Iterable[Any], write: Callable[[BinaryIO, Any], object]
) -> list[dict[str, str]]:
    """Save a file `<prefix>_<number>_<suffix>` for each item by `write(file, item)`; as previews if `prefix` is None.

    Returns the files as a node's `ui` names them. Raises Exception for a prefix that climbs out of the folder. If
    `write` raises, its file does not stay.
    """
    kind = "temp" if prefix is None else "output"
    root = context.resolve(kind, "")
    subfolder, name = _split_prefix(_make_preview_prefix() if prefix is None else prefix, root)
    folder = root / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    counter = _next_counter(folder, name)
    saved = []
    for item in items:
        context.check()
        path, counter = _reserve_file(folder, name, counter, suffix)
        try:
            with atomic_write(path) as file:
                write(file, item)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        counter += 1
        saved.append({"filename": path.name, "subfolder": subfolder.replace(os.sep, "/"), "type": kind})
    return saved


def to_pil_images(images: Array) -> Iterator[Image.Image]:
    """8-bit pictures of IMAGE [B, H, W, C]: times 255, clipped, cut off (not rounded), as ComfyUI does."""
    for image in images:
        pixels = np.clip(np.float32(255) * image, 0, 255).astype(np.uint8)
        yield Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


# --- sounds and films -------------------------------------------------------------------------------------------------

Audio = dict[str, Any]


def _import_av() -> Any:
    """PyAV. Raises RuntimeError that says how to install it."""
    try:
        return importlib.import_module("av")
    except ImportError:
        raise RuntimeError(
            f"this server writes and reads sounds and films with PyAV, which is not installed: {format_install('av')}"
        ) from None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Film:
    """Pictures [n, H, W, 3], 0-1, their rate in frames a second, a sound or none, and the bits of a colour."""

    images: Array
    rate: Fraction
    audio: Audio | None = None
    bit_depth: int = 8


def load_video(context: Context, file: str) -> Film:
    """A film from disk. Raises ValueError for a file without pictures."""
    path = find_input(context, file, "video")
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


def _make_sound_frame(waveform: Array, rate: int) -> Any:
    """One frame of all samples of [C, N]; PyAV cuts it up."""
    layout = "mono" if len(waveform) == 1 else "stereo"
    packed = np.ascontiguousarray(waveform.T.reshape(1, -1), np.float32)
    frame = _import_av().AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    return frame


def save_flac(context: Context, audio: Audio, filename_prefix: str | None = "ComfyUI") -> NodeOutput:
    """FLAC files, or previews (see `save_files`). Raises ValueError for more than two channels."""
    rate = int(audio["sample_rate"])

    def write(file: BinaryIO, waveform: Array) -> None:  # of [C, N]
        if len(waveform) > 2:
            raise ValueError(f"a sound of {len(waveform)} channels cannot be saved; one or two can")
        with _import_av().open(file, mode="w", format="flac") as container:
            container.metadata.update(make_metadata(context))
            stream = container.add_stream("flac", rate=rate, layout="mono" if len(waveform) == 1 else "stereo")
            if waveform.shape[1]:
                container.mux(stream.encode(_make_sound_frame(waveform, rate)))
            container.mux(stream.encode(None))

    saved = save_files(context, filename_prefix, ".flac", audio["waveform"], write)
    return NodeOutput((audio,), ui={"audio": saved})


def preview_audio(context: Context, audio: Audio) -> NodeOutput:
    return save_flac(context, audio, None)


def create_video(images: Array, fps: float, audio: Audio | None = None, bit_depth: int = 8) -> Film:
    return Film(images, Fraction(fps), audio, bit_depth)


def components(video: Film) -> tuple[Array, Audio | None, float, int, str]:
    """Its pictures, sound, rate, bits of a colour, and colour space, which is always sRGB here."""
    return video.images, video.audio, float(video.rate), video.bit_depth, "sRGB"


def save_video(context: Context, *, video: Film, filename_prefix: str, **_form: str) -> NodeOutput:
    """MP4 with H.264, whatever format and codec the node asks for."""
    saved = save_files(context, filename_prefix, ".mp4", [video], partial(_write_mp4, context))
    return NodeOutput((video,), ui={"images": saved, "animated": [True]})


def _write_mp4(context: Context, file: BinaryIO, film: Film) -> None:
    rate = Fraction(round(film.rate * 1000), 1000)
    av = _import_av()
    options = {"movflags": "use_metadata_tags"}  # MP4 keeps only known tags otherwise
    with av.open(file, mode="w", format="mp4", options=options) as container:
        container.metadata.update(make_metadata(context))
        stream = container.add_stream("h264", rate=rate)
        stream.height, stream.width = film.images.shape[1:3]
        stream.pix_fmt = "yuv420p10le" if film.bit_depth > 8 else "yuv420p"
        sound = None
        if film.audio is not None:
            sound = container.add_stream("aac", rate=int(film.audio["sample_rate"]))
        for image in film.images:
            context.check()
            pixels = np.clip(np.float32(255) * image[..., :3], 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
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
