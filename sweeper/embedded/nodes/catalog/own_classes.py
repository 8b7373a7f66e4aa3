"""The node classes that the server implements: which function of `sweeper.embedded.nodes` runs which class.

All other classes of the recording are stand-ins (`sweeper.embedded.stand_ins`).
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from typing import Any, Final

from sweeper.embedded.nodes.base import Combo, Folders
from sweeper.embedded.nodes.catalog.deferred import Deferred, NodeFunction

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
        KSampler=ksampler KSamplerAdvanced=ksampler_advanced SamplerCustom=sampler_custom
        SamplerCustomAdvanced=sampler_custom_advanced RandomNoise=make_noise DisableNoise=make_noise
        BasicGuider=basic_guider CFGGuider=cfg_guider KSamplerSelect=select_named
        SamplerEulerAncestral=select:euler_ancestral SamplerEulerAncestralCFGPP=select:euler_ancestral_cfg_pp
        SamplerDPMPP_2S_Ancestral=select:dpmpp_2s_ancestral SamplerDPMPP_2M_SDE=select:dpmpp_2m_sde
        SamplerDPMPP_3M_SDE=select:dpmpp_3m_sde SamplerDPMPP_SDE=select:dpmpp_sde SamplerLMS=select:lms
    """,
    "sigmas": """
        BasicScheduler=basic KarrasScheduler=karras ExponentialScheduler=polyexponential
        PolyexponentialScheduler=polyexponential
        BetaSamplingScheduler=beta_sampling SplitSigmas=split SplitSigmasDenoise=split_denoise FlipSigmas=flip
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
        ImageQuantize=quantize
    """,
    "edges": "Canny=canny",
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
    "files": """
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


def _read_functions() -> dict[str, NodeFunction]:
    functions = {}
    for module, classes in _BY_MODULE.items():
        for entry in classes.split():
            name, _, target = entry.partition("=")
            function, _, variant = target.partition(":")
            functions[name] = NodeFunction(module, function, variant)
    return functions


FUNCTIONS: Final[Mapping[str, NodeFunction]] = _read_functions()


def _list_input_files(*kinds: str) -> Combo:
    """A live combo: the files of the input folder that are of one of these kinds, by their suffix, sorted."""

    def list_files(folders: Folders) -> list[str]:
        if not folders.input_dir.is_dir():
            return []
        names = sorted(path.name for path in folders.input_dir.iterdir() if path.is_file())
        return [name for name in names if (mimetypes.guess_type(name)[0] or "").split("/")[0] in kinds]

    return list_files


COMBOS: Final[Mapping[str, Mapping[str, Combo]]] = {
    "LoadImage": {"image": _list_input_files("image")},
    "LoadImageMask": {"image": _list_input_files("image")},
    "LoadAudio": {"audio": _list_input_files("audio", "video")},
    "LoadVideo": {"file": _list_input_files("video")},
}
_CHECK, _HASH = Deferred("files", "check"), Deferred("files", "hash_file")

# VALIDATE_INPUTS. Each vouches for the input that its parameter names.
CHECKS: Final[Mapping[str, Callable[..., str | None]]] = {
    "LoadImage": lambda folders, image: _CHECK("image", folders, image),
    "LoadImageMask": lambda folders, image: _CHECK("image", folders, image),
    "LoadAudio": lambda folders, audio: _CHECK("audio", folders, audio),
    "LoadVideo": lambda folders, file: _CHECK("video", folders, file),
}


def _hash_input(name: str) -> Callable[..., Any]:
    """IS_CHANGED: the content of a file, so that new content under an old name is not a cached result."""
    return lambda folders, **widgets: _HASH(folders, widgets[name])


FINGERPRINTS: Final[Mapping[str, Callable[..., Any]]] = {
    "LoadImage": _hash_input("image"),
    "LoadImageMask": _hash_input("image"),
    "LoadAudio": _hash_input("audio"),
    "LoadVideo": Deferred("files", "find_change_time"),  # films are long
    "SaveImageWebsocket": Deferred("files", "never_the_same"),
}
