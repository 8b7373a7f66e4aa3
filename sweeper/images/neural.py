"""Neural measures: LPIPS between two pictures, and CLIP's embedding of one, by ONNX files that the user provides.

sweeper never downloads weights. `SWEEPER_LPIPS` and `SWEEPER_CLIP` name exported files, and `onnxruntime` (extra
`perceptual`) executes them, each on one core so that several comparisons can share the machine.

- LPIPS (Zhang et al. 2018) is a model with two inputs (batch, 3, height, width), RGB from -1 to 1, whose first output
  is the distance. `lpips.LPIPS(net="alex")` exports as such a model. Pictures are not resized, because the distance
  depends on the size.
- CLIP (Radford et al. 2021) is an image encoder with one input (batch, 3, side, side): RGB minus CLIP's mean, divided
  by its deviation. The embedding is the output `image_embeds`, or else the first output of shape (batch, n). As in
  CLIP's own preprocessing, the shorter side is resized to the model's side (bicubic) and the centre is cut out.
- DINO (Oquab et al. 2023) differs in the mean and the deviation, which are ImageNet's. Without an output (batch, n),
  the embedding is the first token of the first output (batch, tokens, n).
- Face models (ArcFace, Deng et al. 2019) take 112 pixels a side, and RGB from -1 to 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeper.errors import ImageError, UsageError
from sweeper.images.colour import flatten_alpha
from sweeper.images.decoding import Pixels
from sweeper.wording import format_install

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODELS: Final[Mapping[str, str]] = {"lpips": "SWEEPER_LPIPS", "clip": "SWEEPER_CLIP"}
_INPUT_COUNTS: Final = {"lpips": 2, "clip": 1}  # pictures
_DESCRIPTIONS: Final = {"lpips": "a model of the distance of two pictures", "clip": "the image encoder of a CLIP"}

_DEFAULT_SIDE: Final = 224  # pixels, for a CLIP model that accepts any size
_EMBEDDING: Final = "image_embeds"  # the name that Hugging Face's exporter (Optimum) gives to that of a CLIP
_FACE_SIDE: Final = 112  # pixels, of insightface's and uniface's recognition models
# What is subtracted from red, green and blue, 0-1, and by what they are then divided.
Levels: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
CLIP_LEVELS: Final = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # openai/CLIP
_IMAGENET_LEVELS: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # facebookresearch/dinov2, transforms.py
_FACE_LEVELS: Final = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # deepinsight/insightface, arcface_onnx.py


def find_model(measure: str) -> Path:
    """The ONNX file for a measure in `MODELS`. Raises UsageError, with what to do, if it cannot be used."""
    try:
        path = find_model_file(MODELS[measure], _DESCRIPTIONS[measure])
        _load_checked(path, input_count=_INPUT_COUNTS[measure])
    except UsageError as error:
        raise UsageError(f"'{measure}' {error}") from error
    return path


def find_model_file(variable: str, description: str) -> Path:
    """The file that an environment variable names. Raises UsageError, as `load_model` does."""
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"needs a model of yours: set {variable} to an ONNX file, {description}")
    path = Path(value)
    if not path.is_file():
        raise UsageError(f"needs a model of yours, and {variable} names {path}, which is not a file")
    return path


def embed_picture(picture: Pixels, model: Path, levels: Levels = CLIP_LEVELS) -> NDArray[np.float32]:
    """The embedding (n,) of a picture (height, width, 1-4), 0-255, by an ONNX image encoder; its length is 1.

    Alpha is dropped. Raises UsageError if the file is not such a model or onnxruntime is missing, and ImageError if the
    model fails on this picture.
    """
    session = _load_checked(model, input_count=1)
    (image,) = session.get_inputs()
    side = _get_side(image.shape) or _DEFAULT_SIDE
    scaled = np.asarray(_crop_square(_to_rgb(picture), side), dtype=np.float32) / np.float32(255)
    mean, deviation = (np.array(part, dtype=np.float32) for part in levels)
    planes = np.ascontiguousarray(((scaled - mean) / deviation).transpose(2, 0, 1)[None])
    ranks = {output.name: len(output.shape) for output in session.get_outputs()}
    vectors = sorted((name for name, rank in ranks.items() if rank in (2, 3)), key=lambda name: ranks[name])
    if not vectors:
        names = ", ".join(ranks)
        raise UsageError(f"{model}: none of its outputs ({names}) is an embedding (batch, n)")
    name = _EMBEDDING if _EMBEDDING in vectors else vectors[0]
    found = _run(session, model, {image.name: planes}, name)[0]
    return normalize((found[0] if found.ndim == 2 else found).astype(np.float32), model)


def choose_levels(model: Path) -> Levels:
    """The levels of a CLIP, a face model or, of any other encoder, DINO. Raises UsageError as `embed_picture` does."""
    session = _load_checked(model, input_count=1)
    if _EMBEDDING in [output.name for output in session.get_outputs()]:
        return CLIP_LEVELS
    return _FACE_LEVELS if _get_side(session.get_inputs()[0].shape) == _FACE_SIDE else _IMAGENET_LEVELS


def _get_side(shape: Sequence[Any]) -> int | None:
    return next((length for length in shape[2:] if isinstance(length, int)), None)


def normalize(embedding: NDArray[np.float32], model: Path) -> NDArray[np.float32]:
    """Scale an embedding to length 1. Raises ImageError, naming the model, if it is zero or not finite."""
    length = float(np.linalg.norm(embedding))
    if not 0 < length < np.inf:
        raise ImageError(f"{model}: gave an embedding of length {length}")
    unit: NDArray[np.float32] = embedding / np.float32(length)
    return unit


def clip_similarity(a: Pixels, b: Pixels) -> float:
    """The cosine of the embeddings of two pictures, -1 to 1; 1 for equal ones. With alpha, the lower of two views."""
    model = find_model("clip")
    views = zip(flatten_alpha(a), flatten_alpha(b), strict=True)
    return min(min(1.0, float(embed_picture(first, model) @ embed_picture(second, model))) for first, second in views)


def lpips_distance(a: Pixels, b: Pixels) -> float:
    """The LPIPS distance of two pictures, 0 for equal ones. With alpha, the greater of two views."""
    model = find_model("lpips")
    session = _load_checked(model, input_count=2)
    names = [image.name for image in session.get_inputs()]
    output = session.get_outputs()[0].name
    distances = []
    for views in zip(flatten_alpha(a), flatten_alpha(b), strict=True):
        feed = {name: _to_signed(view) for name, view in zip(names, views, strict=True)}
        distances.append(float(_run(session, model, feed, output).mean()))
    return max(distances)


def _to_signed(picture: Pixels) -> NDArray[np.float32]:
    """A picture as (1, 3, height, width), -1 to 1."""
    levels = _to_rgb(picture).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(levels.transpose(2, 0, 1)[None])


def _to_rgb(picture: Pixels) -> Pixels:
    colour = picture[:, :, :1] if picture.shape[2] < 3 else picture[:, :, :3]
    rgb: Pixels = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour  # type: ignore[assignment]
    return rgb


def _crop_square(picture: Pixels, side: int) -> Image.Image:
    levels = picture if picture.dtype == np.uint8 else np.rint(picture).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels))
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _run(session: InferenceSession, model: Path, feed: Mapping[str, Any], output: str) -> NDArray[Any]:
    try:
        return np.asarray(session.run([output], dict(feed))[0])
    except Exception as error:  # onnxruntime's exceptions have no public base class
        height, width = next(iter(feed.values())).shape[2:]
        message = f"cannot be run on a picture of {width} x {height} pixels: {first_line(error)}"
        raise ImageError(f"{model}: {message}") from error


def _load_checked(model: Path, *, input_count: int) -> InferenceSession:
    """Load a model. Raises UsageError if it is not a model of `input_count` pictures."""
    session = load_model(model)
    inputs = session.get_inputs()
    if len(inputs) != input_count or any(len(image.shape) != 4 or image.shape[3] == 3 for image in inputs):
        actual = ", ".join(f"{image.name} {image.shape}" for image in inputs)
        expected = "one picture" if input_count == 1 else "two pictures"
        raise UsageError(f"needs a model of {expected} (batch, 3, height, width), and {model} has the inputs {actual}")
    return session


def first_line(error: Exception) -> str:
    """The message of an onnxruntime exception, without the C++ stack below it."""
    return str(error).strip().split("\n", 1)[0]


def load_model(path: Path) -> InferenceSession:
    """An ONNX model. Each version of a file is loaded once; several threads may call its `run` at once.

    Raises UsageError if the file is not a model or onnxruntime is missing. The message continues after the name of
    what needs the model.
    """
    try:
        return _load_version(path, path.stat().st_mtime_ns)
    except ImportError:
        raise UsageError(f"needs onnxruntime: {format_install('onnxruntime')}") from None
    except OSError as error:
        raise UsageError(f"needs a model, and {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # as in `_run`
        raise UsageError(f"needs a model, and {path} cannot be loaded as one: {first_line(error)}") from error


@lru_cache(maxsize=8)
def _load_version(path: Path, _modified: int) -> InferenceSession:
    import onnxruntime  # noqa: PLC0415 - of an extra

    options = onnxruntime.SessionOptions()
    # One thread, because the pictures are already spread over the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # print nothing: errors are raised
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
