"""What a server tells about a model file, and whether two such statements can be of one content.

No server tells the content itself, so a file is known by what has to differ if it does:

- a hash of its content, where the server's assets have one (Comfy Cloud);
- its size, and the metadata in the header of a safetensors file. A LoRA that was trained again under its name has the
  same size to the byte, but its trainer wrote other steps, times or hashes into the header;
- its time. It says nothing alone: a copy has a new time and the same content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from sweeper.model.workflow import encode_canonical
from sweeper.schemas.values import fits_shape

_HASHES: Final = ("modelspec.hash_sha256", "sshs_model_hash")
_COUNTS: Final = ("ss_epoch", "ss_steps")
# Of the metadata, what another training would state otherwise. `format` or a title alone tells nothing.
_STATED: Final = (*_HASHES, *_COUNTS, "ss_training_finished_at", "ss_session_id", "modelspec.date")
_MAX_STATED: Final = 80  # characters; a SHA-256 with its prefix has 73
_TAG_LENGTH: Final = 8  # hex digits
_FACT_SHAPES: Final = {
    "size": int, "modified": (int, float), "placed": (int, float), "metadata": str, "content": str, "stated": {...: str}
}  # fmt: skip


class ModelKey(NamedTuple):
    """A model file of a server: the folder that the server lists it in, such as `loras`, and its name there."""

    folder: str
    name: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


class Change(Enum):
    """How two statements about a file differ; the later ones are worse."""

    SAME = 0  # as far as the server tells
    TOUCHED = 1  # another time, and a header that states the same: the same content
    UNCLEAR = 2  # another time, and nothing that could tell
    CHANGED = 3  # another content


CHANGE_WORDS: Final = {Change.CHANGED: "changed", Change.UNCLEAR: "may have changed"}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a server tells about a file. Each part is None if the server does not tell it.

    `size` is in bytes, `modified` in seconds since 1970 by the server's clock. `metadata` is the SHA-256 of all
    metadata in the header, "" if the file has none; `stated` are its parts that tell one training from another.
    `content` is a hash of the whole file. `placed`: when the file came to its place, which a copy that keeps its time
    cannot hide; it is not compared.
    """

    size: int | None = None
    modified: float | None = None
    metadata: str | None = None
    stated: Mapping[str, str] = field(default_factory=dict)
    content: str | None = None
    placed: float | None = field(default=None, compare=False)

    def compare(self, now: ModelFacts, *, same_server: bool = True) -> Change:
        """Compare with what a server tells `now`. Times mean nothing unless it is the `same_server`."""
        if _both_known(self.content, now.content):
            return Change.SAME if self.content == now.content else Change.CHANGED
        if _both_known(self.size, now.size) and self.size != now.size:
            return Change.CHANGED
        if _both_known(self.metadata, now.metadata) and self.metadata != now.metadata:
            return Change.CHANGED
        if not same_server or not _both_known(self.modified, now.modified) or self.modified == now.modified:
            return Change.SAME
        return Change.TOUCHED if self.stated and now.stated else Change.UNCLEAR

    def is_listed_as(self, other: ModelFacts) -> bool:
        """Whether a listing of the folder says the same of both."""
        return (self.size, self.modified, self.placed) == (other.size, other.modified, other.placed)

    @property
    def tag(self) -> str:
        """Eight hex digits, equal for what counts as equal content on one server."""
        time = None if self.content or self.stated else self.modified
        parts = [self.content] if self.content else [self.size, self.metadata, time]
        return hashlib.sha256(encode_canonical(parts)).hexdigest()[:_TAG_LENGTH]

    def describe(self) -> str:
        """`510,040 bytes, 28 Nov 2026 09:31, epoch 3`, as far as it is known."""
        stated = [f"{name.removeprefix('ss_')} {self.stated[name]}" for name in _COUNTS if name in self.stated]
        hashes = [f"hash {self.stated[name][:12]}" for name in _HASHES if name in self.stated][:1]
        hashes = [f"hash {self.content.partition(':')[2][:12]}"] if self.content else hashes
        known = [] if self.size is None else [f"{self.size:,} bytes"]
        times = [] if self.modified is None else [format_time(self.modified)]
        return ", ".join([*known, *times, *stated, *hashes]) or "nothing known"

    def to_json(self) -> dict[str, Any]:
        """The parts that are known, by name."""
        return {name: part for name in _FACT_SHAPES if (part := getattr(self, name)) not in (None, {})}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelFacts:
        """Read what `to_json` returned; parts of another type are left out."""
        return cls(**{name: value[name] for name, shape in _FACT_SHAPES.items() if fits_shape(value.get(name), shape)})


def read_metadata(metadata: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The fields `metadata` and `stated` of a file with this metadata in its header."""
    stated = {name: str(metadata[name])[:_MAX_STATED] for name in _STATED if metadata.get(name) is not None}
    text = json.dumps(metadata, sort_keys=True)  # a server may send NaN
    return hashlib.sha256(text.encode()).hexdigest() if metadata else "", stated


Models = Mapping[ModelKey, ModelFacts]  # what a server tells about files, or what a job was made with
NO_MODELS: Final[Models] = {}
MODELS_SHAPE: Final = [[str, str, {...: object}]]  # of what `encode_models` returns


def encode_models(models: Models) -> list[list[Any]]:
    """The facts as JSON: `[[folder, name, {size, ...}], ...]`, in the order of the files."""
    return [[*key, facts.to_json()] for key, facts in sorted(models.items())]


def decode_models(value: Iterable[Any]) -> dict[ModelKey, ModelFacts]:
    """Read what `encode_models` returned."""
    return {ModelKey(folder, name): ModelFacts.from_json(facts) for folder, name, facts in value}


def describe_models(models: Models) -> str:
    """`sd15.safetensors@1a2b3c4d mychar.safetensors@5e6f7a8b`: a short text, equal for what counts as equal."""
    return " ".join(f"{key.name}@{facts.tag}" for key, facts in sorted(models.items()))


def compare_models(
    made: Models, now: Models, *, same_server: bool
) -> dict[ModelKey, tuple[Change, ModelFacts, ModelFacts]]:
    """The files whose facts differ: by file, how, what they were, and what they are now. Unknown ones do not differ."""
    changes = {
        key: (facts.compare(now[key], same_server=same_server), facts, now[key])
        for key, facts in made.items()
        if key in now
    }
    return {key: change for key, change in changes.items() if change[0] is not Change.SAME}


def describe_change(before: ModelFacts, now: ModelFacts) -> str:
    """`3 Nov -> 28 Nov`: the times if they differ, else what else differs."""
    if before.modified is None or now.modified is None or before.modified == now.modified:
        return " -> ".join(describe_both(before, now))
    old, new = (to_local_time(time) for time in (before.modified, now.modified))
    if old.date() == new.date():
        return f"{format_time(before.modified)} -> {new:%H:%M:%S}"
    years = ("", "") if old.year == new.year else (f" {old.year}", f" {new.year}")
    return f"{old.day} {old:%b}{years[0]} -> {new.day} {new:%b}{years[1]}"


def describe_both(first: ModelFacts, second: ModelFacts) -> tuple[str, str]:
    """The two as `describe` does; with a part of the hash of all metadata if they would read the same."""
    texts = first.describe(), second.describe()
    if texts[0] != texts[1]:
        return texts
    headers = (f"header {facts.metadata[:8]}" if facts.metadata else "no header" for facts in (first, second))
    return tuple(f"{text}, {header}" for text, header in zip(texts, headers, strict=True))  # type: ignore[return-value]


def describe_model_changes(made: Models, now: Models) -> list[str]:
    """`mychar.safetensors changed (3 Nov -> 28 Nov)` for each file that did; or that another time may mean it."""
    return [
        f"{key.name} {CHANGE_WORDS[change]} ({describe_change(before, after)})"
        for key, (change, before, after) in compare_models(made, now, same_server=True).items()
        if change in CHANGE_WORDS
    ]


def format_time(seconds: float) -> str:
    """`28 Nov 2026 09:31:05` in the local time zone."""
    time = to_local_time(seconds)
    return f"{time.day} {time:%b %Y %H:%M:%S}"


def to_local_time(seconds: float) -> datetime:
    """Seconds since 1970 in the local time zone; the last day that Python has for a server's impossible time."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return datetime(9999, 12, 31, tzinfo=UTC)


def _both_known(first: object, second: object) -> bool:
    return first is not None and second is not None
