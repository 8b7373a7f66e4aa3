"""The node classes that the server implements: which function of `sweeper.embedded.nodes` runs which class.

All other classes of the recording are stand-ins (`sweeper.embedded.stand_ins`). Importing this imports neither NumPy
nor Pillow: what a node does is imported when it first runs.

`recorded.json` holds, per class, what ComfyUI 0.33.0's `/object_info` said: names, types, defaults, ranges, options,
order. Its prose (tooltips, descriptions) is left out, because no client needs it, and so are the prices of partner
nodes, because their stand-ins call nobody. Files of 0.3.64 are read by the same order: 0.33.0 appends its inputs. The
classes that the server implements are as in 0.3.64, with what saved workflows need of 0.33.0.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from sweeper.embedded.diffusion.vocabulary import CHECKPOINTS, CLIPS, LORAS, VAES
from sweeper.embedded.nodes.base import (
    Context,
    NodeClass,
    NodeOutput,
    add_choices,
    complete_declaration,
    hash_files,
    make_node_class,
)

# By module: class=function.
_BY_MODULE: Final = {
    "model_nodes": """
        CheckpointLoaderSimple=checkpoint UNETLoader=unet VAELoader=load_vae CLIPLoader=clip DualCLIPLoader=clip
        TripleCLIPLoader=clip LoraLoader=lora LoraLoaderModelOnly=lora ModelSamplingSD3=set_shift
        ModelSamplingAuraFlow=set_shift CLIPTextEncode=encode CLIPSetLastLayer=set_last_layer
        FluxGuidance=set_guidance ConditioningCombine=combine ConditioningConcat=concat ConditioningAverage=average
        ConditioningZeroOut=zero_out
        PrimitiveString=hand_on PrimitiveStringMultiline=hand_on PrimitiveInt=hand_on PrimitiveFloat=hand_on
        PrimitiveBoolean=hand_on StringConcatenate=concatenate StringReplace=replace_text
    """,
    "sampling": """
        KSampler=ksampler KSamplerAdvanced=ksampler SamplerCustom=sampler_custom
        SamplerCustomAdvanced=sampler_custom_advanced RandomNoise=make_noise DisableNoise=make_noise
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
    "picture_files": """
        LoadImage=load_image LoadImageMask=load_mask SaveImage=save_image PreviewImage=preview_image
        SaveImageWebsocket=send_images MaskPreview=preview_mask PreviewAny=preview_any
    """,
    "media_files": """
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

# The inputs of the loaders that name a file of the input folder, and its kind.
INPUT_FILES: Final[Mapping[str, Mapping[str, str]]] = {
    "LoadImage": {"image": "image"},
    "LoadImageMask": {"image": "image"},
    "LoadAudio": {"audio": "audio"},
    "LoadVideo": {"file": "video"},
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


def _offers_nothing(spec: list[Any]) -> bool:
    """Whether a combo is empty. The newer form keeps its list among the options."""
    choices = spec[1].get("options") if spec[0] == "COMBO" else spec[0]
    return isinstance(choices, list) and not choices


def _make_own_class(name: str, record: Mapping[str, Any]) -> NodeClass:
    required: dict[str, list[Any]] = record["input"].get("required", {})
    offered = {
        key: [*add_choices((spec[0], spec[1] if len(spec) > 1 else {}), _OFFERED[key])]
        for key, spec in required.items()
        if key in _OFFERED and _offers_nothing(spec)
    }
    fingerprint: Callable[..., Any] | None = hash_files(INPUT_FILES[name]) if name in INPUT_FILES else None
    if name == "SaveImageWebsocket":  # what is sent and kept nowhere is sent each time
        fingerprint = lambda _folders, /, **_inputs: time.time()  # noqa: E731
    return make_node_class(
        name,
        {**record, "input": {**record["input"], "required": {**required, **offered}}},
        FUNCTIONS[name],
        fingerprint=fingerprint,
        input_files=INPUT_FILES.get(name, {}),
        models=frozenset(offered),
    )


NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType(
    {name: _make_own_class(name, record) for name, record in RECORDS.items() if name in FUNCTIONS}
)


def _accept_any_file(group: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as a server of ours describes them: it takes any name where the recording server had no files to offer."""
    return {
        name: [spec[0], {**(spec[1] if len(spec) > 1 else {}), "any_file": True}] if _offers_nothing(spec) else spec
        for name, spec in group.items()
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
