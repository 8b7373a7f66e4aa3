"""What a network sees: LPIPS between two pictures, and CLIP's embedding of one, by ONNX files that the user has.

Weights are never fetched: `SWEEPER_LPIPS` and `SWEEPER_CLIP` name exported files, `onnxruntime` (extra `perceptual`)
runs them, on one core each so that several comparisons at once share the machine.

- LPIPS (Zhang et al. 2018): a model with two inputs (batch, 3, height, width), RGB from -1 to 1, whose first output is
  the distance; `lpips.LPIPS(net="alex")` exports as that. Pictures are not resized: another size is another distance.
- CLIP (Radford et al. 2021): an image tower with one input (batch, 3, side, side), RGB less CLIP's mean over its
  deviation; its output `image_embeds`, or else the first of shape (batch, n), is the embedding. The picture's shorter
  side is resized to the model's (bicubic) and the middle is cut out, as CLIP's own preprocessing does.

What is measured, and when, is `measures`' business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeper.errors import ImageError, UsageError
from sweeper.images.colour import flatten_alpha
from sweeper.images.decoding import Pixels

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODELS: Final[Mapping[str, str]] = {"lpips": "SWEEPER_LPIPS", "clip": "SWEEPER_CLIP"}
_INPUT_COUNTS: Final = {"lpips": 2, "clip": 1}  # pictures

_DEFAULT_SIDE: Final = 224  # of a CLIP model that takes any
_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)  # openai/CLIP, clip.py, _transform
_DEVIATION: Final = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def find_model(measure: str) -> Path:
    """The ONNX file that a measure of `MODELS` needs. Raises UsageError where it cannot be had, and says what to do."""
    variable = MODELS[measure]
    named = os.environ.get(variable)
    if not named:
        raise UsageError(f"'{measure}' needs a model: set {variable} to the path of an exported ONNX file")
    path = Path(named)
    if not path.is_file():
        raise UsageError(f"'{measure}' needs a model, and {variable} names {path}, which is no file")
    _load_checked(path, input_count=_INPUT_COUNTS[measure])
    return path


def embed_picture(picture: Pixels, model: Path) -> NDArray[np.float32]:
    """The embedding (n,), of length 1, that an ONNX image model makes of a picture (height, width, 1-4), 0-255.

    An alpha is left out. Raises UsageError for a file that is no such model or where onnxruntime is missing, ImageError
    where it cannot be run on this picture.
    """
    session = _load_checked(model, input_count=1)
    inputs = session.get_inputs()
    side = next((n for n in inputs[0].shape[2:] if isinstance(n, int)), _DEFAULT_SIDE)
    levels = np.asarray(_crop_square(_to_rgb(picture), side), dtype=np.float32) / np.float32(255)
    planes = np.ascontiguousarray(((levels - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None])
    names = [one.name for one in session.get_outputs()]
    flat = [one.name for one in session.get_outputs() if len(one.shape) == 2]
    if not flat:
        raise UsageError(f"{model}: none of its outputs ({', '.join(names)}) is an embedding (batch, n)")
    name = "image_embeds" if "image_embeds" in flat else flat[0]
    found = _run(session, model, {inputs[0].name: planes}, name).ravel().astype(np.float32)
    length = float(np.linalg.norm(found))
    if not 0 < length < np.inf:
        raise ImageError(f"{model}: gave an embedding of length {length}")
    unit: NDArray[np.float32] = found / np.float32(length)
    return unit


def clip_similarity(a: Pixels, b: Pixels) -> float:
    """The cosine of the embeddings of two pictures, -1 to 1; 1 for equal ones. With alpha, the lower of two views."""
    model = find_model("clip")
    pairs = zip(flatten_alpha(a), flatten_alpha(b), strict=True)
    return min(min(1.0, float(embed_picture(one, model) @ embed_picture(other, model))) for one, other in pairs)


def lpips_distance(a: Pixels, b: Pixels) -> float:
    """The LPIPS of two pictures, 0 for equal ones. With alpha, the greater of two views."""
    model = find_model("lpips")
    session = _load_checked(model, input_count=2)
    inputs = session.get_inputs()
    found = []
    for pair in zip(flatten_alpha(a), flatten_alpha(b), strict=True):
        feed = {one.name: _to_signed(picture) for one, picture in zip(inputs, pair, strict=True)}
        found.append(float(_run(session, model, feed, session.get_outputs()[0].name).mean()))
    return max(found)


def _to_signed(picture: Pixels) -> NDArray[np.float32]:
    """(1, 3, height, width), -1 to 1."""
    levels = _to_rgb(picture).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(levels.transpose(2, 0, 1)[None])


def _to_rgb(picture: Pixels) -> Pixels:
    colour = picture[:, :, :1] if picture.shape[2] < 3 else picture[:, :, :3]
    plain: Pixels = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour  # type: ignore[assignment]
    return plain


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
    except Exception as error:  # onnxruntime's own classes have no public base
        raise ImageError(f"{model}: cannot be run on a picture of {_format_size(feed)}: {first_line(error)}") from error


def _format_size(feed: Mapping[str, Any]) -> str:
    height, width = next(iter(feed.values())).shape[2:]
    return f"{width} x {height} pixels"


def _load_checked(model: Path, *, input_count: int) -> InferenceSession:
    """The model, ready to run. Raises UsageError for a file that is no model of that many pictures."""
    try:
        stamp = model.stat().st_mtime_ns
    except OSError as error:
        raise UsageError(f"{model}: cannot be read: {error.strerror or error}") from error
    session = _load_cached(model, stamp)
    shapes = [one.shape for one in session.get_inputs()]
    if len(shapes) != input_count or any(len(shape) != 4 for shape in shapes):
        told = ", ".join(f"{one.name} {one.shape}" for one in session.get_inputs())
        wanted = "one picture" if input_count == 1 else "two pictures"
        raise UsageError(f"{model}: takes {told}; needed is a model of {wanted} (batch, 3, height, width)")
    return session


def load_model(model: Path) -> InferenceSession:
    """An ONNX file, ready to run on one thread: the files are what is shared among cores.

    Raises ImportError where onnxruntime is missing, and what it raises itself for a file that is no model.
    """
    import onnxruntime  # noqa: PLC0415 - an extra, and heavy

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; nothing of ours prints
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def first_line(error: Exception) -> str:
    """What onnxruntime says, without the frames of C++ below it."""
    return str(error).strip().split("\n", 1)[0]


@lru_cache(maxsize=4)
def _load_cached(model: Path, _stamp: int) -> InferenceSession:
    """Loaded once for each version of the file; `run` may be called from several threads at once."""
    try:
        return load_model(model)
    except ImportError:
        raise UsageError("'lpips' and 'clip' need onnxruntime: python -m pip install 'sweeper[perceptual]'") from None
    except Exception as error:  # as in _run
        raise UsageError(f"{model}: cannot be loaded as an ONNX model: {first_line(error)}") from error
