"""Optional packages for pictures, films and models. Each is imported when it is first needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import ImageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@cache
def load_imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs


def load_av(path: Path) -> Any:
    """The package PyAV (extra `media`). Raises ImageError, for the file that needs it, if it is not installed."""
    try:
        import av
    except ImportError:
        raise ImageError(
            f'{path}: sweeper reads films and sounds with PyAV: python -m pip install "comfy-sweeper[media]"'
        ) from None
    return av


def load_tokenizer(path: Path) -> Any:
    """A tokenizer file, by the package tokenizers (extra `perceptual`).

    Raises ImportError if it is not installed, and a plain Exception for a file that is not a tokenizer.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def load_model(path: Path) -> InferenceSession:
    """An ONNX model, by onnxruntime (extra `perceptual`).

    It runs on one thread, because the pictures are already spread over the cores. Raises ImportError if onnxruntime is
    not installed, and onnxruntime's own exceptions for a file that is not a model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # print nothing: errors are raised
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
