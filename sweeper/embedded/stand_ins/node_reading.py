"""Reads the inputs of one run of a stand-in: what is upstream, what its widgets say, and which sizes they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sweeper.embedded.diffusion.models import Clip, Model, Vae
from sweeper.embedded.diffusion.painter import Guider, Hand
from sweeper.embedded.nodes.media_files import Film, FilmFile
from sweeper.embedded.nodes.model_nodes import UpscaleModel
from sweeper.embedded.nodes.sampling import SeededNoise
from sweeper.embedded.stand_ins.features import make_direction, make_no_features, read_literal, read_prompt
from sweeper.embedded.stand_ins.histories import MAX_TEXT, History, merge_histories, read_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.nodes.base import InputSpec

    Array = NDArray[Any]

_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (str, "STRING"), (bool, "BOOLEAN"), (int, "INT"), (float, "FLOAT"), (Model, "MODEL"), (Clip, "CLIP"), (Vae, "VAE"),
    ((Film, FilmFile), "VIDEO"), (Guider, "GUIDER"), (SeededNoise, "NOISE"), (Hand, "SAMPLER"),
    (UpscaleModel, "UPSCALE_MODEL"),
)  # fmt: skip
# The last part of an input's name -> the size that it gives.
_SIZES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("width", "image_width", "target_width", "output_width", "resize_width", "new_width"), "width"),
    **dict.fromkeys(("height", "image_height", "target_height", "output_height", "new_height"), "height"),
    **dict.fromkeys(("length", "frames", "num_frames", "frame_count", "video_length", "max_frames"), "frames"),
    **dict.fromkeys(("batch_size", "num_images", "image_count", "number_of_images", "n"), "batch"),
    **dict.fromkeys(("fps", "frame_rate", "framerate"), "fps"),
    **dict.fromkeys(("duration", "seconds", "duration_seconds", "video_duration"), "seconds"),
    "layers": "layers",
    "megapixels": "megapixels",
    **dict.fromkeys(("scale_by", "upscale_by", "scale_factor", "upscale_factor", "rescale_factor"), "scale"),
}
_PROMPT_NAMES: Final = re.compile(r"prompt|text|caption|description|tags|lyrics|instruction", re.IGNORECASE)
_PROMPT_WORDS: Final = re.compile(r"[^\W\d_]{2,}")
_SIDES: Final = re.compile(r"(?<!\d)(\d{2,5})\s*[x\u00d7*]\s*(\d{2,5})(?!\d)")
_ASPECT: Final = re.compile(r"(?<![\d.])(\d{1,2}):(\d{1,2})(?!\d)")
_SHORT_SIDE: Final = re.compile(r"\b(\d{3,4})p\b", re.IGNORECASE)
_SECONDS: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*s?(?:ec(?:onds?)?)?\s*", re.IGNORECASE)
_SWITCHES: Final = re.compile(r"select|switch|index|choice|choose|condition|boolean|which|^input$", re.IGNORECASE)
SEED_OPTION: Final = "control_after_generate"


def find_kind(value: Any) -> str:
    """The type of a value as `object_info` names it, "*" if only its input says it."""
    if isinstance(value, np.ndarray):
        if value.ndim == 4 and value.shape[-1] in {1, 3, 4}:
            return "IMAGE"
        return {1: "SIGMAS", 2: "MASK", 3: "MASK"}.get(value.ndim, "*")
    if isinstance(value, Mapping):
        return "LATENT" if "samples" in value else "AUDIO" if "waveform" in value else "*"
    if isinstance(value, list) and value and isinstance(value[0], list) and len(value[0]) == 2:
        return "CONDITIONING" if isinstance(value[0][0], np.ndarray) else "*"
    return next((kind for types, kind in _KINDS if isinstance(value, types)), "*")


@dataclass(frozen=True, slots=True)
class LinkedInput:
    """An input that another node gives. `kind` is the type of its value, or the declared type if that says more."""

    name: str
    kind: str
    value: Any
    history: History


@dataclass(frozen=True, slots=True)
class NodeReading:
    """All inputs of one run. `widgets` are the literals by name, `features` [F] what all but the prompts add."""

    class_type: str
    linked: tuple[LinkedInput, ...]
    widgets: Mapping[str, Any]
    features: Array
    prompt: str
    negative: str
    seed: int
    is_seeded: bool
    sizes: Mapping[str, float]

    def list_kind(self, kind: str) -> list[LinkedInput]:
        return [one for one in self.linked if one.kind == kind]

    def choose(self, candidates: Mapping[str, Any]) -> str | None:
        """The name of the candidate that a switch of the node selects: `text2` by 2, `on_true` by true; None without.

        Of candidates with other names, the number counts from 0.
        """
        values = {**self.widgets, **{one.name: one.value for one in self.linked}}
        switches = [value for name, value in values.items() if isinstance(value, bool | int) and is_switch(name)]
        if not switches or len(candidates) < 2:
            return None
        ending, names = str(switches[0]).lower(), list(candidates)
        named = [name for name in names if re.search(rf"(?<!\d){ending}$", name.lower())]
        return named[0] if named else names[int(switches[0]) % len(names)]

    def merge(self, *without: LinkedInput | None) -> History:
        """Everything that the node knows, except for some of its inputs."""
        skipped = {one.name for one in without if one is not None}
        return merge_histories(
            [
                History(self.features + self._read_texts(), self.seed, self.sizes, None, self.prompt),
                *(one.history for one in self.linked if one.name not in skipped),
            ]
        )

    def _read_texts(self) -> Array:
        features = read_prompt(self.prompt) if self.prompt else make_no_features()
        if self.negative:
            features = features - np.float32(0.3) * read_prompt(self.negative) + make_direction(f"not {self.negative}")
        return features


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """One output to make: its type, its name, the how many-th of its type it is, and the types of all outputs."""

    type: str
    name: str
    number: int
    siblings: tuple[str, ...]
    choices: tuple[Any, ...] = ()


def read_inputs(
    class_type: str, specs: Mapping[str, InputSpec], inputs: Mapping[str, Any], links: Mapping[str, Array]
) -> NodeReading:
    """Read the inputs of a node. `links`: those that other nodes give, with features [F] to add to the value's own."""
    linked: list[LinkedInput] = []
    widgets: dict[str, Any] = {}
    texts: dict[bool, list[str]] = {False: [], True: []}
    features, seeds, sizes = make_no_features(), [], {}
    for name, value in inputs.items():
        declared, options = specs.get(name, ("*", {}))
        key = f"{class_type}/{name}"
        if is_seed(name, options) and isinstance(value, int):
            seeds.append(value)
            features = features + make_direction(f"{key}={value}")
        elif isinstance(value, str) and _is_prompt(name, value, declared, options):
            texts["neg" in name.lower()].append(value)
        elif name not in links and not name.endswith("filename_prefix"):
            features = features + read_literal(key, value, options)
        if name in links:
            kind = find_kind(value)
            if kind in {"IMAGE", "MASK"} and not value.size:
                kind = "*"  # an empty batch is as good as none
            elif kind == "*":
                kind = declared if isinstance(declared, str) else "COMBO"
            is_scalar = isinstance(value, str | int | float)
            history = History(read_literal(key, value, options)) if is_scalar else read_value(key, value)
            linked.append(LinkedInput(name, kind, value, replace(history, features=history.features + links[name])))
        else:
            widgets[name] = value
        sizes.update({size: number for size, number in _find_sizes(name, value) if number > 0})
    if any(one.history.sizes.get("batch", 1) > 1 for one in linked):
        sizes.pop("batch", None)  # the count upstream; a batch size then says how much is worked on at once
    count = max(1, len(widgets))
    return NodeReading(
        class_type,
        tuple(linked),
        widgets,
        features * np.float32(min(1.0, 2 / count**0.5)),
        ", ".join(texts[False])[:MAX_TEXT],
        ", ".join(texts[True])[:MAX_TEXT],
        _combine_seeds(seeds),
        bool(seeds) or any(one.kind in {"NOISE", "GUIDER", "SAMPLER"} for one in linked),
        sizes,
    )


def is_seed(name: str, options: Mapping[str, Any]) -> bool:
    last = name.rpartition(".")[2].lower()
    return "seed" in last or (options.get(SEED_OPTION) is True and "index" not in last)


def is_switch(name: str) -> bool:
    """Whether an input of this name says which of the others goes on."""
    return bool(_SWITCHES.search(name))


def _combine_seeds(seeds: list[int]) -> int:
    total = 0
    for seed in seeds:
        total = (total * 31 + seed + 1) % 2**64
    return total


def _is_prompt(name: str, value: str, declared: Any, options: Mapping[str, Any]) -> bool:
    if not isinstance(declared, str) or (declared != "*" and "STRING" not in declared):
        return False
    last = name.rpartition(".")[2]
    looks_so = options.get("multiline") is True or bool(_PROMPT_NAMES.search(last))
    return looks_so and bool(_PROMPT_WORDS.search(value))


def _find_sizes(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The sizes that a number or a choice gives: `width: 640`, `size: 1024x768`, `aspect_ratio: 16:9`, `720p`, `5s`."""
    size = _SIZES.get(name.rpartition(".")[2].lower())
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        if size is not None:
            yield size, min(max(float(value), -1e9), 1e9)
        return
    if not isinstance(value, str) or len(value) > 100:
        return
    if match := _SIDES.search(value):
        yield "width", float(match[1])
        yield "height", float(match[2])
    elif match := _ASPECT.search(value):
        yield "aspect", float(match[1]) / max(float(match[2]), 1)
    if match := _SHORT_SIDE.search(value):
        yield "short_side", float(match[1])
    if size == "seconds" and (match := _SECONDS.fullmatch(value)):
        yield "seconds", float(match[1])
