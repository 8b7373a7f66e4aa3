"""Suggest a slot for every scalar input of a workflow, and write the slots file that declares them.

The names are made for people: the links of the samplers lead to `prompt` and `negative`, every kind of seed is `seed`,
and the title of the node is added if two names are equal.
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
from sweeper.model.template import ModelFile
from sweeper.model.workflow import Graph, is_link

# Common names for inputs that core nodes call differently.
_COMMON_NAMES: Final = {"noise_seed": "seed", "ckpt_name": "checkpoint"}
# Names that say nothing without the title of the node.
_VAGUE_NAMES: Final = frozenset((
    "value", "text", "string", "int", "float", "boolean", "number", "input", "a", "b",
))  # fmt: skip
# The most wanted slots come first, also as columns. All others follow in the order of the workflow.
_PREFERRED_ORDER: Final = (
    "prompt", "negative", "seed", "steps", "cfg", "guidance", "sampler", "scheduler", "denoise", "width", "height",
    "batch_size", "checkpoint",
)  # fmt: skip
# FLOAT inputs of core nodes that often have an integer in exports ("cfg": 8). Used without object_info.
_FLOAT_INPUTS: Final = frozenset((
    "cfg", "denoise", "guidance", "strength", "strength_model", "strength_clip", "scale_by", "blend_factor",
    "sigma", "alpha", "noise_aug_strength", "shift", "max_shift", "base_shift", "megapixels", "start_percent",
    "end_percent", "conditioning_to_strength",
))  # fmt: skip
# Inputs with the text of a prompt, of encoders and of the primitives that feed them.
_TEXT_INPUTS: Final = frozenset((
    "text", "prompt", "text_g", "text_l", "clip_l", "t5xxl", "string", "value", "string_a", "string_b",
))  # fmt: skip
# Links of an encoder that do not lead to its text.
_NON_TEXT_LINKS: Final = frozenset((
    "clip", "model", "vae", "control_net", "image", "images", "pixels", "mask", "latent", "latent_image",
    "samples", "clip_vision_output", "style_model",
))  # fmt: skip
# Reserved words of Jinja2: a slot with such a name could not be written as `{{ if }}`.
_JINJA_WORDS: Final = frozenset((
    "and", "else", "elif", "false", "for", "if", "in", "is", "loop", "none", "not", "or", "range", "recursive",
    "self", "true", "True", "False", "None",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggested slot for one scalar input: its `name`, its `address` (`node_id.input`) and its current value.

    `type` is a JSON Schema type, or `file` for a picture to upload. `schema` is the schema for the slots file, None if
    the server knows better (a list of names that only the server has).
    """

    name: str
    address: str
    class_type: str
    title: str
    type: str
    value: Any
    schema: Mapping[str, Any] | None = None


def suggest_slots(graph: Graph, object_info: Mapping[str, Any] | None = None) -> tuple[Suggestion, ...]:
    """Suggest a slot for every scalar input without Jinja2, the most wanted first. Every name is unique.

    `object_info` is a server's description of its node classes, which has the limits of numbers. For classes that it
    lacks, the type is inferred from the value in the workflow.
    """
    roles = _find_prompt_texts(graph)
    suggestions: list[Suggestion] = []
    for node_id, node in graph.items():
        for name, value in node.get("inputs", {}).items():
            if not isinstance(value, (str, int, float)) or (isinstance(value, str) and has_jinja(value)):
                continue
            declaration = _find_declaration(object_info or {}, node["class_type"], name)
            type_name, schema = _infer_type(name, value, declaration, is_text=(node_id, name) in roles)
            title = str(node.get("_meta", {}).get("title", ""))
            simple_name = roles.get((node_id, name)) or _simplify_name(name, title, node["class_type"])
            suggestions.append(
                Suggestion(simple_name, f"{node_id}.{name}", node["class_type"], title, type_name, value, schema)
            )
    suggestions = list(_make_unique(suggestions))
    return tuple(
        sorted(
            suggestions,
            key=lambda suggestion: (
                _PREFERRED_ORDER.index(suggestion.name)
                if suggestion.name in _PREFERRED_ORDER
                else len(_PREFERRED_ORDER)
            ),
        )
    )


# --- names


def _find_prompt_texts(graph: Graph) -> dict[tuple[str, str], str]:
    """Map (node id, input) to `prompt` or `negative` for the texts that condition samplers and guiders."""
    roles: dict[tuple[str, str], str] = {}
    for role in ("positive", "negative"):
        for node in graph.values():
            for name, link in node.get("inputs", {}).items():
                is_guider_input = (
                    name == "conditioning" and role == "positive" and "guider" in node["class_type"].lower()
                )
                if (name == role or is_guider_input) and is_link(link):
                    for node_id in _iter_upstream(graph, link[0], role):
                        inputs = graph[node_id]["inputs"]
                        text_inputs = [key for key in inputs if key in _TEXT_INPUTS and isinstance(inputs[key], str)]
                        prefix = "prompt" if role == "positive" else "negative"
                        for key in text_inputs:
                            # A text for both roles (with a zeroed-out negative) is the prompt.
                            roles.setdefault((node_id, key), prefix if len(text_inputs) == 1 else f"{prefix}_{key}")
    return roles


def _iter_upstream(graph: Graph, node_id: str, role: str) -> Iterator[str]:
    """Yield the nodes upstream of a conditioning link that may have its text.

    A node with both kinds of conditioning (ControlNetApplyAdvanced) passes each through, so only `role` is followed.
    """
    pending, seen = [node_id], set()
    while pending:
        node_id = pending.pop()
        if node_id in seen or node_id not in graph:
            continue
        seen.add(node_id)
        yield node_id
        inputs = graph[node_id].get("inputs", {})
        has_both_roles = {"positive", "negative"} <= set(inputs)
        pending += [
            value[0]
            for name, value in inputs.items()
            if is_link(value) and name not in _NON_TEXT_LINKS and (not has_both_roles or name == role)
        ]


def _simplify_name(name: str, title: str, class_type: str) -> str:
    simple = _COMMON_NAMES.get(name) or name.removesuffix("_name") or name
    if name in _VAGUE_NAMES and title and _slugify(title) != _slugify(class_type):
        simple = title
    simple = _slugify(simple) or f"input_{_slugify(class_type)}".rstrip("_")
    if simple in RESERVED_COLUMNS or simple in _JINJA_WORDS:
        return f"{_slugify(class_type) or 'node'}_{simple}"
    return f"_{simple}" if simple[0].isdigit() else simple


def _slugify(text: str) -> str:
    """Reduce a text to letters, digits and single underscores in lower case, valid as a Jinja2 name and as a column."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_")


def _make_unique(suggestions: list[Suggestion]) -> Iterator[Suggestion]:
    """Add the title of the node to equal names, or its id if the titles do not make them unique."""
    counts = Counter(suggestion.name for suggestion in suggestions)
    titled_names = {
        id(suggestion): f"{suggestion.name}_{slug}"
        for suggestion in suggestions
        if (slug := _slugify(suggestion.title))
    }
    titled_counts = Counter([name for suggestion in suggestions if (name := titled_names.get(id(suggestion)))])
    taken = {name for name, count in counts.items() if count == 1}
    for suggestion in suggestions:
        name = suggestion.name
        if counts[name] > 1:
            with_title = titled_names.get(id(suggestion))
            titles = [rival.title for rival in suggestions if rival.name == suggestion.name]
            if (
                with_title
                and titled_counts[with_title] == 1
                and len(set(titles)) == len(titles)
                and with_title not in taken
            ):
                name = with_title
            else:
                name = f"{name}_{_slugify(suggestion.address.partition('.')[0])}".rstrip("_")
            while name in taken:
                name += "_"
            taken.add(name)
        yield replace(suggestion, name=name)


# --- types


def _find_declaration(
    object_info: Mapping[str, Any], class_type: str, name: str
) -> tuple[Any, Mapping[str, Any]] | None:
    """Return (type, options) of an input from object_info, or None."""
    groups = object_info.get(class_type, {}).get("input", {})
    for group in ("required", "optional"):
        spec = groups.get(group, {}).get(name)
        if isinstance(spec, (list, tuple)) and spec:
            return spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    return None


def _infer_type(
    name: str, value: Any, declaration: tuple[Any, Mapping[str, Any]] | None, *, is_text: bool
) -> tuple[str, Mapping[str, Any] | None]:
    """Return the type of an input and the schema of its slot, which never refuses the current value."""
    declared_type, options = declaration or (None, {})
    if isinstance(value, bool):
        return "boolean", {"type": "boolean"}
    if isinstance(value, str):
        if options.get("image_upload") or (declaration is None and name == "image"):
            return "file", None
        return "string", {"type": "string"} if is_text or declared_type == "STRING" else None
    is_integer = declared_type == "INT" or (
        declared_type != "FLOAT" and isinstance(value, int) and name not in _FLOAT_INPUTS
    )
    if is_integer and isinstance(value, float) and not value.is_integer():
        is_integer = False
    schema: dict[str, Any] = {"type": "integer" if is_integer else "number"}
    for keyword, option, sign in (("minimum", "min", 1), ("maximum", "max", -1)):
        limit = options.get(option)
        if isinstance(limit, (int, float)) and sign * (value - limit) >= 0:  # do not refuse the current value
            schema[keyword] = limit
    return schema["type"], schema


# --- the slots file


def render_slots_file(workflow_name: str, suggestions: Iterable[Suggestion], models: Iterable[ModelFile] = ()) -> str:
    """Return the text of `name.slots.yaml` that declares these suggestions, with a comment on each, and the models."""
    lines = [
        f"# The slots of {_to_one_line(workflow_name)}: the names that experiments may set and sweep.",
        "# Rename them, delete what you never change; the workflow beside this file stays as it was exported.",
        "# A slot that an experiment does not give keeps the workflow's own value (shown behind each line).",
        "slots:",
    ]
    for suggestion in suggestions:
        fields = [f"at: {_quote(suggestion.address)}"]
        if suggestion.schema is not None:
            fields.append(
                "schema: {" + ", ".join(f"{key}: {_to_yaml(value)}" for key, value in suggestion.schema.items()) + "}"
            )
        if suggestion.type == "file":
            fields.append("kind: file")
        node = (
            suggestion.class_type
            if not suggestion.title or suggestion.title == suggestion.class_type
            else f"{suggestion.class_type} '{suggestion.title}'"
        )
        current = (
            "a local file, given by the experiment"
            if suggestion.type == "file"
            else json.dumps(suggestion.value, ensure_ascii=False)
        )
        lines.append(f"  {suggestion.name}: {{{', '.join(fields)}}}  # {_to_one_line(node)}: {_to_one_line(current)}")
    items = [
        {name: text for name in ("name", "folder", "url") if (text := str(getattr(model, name)))} for model in models
    ]
    if items:
        lines += [
            "# The model files that the workflow names. `sweeper doctor` shows those that a server lacks.",
            "models:",
        ]
    lines += [f"  - {{{', '.join(f'{name}: {_quote(text)}' for name, text in item.items())}}}" for item in items]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """Write a double-quoted YAML scalar, with all unprintable characters escaped: YAML forbids more than JSON does."""
    return "".join(
        char if char.isprintable() else f"\\U{ord(char):08x}" for char in json.dumps(text, ensure_ascii=False)
    )


def _to_yaml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_quote(item) if isinstance(item, str) else _to_yaml(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _to_one_line(text: str, limit: int = 60) -> str:
    """Write a text for a comment: on one line, without control characters, cut at `limit` characters."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
