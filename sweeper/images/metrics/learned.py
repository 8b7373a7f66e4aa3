"""Metrics of local models (extra `perceptual`): how well a picture matches its prompt, and how pleasing it is.

The user provides the models as ONNX files, named by environment variables; sweeper never downloads any.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import ImageError, UsageError
from sweeper.images.neural import embed_picture, first_line, load_model, normalize

Vector: TypeAlias = NDArray[np.float32]
Picture: TypeAlias = NDArray[np.uint8]

CLIP_VARIABLE: Final = "SWEEPER_CLIP"  # the image encoder; the text encoder and its tokenizer are beside it
AESTHETIC_VARIABLE: Final = "SWEEPER_AESTHETIC"

_TEXT_MODEL, _TOKENIZER = "text_model.onnx", "tokenizer.json"  # the names that Hugging Face's exporter (Optimum) gives
_MAX_TOKENS: Final = 77  # the positions of CLIP's text encoder (Radford et al. 2021, 2.4)
_PROMPT_SLOTS: Final = ("prompt", "positive", "text")  # the prompt is in the first of these slots that a trial has


def load_learned(name: str) -> tuple[Callable[..., float], str, bool]:
    """Load a metric, `aesthetic` or `prompt_similarity`: its function, the hash of its models, whether it reads params.

    `prompt_similarity` is the cosine, -1 to 1, of the CLIP embeddings of the picture and of its prompt (Radford et al.
    2021). CLIPScore (Hessel et al. 2021) is 2.5 times that, and at least 0. `SWEEPER_CLIP` names the image encoder, and
    the prompt is the slot `prompt`, `positive` or `text`. `aesthetic` is the number that the model of
    `SWEEPER_AESTHETIC` gives for the picture's embedding, in that model's unit: 1 to 10 for LAION's predictors.

    Raises UsageError if a variable, a file or a package is missing. The message continues after the metric's name.
    """
    clip = _find_model_file(CLIP_VARIABLE, "the image encoder of a CLIP")
    if name == "aesthetic":
        head = _find_model_file(AESTHETIC_VARIABLE, "a model from that CLIP's embedding (batch, n) to one number")
        return _AestheticScore(clip, head), _hash_files([clip, head]), False
    text, tokenizer = clip.with_name(_TEXT_MODEL), clip.with_name(_TOKENIZER)
    missing = [file.name for file in (text, tokenizer) if not file.is_file()]
    if missing:
        raise UsageError(f"needs {' and '.join(missing)} beside the image encoder, in {clip.parent}")
    return _PromptSimilarity(clip, text, tokenizer), _hash_files([clip, text, tokenizer]), True


def _find_model_file(variable: str, description: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"needs a model of yours: set {variable} to an ONNX file, {description}")
    path = Path(value)
    if not path.is_file():
        raise UsageError(f"needs a model of yours, and {variable} names {path}, which is not a file")
    return path


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


class _OnnxModel:
    """An ONNX model that reads arrays other than pictures. Call it with arrays by name; one output comes back."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file is not a model or onnxruntime is missing."""
        self.path = path
        try:
            self._session = load_model(path)
        except ImportError:
            raise UsageError('needs onnxruntime: python -m pip install "comfy-sweeper[perceptual]"') from None
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise UsageError(f"needs a model, and {path} cannot be loaded as one: {first_line(error)}") from error
        self.inputs = tuple(tensor.name for tensor in self._session.get_inputs())
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]

    def __call__(self, output: str, **arrays: Any) -> Vector:
        """The output of this name, or else the first, as a vector. Raises ImageError if the model fails."""
        name = output if output in self._outputs else self._outputs[0]
        try:
            return np.asarray(self._session.run([name], arrays)[0], dtype=np.float32).ravel()
        except Exception as error:  # as above
            raise ImageError(f"{self.path} cannot be run: {first_line(error)}") from error


class _AestheticScore:
    def __init__(self, clip: Path, head: Path) -> None:
        self._clip, self._head = clip, _OnnxModel(head)

    def __call__(self, picture: Picture) -> float:
        score = self._head("", **{self._head.inputs[0]: embed_picture(picture, self._clip)[None]})
        if score.size != 1:
            raise ImageError(f"{self._head.path} gives {score.size} numbers for a picture, not one")
        return float(score[0])


class _PromptSimilarity:
    """The similarity of a picture and its prompt. A prompt that many trials share is embedded once."""

    def __init__(self, clip: Path, text: Path, tokenizer: Path) -> None:
        self._clip, self._text = clip, _OnnxModel(text)
        try:
            import tokenizers  # noqa: PLC0415 - of an extra

            self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        except ImportError:
            raise UsageError('needs tokenizers: python -m pip install "comfy-sweeper[perceptual]"') from None
        except Exception as error:  # the package raises plain Exception
            raise UsageError(f"needs a tokenizer, and {tokenizer} cannot be read as one: {error}") from error
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._embed_cached = lru_cache(maxsize=4096)(self._embed)

    def __call__(self, picture: Picture, params: Mapping[str, Any]) -> float:
        slot = next((name for name in _PROMPT_SLOTS if isinstance(params.get(name), str)), None)
        if slot is None:
            raise ImageError(f"no slot named {', '.join(_PROMPT_SLOTS[:-1])} or {_PROMPT_SLOTS[-1]} holds a text")
        image, prompt = embed_picture(picture, self._clip), self._embed_cached(params[slot])
        if image.shape != prompt.shape:
            raise ImageError(
                f"{self._clip} gives {image.size} numbers and {self._text.path} {prompt.size}; "
                "use the two encoders of one model"
            )
        return min(1.0, max(-1.0, float(image @ prompt)))

    def _embed(self, text: str) -> Vector:
        encoding = self._tokenizer.encode(text)
        tokens = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        arrays = {name: np.asarray([tokens[name]], dtype=np.int64) for name in self._text.inputs if name in tokens}
        return normalize(self._text("text_embeds", **arrays), self._text.path)
