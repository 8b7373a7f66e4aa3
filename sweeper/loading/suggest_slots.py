"""Suggest a slot for every input of a workflow that has a value.

The names are made for people: the links of the samplers lead to `prompt` and `negative`, and every kind of seed is
`seed`. Inputs of twin nodes that have the same value are one slot. If two names are still equal, each gets a word for
what its node does. A dynamic combo can be swept at once: the inputs of its other branches are suggested with the
defaults of their class.
"""

from __future__ import annotations

import json
import operator
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from sweeper.loading.ui_format.convert import AppInput
from sweeper.model.expressions import has_jinja
from sweeper.model.node_classes import InputSpec, NodeInfo, NodeSpec
from sweeper.model.node_classes.spec import MODEL_SUFFIXES, PAGE_FIELDS
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.template import MISSING
from sweeper.model.workflow import Graph, find_downstream, find_reachable, find_sinks, find_upstream, iter_links

# Common names for inputs that core nodes call differently.
_COMMON_NAMES: Final = {
    "noise_seed": "seed", "ckpt_name": "checkpoint", "positive": "prompt", "positive_prompt": "prompt",
    "negative_prompt": "negative", "empty_latent_width": "width", "empty_latent_height": "height",
}  # fmt: skip
# Names that say nothing without the title of the node.
_VAGUE_NAMES: Final = frozenset((
    "value", "text", "string", "int", "float", "boolean", "number", "input", "a", "b",
))  # fmt: skip
# The most wanted slots come first, also as columns. All others follow in the order of the workflow.
_PREFERRED_ORDER: Final = (
    "prompt", "negative", "seed", "steps", "cfg", "guidance", "sampler", "scheduler", "denoise", "width", "height",
    "batch_size", "checkpoint",
)  # fmt: skip
# Inputs with the text of a prompt, of encoders and of the primitives that feed them.
_TEXT_INPUTS: Final = frozenset((
    "text", "prompt", "text_g", "text_l", "clip_l", "t5xxl", "string", "value", "string_a", "string_b",
))  # fmt: skip
# Links of an encoder that do not lead to its text.
_NON_TEXT_LINKS: Final = frozenset((
    "clip", "model", "vae", "control_net", "image", "images", "pixels", "mask", "latent", "latent_image",
    "samples", "clip_vision_output", "style_model",
))  # fmt: skip
_FILE_SUFFIXES: Final = (
    *MODEL_SUFFIXES, ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".wav", ".mp3", ".flac",
)  # fmt: skip
_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_MAX_COMPARED: Final = 30  # nodes whose links are followed to name their inputs
_MAX_CHOICES: Final = 100  # in a slots file; a longer list is checked only by the server
# Reserved words of Jinja2: a slot with such a name could not be written as `{{ if }}`.
_JINJA_WORDS: Final = frozenset((
    "and", "else", "elif", "false", "for", "if", "in", "is", "loop", "none", "not", "or", "range", "recursive",
    "self", "true", "True", "False", "None",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggested slot for one input: its `name`, its `address` (`node_id.input`) and its current value.

    `type` is a JSON Schema type, or `file` for a picture to upload. `schema` is the schema for the slots file, None if
    the server knows better (a list of names that only the server has). `is_default`: the workflow has no such input,
    because it belongs to a branch that is not chosen, and `value` is the default of the class. `others` are more
    addresses that get the same value.
    """

    name: str
    address: str
    class_type: str
    title: str
    type: str
    value: Any
    schema: Mapping[str, Any] | None = None
    is_default: bool = False
    role: str = ""  # the name before it was made unique: `seed` also for `seed_11`
    others: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.address, *self.others


def find_output_nodes(graph: Graph, info: NodeInfo) -> frozenset[str]:
    """Return the output nodes. A node of a class that `info` lacks counts as one if no link leaves it."""
    unused = find_sinks(graph)
    specs = {node_id: info.classes.get(node["class_type"]) for node_id, node in graph.items()}
    return frozenset(key for key, spec in specs.items() if (key in unused if spec is None else spec.is_output))


def suggest_slots(graph: Graph, info: NodeInfo) -> tuple[Suggestion, ...]:
    """Suggest a slot for every value without Jinja2, the most wanted first. Every name is unique.

    `info` has the limits and choices of classes. For classes that it lacks, the type is inferred from the value in the
    workflow. A field that the class does not declare gets no slot, because it would change nothing.
    """
    ranks = {name: rank for rank, name in enumerate(_PREFERRED_ORDER)}
    named = _make_unique(_merge_twins(_iter_suggestions(graph, info), graph), graph)
    return tuple(sorted(named, key=lambda suggestion: ranks.get(suggestion.name, len(ranks))))


def _iter_suggestions(graph: Graph, info: NodeInfo) -> Iterator[Suggestion]:
    """Yield a suggestion for each input, under a name that others may have too."""
    roles = _find_prompt_texts(graph)
    for node_id, node in graph.items():
        if "." in node_id:  # its inputs have no address; a template can name the node by its title
            continue
        class_spec = info.classes.get(node["class_type"])
        for name, value, spec, is_default in _iter_values(node.get("inputs", {}), class_spec):
            if isinstance(value, str) and has_jinja(value):
                continue
            type_name, schema = _infer_type(name, value, spec, is_text=(node_id, name) in roles)
            title = str(node.get("_meta", {}).get("title", ""))
            simple_name = roles.get((node_id, name)) or _simplify_name(name, title, node["class_type"])
            node_facts = (f"{node_id}.{name}", node["class_type"], title)
            yield Suggestion(simple_name, *node_facts, type_name, value, schema, is_default, role=simple_name)


def _merge_twins(suggestions: Iterable[Suggestion], graph: Graph) -> list[Suggestion]:
    """Merge the inputs of the same name and class that have the same value, such as the steps of two samplers.

    Prompts with the same text are one slot in nodes of all classes. Nodes that load different files stay apart.
    """
    groups: dict[tuple[str, ...], list[Suggestion]] = defaultdict(list)
    for suggestion in suggestions:
        node_id, _, name = suggestion.address.partition(".")
        polarity = suggestion.role.partition("_")[0]
        twin: tuple[str, ...] = (suggestion.role, suggestion.class_type, name, *_list_files(graph[node_id], name))
        if polarity in {"prompt", "negative"} and suggestion.value:
            twin = (polarity,)
        elif suggestion.is_default or polarity in {"prompt", "negative"}:
            twin = (suggestion.address,)
        groups[*twin, json.dumps(suggestion.value)].append(suggestion)
    return [_merge(first, others) if others else first for first, *others in groups.values()]


def _merge(first: Suggestion, others: Sequence[Suggestion]) -> Suggestion:
    is_same = all(other.role == first.role for other in others)
    role = first.role if is_same else first.role.partition("_")[0]
    return replace(first, name=role, role=role, others=tuple(other.address for other in others))


def _list_files(node: Mapping[str, Any], besides: str) -> list[str]:
    """Return the names of model and input files in the inputs of a node, but not in the input `besides`."""
    values = [value for name, value in node["inputs"].items() if name != besides and isinstance(value, str)]
    return [value for value in values if value.lower().endswith(_FILE_SUFFIXES)]


def choose_app_slots(graph: Graph, info: NodeInfo, app_inputs: Iterable[AppInput]) -> tuple[Suggestion, ...]:
    """Return the slots that the author of a workflow chose for its App mode, in that order, with the author's names."""
    by_address = {suggestion.address: suggestion for suggestion in _iter_suggestions(graph, info)}
    chosen: list[Suggestion] = []
    for app_input in app_inputs:
        found = [by_address.pop(address) for address in app_input.addresses if address in by_address]
        if not found:
            continue
        first, *others = found
        name = first.role
        if app_input.is_label or first.address.partition(".")[2] != app_input.name:
            name = _simplify_name(app_input.name, first.title, first.class_type)
        chosen.append(replace(first, name=name, others=tuple(other.address for other in others)))
    return tuple(_make_unique(chosen, graph))


# --- names


def _find_prompt_texts(graph: Graph) -> dict[tuple[str, str], str]:
    """Map (node id, input) to `prompt` or `negative` for the texts that condition samplers and guiders."""
    roles: dict[tuple[str, str], str] = {}
    for role, prefix in (("positive", "prompt"), ("negative", "negative")):
        links = [
            source
            for node in graph.values()
            for name, source, _ in iter_links(node)
            if name == role
            or (role == "positive" and name == "conditioning" and "guider" in str(node["class_type"]).lower())
        ]
        for node_id in _find_text_nodes(graph, links, role):
            inputs = graph[node_id]["inputs"]
            text_inputs = [key for key in inputs if key in _TEXT_INPUTS and isinstance(inputs[key], str)]
            for key in text_inputs:
                # A text for both roles (with a zeroed-out negative) is the prompt.
                roles.setdefault((node_id, key), prefix if len(text_inputs) == 1 else f"{prefix}_{key}")
    return roles


def _find_text_nodes(graph: Graph, links: Iterable[str], role: str) -> frozenset[str]:
    """Return the nodes upstream of conditioning links, which end at the nodes `links`, that may have their text.

    A node with both kinds of conditioning (ControlNetApplyAdvanced) passes each through, so only `role` is followed.
    """

    def list_sources(node_id: str) -> list[str]:
        has_both_roles = {"positive", "negative"} <= graph[node_id].get("inputs", {}).keys()
        links = [(name, source) for name, source, _ in iter_links(graph[node_id]) if name not in _NON_TEXT_LINKS]
        return [source for name, source in links if source in graph and (not has_both_roles or name == role)]

    return find_reachable([node_id for node_id in links if node_id in graph], list_sources)


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


def _make_unique(suggestions: Iterable[Suggestion], graph: Graph) -> Iterator[Suggestion]:
    """Add to equal names a word for what the node does, or the id of the node if there is no such word."""
    suggestions = list(suggestions)
    groups: dict[str, list[Suggestion]] = defaultdict(list)
    for suggestion in suggestions:
        groups[suggestion.name].append(suggestion)
    words = {suggestion.address: word for group in groups.values() if len(group) > 1
             for suggestion, word in zip(group, _choose_words(group, graph), strict=True)}  # fmt: skip
    taken = {name for name, group in groups.items() if len(group) == 1}
    numbers: Counter[str] = Counter()  # of the names that are still equal
    for suggestion in suggestions:
        name = base = "_".join(filter(None, (suggestion.name, words.get(suggestion.address, ""))))
        while suggestion.address in words and name in taken:
            numbers[base] += 1
            name = f"{base}_{numbers[base] + 1}"
        taken.add(name)
        yield replace(suggestion, name=name)


def _choose_words(group: Sequence[Suggestion], graph: Graph) -> list[str]:
    """Return a word for each of several inputs of one name.

    It is the title of the node, base or refiner, the file that the node loads, its place among the others, or the input
    that it is linked to, whichever tells all of them apart; else its id.
    """
    nodes = [suggestion.address.partition(".")[0] for suggestion in group]
    ids = [_slugify(node_id) for node_id in nodes]
    kinds: tuple[Callable[[], list[str]], ...] = (
        lambda: [_slugify(suggestion.title) for suggestion in group],
        lambda: _find_stages(nodes, graph),
        lambda: ["_".join(map(_slugify_file, _list_files(graph[node_id], ""))) for node_id in nodes],
        lambda: _find_places(nodes, graph),
        lambda: [_find_user(node_id, graph) for node_id in nodes],
    )
    found = (make_words() for make_words in kinds[: None if len(group) <= _MAX_COMPARED else 1])
    return next((words for words in found if all(words) and len({*words}) == len(words)), ids)


def _find_stages(nodes: Sequence[str], graph: Graph) -> list[str]:
    """Return `refiner` for a node that depends on a model file of that name, and `base` for the others."""
    files = [[file for key in find_upstream(graph, [node_id]) for file in _list_files(graph[key], "")]
             for node_id in nodes]  # fmt: skip
    return ["refiner" if any("refiner" in file.lower() for file in names) else "base" for names in files]


def _find_places(nodes: Sequence[str], graph: Graph) -> list[str]:
    """Return `first`, `second`, ... if each node acts on what the one before it made; empty words if not."""
    reached = {node_id: find_downstream(graph, [node_id]) - {node_id} for node_id in {*nodes}}
    order = sorted(nodes, key=lambda node_id: -len(reached[node_id]))
    is_chain = all(reached[later] < reached[earlier] for earlier, later in pairwise(order))
    places = dict(zip(order, _ORDINALS, strict=False)) if is_chain else {}
    return [places.get(node_id, "") for node_id in nodes]


def _find_user(node_id: str, graph: Graph) -> str:
    """Return the input that a node is linked to, or the title of that node if the input says nothing; "" if several."""
    users = {(key, name) for key, node in graph.items() for name, source, _ in iter_links(node) if source == node_id}
    names = {name for _, name in users}
    if len(names) == 1 and not names & _NON_TEXT_LINKS:
        return _slugify(names.pop())
    if len(users) != 1:
        return ""
    ((key, name),) = users
    title = str(graph[key].get("_meta", {}).get("title", "")) or str(graph[key]["class_type"])
    return _slugify(title if name in _NON_TEXT_LINKS else name)


def _slugify_file(name: str) -> str:
    """Return the name of a file without its folder and suffix, as a word of at most 30 characters."""
    return _slugify(re.split(r"[/\\]", name)[-1].rpartition(".")[0])[:30].strip("_")


# --- types


def _iter_values(
    inputs: Mapping[str, Any], class_spec: NodeSpec | None
) -> Iterator[tuple[str, Any, InputSpec | None, bool]]:
    """Yield the name, value and declaration of the inputs that can be slots, and whether the value is a default."""
    if class_spec is None:
        for name, value in inputs.items():
            if isinstance(value, (str, int, float)) and name not in PAGE_FIELDS:
                yield name, value, None, False
        return
    declared = class_spec.resolve_inputs(inputs)
    for name, value in inputs.items():
        spec = declared.get(name)
        is_object = spec is not None and (spec.schema or {}).get("type") == "object"
        is_value = is_object or isinstance(value, (str, int, float))
        if is_value and (spec is not None or class_spec.can_take_undeclared(name)) and not _is_hidden(class_spec, name):
            yield name, value, _unify_branches(class_spec, spec), False
    for spec in {spec.name: spec for spec in list_inputs(class_spec, inputs)}.values():
        value = spec.choices[0] if spec.default is MISSING and spec.choices else spec.default
        is_absent = "." in spec.name and spec.name not in inputs
        if is_absent and spec.kind == "widget" and isinstance(value, (str, int, float)):
            yield spec.name, value, _unify_branches(class_spec, spec), True


def list_inputs(class_spec: NodeSpec, inputs: Mapping[str, Any]) -> list[InputSpec]:
    """Return the inputs of a class and of its branches, without those that the page hides.

    A node that an older version of the class saved has no inputs of branches, although its class has branches now.
    """
    chosen = class_spec.resolve_inputs(inputs).values()
    is_older = any("." in spec.name and spec.branches and spec.name not in inputs for spec in chosen)
    if is_older:
        everything = [replace(spec, branches={}) for spec in class_spec.inputs.values()]
    else:
        everything = [*class_spec.inputs.values(), *class_spec.list_branch_inputs()]
    return [spec for spec in everything if not _is_hidden(class_spec, spec.name)]


def _is_hidden(class_spec: NodeSpec, name: str) -> bool:
    """Whether the page hides the input, or the one that it belongs to: it is only there for older workflows."""
    parent = class_spec.inputs.get(name.partition(".")[0])
    return parent is not None and parent.options.get("hidden") is True


def _unify_branches(class_spec: NodeSpec, spec: InputSpec | None) -> InputSpec | None:
    """Return the declaration of an input, without a schema if another branch declares the same name differently."""
    rivals = [other for other in class_spec.list_branch_inputs() if spec is not None and other.name == spec.name]
    differ = any(spec is not None and other.schema != spec.schema for other in rivals)
    return replace(spec, schema=None, options={}) if differ and spec is not None else spec


def _infer_type(
    name: str, value: Any, spec: InputSpec | None, *, is_text: bool
) -> tuple[str, Mapping[str, Any] | None]:
    """Return the type of an input and the schema of its slot, which never refuses the current value."""
    if isinstance(value, str) and ((spec is not None and spec.is_upload) or (spec is None and name == "image")):
        return "file", None
    inferred, schema = _infer_from_value(value, spec, is_text=is_text)
    declared = spec.schema if spec is not None else None
    if not declared or not _is_short_schema(declared):
        return inferred, schema
    try:
        _compile_schema(json.dumps(declared)).normalise(value)
    except ValueRefusedError:
        return inferred, schema  # with the declared one the template could not be loaded; `validate` reports the value
    kind = declared.get("type", inferred)
    return (kind if isinstance(kind, str) else inferred), declared


@lru_cache(1000)
def _compile_schema(text: str) -> SlotSchema:
    """Compile a schema from its JSON, once for all nodes of a class, because that takes 3 ms."""
    return SlotSchema(json.loads(text))


def _infer_from_value(value: Any, spec: InputSpec | None, *, is_text: bool) -> tuple[str, Mapping[str, Any] | None]:
    declared_type = spec.type if spec is not None else None
    if isinstance(value, bool):
        return "boolean", {"type": "boolean"}
    if isinstance(value, str):
        return "string", {"type": "string"} if is_text or declared_type == "STRING" else None
    if isinstance(value, Mapping):
        return "object", {"type": "object"}
    is_like_integer = declared_type != "FLOAT" and isinstance(value, int)
    is_integer = is_like_integer if declared_type != "INT" else isinstance(value, int) or value.is_integer()
    if is_integer and spec is None:  # 7 may be the value of a FLOAT, and a seed of 64 bits must stay an integer
        return "number", {"type": ["integer", "number"]}
    schema: dict[str, Any] = {"type": "integer" if is_integer else "number"}
    for keyword, is_within in (("minimum", operator.ge), ("maximum", operator.le)):
        limit = (spec.schema or {}).get(keyword) if spec is not None else None
        if limit is not None and is_within(value, limit):  # do not refuse the current value
            schema[keyword] = limit
    return schema["type"], schema


def _is_short_schema(schema: Mapping[str, Any]) -> bool:
    """Whether the schema fits on one line of a slots file: without a long list or several forms."""
    choices = schema.get("enum", [])
    plain = all(isinstance(choice, (str, int, float)) for choice in choices)
    return "anyOf" not in schema and plain and len(choices) <= _MAX_CHOICES
