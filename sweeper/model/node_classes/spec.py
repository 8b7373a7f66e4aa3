"""An `object_info` answer as values: every class with its inputs in order, each with the JSON Schema of its literals.

Tolerant by design: custom nodes write odd things into their declarations, and a class that cannot be understood must
not make a workflow unusable. What is not understood accepts anything. Whether a graph fits is `check`'s business.

The shapes are those of ComfyUI 0.3.64 (`server.py` node_info, `comfy_api/latest/_io.py`), with the growing inputs of
later versions ("COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from sweeper.did_you_mean import suggest
from sweeper.errors import InputError
from sweeper.model.template import MISSING

ANY: Final = "*"
AUTOGROW: Final = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO: Final = "COMFY_DYNAMICCOMBO_V3"
_DYNAMIC: Final = re.compile(r"COMFY_\w+_V3")
_NUMBERED: Final = re.compile(r"(.*?)(\d+)")

_PRIMITIVE_TYPES: Final = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BOOLEAN": "boolean"}
# Types of ComfyUI's own that are only ever linked, for when `object_info` has too few classes to see who makes them.
_CORE_LINK_TYPES: Final = frozenset(
    {"AUDIO", "CLIP", "CLIP_VISION", "CLIP_VISION_OUTPUT", "CONDITIONING", "CONTROL_NET", "GLIGEN", "GUIDER", "HOOKS"}
    | {"HOOK_KEYFRAMES", "IMAGE", "LATENT", "MASK", "MESH", "MODEL", "NOISE", "SAMPLER", "SIGMAS", "STYLE_MODEL"}
    | {"SVG", "UPSCALE_MODEL", "VAE", "VIDEO", "VOXEL"}
)
# The suffixes of folder_paths.supported_pt_extensions, and those of the loaders that custom nodes add most often.
_MODEL_SUFFIXES: Final = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft", ".gguf", ".onnx")

OutputType = str | tuple[Any, ...]  # a type's name (or "A,B"), or the options of a combo that is put out


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a class.

    `kind` is how the editor shows it: a widget holds a literal (and may be linked), a link is only ever connected.
    `type` is the declared type's name; both shapes of combo are "COMBO", and `old_combo` tells the list from the other.
    `schema` is the JSON Schema of a literal there, without `step`, which no server enforces; None where a literal can
    only fail. `choices` are a combo's options (None: not told), `uploads` says that they are files which a client may
    add. `options` is the declaration's second half as it stands. `branches` are what the options of a dynamic combo
    bring along, `grown` what an autogrowing input is made of; the names in both are full ones, with their dots.
    """

    name: str
    kind: Literal["widget", "link"]
    type: str
    required: bool
    default: Any = MISSING
    schema: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    is_upload: bool = False
    is_legacy_combo: bool = False
    branches: Mapping[str, Mapping[str, InputSpec]] = field(default_factory=dict)
    autogrow_inputs: tuple[InputSpec, ...] = ()

    @property
    def takes_anything(self) -> bool:
        """Whether a link of any type fits."""
        return ANY in _split_union(self.type) or bool(_DYNAMIC.fullmatch(self.type))


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One class: its inputs in order (required first), the names of its hidden ones, and the types that it puts out.

    `open_ended` is true where undeclared inputs are meant: the class declares an *empty* group of optional inputs (as
    the "any number of inputs" classes of custom nodes do), or nothing that could be understood. `partner` nodes call a
    paid third party (`api_node`).
    """

    class_type: str
    inputs: Mapping[str, InputSpec]
    hidden: tuple[str, ...] = ()
    outputs: tuple[OutputType, ...] = ()
    is_output: bool = False
    is_open_ended: bool = False
    is_partner: bool = False

    @property
    def is_dynamic(self) -> bool:
        """Whether the value of one input decides which others there are."""
        return any(spec.branches for spec in self.inputs.values())

    def resolve_inputs(self, given: Mapping[str, Any]) -> dict[str, InputSpec]:
        """The inputs of a node that holds the values `given`: the declared ones, and those that they bring along."""
        found: dict[str, InputSpec] = {}
        for spec in self.inputs.values():
            found.update(_expand_input(spec, given))
        return found

    def can_take_undeclared(self, name: str) -> bool:
        """Whether an input that `inputs_for` does not have may be meant all the same.

        Besides open-ended classes: the children of a dynamic input (`images.image3`), and the next of a numbered row
        (`image_3` where `image_1` is declared, which nodes with an "add input" button send without declaring it).
        """
        if self.is_open_ended or name in self.hidden:
            return True
        parent = name.partition(".")[0]
        if parent != name and parent in self.inputs and _DYNAMIC.fullmatch(self.inputs[parent].type):
            return True
        numbered = _NUMBERED.fullmatch(name)
        return numbered is not None and any(
            other[1] == numbered[1] and spec.kind == "link"
            for declared, spec in self.inputs.items()
            if (other := _NUMBERED.fullmatch(declared)) is not None
        )


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Every class of a server. `classes` maps class_type to its NodeSpec."""

    classes: Mapping[str, NodeSpec]

    @classmethod
    def from_object_info(cls, answer: Mapping[str, Any]) -> NodeInfo:
        """Read the JSON of `GET /object_info`. Raises InputError when it is something else."""
        if not isinstance(answer, Mapping) or (answer and not any(_is_class(one) for one in answer.values())):
            raise InputError("this is no object_info: a mapping of node classes, each with its `input`, is needed")
        made = frozenset(
            name
            for declared in answer.values()
            for output in _as_sequence(_get(declared, "output"))
            if isinstance(output, str)
            for name in _split_union(output)
        )
        return cls({name: _parse_node(name, declared, made) for name, declared in answer.items()})

    def with_any_model(self) -> NodeInfo:
        """The same classes on a server that takes any model's file name, as the embedded one does unless it is strict.

        A list of model files is one with a name that ends as their files do, or an empty one.
        """
        return NodeInfo(
            {
                name: replace(spec, inputs={key: _accept_any_model(one) for key, one in spec.inputs.items()})
                for name, spec in self.classes.items()
            }
        )

    def get_spec(self, class_type: str) -> NodeSpec:
        """The class. Raises KeyError with the nearest name in its message."""
        try:
            return self.classes[class_type]
        except KeyError:
            raise KeyError(f"there is no node class '{class_type}'{suggest(class_type, self.classes)}") from None


def can_link(given: OutputType, wanted: InputSpec) -> bool:
    """Whether an output of type `given` may be linked to the input.

    ComfyUI's `validate_node_input`: equal types, or unions "A,B" with a member in common; "*" on either side takes all
    (there it is a string that equals everything, which JSON cannot show). A combo declared as a list takes only an
    output declared as the same list.
    """
    if wanted.takes_anything or (isinstance(given, str) and (ANY in _split_union(given) or _DYNAMIC.fullmatch(given))):
        return True
    if isinstance(given, tuple):
        return wanted.is_legacy_combo and wanted.choices == given
    return not wanted.is_legacy_combo and bool(_split_union(given) & _split_union(wanted.type))


def _accept_any_model(spec: InputSpec) -> InputSpec:
    is_model = spec.type == "COMBO" and spec.choices is not None and not spec.is_upload
    if is_model and (not spec.choices or any(str(one).lower().endswith(_MODEL_SUFFIXES) for one in spec.choices)):
        return replace(spec, schema={"type": "string", "minLength": 1})
    return spec


def _split_union(union: str) -> frozenset[str]:
    return frozenset(part.strip() for part in union.split(","))


def _is_class(declared: Any) -> bool:
    return isinstance(declared, Mapping) and ("input" in declared or "output" in declared)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _as_sequence(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _parse_node(class_type: str, declared: Any, output_types: frozenset[str]) -> NodeSpec:
    groups = _get(declared, "input")
    if not isinstance(groups, Mapping):
        groups = {}
    order = _get(declared, "input_order")
    optional = groups.get("optional")
    hidden = groups.get("hidden")
    return NodeSpec(
        class_type=class_type,
        inputs=_parse_groups(groups, output_types, order),
        hidden=tuple(map(str, hidden)) if isinstance(hidden, (Mapping, list)) else (),
        outputs=tuple(
            output if isinstance(output, str) else tuple(output) if isinstance(output, list) else ANY
            for output in _as_sequence(_get(declared, "output"))
        ),
        is_output=_get(declared, "output_node") is True,
        is_open_ended=not _is_class(declared) or (isinstance(optional, Mapping) and not optional),
        is_partner=_get(declared, "api_node") is True,
    )


def _parse_groups(
    groups: Mapping[str, Any], output_types: frozenset[str], order: Any = None, prefix: str = ""
) -> dict[str, InputSpec]:
    found: dict[str, InputSpec] = {}
    for group in ("required", "optional"):
        declared = groups.get(group)
        if isinstance(declared, Mapping):
            # `input_order` is what the server says; JSON objects have kept their order anyway wherever this was seen.
            first = [name for name in _as_sequence(_get(order, group)) if isinstance(name, str) and name in declared]
            for name in dict.fromkeys([*first, *declared]):
                full = prefix + name
                if full not in found:
                    found[full] = _parse_input(full, declared[name], group == "required", output_types)
    return found


def _parse_input(name: str, declared: Any, required: bool, output_types: frozenset[str]) -> InputSpec:
    """`[type]`, `[type, options]`, or whatever a custom node wrote instead."""
    parts = [declared] if isinstance(declared, str) else list(_as_sequence(declared))
    kind = parts[0] if parts else ANY
    options = parts[1] if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
    default = options.get("default", MISSING)
    if isinstance(kind, (list, tuple)) or kind == "COMBO":
        return _parse_combo(name, kind, options, default, required)
    if not isinstance(kind, str) or (len(parts) > 1 and isinstance(parts[1], str)):
        # `(["a", "b"])` without its comma arrives as `["a", "b"]`: a type "a" that the server checks nothing against.
        return InputSpec(name, "widget", ANY, required, default, {}, options)
    if kind == DYNAMIC_COMBO:
        return _parse_dynamic_combo(name, options, default, required, output_types)
    if kind == AUTOGROW:
        return InputSpec(
            name,
            "link",
            kind,
            False,
            autogrow_inputs=_parse_autogrow(name, options, required, output_types),
            options=options,
        )
    names = _split_union(kind)
    forced = options.get("forceInput") is True
    # A type that no class puts out, and that is none of ComfyUI's own, can only be a custom node's own widget (COLOR,
    # LOAD_3D, ...): its value is whatever that widget writes.
    own_widget = options.get("socketless") is True or not (
        names <= output_types | _CORE_LINK_TYPES or ANY in names or _DYNAMIC.fullmatch(kind)
    )
    schema = _make_literal_schema(kind, options)
    if (
        schema is None
        and not forced
        and (own_widget or any(options.get(key) is not None for key in ("default", "widgetType")))
    ):
        schema = {}
    is_widget = not forced and (own_widget or bool(names & {*_PRIMITIVE_TYPES, "COMBO"}))
    return InputSpec(name, "widget" if is_widget else "link", kind, required, default, schema, options)


def _make_literal_schema(kind: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a literal of this type, None for a type that is linked.

    The server takes any literal anywhere: for INT and its like also where `forceInput` hides the widget, and that
    works; for a linked type it fails at run time.
    """
    names = _split_union(kind)
    types = [_PRIMITIVE_TYPES[name] for name in ("INT", "FLOAT", "STRING", "BOOLEAN") if name in names]
    if "COMBO" in names and "string" not in types:
        types.append("string")
    if types:
        schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if {"INT", "FLOAT"} & names:
            for word, option in (("minimum", "min"), ("maximum", "max")):
                limit = options.get(option)
                if isinstance(limit, (int, float)) and not isinstance(limit, bool) and math.isfinite(limit):
                    schema[word] = limit
        return schema
    return {} if ANY in names or _DYNAMIC.fullmatch(kind) else None


def _parse_combo(name: str, kind: Any, options: Mapping[str, Any], default: Any, required: bool) -> InputSpec:
    old = not isinstance(kind, str)
    listed = kind if old else options.get("options")
    choices = tuple(listed) if isinstance(listed, (list, tuple)) else None
    # The files behind an upload button are those that lie in the server's folder now; more come with every upload.
    uploads = any(key.endswith("_upload") and value for key, value in options.items() if isinstance(key, str))
    schema: dict[str, Any]
    if uploads:
        schema = {"type": "string", "minLength": 1}
    elif choices is None:
        schema = {}  # a list that the editor fetches elsewhere ("remote")
    else:
        schema = _make_choice_schema(choices)
    if options.get("any_file") is True:  # sweeper's own server says so where it takes every model's name
        schema = {"type": "string", "minLength": 1}
    if options.get("multiselect") is True:
        schema = {"type": "array", "items": schema}
    return InputSpec(name, "widget", "COMBO", required, default, schema, options, choices, uploads, old)


def _make_choice_schema(choices: tuple[Any, ...]) -> dict[str, Any]:
    """One of the options. Options with pictures, `{"content": name, "image": path}`, are also sent by name alone."""
    contents = [one["content"] for one in choices if isinstance(one, Mapping) and isinstance(one.get("content"), str)]
    unique = {json.dumps(one, sort_keys=True, default=str): one for one in (*choices, *contents)}
    schema: dict[str, Any] = {"enum": list(unique.values())}
    if contents:
        pictured = {"type": "object", "required": ["content"], "properties": {"content": {"enum": contents}}}
        return {"anyOf": [schema, pictured]}
    return schema


def _parse_dynamic_combo(
    name: str, options: Mapping[str, Any], default: Any, required: bool, output_types: frozenset[str]
) -> InputSpec:
    branches: dict[str, Mapping[str, InputSpec]] = {}
    for one in _as_sequence(options.get("options")):
        key, groups = _get(one, "key"), _get(one, "inputs")
        if isinstance(key, str):
            branches[key] = _parse_groups(
                groups if isinstance(groups, Mapping) else {}, output_types, prefix=f"{name}."
            )
    schema: dict[str, Any] = {"enum": list(branches)} if branches else {}
    keys = tuple(branches) or None
    return InputSpec(name, "widget", DYNAMIC_COMBO, required, default, schema, options, keys, branches=branches)


def _parse_autogrow(
    name: str, options: Mapping[str, Any], required: bool, output_types: frozenset[str]
) -> tuple[InputSpec, ...]:
    """The row of inputs that an autogrowing one stands for: `names`, or `prefix0`, `prefix1`, ... (the first `min`
    of them required). Empty when the template is of another shape: then anything below its name is taken.
    """
    template = options.get("template")
    group, declared = next(
        (
            (group, next(iter(specs.values())))
            for group in ("required", "optional")
            if isinstance(specs := _get(_get(template, "input"), group), Mapping) and specs
        ),
        ("", None),
    )
    names = _get(template, "names")
    if not isinstance(names, list):
        prefix, most = _get(template, "prefix"), _get(template, "max")
        if not isinstance(prefix, str) or not isinstance(most, int):
            return ()
        names = [f"{prefix}{place}" for place in range(min(most, 100))]  # 100 is the server's own limit
    least = _get(template, "min")
    least = least if required and group == "required" and isinstance(least, int) else 0
    if declared is None:
        return ()
    return tuple(
        _parse_input(f"{name}.{one}", declared, place < least, output_types) for place, one in enumerate(names)
    )


def _expand_input(spec: InputSpec, given: Mapping[str, Any]) -> Iterator[tuple[str, InputSpec]]:
    """The input itself, and those that its value brings along. An autogrowing one is only its row."""
    if spec.type == AUTOGROW:
        for one in spec.autogrow_inputs:
            if one.required or one.name in given:
                yield one.name, one
        return
    yield spec.name, spec
    chosen = given.get(spec.name)
    if isinstance(chosen, str) and chosen in spec.branches:
        for one in spec.branches[chosen].values():
            yield from _expand_input(one, given)
