"""Parse an `object_info` response: every node class with its inputs in order and the JSON Schema of their literals.

The parser is tolerant, because custom nodes write odd things into their declarations, and a class that cannot be
understood must not make a workflow unusable. Anything that is not understood accepts any value.

The shapes are those of ComfyUI 0.3.64 to 0.33.0 (`server.py` node_info, `comfy_api/latest/_io.py`). Some inputs of
newer versions exist only for some values of others, so `NodeSpec.resolve_inputs` needs the values of a node:

- A dynamic combo ("COMFY_DYNAMICCOMBO_V3") has one branch of inputs for each option: `resize_type: "scale width"` adds
  `resize_type.width`. A branch may contain dynamic combos and autogrowing inputs.
- An autogrowing input ("COMFY_AUTOGROW_V3") represents `images.image0`, `images.image1`, ... and is itself never sent.
- Inputs and outputs of one match template ("COMFY_MATCHTYPE_V3") carry the same type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from sweeper.errors import InputError
from sweeper.model.node_classes.price_badge import PriceBadge, parse_price_badge
from sweeper.model.template import MISSING
from sweeper.schemas.values import is_number
from sweeper.wording import find_nearest

ANY: Final = "*"
AUTOGROW: Final = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO: Final = "COMFY_DYNAMICCOMBO_V3"
MATCH_TYPE: Final = "COMFY_MATCHTYPE_V3"
STAND_IN_KEY: Final = "sweeper_stand_in"  # what the embedded server adds to a class that it does not implement
# Fields that ComfyUI's page writes into workflows, and that no class reads.
PAGE_FIELDS: Final = frozenset(
    {"audioUI", "control_after_generate", "preview", "previewMode", "upload", "videopreview"}
    | {f"choose {thing} to upload" for thing in ("audio", "file", "image", "video")}
)
_DYNAMIC: Final = re.compile(r"COMFY_\w+_V3")
_NUMBERED: Final = re.compile(r"(.*?)(\d+)")

# The editor's own values: "#rrggbb", and a rectangle in pixels, whose missing keys have defaults. No server checks it.
_SIDE: Final = {"type": "integer", "minimum": 1}
_BOX: Final = {"x": {"type": "integer"}, "y": {"type": "integer"}, "width": _SIDE, "height": _SIDE}
_EDITOR_SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "COLOR": {"type": "string"}, "BOUNDING_BOX": {"type": "object", "properties": _BOX}
}  # fmt: skip
# Classes that accept more than their declaration says (measured on ComfyUI 0.33.0): the editor keeps the options of a
# CustomCombo and shows the 3D models; the others continue without a device or backend that the server does not have.
_LENIENT_CLASSES: Final = frozenset(
    {"CustomCombo", "Load3D", "Load3DAdvanced", "ModelAttentionBackend"}
    | {"SelectCLIPDevice", "SelectModelDevice", "SelectVAEDevice"}
)
_PACKS: Final = "custom_nodes."  # how the `python_module` of a class begins, before the name of its folder
_SHIPPED_EXAMPLE: Final = "websocket_image_save"  # a file in `custom_nodes` of every ComfyUI
_MISSPELT_CLASS: Final = 0.85  # of the letters of a class in common with a known one: `KSamplr`, `LoadImag`
_PRIMITIVE_TYPES: Final = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BOOLEAN": "boolean"}
# ComfyUI's own types that only links can carry, in case `object_info` has too few classes to find them as outputs.
_CORE_LINK_TYPES: Final = frozenset(
    {"AUDIO", "CLIP", "CLIP_VISION", "CLIP_VISION_OUTPUT", "CONDITIONING", "CONTROL_NET", "GLIGEN", "GUIDER", "HOOKS"}
    | {"HOOK_KEYFRAMES", "IMAGE", "LATENT", "MASK", "MESH", "MODEL", "NOISE", "SAMPLER", "SIGMAS", "STYLE_MODEL"}
    | {"SVG", "UPSCALE_MODEL", "VAE", "VIDEO", "VOXEL"}
)
# The suffixes of folder_paths.supported_pt_extensions, and those of the most common loaders of custom nodes.
MODEL_SUFFIXES: Final = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft", ".gguf", ".onnx")

OutputType = str | tuple[Any, ...]  # the name of a type (or "A,B"), or the options of an output that is a combo


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a node class.

    `kind` is how the editor shows it: a widget holds a literal and may be linked, a link can only be connected. `type`
    is the declared type. Both shapes of combos have the type "COMBO"; `is_legacy_combo` says that the declaration is a
    list of options. `schema` is the JSON Schema of a literal, without `step`, which no server enforces; None if every
    literal would fail. `choices` are the options of a combo, None if the server does not list them; `is_upload`: they
    are files, and a client may upload more. `options` is the second half of the declaration, unchanged.

    `branches` are the extra inputs of each option of a dynamic combo, `autogrow_inputs` the inputs of an autogrowing
    input, each of which `is_grown`. All have full names, with dots. `match_template` is the id of a match template;
    `type` then has the types that the template allows. `names` are the choices that need no look at the schema.
    `is_guessed`: any literal fits only because no known class has an output of that type.
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
    is_grown: bool = False
    match_template: str = ""
    names: frozenset[str] = frozenset()
    is_guessed: bool = False

    @property
    def takes_anything(self) -> bool:
        return ANY in _split_union(self.type) or bool(_DYNAMIC.fullmatch(self.type))

    @property
    def names_model(self) -> bool:
        """Whether the input is a list of model files: an empty one, or one name has the suffix of a model file."""
        if self.type != "COMBO" or self.choices is None or self.is_upload:
            return False
        return not self.choices or any(str(choice).lower().endswith(MODEL_SUFFIXES) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node class: its inputs in order (required first), the names of hidden inputs, and the types of its outputs.

    `is_open_ended`: the class expects undeclared inputs, because it declares an *empty* group of optional inputs (as
    custom nodes with "any number of inputs" do), or because its declaration could not be understood. `is_partner`: the
    node calls a paid third party (`api_node`). `output_templates` has the match template of each output, or "".
    `price_badge` is what the class says about its price. `is_stand_in`: the server is one of sweeper's own, which only
    imitates the class. `pack` is the folder in `custom_nodes` that the class comes from, "" for a class of ComfyUI.
    """

    class_type: str
    inputs: Mapping[str, InputSpec]
    hidden: tuple[str, ...] = ()
    outputs: tuple[OutputType, ...] = ()
    is_output: bool = False
    is_open_ended: bool = False
    is_partner: bool = False
    output_templates: tuple[str, ...] = ()
    price_badge: PriceBadge | None = None
    is_stand_in: bool = False
    pack: str = ""

    @property
    def is_dynamic(self) -> bool:
        return any(spec.branches for spec in self.inputs.values())

    def resolve_inputs(self, values: Mapping[str, Any]) -> dict[str, InputSpec]:
        """Return the inputs of a node with these values, in order: the inputs of a branch follow their dynamic combo.

        Of an autogrowing input, only the inputs that are required or have a value are returned.
        """
        return dict(pair for spec in self.inputs.values() for pair in _expand_input(spec, values))

    def list_branch_inputs(self) -> list[InputSpec]:
        """Return the inputs of all branches, whatever is chosen. Several branches may have the same name."""
        found: list[InputSpec] = []
        pending = list(self.inputs.values())
        while pending:
            children = [child for branch in pending.pop(0).branches.values() for child in branch.values()]
            found += children
            pending += children
        return found

    def find_branches(self, name: str) -> list[tuple[str, str]]:
        """Return the (dynamic combo, option) pairs that have an input of this name, or one that grows into it."""
        pairs = (
            (combo.name, option)
            for combo in (*self.inputs.values(), *self.list_branch_inputs())
            for option, branch in combo.branches.items()
            if any(name == found.name for child in branch.values() for found in (child, *child.autogrow_inputs))
        )
        return list(dict.fromkeys(pairs))

    def can_take_undeclared(self, name: str) -> bool:
        """Whether an input that `resolve_inputs` does not return may still be intended.

        It may be in an open-ended class, below a dynamic input that could not be understood, or the next of a numbered
        series: nodes with an "add input" button declare `image_1` and send `image_3`.
        """
        if self.is_open_ended or name in self.hidden:
            return True
        parent = self.inputs.get(name.partition(".")[0])
        if "." in name and parent is not None and _DYNAMIC.fullmatch(parent.type):
            return not (parent.branches or parent.autogrow_inputs)
        match = _NUMBERED.fullmatch(name)
        links = [_NUMBERED.fullmatch(declared) for declared, spec in self.inputs.items() if spec.kind == "link"]
        return match is not None and any(other is not None and other[1] == match[1] for other in links)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The node classes of a server, by class_type: all, or those of a workflow.

    `is_embedded`: they are those of the embedded server. `names`: of all classes that the server is known to have.
    """

    classes: Mapping[str, NodeSpec]
    is_embedded: bool = False
    names: Collection[str] = ()

    @classmethod
    def from_object_info(
        cls, answer: Mapping[str, Any], *, is_embedded: bool = False, only: Collection[str] | None = None
    ) -> NodeInfo:
        """Parse the JSON of `GET /object_info`, of the classes `only`. Raises InputError if it is something else."""
        if not isinstance(answer, Mapping) or (answer and not has_classes(answer)):
            raise InputError("this is not an object_info: a mapping of node classes, each with its `input`, is needed")
        outputs = (output for declared in answer.values() for output in _as_sequence(_get(declared, "output")))
        types = frozenset(name for output in outputs if isinstance(output, str) for name in _split_union(output))
        context = _Context(types)
        wanted = answer if only is None else {name: answer[name] for name in only if name in answer}
        classes = {name: _parse_node(name, declared, context) for name, declared in wanted.items()}
        return cls(classes, is_embedded, answer.keys())

    def find_input(self, graph: Mapping[str, Mapping[str, Any]], node_id: str, name: str) -> InputSpec | None:
        """Return the declaration of an input of a node; None if it or the class of the node is not known."""
        spec = self.classes.get(graph[node_id]["class_type"])
        return None if spec is None else spec.resolve_inputs(graph[node_id]["inputs"]).get(name)

    def with_any_model(self) -> NodeInfo:
        """Return the same classes for a server that accepts any model file name, as ours does unless it is strict."""
        any_name = {"type": "string", "minLength": 1}
        classes = {}
        for name, spec in self.classes.items():
            models = {key: replace(found, schema=any_name) for key, found in spec.inputs.items() if found.names_model}
            classes[name] = replace(spec, inputs={**spec.inputs, **models})
        return replace(self, classes=classes)

    def needs_all_outputs(self, nodes: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a literal of these nodes fits or not, depending on the outputs of classes that are not here."""
        return any(
            found.is_guessed and not isinstance(values.get(name, []), list)
            for node in nodes
            if (spec := self.classes.get(node["class_type"])) is not None
            for values in (_as_mapping(node.get("inputs")),)
            for name, found in spec.resolve_inputs(values).items()
        )

    def find_misspelt(self, class_type: str) -> str | None:
        """Return the class whose name was misspelt; None for other unknown classes, most of which are custom nodes."""
        return find_nearest(class_type, self.names or self.classes, _MISSPELT_CLASS)

    def is_sampler(self, class_type: str) -> bool:
        """Whether nodes of this class make latents of noise or latents with a model, by their types or their name."""
        spec = self.classes.get(class_type)
        if spec is None or "sampler" in class_type.casefold():  # custom nodes have types of their own
            return "sampler" in class_type.casefold()
        types = {found.type for found in spec.inputs.values()}
        return "LATENT" in spec.outputs and bool(types & {"MODEL", "GUIDER"}) and bool(types & {"LATENT", "SIGMAS"})


def can_link(output: OutputType, spec: InputSpec) -> bool:
    """Whether an output of a type may be linked to an input, as in ComfyUI's `validate_node_input`.

    The types must be equal, or unions "A,B" with a common member. "*" on either side matches every type. A combo that
    is declared as a list accepts only an output that is declared as the same list.
    """
    if spec.takes_anything or (isinstance(output, str) and (ANY in _split_union(output) or _DYNAMIC.fullmatch(output))):
        return True
    if isinstance(output, tuple):
        return spec.is_legacy_combo and spec.choices == output
    return not spec.is_legacy_combo and bool(_split_union(output) & _split_union(spec.type))


@dataclass(frozen=True, slots=True)
class _Context:
    """What the classes of one server share: the types of all outputs, and each list of choices with its schema."""

    output_types: frozenset[str]
    lists: dict[tuple[str, ...], tuple[tuple[str, ...], dict[str, Any], frozenset[str]]] = field(default_factory=dict)

    def read_choices(self, choices: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any], frozenset[str]]:
        """The choices, the schema of one choice and, if all are texts, their set. Equal lists are the same objects."""
        if not all(type(choice) is str for choice in choices):
            return choices, _make_choice_schema(choices), frozenset()
        if choices not in self.lists:
            self.lists[choices] = choices, {"enum": list(dict.fromkeys(choices))}, frozenset(choices)
        return self.lists[choices]


def _split_union(union: str) -> frozenset[str]:
    return frozenset(part.strip() for part in union.split(","))


def has_classes(answer: Mapping[str, Any]) -> bool:
    """Whether a JSON object describes a node class, as an object_info does."""
    return any(map(_is_class, answer.values()))


def _is_class(declared: Any) -> bool:
    return isinstance(declared, Mapping) and ("input" in declared or "output" in declared)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _as_sequence(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _parse_node(class_type: str, declared: Any, context: _Context) -> NodeSpec:
    groups = _as_mapping(_get(declared, "input"))
    optional = groups.get("optional")
    inputs = _parse_groups(groups, context, _get(declared, "input_order"))
    if class_type in _LENIENT_CLASSES:
        schemas = {name: spec.schema and {key: spec.schema[key] for key in spec.schema if key == "type"}
                   for name, spec in inputs.items()}  # fmt: skip
        inputs = {name: replace(spec, schema=schemas[name]) for name, spec in inputs.items()}
    hidden, module = groups.get("hidden"), _get(declared, "python_module")
    pack = module.removeprefix(_PACKS) if isinstance(module, str) and module.startswith(_PACKS) else ""
    return NodeSpec(
        class_type=class_type,
        inputs=inputs,
        hidden=tuple(map(str, hidden)) if isinstance(hidden, (Mapping, list)) else (),
        outputs=tuple(
            output if isinstance(output, str) else tuple(output) if isinstance(output, list) else ANY
            for output in _as_sequence(_get(declared, "output"))
        ),
        is_output=_get(declared, "output_node") is True,
        is_open_ended=class_type == "CustomCombo"  # its options and their number are undeclared inputs
        or not _is_class(declared)
        or (isinstance(optional, Mapping) and not optional),
        is_partner=_get(declared, "api_node") is True,
        output_templates=tuple(str(name or "") for name in _as_sequence(_get(declared, "output_matchtypes"))),
        price_badge=parse_price_badge(_get(declared, "price_badge")),
        is_stand_in=_get(declared, STAND_IN_KEY) is True,
        pack="" if pack == _SHIPPED_EXAMPLE else pack,
    )


def _parse_groups(
    groups: Mapping[str, Any], context: _Context, order: Any = None, prefix: str = ""
) -> dict[str, InputSpec]:
    specs: dict[str, InputSpec] = {}
    for group in ("required", "optional"):
        declared = groups.get(group)
        if isinstance(declared, Mapping):
            # Prefer `input_order`, although all known servers also send the JSON objects in that order.
            ordered = [name for name in _as_sequence(_get(order, group)) if isinstance(name, str) and name in declared]
            for name in dict.fromkeys([*ordered, *declared]):
                full_name = prefix + name
                if full_name not in specs:
                    specs[full_name] = _parse_input(full_name, declared[name], group == "required", context)
    return specs


def _parse_input(name: str, declared: Any, required: bool, context: _Context) -> InputSpec:
    """Parse the declaration of an input: `[type]`, `[type, options]`, or something else of a custom node."""
    parts = [declared] if isinstance(declared, str) else list(_as_sequence(declared))
    kind = parts[0] if parts else ANY
    options = _as_mapping(parts[1] if len(parts) > 1 else None)
    default = options.get("default", MISSING)
    if isinstance(kind, (list, tuple)) or kind == "COMBO":
        return _parse_combo(name, kind, options, required, context)
    if not isinstance(kind, str) or (len(parts) > 1 and isinstance(parts[1], str)):
        # A class that forgot the comma of `(["a", "b"],)` sends `["a", "b"]`: a type "a", for which the server checks
        # nothing.
        return InputSpec(name, "widget", ANY, required, default, {}, options)
    if kind == DYNAMIC_COMBO:
        branches = {
            key: _parse_groups(_as_mapping(_get(option, "inputs")), context, prefix=f"{name}.")
            for option in _as_sequence(options.get("options"))
            if isinstance(key := _get(option, "key"), str)
        }
        keys = tuple(branches) or None
        enum: dict[str, Any] = {"enum": list(branches)} if branches else {}
        return InputSpec(name, "widget", kind, required, default, enum, options, keys, branches=branches)
    if kind == AUTOGROW:
        grown = _parse_autogrow(name, options, context)
        return InputSpec(name, "link", kind, False, autogrow_inputs=grown, options=options)
    match_template = ""
    if kind == MATCH_TYPE:
        template = options.get("template")
        match_template = str(_get(template, "template_id") or "")
        kind = str(_get(template, "allowed_types") or ANY)
    names = _split_union(kind)
    forced = options.get("forceInput") is True
    # A type that no class has as an output, and that is not one of ComfyUI's, must be a widget of a custom node, which
    # may write any value.
    known = names & (context.output_types | _CORE_LINK_TYPES | {*_PRIMITIVE_TYPES, "COMBO", ANY})
    is_guessed = not (known or _DYNAMIC.fullmatch(kind) or options.get("socketless") is True)
    has_widget = is_guessed or options.get("socketless") is True or options.get("widgetType") is not None
    schema = _make_literal_schema(kind, options)
    if schema is None and not forced and (has_widget or options.get("default") is not None):
        schema = dict(_EDITOR_SCHEMAS.get(kind, {}))
    # The editor knows widgets of single types. A union has one only if `widgetType` names it.
    is_widget = not forced and (has_widget or kind in (*_PRIMITIVE_TYPES, "COMBO"))
    input_kind: Literal["widget", "link"] = "widget" if is_widget else "link"
    return InputSpec(
        name, input_kind, kind, required, default, schema, options,
        match_template=match_template, is_guessed=is_guessed and schema == {},
    )  # fmt: skip


def _make_literal_schema(kind: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema of a literal of this type, None for a type that must be linked.

    The server accepts literals for every input. For INT, FLOAT, STRING and BOOLEAN they work even if `forceInput` hides
    the widget. For a type that must be linked, the node fails at run time.
    """
    names = _split_union(kind)
    types = [_PRIMITIVE_TYPES[name] for name in ("INT", "FLOAT", "STRING", "BOOLEAN") if name in names]
    if "COMBO" in names and "string" not in types:
        types.append("string")
    if types:
        schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if {"INT", "FLOAT"} & names:
            for keyword, option in (("minimum", "min"), ("maximum", "max")):
                limit = options.get(option)
                if is_number(limit):
                    schema[keyword] = limit
        return schema
    return {} if ANY in names or _DYNAMIC.fullmatch(kind) else None


def _parse_combo(name: str, kind: Any, options: Mapping[str, Any], required: bool, context: _Context) -> InputSpec:
    default = options.get("default", MISSING)
    is_legacy = not isinstance(kind, str)
    declared_choices = kind if is_legacy else options.get("options")
    choices = tuple(declared_choices) if isinstance(declared_choices, (list, tuple)) else None
    # The files behind an upload button are those in the server's folder now; every upload adds one.
    uploads = any(key.endswith("_upload") and value for key, value in options.items() if isinstance(key, str))
    schema: dict[str, Any]
    names: frozenset[str] = frozenset()
    if uploads:
        schema = {"type": "string", "minLength": 0 if options.get("file_upload") else 1}  # 3D classes need no file
    elif choices is None:
        schema = {}  # a list that the editor fetches from another URL ("remote")
    else:
        choices, schema, names = context.read_choices(choices)
    if options.get("any_file") is True:  # the embedded server sets it if it accepts every model name
        schema = {"type": "string", "minLength": 1}
    if options.get("multiselect") is True:
        schema, names = {"type": "array", "items": schema}, frozenset()
    return InputSpec(
        name, "widget", "COMBO", required, default, schema, options, choices, uploads, is_legacy, names=names
    )


def _make_choice_schema(choices: tuple[Any, ...]) -> dict[str, Any]:
    """Return the schema of one choice. A choice with a picture, `{"content": name, "image": path}`, may be its name."""
    contents = [content for choice in choices if isinstance(content := _get(choice, "content"), str)]
    unique = {json.dumps(choice, sort_keys=True, default=str): choice for choice in (*choices, *contents)}
    schema: dict[str, Any] = {"enum": list(unique.values())}
    if contents:
        picture_schema = {"type": "object", "required": ["content"], "properties": {"content": {"enum": contents}}}
        return {"anyOf": [schema, picture_schema]}
    return schema


def _parse_autogrow(name: str, options: Mapping[str, Any], context: _Context) -> tuple[InputSpec, ...]:
    """Return the inputs that an autogrowing input represents: `names`, or `prefix0`, `prefix1`, ...

    The first `min` of them are required if the template's input is, even if the autogrowing input is optional (measured
    on ComfyUI 0.33.0). The result is empty if the template has another shape; then any input below its name is
    accepted.
    """
    template = options.get("template")
    groups = {group: _as_mapping(_get(_get(template, "input"), group)) for group in ("required", "optional")}
    group = next((group for group, specs in groups.items() if specs), None)
    names = _get(template, "names")
    if not isinstance(names, list):
        prefix, maximum = _get(template, "prefix"), _get(template, "max")
        if not isinstance(prefix, str) or not isinstance(maximum, int):
            return ()
        names = [f"{prefix}{index}" for index in range(min(maximum, 100))]  # 100 is the server's own limit
    minimum = _get(template, "min")
    minimum = minimum if group == "required" and isinstance(minimum, int) else 0
    if group is None:
        return ()
    declared = next(iter(groups[group].values()))
    return tuple(
        replace(_parse_input(f"{name}.{suffix}", declared, index < minimum, context), is_grown=True)
        for index, suffix in enumerate(names)
    )


def _expand_input(spec: InputSpec, values: Mapping[str, Any]) -> Iterator[tuple[str, InputSpec]]:
    """Yield an input and those that its value adds. An autogrowing input yields only the inputs that it represents."""
    if spec.type == AUTOGROW:
        for branch_input in spec.autogrow_inputs:
            if branch_input.required or branch_input.name in values:
                yield branch_input.name, branch_input
        return
    yield spec.name, spec
    choice = values.get(spec.name)
    if isinstance(choice, str) and choice in spec.branches:
        for branch_input in spec.branches[choice].values():
            yield from _expand_input(branch_input, values)
