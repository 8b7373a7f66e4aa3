"""What could be swept in a workflow: a suggested slot for every scalar input, and the slots file that declares them.

Pure: a graph goes in, suggestions and text come out. Reading files and asking servers is done elsewhere; how declared
slots are found in a workflow is `binding`'s business. Names are suggested for people: `prompt` and `negative` by
following the links of the samplers, `seed` for every kind of seed, the node's title where two names would be one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.model.expressions import has_jinja
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.workflow import Graph, is_link

# What people call the inputs that core nodes name otherwise.
_COMMON_NAMES: Final = {"noise_seed": "seed", "ckpt_name": "checkpoint"}
# Names that say nothing without the node's title.
_VAGUE_NAMES: Final = frozenset((
    "value", "text", "string", "int", "float", "boolean", "number", "input", "a", "b",
))  # fmt: skip
# The order in which people look for them; it becomes the order of columns. All others follow as the workflow has them.
_PREFERRED_ORDER: Final = (
    "prompt", "negative", "seed", "steps", "cfg", "guidance", "sampler", "scheduler", "denoise", "width", "height",
    "batch_size", "checkpoint",
)  # fmt: skip
# FLOAT inputs of core nodes that exports often hold as integers ("cfg": 8); used where no object_info tells.
_FLOAT_INPUTS: Final = frozenset((
    "cfg", "denoise", "guidance", "strength", "strength_model", "strength_clip", "scale_by", "blend_factor",
    "sigma", "alpha", "noise_aug_strength", "shift", "max_shift", "base_shift", "megapixels", "start_percent",
    "end_percent", "conditioning_to_strength",
))  # fmt: skip
# Inputs that hold a prompt's text, on encoders and on the primitives that feed them.
_TEXT_INPUTS: Final = frozenset((
    "text", "prompt", "text_g", "text_l", "clip_l", "t5xxl", "string", "value", "string_a", "string_b",
))  # fmt: skip
# Links that lead from an encoder away from its text.
_NON_TEXT_LINKS: Final = frozenset((
    "clip", "model", "vae", "control_net", "image", "images", "pixels", "mask", "latent", "latent_image",
    "samples", "clip_vision_output", "style_model",
))  # fmt: skip
# Words that Jinja2 takes for itself: `{{ if }}` could never be written.
_JINJA_WORDS: Final = frozenset((
    "and", "else", "elif", "false", "for", "if", "in", "is", "loop", "none", "not", "or", "range", "recursive",
    "self", "true", "True", "False", "None",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One scalar input: the slot's suggested `name`, its `address` (`node_id.input`) and what stands there now.

    `type` is a JSON Schema type, or `file` for a picture that is uploaded; `schema` is what a slots file says of it,
    None where the target knows better (a list of names that only the server has).
    """

    name: str
    address: str
    class_type: str
    title: str
    type: str
    value: Any
    schema: Mapping[str, Any] | None = None


def suggest_slots(graph: Graph, object_info: Mapping[str, Any] | None = None) -> tuple[Suggestion, ...]:
    """A suggestion for every scalar input that is no Jinja2 already, the best known first; every name is unique.

    `object_info` is a server's description of its node classes; with it numbers get their limits. Classes that it
    lacks are judged by what the workflow holds.
    """
    texts = _find_prompt_texts(graph)
    found: list[Suggestion] = []
    for node_id, node in graph.items():
        for name, value in node.get("inputs", {}).items():
            if not isinstance(value, (str, int, float)) or (isinstance(value, str) and has_jinja(value)):
                continue
            declared = _find_declaration(object_info or {}, node["class_type"], name)
            kind, schema = _infer_type(name, value, declared, is_text=(node_id, name) in texts)
            title = str(node.get("_meta", {}).get("title", ""))
            plain = texts.get((node_id, name)) or _simplify_name(name, title, node["class_type"])
            found.append(Suggestion(plain, f"{node_id}.{name}", node["class_type"], title, kind, value, schema))
    found = list(_make_unique(found))
    return tuple(
        sorted(
            found,
            key=lambda one: _PREFERRED_ORDER.index(one.name) if one.name in _PREFERRED_ORDER else len(_PREFERRED_ORDER),
        )
    )


# --- names


def _find_prompt_texts(graph: Graph) -> dict[tuple[str, str], str]:
    """(node id, input) -> `prompt` or `negative` for the texts that samplers and guiders are conditioned on."""
    roles: dict[tuple[str, str], str] = {}
    for role in ("positive", "negative"):
        for node in graph.values():
            for name, link in node.get("inputs", {}).items():
                lone = name == "conditioning" and role == "positive" and "guider" in node["class_type"].lower()
                if (name == role or lone) and is_link(link):
                    for node_id in _iter_upstream(graph, link[0], role):
                        inputs = graph[node_id]["inputs"]
                        texts = [key for key in inputs if key in _TEXT_INPUTS and isinstance(inputs[key], str)]
                        word = "prompt" if role == "positive" else "negative"
                        for key in texts:
                            # One text behind both (a zeroed-out negative) is the prompt.
                            roles.setdefault((node_id, key), word if len(texts) == 1 else f"{word}_{key}")
    return roles


def _iter_upstream(graph: Graph, node_id: str, role: str) -> Iterator[str]:
    """The nodes upstream of a conditioning link that may hold its text. A node with both kinds of conditioning
    (ControlNetApplyAdvanced) passes each through: only `role`'s is followed.
    """
    waiting, seen = [node_id], set()
    while waiting:
        node_id = waiting.pop()
        if node_id in seen or node_id not in graph:
            continue
        seen.add(node_id)
        yield node_id
        inputs = graph[node_id].get("inputs", {})
        passing = {"positive", "negative"} <= set(inputs)
        waiting += [
            value[0]
            for name, value in inputs.items()
            if is_link(value) and name not in _NON_TEXT_LINKS and (not passing or name == role)
        ]


def _simplify_name(name: str, title: str, class_type: str) -> str:
    plain = _COMMON_NAMES.get(name) or name.removesuffix("_name") or name
    if name in _VAGUE_NAMES and title and _slugify(title) != _slugify(class_type):
        plain = title
    plain = _slugify(plain) or f"input_{_slugify(class_type)}".rstrip("_")
    if plain in RESERVED_COLUMNS or plain in _JINJA_WORDS:
        return f"{_slugify(class_type) or 'node'}_{plain}"
    return f"_{plain}" if plain[0].isdigit() else plain


def _slugify(text: str) -> str:
    """Letters, digits and single underscores, in lower case: what a Jinja2 name and a column may be."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_")


def _make_unique(found: list[Suggestion]) -> Iterator[Suggestion]:
    """Where several bear one name, each gets its node's title, or its node's id where titles do not tell them apart."""
    often = Counter(one.name for one in found)
    titled = {id(one): f"{one.name}_{slug}" for one in found if (slug := _slugify(one.title))}
    rivals = Counter([name for one in found if (name := titled.get(id(one)))])
    taken = {name for name, count in often.items() if count == 1}
    for one in found:
        name = one.name
        if often[name] > 1:
            with_title = titled.get(id(one))
            alike = [other.title for other in found if other.name == one.name]
            if with_title and rivals[with_title] == 1 and len(set(alike)) == len(alike) and with_title not in taken:
                name = with_title
            else:
                name = f"{name}_{_slugify(one.address.partition('.')[0])}".rstrip("_")
            while name in taken:
                name += "_"
            taken.add(name)
        yield replace(one, name=name)


# --- types


def _find_declaration(
    object_info: Mapping[str, Any], class_type: str, name: str
) -> tuple[Any, Mapping[str, Any]] | None:
    """(type, options) of an input as object_info has it, or None."""
    groups = object_info.get(class_type, {}).get("input", {})
    for group in ("required", "optional"):
        spec = groups.get(group, {}).get(name)
        if isinstance(spec, (list, tuple)) and spec:
            return spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    return None


def _infer_type(
    name: str, value: Any, declaration: tuple[Any, Mapping[str, Any]] | None, *, is_text: bool
) -> tuple[str, Mapping[str, Any] | None]:
    """The type of an input and what its slot's schema says, as far as the value it holds agrees."""
    kind, options = declaration or (None, {})
    if isinstance(value, bool):
        return "boolean", {"type": "boolean"}
    if isinstance(value, str):
        if options.get("image_upload") or (declaration is None and name == "image"):
            return "file", None
        return "string", {"type": "string"} if is_text or kind == "STRING" else None
    whole = kind == "INT" or (kind != "FLOAT" and isinstance(value, int) and name not in _FLOAT_INPUTS)
    if whole and isinstance(value, float) and not value.is_integer():
        whole = False
    schema: dict[str, Any] = {"type": "integer" if whole else "number"}
    for word, option, sign in (("minimum", "min", 1), ("maximum", "max", -1)):
        limit = options.get(option)
        if isinstance(limit, (int, float)) and sign * (value - limit) >= 0:  # never refuse the workflow's own value
            schema[word] = limit
    return schema["type"], schema


# --- the slots file


def render_slots_file(workflow_name: str, suggestions: Iterable[Suggestion]) -> str:
    """The text of `name.slots.yaml` that declares these suggestions, with comments that say what each one is."""
    lines = [
        f"# The slots of {_to_one_line(workflow_name)}: the names that experiments may set and sweep.",
        "# Rename them, delete what you never change; the workflow beside this file stays as it was exported.",
        "# A slot that an experiment does not give keeps the workflow's own value (shown behind each line).",
        "slots:",
    ]
    for one in suggestions:
        fields = [f"at: {_quote(one.address)}"]
        if one.schema is not None:
            fields.append(
                "schema: {" + ", ".join(f"{key}: {_to_yaml(value)}" for key, value in one.schema.items()) + "}"
            )
        if one.type == "file":
            fields.append("kind: file")
        node = one.class_type if not one.title or one.title == one.class_type else f"{one.class_type} '{one.title}'"
        now = (
            "a local file, given by the experiment" if one.type == "file" else json.dumps(one.value, ensure_ascii=False)
        )
        lines.append(f"  {one.name}: {{{', '.join(fields)}}}  # {_to_one_line(node)}: {_to_one_line(now)}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A double-quoted YAML scalar. YAML forbids more characters than JSON does (DEL, NEL): all odd ones are escaped."""
    return "".join(
        char if char.isprintable() else f"\\U{ord(char):08x}" for char in json.dumps(text, ensure_ascii=False)
    )


def _to_yaml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_quote(one) if isinstance(one, str) else _to_yaml(one) for one in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _to_one_line(text: str, limit: int = 60) -> str:
    """For a comment: no line break of any alphabet, no control character, cut where it gets long."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
