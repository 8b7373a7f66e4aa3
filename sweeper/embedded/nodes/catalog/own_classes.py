"""The node classes that the server implements: which function of `sweeper.embedded.nodes` runs which class.

All other classes of the recording are stand-ins (`sweeper.embedded.stand_ins`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from sweeper.embedded.nodes.base import Context, NodeOutput

# By module: class=function, or class=function:variant where one function runs a family.
_BY_MODULE: Final = {
    "loading": """
        CheckpointLoaderSimple=checkpoint UNETLoader=unet VAELoader=vae CLIPLoader=clip DualCLIPLoader=clip
        TripleCLIPLoader=clip LoraLoader=lora LoraLoaderModelOnly=lora ModelMergeSimple=merge:mix
        ModelMergeAdd=merge:add ModelMergeSubtract=merge:subtract CLIPMergeSimple=merge:mix CLIPMergeAdd=merge:add
        CLIPMergeSubtract=merge:subtract ModelSamplingSD3=set_flow ModelSamplingAuraFlow=set_flow
        ModelSamplingFlux=set_flux
    """,
    "conditioning": """
        CLIPTextEncode=encode CLIPTextEncodeFlux=encode_flux CLIPSetLastLayer=set_last_layer FluxGuidance=set_guidance
        ConditioningCombine=combine ConditioningConcat=concat ConditioningAverage=average ConditioningZeroOut=zero_out
    """,
    "sampling": """
        KSampler=ksampler KSamplerAdvanced=ksampler SamplerCustom=sampler_custom
        SamplerCustomAdvanced=sampler_custom_advanced RandomNoise=make_noise DisableNoise=make_noise
        BasicGuider=basic_guider CFGGuider=cfg_guider KSamplerSelect=select_named
        SamplerEulerAncestral=select:euler_ancestral SamplerEulerAncestralCFGPP=select:euler_ancestral_cfg_pp
        SamplerDPMPP_2S_Ancestral=select:dpmpp_2s_ancestral SamplerDPMPP_2M_SDE=select:dpmpp_2m_sde
        SamplerDPMPP_3M_SDE=select:dpmpp_3m_sde SamplerDPMPP_SDE=select:dpmpp_sde SamplerLMS=select:lms
        BasicScheduler=schedule_named KarrasScheduler=schedule_karras
        ExponentialScheduler=schedule_polyexponential PolyexponentialScheduler=schedule_polyexponential
        BetaSamplingScheduler=schedule_beta SplitSigmas=split_schedule
        SplitSigmasDenoise=split_schedule_by_denoise FlipSigmas=flip_schedule
    """,
    "latents": """
        EmptyLatentImage=empty:4 EmptySD3LatentImage=empty:16 LatentUpscale=upscale LatentUpscaleBy=upscale_by
        VAEDecode=vae_decode VAEEncode=vae_encode
        VAEEncodeForInpaint=encode_for_inpaint InpaintModelConditioning=inpaint_conditioning SetLatentNoiseMask=set_mask
        LatentAdd=combine:add LatentSubtract=combine:subtract LatentMultiply=multiply LatentInterpolate=interpolate
        LatentBlend=blend LatentBatch=batch LatentFromBatch=from_batch LatentBatchSeedBehavior=seed_behavior
        RepeatLatentBatch=repeat LatentRotate=rotate LatentFlip=flip LatentCrop=crop
    """,
    "images": """
        EmptyImage=empty ImageScale=scale ImageScaleBy=scale_by ImageScaleToTotalPixels=scale_to_pixels
        ImageScaleToMaxDimension=scale_to_largest GetImageSize=size ImageInvert=invert ImageBlur=blur
        ImageSharpen=sharpen ImageBlend=blend ImageBatch=batch ImageFromBatch=from_batch RepeatImageBatch=repeat
        ImageCrop=crop ImageRotate=rotate ImageFlip=flip
        ImageQuantize=quantize Canny=canny
    """,
    "upscaling": "UpscaleModelLoader=load ImageUpscaleWithModel=upscale",
    "compositing": """
        ImageCompositeMasked=images_masked LatentCompositeMasked=latents_masked
        ImagePadForOutpaint=pad_for_outpaint JoinImageWithAlpha=join_alpha SplitImageWithAlpha=split_alpha
        ResizeAndPadImage=resize_and_pad ImageStitch=stitch
    """,
    "mask_nodes": """
        SolidMask=solid InvertMask=invert MaskToImage=to_image ImageToMask=from_image ImageColorToMask=from_colour
        CropMask=crop MaskComposite=combine FeatherMask=feather GrowMask=grow ThresholdMask=threshold
    """,
    "picture_files": """
        LoadImage=load_image LoadImageMask=load_mask SaveImage=save_image PreviewImage=preview_image
        SaveImageWebsocket=send_images MaskPreview=preview_mask PreviewAny=preview_any
    """,
    "media_files": """
        LoadAudio=load_audio SaveAudio=save_flac PreviewAudio=preview_audio LoadVideo=load_video SaveVideo=save_video
        CreateVideo=create_video GetVideoComponents=components
    """,
    "strings": """
        PrimitiveString=hand_on PrimitiveStringMultiline=hand_on PrimitiveInt=hand_on PrimitiveFloat=hand_on
        PrimitiveBoolean=hand_on StringConcatenate=concatenate StringSubstring=substring StringLength=length
        CaseConverter=convert_case StringTrim=trim StringReplace=replace StringContains=contains StringCompare=compare
    """,
}


@dataclass(frozen=True, slots=True)
class NodeFunction:
    """Runs the nodes of a class by a function of `sweeper.embedded.nodes.<module>`, imported at its first call.

    The function takes the inputs by name, and before them the context if its first parameter has that name. Where one
    function runs a family of classes, `variant` says which, as its first argument otherwise. It returns a `NodeOutput`,
    a tuple of the outputs, or the only output.
    """

    module: str
    function: str
    variant: str = ""

    def __call__(self, context: Context, /, **inputs: Any) -> NodeOutput:
        function, takes_context = _find_function(self.module, self.function)
        first = (context,) if takes_context else (self.variant,) if self.variant else ()
        result = function(*first, **inputs)
        if isinstance(result, NodeOutput):
            return result
        return NodeOutput(result if isinstance(result, tuple) else (result,))


@lru_cache(maxsize=512)
def _find_function(module: str, name: str) -> tuple[Callable[..., Any], bool]:
    """The function, and whether its first parameter is the context."""
    function: Callable[..., Any] = getattr(import_module(f"sweeper.embedded.nodes.{module}"), name)
    return function, next(iter(inspect.signature(function).parameters), "") == "context"


def _read_functions() -> dict[str, NodeFunction]:
    functions = {}
    for module, classes in _BY_MODULE.items():
        for entry in classes.split():
            name, _, target = entry.partition("=")
            function, _, variant = target.partition(":")
            functions[name] = NodeFunction(module, function, variant)
    return functions


FUNCTIONS: Final[Mapping[str, NodeFunction]] = _read_functions()


# The inputs of the loaders that name a file of the input folder, and its kind.
INPUT_FILES: Final[Mapping[str, Mapping[str, str]]] = {
    "LoadImage": {"image": "image"},
    "LoadImageMask": {"image": "image"},
    "LoadAudio": {"audio": "audio"},
    "LoadVideo": {"file": "video"},
}
