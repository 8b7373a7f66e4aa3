"""Node classes: what one is, what the executor gives it while it runs, and which of them the server implements.

The functions of the implemented classes live in the modules beside this one. All other classes of the recording are
stand-ins (`sweeper.embedded.stand_ins`). Importing this imports neither NumPy nor Pillow: what a node does is imported
when it first runs.

`recorded.json` holds, per class, what ComfyUI 0.33.0's `/object_info` said: names, types, defaults, ranges, options,
order. Its prose (tooltips, descriptions) is left out, because no client needs it, and so are the prices of partner
nodes, because their stand-ins call nobody. Files of 0.3.64 are read by the same order: 0.33.0 appends its inputs. The
classes that the server implements are as in 0.3.64, with what saved workflows need of 0.33.0.
"""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sweeper.embedded.diffusion.vocabulary import CHECKPOINTS, CLIPS, LORAS, VAES
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

    def list_inputs(self, values: Mapping[str, Any]) -> dict[str, InputSpec]:
        """All inputs of a node with these values."""
        required, optional = self.find_inputs(values)
        return {**required, **optional}

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


def read_spec(declared: Sequence[Any]) -> InputSpec:
    """An input as object_info has it, `[type]` or `[type, options]`."""
    return declared[0], declared[1] if len(declared) > 1 else {}


def list_choices(spec: InputSpec) -> list[Any] | None:
    """The choices of a combo, None for other inputs. The newer form keeps its list, if any, among the options."""
    kind, options = spec
    return kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None


def add_choices(spec: InputSpec, names: Iterable[str]) -> InputSpec:
    """A combo with more choices; other inputs stay as they are."""
    (kind, options), old = spec, list_choices(spec)
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
    required, optional = (
        {key: read_spec(declared) for key, declared in groups.get(group, {}).items()}
        for group in ("required", "optional")
    )
    facts = required, optional, tuple(record["output"]), bool(record.get("output_node"))
    return NodeClass(name, complete_declaration(name, record), *facts, run, **more)


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


# --- the classes that the server implements ---------------------------------------------------------------------------

# By module: class=function.
_BY_MODULE: Final = {
    "sampling": """
        CheckpointLoaderSimple=checkpoint UNETLoader=unet VAELoader=load_vae CLIPLoader=clip DualCLIPLoader=clip
        TripleCLIPLoader=clip LoraLoader=lora LoraLoaderModelOnly=lora ModelSamplingSD3=set_shift
        ModelSamplingAuraFlow=set_shift CLIPTextEncode=encode CLIPSetLastLayer=set_last_layer
        FluxGuidance=set_guidance ConditioningCombine=combine ConditioningConcat=concat ConditioningAverage=average
        ConditioningZeroOut=zero_out
        PrimitiveString=hand_on PrimitiveStringMultiline=hand_on PrimitiveInt=hand_on PrimitiveFloat=hand_on
        PrimitiveBoolean=hand_on StringConcatenate=concatenate StringReplace=replace_text
        KSampler=ksampler KSamplerAdvanced=ksampler SamplerCustom=sampler_custom
        SamplerCustomAdvanced=sampler_custom_advanced RandomNoise=SeededNoise DisableNoise=SeededNoise
        BasicGuider=basic_guider CFGGuider=Guider KSamplerSelect=find_hand BasicScheduler=schedule_named
        EmptyLatentImage=empty EmptySD3LatentImage=empty LatentUpscale=upscale LatentUpscaleBy=upscale_by
        VAEDecode=vae_decode VAEEncode=vae_encode VAEEncodeForInpaint=encode_for_inpaint
        InpaintModelConditioning=inpaint_conditioning SetLatentNoiseMask=set_mask
    """,
    "images": """
        EmptyImage=empty ImageScale=scale ImageScaleBy=scale_by ImageScaleToTotalPixels=scale_to_pixels
        GetImageSize=size ImageInvert=invert ImageBlur=blur ImageSharpen=sharpen ImageBlend=blend ImageBatch=batch
        ImageFromBatch=from_batch RepeatImageBatch=repeat ImageCrop=crop ImageFlip=flip
        SolidMask=solid InvertMask=invert_mask MaskToImage=to_image ImageToMask=from_image
    """,
    "media_files": """
        LoadImage=load_image LoadImageMask=load_mask SaveImage=save_image PreviewImage=preview_image
        SaveImageWebsocket=send_images MaskPreview=preview_mask PreviewAny=preview_any
        LoadAudio=load_audio SaveAudio=save_flac PreviewAudio=preview_audio LoadVideo=load_video SaveVideo=save_video
        CreateVideo=create_video GetVideoComponents=components
    """,
}


@lru_cache(maxsize=512)
def _find_function(module: str, name: str) -> tuple[Callable[..., Any], bool]:
    """The function, and whether its first parameter is the context."""
    function: Callable[..., Any] = getattr(import_module(f"sweeper.embedded.nodes.{module}"), name)
    return function, next(iter(inspect.signature(function).parameters), "") == "context"


def _run_function(module: str, name: str, context: Context, /, **inputs: Any) -> NodeOutput:
    """Run a node by a function of `sweeper.embedded.nodes.<module>`, imported at its first call.

    The function takes the inputs by name, and before them the context if its first parameter has that name. It returns
    a `NodeOutput`, a tuple of the outputs, or the only output.
    """
    function, takes_context = _find_function(module, name)
    result = function(context, **inputs) if takes_context else function(**inputs)
    if isinstance(result, NodeOutput):
        return result
    return NodeOutput(result if isinstance(result, tuple) else (result,))


FUNCTIONS: Final[Mapping[str, partial[NodeOutput]]] = {
    name: partial(_run_function, module, function)
    for module, classes in _BY_MODULE.items()
    for name, function in (entry.split("=") for entry in classes.split())
}

# Which names a loader's input offers. In the recording these lists are empty: that server had no models.
_OFFERED: dict[str, tuple[str, ...]] = {
    "ckpt_name": CHECKPOINTS,
    "unet_name": CHECKPOINTS,
    "lora_name": LORAS,
    "vae_name": VAES,
    **{f"clip_name{number}": CLIPS for number in ("", 1, 2, 3)},
}


RECORDS: Mapping[str, Mapping[str, Any]] = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))


def _make_own_class(name: str, record: Mapping[str, Any]) -> NodeClass:
    required: dict[str, list[Any]] = record["input"].get("required", {})
    specs = {key: read_spec(declared) for key, declared in required.items()}
    kinds = ("image", "audio", "video")
    uploads = {key: kind for key, (_, options) in specs.items() for kind in kinds if options.get(f"{kind}_upload")}
    offered = {
        key: [*add_choices(spec, _OFFERED[key])]
        for key, spec in specs.items()
        if key in _OFFERED and list_choices(spec) == []
    }
    fingerprint: Callable[..., Any] | None = hash_files(uploads) if uploads else None
    if name == "SaveImageWebsocket":  # what is sent and kept nowhere is sent each time
        fingerprint = lambda _folders, /, **_inputs: time.time()  # noqa: E731
    return make_node_class(
        name,
        {**record, "input": {**record["input"], "required": {**required, **offered}}},
        FUNCTIONS[name],
        fingerprint=fingerprint,
        input_files=uploads,
        models=frozenset(offered),
    )


NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType(
    {name: _make_own_class(name, record) for name, record in RECORDS.items() if name in FUNCTIONS}
)


def _accept_any_file(group: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as a server of ours describes them: it takes any name where the recording server had no files to offer."""
    return {
        name: [declared[0], {**read_spec(declared)[1], "any_file": True}]
        if list_choices(read_spec(declared)) == []
        else declared
        for name, declared in group.items()
    }


def list_other_declarations() -> dict[str, dict[str, Any]]:
    """The recorded classes that the server does not implement, in the form of `/object_info`."""
    return {
        name: complete_declaration(
            name, {**record, "input": {group: _accept_any_file(specs) for group, specs in record["input"].items()}}
        )
        for name, record in RECORDS.items()
        if name not in FUNCTIONS
    }
