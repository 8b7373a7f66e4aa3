"""What a stand-in knows: the inputs of its node, and of everything upstream a `History`.

A history has the features from which scenes are drawn, sizes, a seed and a text. Any value and any input of a node adds
to it: numbers smoothly, texts and choices by their hash. So a stand-in loader, a KSampler of the server and a stand-in
upscaler work in one graph. All depends on the values alone, never on the process.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Clip, Model, Vae, digest_normals, encode, pool
from sweeper.embedded.diffusion.painter import Guider, Hand
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX
from sweeper.embedded.folders import drop_content
from sweeper.embedded.nodes import InputSpec
from sweeper.embedded.nodes.media_files import Film
from sweeper.embedded.nodes.sampling import SeededNoise
from sweeper.schemas.values import is_number

MAX_TEXT = 4000  # characters of the text that a history carries
_MAX_PROMPT, _MAX_BRACKETS = 20_000, 50  # characters of a prompt that count; with more brackets, a text is code
_MAX_DEPTH, _MAX_ITEMS = 5, 64  # of values within values
# Features of light and style: how far one unit of an input moves them, and their most, however many nodes add to them.
# None of them brings a thing into the picture.
_STYLE: Final = {
    "dark": (0.2, 0.5), "warm": (0.5, 1.2), "saturation": (0.3, 0.6), "contrast": (0.2, 0.4), "facets": (0.3, 0.8),
    "tint_u": (0.15, 0.25), "tint_v": (0.15, 0.25), **{f"hash{index}": (0.25, 1.5) for index in range(HASHED)},
}  # fmt: skip
_STYLED: Final = [INDEX[name] for name in _STYLE]
_REACH, _MOST = np.array([*_STYLE.values()], np.float32).T
_TINT, _MOST_TINT = 0.1, 0.6  # how strongly the tint of an input shows
_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (str, "STRING"), (bool, "BOOLEAN"), (int, "INT"), (float, "FLOAT"), (Model, "MODEL"), (Clip, "CLIP"), (Vae, "VAE"),
    (Film, "VIDEO"), (Guider, "GUIDER"), (SeededNoise, "NOISE"), (Hand, "SAMPLER"),
)  # fmt: skip


def find_kind(value: Any) -> str:
    """The type of a value as `object_info` names it; "*" if the value does not show it."""
    if isinstance(value, np.ndarray):
        if value.ndim == 4 and value.shape[-1] in {1, 3, 4}:
            return "IMAGE"
        return {1: "SIGMAS", 2: "MASK", 3: "MASK"}.get(value.ndim, "*")
    if isinstance(value, Mapping):
        return "LATENT" if "samples" in value else "AUDIO" if "waveform" in value else "*"
    if isinstance(value, list) and value and isinstance(value[0], list) and len(value[0]) == 2:
        return "CONDITIONING" if isinstance(value[0][0], np.ndarray) else "*"
    return next((kind for known, kind in _KINDS if isinstance(value, known)), "*")


def make_no_features() -> Array:
    return np.zeros(len(FEATURES), np.float32)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class History:
    """What lies upstream: features [F], a seed, sizes by name, a picture [1, H, W, C] or none, and the text."""

    features: Array = field(default_factory=make_no_features)
    seed: int = 0
    sizes: Mapping[str, float] = field(default_factory=dict)
    picture: Array | None = None
    text: str = ""

    def compute_digest(self) -> str:
        """Twelve hexadecimal digits that any change of a history changes."""
        content = self.features.astype("<f4").tobytes() + self.seed.to_bytes(8, "little") + self.text.encode()
        return hashlib.blake2b(content, digest_size=6).hexdigest()


def merge_histories(histories: Iterable[History]) -> History:
    """All of them at once: features add up, and of sizes and pictures the first one counts."""
    features, seed, picture = make_no_features(), 0, None
    sizes: dict[str, float] = {}
    texts: dict[str, None] = {}
    for history in histories:
        features = features + history.features
        seed = (seed * 31 + history.seed) % 2**64 if history.seed else seed
        sizes = {**history.sizes, **sizes}
        picture = history.picture if picture is None else picture
        texts[history.text] = None
    text = ", ".join(text for text in texts if text)[:MAX_TEXT]
    return History(limit_style(features), seed, sizes, picture, text)


# --- features --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def make_direction(key: str) -> Array:
    """The features towards which an input or a choice pulls, [F]."""
    features = make_no_features()
    features[_STYLED] = _REACH * digest_normals(f"stand-in/{key}", len(_STYLED))
    features[INDEX["tint"]] = _TINT
    features.flags.writeable = False
    return features


def _measure_number(value: float, default: Any) -> float:
    """A number in units of its default: 0 at 0, about 0.9 at the default, and slower and slower beyond.

    So strengths 0.4 and 0.5 look alike and 0 and 1 do not, and the same holds for 20 and 25 steps of 20.
    """
    unit = abs(default) if is_number(default) and 0 < abs(default) < 1e15 else 1.0
    return 0.0 if math.isnan(value) else math.asinh(float(min(max(value, -1e15), 1e15)) / unit)


def read_literal(key: str, value: Any, default: Any = None, depth: int = 0) -> Array:
    """The features of a JSON value at the input `key` with this default, [F]."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return make_direction(f"{key}={value}")
    if isinstance(value, int | float):
        return make_direction(key) * np.float32(_measure_number(value, default))
    features = make_no_features()
    if depth < _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in [*items][:_MAX_ITEMS]:
            features += read_literal(f"{key}/{name}", item, None, depth + 1)
    return features


def read_prompt(text: str) -> Array:
    """The features of a text that describes a picture, [F]."""
    text = text[:_MAX_PROMPT]
    if text.count("(") + text.count("[") > _MAX_BRACKETS:
        text = re.sub(r"[()\[\]]", " ", text)
    return pool(encode(text))


def limit_style(features: Array) -> Array:
    """The same features with light, style and layout folded into bounds, because many nodes add to them.

    A sine is smooth and, unlike a limit, leaves the last node as much to say as the first.
    """
    limited = features.astype(np.float32)
    limited[_STYLED] = _MOST * np.sin(limited[_STYLED] / _MOST)
    limited[INDEX["tint"]] = np.float32(_MOST_TINT) * np.tanh(limited[INDEX["tint"]] / np.float32(_MOST_TINT))
    return limited


# --- what values say -------------------------------------------------------------------------------------------------


def read_value(key: str, value: Any) -> History:
    """The history of a value at the input `key`. Objects that only their name tells apart count by it."""
    if isinstance(value, History):
        return value
    kind = find_kind(value)
    if kind == "CONDITIONING":
        read = [History(pool(rows) + read_literal(key, options)) for rows, options in value]
        return merge_histories([*read, *(read_value(key, more) for _, options in value for more in options.values())])
    if kind == "LATENT":
        return _read_latent(key, value)
    if kind == "AUDIO":
        seconds = value["waveform"].shape[-1] / max(int(value.get("sample_rate", 1)), 1)
        return replace(_read_array(key, 8 * np.abs(value["waveform"])), sizes={"seconds": seconds})  # its loudness
    if isinstance(value, Film):
        seen = read_value(key, value.images)
        return replace(seen, sizes={**seen.sizes, "frames": float(len(value.images)), "fps": float(value.rate)})
    if isinstance(value, np.ndarray):
        seen = _read_array(key, value)
        if kind not in {"IMAGE", "MASK"} or value.ndim < 3:
            return seen
        sizes = {"height": float(value.shape[1]), "width": float(value.shape[2]), "batch": float(len(value))}
        return replace(seen, sizes=sizes, picture=value[:1] if kind == "IMAGE" else None)
    if isinstance(value, str | int | float | Mapping | list | tuple) or value is None:
        return History(read_literal(key, value))
    if isinstance(value, Guider):
        parts = [read_value(key, part) for part in (value.model, value.positive, value.negative or [])]
        return merge_histories([*parts, History(read_literal(f"{key}/cfg", value.cfg))])
    own = np.array(getattr(value, "style", getattr(value, "bias", 0.0)), np.float32)  # of models and text encoders
    return History(own + make_direction(f"{key}/{value!r}"))


def _read_array(key: str, array: Array) -> History:
    """The mean, the spread and the broad pattern of numbers."""
    if not array.size or array.dtype.kind not in "fiu":
        return History()
    parts = [float(part.mean()) for part in np.array_split(array.ravel(), min(array.size, 8))]
    return History(read_literal(key, [4 * array.mean(dtype=float), 4 * array.std(dtype=float), *parts]))


def _read_latent(key: str, latent: Mapping[str, Any]) -> History:
    samples: Array = latent["samples"]
    sizes = {"batch": float(len(samples)), **({"seconds": float(latent["seconds"])} if "seconds" in latent else {})}
    if samples.ndim >= 4:
        sizes |= {"width": samples.shape[-1] * 8.0, "height": samples.shape[-2] * 8.0}
    if samples.ndim == 5:
        sizes["frames"] = (samples.shape[2] - 1) * 4.0 + 1
    return replace(_read_array(key, samples) if np.any(samples) else History(), sizes=sizes)


# --- the inputs of a node --------------------------------------------------------------------------------------------

# The last part of an input's name -> the size that it gives.
_SIZE_NAMES: Final = re.compile(
    r"(?P<width>(?:\w+_)?width)|(?P<height>(?:\w+_)?height)|(?P<megapixels>megapixels)"
    r"|(?P<frames>length|(?:num_|max_)?frames|frame_count|video_length)|(?P<fps>fps|frame_?rate)"
    r"|(?P<batch>n|batch_size|num_images|image_count|number_of_images)"
    r"|(?P<seconds>seconds|(?:video_)?duration|duration_seconds)|(?P<scale>(?:up|re)?scale_(?:by|factor))"
)
_PROMPT_NAMES: Final = re.compile(r"prompt|text|caption|description|tags|lyrics|instruction", re.IGNORECASE)
_PROMPT_WORDS: Final = re.compile(r"[^\W\d_]{2,}")
_SIDES: Final = re.compile(r"(?<!\d)(\d{2,5})\s*[x\u00d7*]\s*(\d{2,5})(?!\d)")
_ASPECT: Final = re.compile(r"(?<![\d.])(\d{1,2}):(\d{1,2})(?!\d)")
_SHORT_SIDE: Final = re.compile(r"\b(\d{3,4})p\b", re.IGNORECASE)
_SECONDS: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*s?(?:ec(?:onds?)?)?\s*", re.IGNORECASE)
_SWITCHES: Final = re.compile(r"select|switch|index|choice|choose|condition|boolean|which|^input$", re.IGNORECASE)


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
        """All inputs by name, those of other nodes first."""
        return {**{linked.name: linked.value for linked in self.linked}, **self.widgets}

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


def read_inputs(
    class_type: str, specs: Mapping[str, InputSpec], inputs: Mapping[str, Any], links: Iterable[str]
) -> NodeReading:
    """Read the inputs of a node, of which other nodes give the `links`."""
    linked: list[LinkedInput] = []
    widgets: dict[str, Any] = {}
    texts: dict[bool, list[str]] = {False: [], True: []}
    features, seed, is_seeded, sizes = make_no_features(), 0, False, {}
    for name, value in inputs.items():
        declared, options = specs.get(name, ("*", {}))
        key = f"{class_type}/{name}"
        if _is_seed(name, options) and isinstance(value, int):
            seed, is_seeded = (seed * 31 + value + 1) % 2**64, True
            features = features + make_direction(f"{key}={value}")
        elif isinstance(value, str) and _is_prompt(name, value, declared, options):
            texts["neg" in name.lower()].append(value)
        elif name not in links and not name.endswith("filename_prefix"):
            features = features + read_literal(key, value, options.get("default"))
        if name in links:
            linked.append(_read_link(name, key, value, declared, options))
        else:
            widgets[name] = drop_content(value)
        sizes.update({size: number for size, number in _find_sizes(name, value) if number > 0})
    if any(given.history.sizes.get("batch", 1) > 1 for given in linked):
        sizes.pop("batch", None)  # the count upstream; a batch size then says how much is worked on at once
    return NodeReading(
        class_type,
        tuple(linked),
        widgets,
        features * np.float32(min(1.0, 2 / max(1, len(widgets)) ** 0.5)),
        ", ".join(texts[False])[:MAX_TEXT],
        ", ".join(texts[True])[:MAX_TEXT],
        seed,
        is_seeded or any(given.kind in {"NOISE", "GUIDER", "SAMPLER"} for given in linked),
        sizes,
    )


def _read_link(name: str, key: str, value: Any, declared: Any, options: Mapping[str, Any]) -> LinkedInput:
    kind = find_kind(value)
    if value is None or (kind in {"IMAGE", "MASK"} and not value.size):
        kind = "*"  # a film without sound gives none, and an empty batch is as good as that
    elif kind == "*":
        kind = declared if isinstance(declared, str) else "COMBO"
    if isinstance(value, str | int | float):
        return LinkedInput(name, kind, drop_content(value), History(read_literal(key, value, options.get("default"))))
    return LinkedInput(name, kind, value, read_value(key, value))


def _is_seed(name: str, options: Mapping[str, Any]) -> bool:
    last = name.rpartition(".")[2].lower()
    return "seed" in last or (options.get("control_after_generate") is True and "index" not in last)


def is_switch(name: str) -> bool:
    """Whether an input of this name says which of the others goes on."""
    return bool(_SWITCHES.search(name))


def _is_prompt(name: str, value: str, declared: Any, options: Mapping[str, Any]) -> bool:
    if not isinstance(declared, str) or (declared != "*" and "STRING" not in declared):
        return False
    looks_so = options.get("multiline") is True or bool(_PROMPT_NAMES.search(name.rpartition(".")[2]))
    return looks_so and bool(_PROMPT_WORDS.search(value))


def _find_sizes(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The sizes that a number or a choice gives: `width: 640`, `size: 1024x768`, `aspect_ratio: 16:9`, `720p`, `5s`."""
    match = _SIZE_NAMES.fullmatch(name.rpartition(".")[2].lower())
    size = str(match.lastgroup) if match else ""
    if isinstance(value, int | float) and not isinstance(value, bool) and size:
        yield size, min(max(float(value), -1e9), 1e9)
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
