"""Metrics of local models (extra `perceptual`): how well a picture shows its prompt, and how pleasing it is.

The models are ONNX files of the user's, named by environment variables; nothing is ever downloaded. How a picture
becomes an embedding is `comparing.perceptual`'s; here is what is read from it. onnxruntime, tokenizers and NumPy are
imported when such a metric is asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ImageError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Picture = NDArray[np.uint8]

LEARNED_NAMES: Final = ("aesthetic", "prompt_similarity")

CLIP_VARIABLE: Final = "SWEEPER_CLIP"  # the image tower; the text tower and its tokenizer stand beside it
AESTHETIC_VARIABLE: Final = "SWEEPER_AESTHETIC"

_TEXT_MODEL, _TOKENIZER = "text_model.onnx", "tokenizer.json"  # as Hugging Face's exporter (Optimum) names them
_MAX_TOKENS: Final = 77  # tokens: the positions of CLIP's text tower (Radford et al. 2021, 2.4)
_PROMPT_SLOTS: Final = (
    "prompt",
    "positive",
    "text",
)  # slots that hold what the picture should show; the first that is there


@dataclass(frozen=True, slots=True)
class LearnedMetric:
    """A metric whose models are open; `version` is the hash of their files."""

    function: Callable[..., float]
    version: str
    reads_params: bool


def load_learned(name: str) -> LearnedMetric:
    """The metric `aesthetic` or `prompt_similarity` with its models opened.

    `prompt_similarity` is the cosine, -1 to 1, of the embeddings of the picture and of its prompt by the CLIP whose
    image tower SWEEPER_CLIP names (Radford et al. 2021; CLIPScore, Hessel et al. 2021, is 2.5 times this, not below 0).
    The prompt is the slot `prompt`, `positive` or `text`. `aesthetic` is the number that the model of SWEEPER_AESTHETIC
    gives for the picture's embedding, in the unit of that model: 1 to 10 for LAION's predictors.

    Raises UsageError where a variable, a file or a package is missing; the message goes on after the metric's name.
    """
    picture = _find_model_file(CLIP_VARIABLE, "the image tower of a CLIP")
    if name == "aesthetic":
        head = _find_model_file(AESTHETIC_VARIABLE, "a model that makes one number of that CLIP's embedding (batch, n)")
        return LearnedMetric(_AestheticScore(picture, head), _hash_files([picture, head]), reads_params=False)
    text, tokenizer = picture.with_name(_TEXT_MODEL), picture.with_name(_TOKENIZER)
    missing = [file.name for file in (text, tokenizer) if not file.is_file()]
    if missing:
        raise UsageError(f"needs {' and '.join(missing)} beside the image tower, in {picture.parent}")
    return LearnedMetric(
        _PromptSimilarity(picture, text, tokenizer), _hash_files([picture, text, tokenizer]), reads_params=True
    )


def _find_model_file(variable: str, description: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        raise UsageError(f"needs a model of yours: set {variable} to an ONNX file, {description}")
    path = Path(named)
    if not path.is_file():
        raise UsageError(f"needs a model of yours, and {variable} names {path}, which is no file")
    return path


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


class _OnnxModel:
    """An ONNX model that takes no picture: arrays by name in, one of its outputs as a vector out."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError for a file that is no model, and where onnxruntime is missing."""
        from sweeper.images.neural import first_line, load_model  # noqa: PLC0415 - NumPy comes with it

        self.path = path
        try:
            self._session = load_model(path)
        except ImportError:
            raise UsageError("needs onnxruntime: python -m pip install 'sweeper[perceptual]'") from None
        except Exception as error:  # onnxruntime's own classes have no public base
            raise UsageError(f"needs a model, and {path} cannot be loaded as one: {first_line(error)}") from error
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self._outputs = [one.name for one in self._session.get_outputs()]

    def __call__(self, output: str, **fed: Any) -> Vector:
        """The output `wanted`, or else the first. Raises ImageError where the model does not run on this."""
        import numpy as np  # noqa: PLC0415 - as above

        from sweeper.images.neural import first_line  # noqa: PLC0415

        name = output if output in self._outputs else self._outputs[0]
        try:
            return np.asarray(self._session.run([name], fed)[0], dtype=np.float32).ravel()
        except Exception as error:  # as above
            raise ImageError(f"{self.path} cannot be run: {first_line(error)}") from error


class _AestheticScore:
    def __init__(self, picture: Path, head: Path) -> None:
        self._picture, self._head = picture, _OnnxModel(head)

    def __call__(self, picture: Picture) -> float:
        from sweeper.images.neural import embed_picture  # noqa: PLC0415 - NumPy comes with it

        found = self._head("", **{self._head.inputs[0]: embed_picture(picture, self._picture)[None]})
        if found.size != 1:
            raise ImageError(f"{self._head.path} gives {found.size} numbers for a picture; needed is one")
        return float(found[0])


class _PromptSimilarity:
    """Of a picture and its prompt; a prompt that many trials share is embedded once."""

    def __init__(self, picture: Path, text: Path, tokenizer: Path) -> None:
        self._picture, self._text = picture, _OnnxModel(text)
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415 - see the docstring on top
        except ImportError:
            raise UsageError("needs tokenizers: python -m pip install 'sweeper[perceptual]'") from None
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the package raises plain Exception
            raise UsageError(f"needs a tokenizer, and {tokenizer} cannot be read as one: {error}") from error
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._embed_cached = lru_cache(maxsize=4096)(self._embed)

    def __call__(self, picture: Picture, params: Mapping[str, Any]) -> float:
        from sweeper.images.neural import embed_picture  # noqa: PLC0415 - as above

        slot = next((name for name in _PROMPT_SLOTS if isinstance(params.get(name), str)), None)
        if slot is None:
            raise ImageError(
                f"no slot is called {', '.join(_PROMPT_SLOTS[:-1])} or {_PROMPT_SLOTS[-1]} and holds a text"
            )
        seen, said = embed_picture(picture, self._picture), self._embed_cached(params[slot])
        if seen.shape != said.shape:
            raise ImageError(f"{self._picture} gives {seen.size} numbers, {self._text.path} {said.size}: of two models")
        return min(1.0, max(-1.0, float(seen @ said)))

    def _embed(self, text: str) -> Vector:
        import numpy as np  # noqa: PLC0415 - as above

        encoding = self._tokenizer.encode(text)
        tokens = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        fed = {name: np.asarray([tokens[name]], dtype=np.int64) for name in self._text.inputs if name in tokens}
        found = self._text("text_embeds", **fed)
        length = float(np.linalg.norm(found))
        if not 0 < length < np.inf:
            raise ImageError(f"{self._text.path} gives an embedding of length {length}")
        unit: Vector = found / np.float32(length)
        return unit
