"""What a node class of the embedded server is, and what the executor gives it while it runs.

Here live the values and protocols that both sides share. The node classes themselves live in the modules beside this
one; validation, caching, queueing and the wire format of `object_info` live in `sweeper.embedded`, not here.
Nothing here imports NumPy or Pillow, so that listing the nodes stays cheap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeper.embedded.folders import ServerFolders

if TYPE_CHECKING:
    from PIL import Image

    from sweeper.embedded.event_streams import JobMessages

# (type, options) as ComfyUI's object_info has it: ("INT", {"default": 20, "min": 1, "max": 10000}),
# (["euler", ...], {}), ("MODEL", {}). On the wire, empty options are left out by old-style (V1) nodes only.
InputSpec = tuple[Any, dict[str, Any]]


# Input of a loader -> its model folder, as in ComfyUI's folder_paths. For other inputs the folder is the input's name.
_MODEL_FOLDERS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    **{f"clip_name{number}": "text_encoders" for number in ("", 1, 2, 3, 4)},
    "vae_name": "vae",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "model_name": "upscale_models",
    "model_path": "diffusers",
    "audio_encoder_name": "audio_encoders",
    "name": "model_patches",
    "photomaker_model_name": "photomaker",
}


class Interrupted(Exception):  # noqa: N818 - not an error: a client asked the job to stop
    """Raised by `Context.check()` when the running job is to stop; nodes let it pass."""


@dataclass(frozen=True, slots=True)
class Context(ServerFolders):
    """What the executor gives to each run of a node, beside the folders that it may read and write."""

    node_id: str
    prompt: Mapping[str, Any]  # the whole graph, node id -> node, for the PNG's `prompt` text chunk
    extra_pnginfo: Mapping[str, Any]  # keyword -> JSON value: one more PNG text chunk each
    cancelled: threading.Event
    messages: JobMessages
    previews: bool

    def check(self) -> None:
        """Raise `Interrupted` if the job is to stop; called between sampler steps and in long loops."""
        if self.cancelled.is_set():
            raise Interrupted

    def progress(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        """Report `value` of `maximum` steps done, with a picture of the state so far; calls `check()` itself."""
        self.check()
        self.messages.send_progress(self.node_id, value, maximum, preview if self.previews else None)

    def show(self, picture: Image.Image) -> None:
        """Send a picture as it is, as PNG, to the event stream (SaveImageWebsocket)."""
        self.messages.send_picture(self.node_id, picture)


@dataclass(frozen=True, slots=True)
class NodeOutput:
    values: tuple[Any, ...] = ()  # one per output
    ui: Mapping[str, list[Any]] | None = None  # {"images": [{"filename", "subfolder", "type"}]}


@dataclass(frozen=True, slots=True)
class NodeClass:
    name: str  # class_type
    declaration: Mapping[str, Any]  # its entry in object_info
    required: Mapping[str, InputSpec]  # in ComfyUI's order, as is optional
    optional: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    output_node: bool
    run: Callable[..., NodeOutput]  # run(context, **inputs); linked inputs are resolved values
    # IS_CHANGED: (context, **widget inputs) -> hashable, e.g. the SHA-256 of LoadImage's file
    fingerprint: Callable[..., Any] | None = None
    # Input -> the kind (image, audio, video) of the upload that it names. Its combo lists those uploads, although its
    # static spec holds an empty list. VALIDATE_INPUTS: any file that exists may be named.
    input_files: Mapping[str, str] = field(default_factory=dict)
    # Inputs that name a model file. Any name that does not climb is taken for these unless the server is strict;
    # a strict server compares them with their combo.
    models: frozenset[str] = frozenset()
    # INPUT_IS_LIST: it runs once, and every input is the whole list; other classes run once per item (see executor).
    input_is_list: bool = False
    # OUTPUT_IS_LIST, one per output: the value is a list whose items go on one by one. Empty: none is.
    output_is_list: tuple[bool, ...] = ()
    # For a class that an object_info describes (`stand_ins`): the inputs, (required, optional), of a node with these
    # values.
    select_inputs: Callable[[Mapping[str, Any]], tuple[dict[str, InputSpec], dict[str, InputSpec]]] | None = None
    is_stand_in: bool = False

    def find_inputs(self, values: Mapping[str, Any]) -> tuple[Mapping[str, InputSpec], Mapping[str, InputSpec]]:
        """The required and the optional inputs of a node with these values."""
        return (self.required, self.optional) if self.select_inputs is None else self.select_inputs(values)

    def get_model_folder(self, input_name: str) -> str:
        """The model folder of one of the `models`."""
        return "clip_vision" if self.name == "CLIPVisionLoader" else _MODEL_FOLDERS.get(input_name, input_name)

    def load_input_specs(
        self, folders: ServerFolders, values: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, InputSpec], dict[str, InputSpec]]:
        """The inputs of a node with these `values` (None: of the class), live combos filled in from the `folders`."""
        required, optional = (self.required, self.optional) if values is None else self.find_inputs(values)
        return self._fill_combos(required, folders), self._fill_combos(optional, folders)

    def _fill_combos(self, specs: Mapping[str, InputSpec], folders: ServerFolders) -> dict[str, InputSpec]:
        filled = dict(specs)
        for name in self.input_files.keys() & specs.keys():
            filled[name] = add_choices(specs[name], folders.list_inputs(self.input_files[name]))
        for name in self.models & specs.keys():
            filled[name] = add_choices(specs[name], folders.list_models(self.get_model_folder(name)))
        return filled


def add_choices(spec: InputSpec, names: Iterable[str]) -> InputSpec:
    """A combo with more choices; other inputs stay as they are. The newer form keeps its list among the options."""
    kind, options = spec
    old = kind if isinstance(kind, list) else options.get("options", []) if kind == "COMBO" else None
    if old is None:
        return spec
    known = {choice for choice in old if isinstance(choice, str)}
    choices = [*old, *(name for name in names if name not in known)]
    return (kind, {**options, "options": choices}) if kind == "COMBO" else (choices, options)


def hash_files(names: Iterable[str]) -> Callable[..., str]:
    """IS_CHANGED: the content of the files that these inputs name, because it can change under an old name."""
    return lambda folders, /, **widgets: "".join(folders.hash_input(widgets.get(name)) for name in names)


def make_node_class(name: str, record: Mapping[str, Any], run: Callable[..., NodeOutput], **more: Any) -> NodeClass:
    """Make a class of a record (see `complete_declaration`); `more` are further fields of the `NodeClass`."""
    groups = record["input"]
    required, optional = (_read_specs(groups.get(group, {})) for group in ("required", "optional"))
    facts = required, optional, tuple(record["output"]), bool(record.get("output_node"))
    return NodeClass(name, complete_declaration(name, record), *facts, run, **more)


def _read_specs(group: Mapping[str, Sequence[Any]]) -> dict[str, InputSpec]:
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in group.items()}


def complete_declaration(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a class in object_info, in ComfyUI's order. A record has at least its `input` and `output`.

    A class of the newer (V3) node form has `api_node` in its record, and several keys more in its entry.
    """
    is_newer, outputs = "api_node" in record, record["output"]
    return {
        "input": record["input"],
        "input_order": {group: list(specs) for group, specs in record["input"].items()},
        "is_input_list": False,
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": outputs,
        **({"output_tooltips": [None] * len(outputs)} if is_newer else {}),
        "name": name,
        "display_name": name,
        "description": "",  # this server states ComfyUI's facts, not its prose
        "python_module": "nodes",
        "category": "",
        "output_node": False,
        "has_intermediate_output": False,
        "search_aliases": [],
        **(_NEWER_FACTS if is_newer else {}),
        **record,
    }


_NEWER_FACTS = {
    "output_matchtypes": None,
    "deprecated": False,
    "experimental": False,
    "dev_only": False,
    "api_node": False,
    "price_badge": None,
    "essentials_category": None,
}
