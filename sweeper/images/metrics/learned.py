"""Metrics of local models (extra `perceptual`): how well a picture matches its prompt, how pleasing it is, and how like
reference pictures.

The user provides the models as ONNX files, named by environment variables or by the experiment; sweeper never downloads
any.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import ImageError, UsageError
from sweeper.images.decoding import decode_image, open_bytes, read_bytes, read_size
from sweeper.images.neural import (
    Levels,
    choose_levels,
    embed_picture,
    find_model_file,
    first_line,
    load_model,
    normalize,
)
from sweeper.model.experiment import HashedFile, Likeness
from sweeper.wording import format_install

Vector: TypeAlias = NDArray[np.float32]
Picture: TypeAlias = NDArray[np.uint8]

_TEXT_MODEL, _TOKENIZER = (
    "text_model.onnx",
    "tokenizer.json",
)  # beside the image encoder; the names that Hugging Face's exporter (Optimum) gives
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
    clip = find_model_file("SWEEPER_CLIP", "the image encoder of a CLIP")
    if name == "aesthetic":
        head = find_model_file("SWEEPER_AESTHETIC", "a model from that CLIP's embedding (batch, n) to one number")
        return _make_score(clip, head), _hash_files([clip, head]), False
    text, tokenizer = clip.with_name(_TEXT_MODEL), clip.with_name(_TOKENIZER)
    missing = [file.name for file in (text, tokenizer) if not file.is_file()]
    if missing:
        raise UsageError(f"needs {' and '.join(missing)} beside the image encoder, in {clip.parent}")
    return _make_similarity(clip, text, tokenizer), _hash_files([clip, text, tokenizer]), True


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def _run(model: Path, output: str, arrays: Mapping[str, Any]) -> Vector:
    """The output of this name, or else the first, as a vector. Raises ImageError if the model fails."""
    session = load_model(model)
    names = [tensor.name for tensor in session.get_outputs()]
    try:
        return np.asarray(session.run([output if output in names else names[0]], arrays)[0], dtype=np.float32).ravel()
    except Exception as error:  # onnxruntime's exceptions have no public base class
        raise ImageError(f"{model} cannot be run: {first_line(error)}") from error


def _make_score(clip: Path, head: Path) -> Callable[..., float]:
    (tensor, *_) = load_model(head).get_inputs()

    def score(picture: Picture) -> float:
        found = _run(head, "", {tensor.name: embed_picture(picture, clip)[None]})
        if found.size != 1:
            raise ImageError(f"{head} gives {found.size} numbers for a picture, not one")
        return float(found[0])

    return score


def _make_similarity(clip: Path, text: Path, tokenizer_file: Path) -> Callable[..., float]:
    names = [tensor.name for tensor in load_model(text).get_inputs()]
    try:
        import tokenizers  # noqa: PLC0415 - of an extra

        tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    except ImportError:
        raise UsageError(f"needs tokenizers: {format_install('tokenizers')}") from None
    except Exception as error:  # the package raises plain Exception
        raise UsageError(f"needs a tokenizer, and {tokenizer_file} cannot be read as one: {error}") from error
    tokenizer.enable_truncation(_MAX_TOKENS)

    @lru_cache(maxsize=4096)  # many trials share a prompt
    def embed(prompt: str) -> Vector:
        encoding = tokenizer.encode(prompt)
        tokens = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        arrays = {name: np.asarray([tokens[name]], dtype=np.int64) for name in names if name in tokens}
        return normalize(_run(text, "text_embeds", arrays), text)

    def compare(picture: Picture, params: Mapping[str, Any]) -> float:
        slot = next((name for name in _PROMPT_SLOTS if isinstance(params.get(name), str)), None)
        if slot is None:
            raise ImageError(f"no slot named {', '.join(_PROMPT_SLOTS[:-1])} or {_PROMPT_SLOTS[-1]} holds a text")
        image, prompt = embed_picture(picture, clip), embed(params[slot])
        if image.shape != prompt.shape:
            raise ImageError(
                f"{clip} gives {image.size} numbers, {text} {prompt.size}; use the two encoders of one model"
            )
        return min(1.0, max(-1.0, float(image @ prompt)))

    return compare


def load_likeness(likeness: Likeness) -> dict[str, Callable[..., Any]]:
    """The functions of the columns of a likeness; see `Likeness.columns`.

    Raises UsageError if the model, a reference or a package cannot be used. The message continues after the name.
    """
    levels = choose_levels(likeness.model.path)
    for name, file in likeness.references.items():
        try:
            read_size(file.path)
        except ImageError as error:
            raise UsageError(f"needs pictures to compare with, and {name} {error}") from error
    references = _References(likeness, levels)
    return {column: partial(references.compare, index) for index, column in enumerate(likeness.columns)}


class _References:
    """The reference pictures of a likeness, whose embeddings are computed once, for the first picture."""

    def __init__(self, likeness: Likeness, levels: Levels) -> None:
        self._likeness = likeness
        self._embed = partial(embed_picture, model=likeness.model.path, levels=levels)
        self._lock = threading.Lock()
        self._vectors: Vector | ImageError | None = None
        self._low, self._high = -np.inf, np.inf  # the similarity of a reference to the nearest other one
        self._latest = threading.local()  # the picture of which this thread computed all columns

    def compare(self, column: int, picture: Picture) -> Any:
        """The cell of a column, which is the number of one of `Likeness.columns`."""
        if getattr(self._latest, "picture", None) is not picture:
            self._latest.cells, self._latest.picture = self._compare_all(picture), picture
        return self._latest.cells[column]

    def _compare_all(self, picture: Picture) -> tuple[float | str, ...]:
        vectors = self._load_references()
        vector, center = self._embed(picture), normalize(vectors.mean(axis=0), self._likeness.model.path)
        similarities = np.clip([*(vectors @ vector), center @ vector], -1, 1)
        index = int(np.argmax(similarities[:-1]))
        nearest, mean = float(similarities[index]), float(similarities[-1])
        word = "below" if nearest < self._low else "above" if nearest > self._high else "within"
        limits = f"{word} {self._low:.3f} to {self._high:.3f}" if len(vectors) > 1 else "unknown: one reference"
        return nearest, mean, list(self._likeness.references)[index], limits

    def _load_references(self) -> Vector:
        """Embed the references once. Raises ImageError, also the next time, and then reads none again."""
        with self._lock:
            if self._vectors is None:
                try:
                    self._vectors = self._embed_references()
                except ImageError as error:
                    self._vectors = error
        if isinstance(self._vectors, ImageError):
            raise self._vectors
        return self._vectors

    def _embed_references(self) -> Vector:
        """The embeddings as rows. A model runs on one core, so several run at once."""

        def embed(file: HashedFile) -> Vector:
            return self._embed(decode_image(open_bytes(read_bytes(file.path), str(file.path)), str(file.path)))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            vectors = np.stack(list(pool.map(embed, self._likeness.references.values())))
        if len(vectors) > 1:
            others = np.minimum(vectors @ vectors.T, 1)
            np.fill_diagonal(others, -np.inf)
            self._low, self._high = float(others.max(axis=1).min()), float(others.max())
        return vectors
