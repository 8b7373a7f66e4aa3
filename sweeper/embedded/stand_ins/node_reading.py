"""Reads the inputs of one run of a stand-in: what is upstream, what its widgets say, and which sizes they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.folders import drop_content
from sweeper.embedded.nodes.base import InputSpec
from sweeper.embedded.stand_ins.histories import (
    MAX_TEXT,
    History,
    find_kind,
    make_direction,
    make_no_features,
    merge_histories,
    read_literal,
    read_prompt,
    read_value,
)

# The last part of an input's name -> the size that it gives.
_SIZES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("width", "image_width", "target_width", "output_width", "resize_width", "new_width"), "width"),
    **dict.fromkeys(("height", "image_height", "target_height", "output_height", "new_height"), "height"),
    **dict.fromkeys(("length", "frames", "num_frames", "frame_count", "video_length", "max_frames"), "frames"),
    **dict.fromkeys(("batch_size", "num_images", "image_count", "number_of_images", "n"), "batch"),
    **dict.fromkeys(("fps", "frame_rate", "framerate"), "fps"),
    **dict.fromkeys(("duration", "seconds", "duration_seconds", "video_duration"), "seconds"),
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


@dataclass(frozen=True, slots=True, eq=False)
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
        return [linked for linked in self.linked if linked.kind == kind]

    def find(self, kind: str) -> Any:
        """The first value of a type that comes in, or None."""
        return next((linked.value for linked in self.linked if linked.kind == kind), None)

    @property
    def values(self) -> dict[str, Any]:
        """All inputs by name."""
        return {**self.widgets, **{linked.name: linked.value for linked in self.linked}}

    def choose(self, candidates: Mapping[str, Any]) -> str | None:
        """The name of the candidate that a switch of the node selects: `text2` by 2, `on_true` by true; None without.

        Of candidates with other names, the number counts from 0.
        """
        switches = [value for name, value in self.values.items() if isinstance(value, bool | int) and is_switch(name)]
        if not switches or len(candidates) < 2:
            return None
        ending, names = str(switches[0]).lower(), list(candidates)
        named = [name for name in names if re.search(rf"(?<!\d){ending}$", name.lower())]
        return named[0] if named else names[int(switches[0]) % len(names)]

    def merge(self, *without: LinkedInput | None) -> History:
        """Everything that the node knows, except for some of its inputs."""
        features = self.features
        if self.prompt:
            features = features + read_prompt(self.prompt)
        if self.negative:
            features = features - np.float32(0.3) * read_prompt(self.negative) + make_direction(f"not {self.negative}")
        own = History(features, self.seed, self.sizes, None, self.prompt)
        return merge_histories([own, *(linked.history for linked in self.linked if linked not in without)])


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
    features, seed, is_seeded, sizes = make_no_features(), 0, False, {}
    for name, value in inputs.items():
        declared, options = specs.get(name, ("*", {}))
        key = f"{class_type}/{name}"
        if is_seed(name, options) and isinstance(value, int):
            seed, is_seeded = (seed * 31 + value + 1) % 2**64, True
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
            more = replace(history, features=history.features + links[name])
            linked.append(LinkedInput(name, kind, drop_content(value), more))
        else:
            widgets[name] = drop_content(value)
        sizes.update({size: number for size, number in _find_sizes(name, value) if number > 0})
    if any(given.history.sizes.get("batch", 1) > 1 for given in linked):
        sizes.pop("batch", None)  # the count upstream; a batch size then says how much is worked on at once
    count = max(1, len(widgets))
    return NodeReading(
        class_type,
        tuple(linked),
        widgets,
        features * np.float32(min(1.0, 2 / count**0.5)),
        ", ".join(texts[False])[:MAX_TEXT],
        ", ".join(texts[True])[:MAX_TEXT],
        seed,
        is_seeded or any(given.kind in {"NOISE", "GUIDER", "SAMPLER"} for given in linked),
        sizes,
    )


def is_seed(name: str, options: Mapping[str, Any]) -> bool:
    last = name.rpartition(".")[2].lower()
    return "seed" in last or (options.get(SEED_OPTION) is True and "index" not in last)


def is_switch(name: str) -> bool:
    """Whether an input of this name says which of the others goes on."""
    return bool(_SWITCHES.search(name))


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
