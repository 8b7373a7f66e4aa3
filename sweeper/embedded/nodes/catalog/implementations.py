"""Which function of `sweeper.embedded.nodes` runs which recorded class: "module.function" by class name."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from sweeper.embedded.nodes.base import Combo, Folders
from sweeper.embedded.nodes.catalog.spec_builders import Deferred


def list_input_files(folders: Folders, *, kinds: tuple[str, ...] = (), suffix: str = "") -> list[str]:
    """The files of the input folder that are of one of these kinds, by their suffix, or end so; sorted.

    There are none if there is no such folder.
    """
    if not folders.input_dir.is_dir():
        return []
    names = [path.name for path in folders.input_dir.iterdir() if path.is_file()]
    if suffix:
        return sorted(name for name in names if name.endswith(suffix))
    return sorted(name for name in names if (mimetypes.guess_type(name)[0] or "").split("/")[0] in kinds)


_list_images = partial(list_input_files, kinds=("image",))


def _pair_functions(module: str, classes: str) -> dict[str, str]:
    """`Class=function` pairs in a text, all of one module."""
    pairs = (entry.split("=") for entry in classes.split())
    return {name.replace("~", " "): f"{module}.{function}" for name, function in pairs}


# Patches of a network's inside, which procedural models do not have: the model is handed on.
_INNER_PATCHES = (
    "APG CFGZeroStar ChromaRadianceOptions ContextWindowsManual DifferentialDiffusion EasyCache Epsilon~Scaling FreSca "
    "FreeU FreeU_V2 HyperTile LazyCache Mahiro ModelComputeDtype PatchModelAddDownscale PerturbedAttentionGuidance "
    "RenormCFG SelfAttentionGuidance SkipLayerGuidanceDiT SkipLayerGuidanceDiTSimple SkipLayerGuidanceSD3 TCFG "
    "TomePatchModel TorchCompileModel UNetCrossAttentionMultiply UNetSelfAttentionMultiply "
    "UNetTemporalAttentionMultiply WanContextWindowsManual"
)
_BLOCKS = (
    "Auraflow Blocks Cosmos14B Cosmos7B CosmosPredict2_14B CosmosPredict2_2B Flux1 LTXV MochiPreview QwenImage SD1 SD2 "
    "SD35_Large SD3_2B SDXL WAN2_1"
)

IMPLEMENTATIONS: Mapping[str, str] = {
    **_pair_functions(
        "loading",
        """
        CheckpointLoaderSimple=checkpoint UNETLoader=unet CLIPLoader=clip DualCLIPLoader=dual_clip VAELoader=vae
        LoraLoader=lora LoraLoaderModelOnly=lora_model_only
        """,
    ),
    **_pair_functions(
        "conditioning",
        """
        CLIPTextEncode=text_encode CLIPSetLastLayer=set_last_layer CLIPTextEncodeFlux=text_encode_flux
        FluxGuidance=flux_guidance ConditioningCombine=combine ConditioningConcat=concat ConditioningAverage=average
        ConditioningZeroOut=zero_out
        """,
    ),
    **_pair_functions(
        "sampling",
        """
        KSampler=ksampler KSamplerAdvanced=ksampler_advanced SamplerCustomAdvanced=sampler_custom_advanced
        RandomNoise=random_noise DisableNoise=disable_noise BasicGuider=basic_guider CFGGuider=cfg_guider
        KSamplerSelect=ksampler_select BasicScheduler=basic_scheduler KarrasScheduler=karras_scheduler
        ModelSamplingFlux=model_sampling_flux ModelSamplingSD3=model_sampling_sd3
        """,
    ),
    **_pair_functions(
        "latents",
        """
        EmptyLatentImage=empty EmptySD3LatentImage=empty_sd3 LatentUpscale=upscale LatentUpscaleBy=upscale_by
        RepeatLatentBatch=repeat VAEDecode=vae_decode VAEEncode=vae_encode VAEDecodeTiled=vae_decode_tiled
        """,
    ),
    **_pair_functions(
        "pictures",
        """
        EmptyImage=empty ImageScale=scale ImageScaleBy=scale_by ImageInvert=invert ImageBlur=blur ImageBlend=blend
        ImageSharpen=sharpen ImageBatch=batch ImageCrop=crop
        """,
    ),
    **_pair_functions(
        "model_patches",
        """
        CheckpointLoader=checkpoint_with_config DiffusersLoader=diffusers unCLIPCheckpointLoader=unclip_checkpoint
        ImageOnlyCheckpointLoader=image_checkpoint TripleCLIPLoader=clips QuadrupleCLIPLoader=clips
        HypernetworkLoader=hypernetwork ModelSamplingAuraFlow=sampling_aura_flow
        ModelSamplingStableCascade=sampling_cascade ModelSamplingDiscrete=sampling_discrete
        ModelSamplingContinuousEDM=sampling_continuous ModelSamplingContinuousV=sampling_continuous
        ModelSamplingLTXV=sampling_ltxv VideoLinearCFGGuidance=linear_cfg VideoTriangleCFGGuidance=triangle_cfg
        RescaleCFG=rescale_cfg CFGNorm=norm_cfg ModelMergeSimple=merge ModelMergeAdd=merge_add
        ModelMergeSubtract=merge_subtract CLIPMergeSimple=merge_clip CLIPMergeAdd=merge_clip_add
        CLIPMergeSubtract=merge_clip_subtract T5TokenizerOptions=unpatched_clip CLIPAttentionMultiply=unpatched_clip
        """,
    ),
    **{name.replace("~", " "): "model_patches.unpatched" for name in _INNER_PATCHES.split()},
    **{f"ModelMerge{family}": "model_patches.merge_blocks" for family in _BLOCKS.split()},
    **_pair_functions(
        "conditioning_extras",
        """
        ConditioningSetArea=set_area ConditioningSetAreaPercentage=set_area_share
        ConditioningSetAreaStrength=set_strength ConditioningSetMask=set_mask ConditioningSetTimestepRange=set_range
        PairConditioningCombine=pair_combine ControlNetLoader=load_control DiffControlNetLoader=load_control_for
        SetUnionControlNetType=set_control_type ControlNetApply=apply_control
        ControlNetApplyAdvanced=apply_control_advanced ControlNetApplySD3=apply_control_advanced
        ControlNetInpaintingAliMamaApply=apply_control_inpaint CLIPVisionLoader=load_vision CLIPVisionEncode=look
        unCLIPConditioning=unclip StyleModelLoader=load_style StyleModelApply=apply_style GLIGENLoader=load_gligen
        GLIGENTextBoxApply=gligen_box ReferenceLatent=reference_latent InstructPixToPixConditioning=edit_instruction
        SD_4XUpscale_Conditioning=upscale_conditioning ConditioningSetAreaPercentageVideo=set_area_share_of_video
        ModelPatchLoader=load_patch QwenImageDiffsynthControlnet=control_model USOStyleReference=style_model
        PhotoMakerLoader=load_photomaker PhotoMakerEncode=encode_photomaker
        """,
    ),
    **_pair_functions(
        "encoders",
        """
        CLIPTextEncodeSDXL=sdxl CLIPTextEncodeSDXLRefiner=sdxl_refiner CLIPTextEncodeSD3=sd3
        CLIPTextEncodeHunyuanDiT=hunyuan_dit CLIPTextEncodePixArtAlpha=pixart CLIPTextEncodeLumina2=lumina2
        CLIPTextEncodeHiDream=hidream CLIPTextEncodeControlnet=for_controlnet
        TextEncodeHunyuanVideo_ImageToVideo=hunyuan_i2v TextEncodeQwenImageEdit=qwen_edit
        TextEncodeQwenImageEditPlus=qwen_edit_plus FluxDisableGuidance=without_guidance LTXVConditioning=frame_rate
        FluxKontextMultiReferenceLatentMethod=told_nothing LotusConditioning=nothing
        TextEncodeAceStepAudio=ace_step ConditioningStableAudio=stable_audio
        """,
    ),
    **_pair_functions(
        "samplers",
        """
        SamplerCustom=sampler_custom DualCFGGuider=dual_cfg_guider AddNoise=add_noise
        SamplerEulerAncestral=euler_ancestral SamplerEulerAncestralCFGPP=euler_ancestral_cfg_pp
        SamplerEulerCFGpp=euler_cfg_pp SamplerDPMPP_2S_Ancestral=dpmpp_2s_ancestral SamplerDPMPP_SDE=dpmpp_sde
        SamplerDPMPP_2M_SDE=dpmpp_2m_sde SamplerDPMPP_3M_SDE=dpmpp_3m_sde SamplerLMS=lms
        SamplerDPMAdaptative=dpm_adaptive SamplerER_SDE=er_sde SamplerSASolver=sa_solver SamplerLCMUpscale=lcm_upscale
        PerpNegGuider=perp_neg_guider PerpNeg=perp_neg LatentApplyOperationCFG=operate_on_guidance
        """,
    ),
    **_pair_functions(
        "sigmas",
        """
        ExponentialScheduler=exponential PolyexponentialScheduler=polyexponential LaplaceScheduler=laplace
        VPScheduler=vp SDTurboScheduler=sd_turbo BetaSamplingScheduler=beta_sampling
        AlignYourStepsScheduler=align_your_steps LTXVScheduler=ltxv SplitSigmas=split SplitSigmasDenoise=split_denoise
        FlipSigmas=flip SetFirstSigma=set_first ExtendIntermediateSigmas=extend SamplingPercentToSigma=percent_to_sigma
        OptimalStepsScheduler=optimal_steps GITSScheduler=gits
        """,
    ),
    **_pair_functions(
        "latent_ops",
        """
        LatentAdd=add LatentSubtract=subtract LatentMultiply=multiply LatentInterpolate=interpolate LatentBlend=blend
        LatentConcat=concat LatentCut=cut LatentBatch=batch LatentFromBatch=from_batch
        LatentBatchSeedBehavior=seed_behavior LatentRotate=rotate LatentFlip=flip LatentCrop=crop
        SetLatentNoiseMask=set_mask TrimVideoLatent=trim_video VAEEncodeForInpaint=encode_for_inpaint
        InpaintModelConditioning=inpaint_conditioning VAEEncodeTiled=encode_tiled LatentApplyOperation=apply_operation
        LatentOperationTonemapReinhard=tonemap LatentOperationSharpen=sharpen
        """,
    ),
    **_pair_functions(
        "video",
        """
        EmptyHunyuanLatentVideo=hunyuan EmptyLTXVLatentVideo=ltxv EmptyMochiLatentVideo=mochi
        EmptyCosmosLatentVideo=cosmos EmptyHunyuanImageLatent=hunyuan_image
        EmptyChromaRadianceLatentImage=chroma_radiance StableCascade_EmptyLatentImage=cascade
        StableCascade_StageC_VAEEncode=cascade_encode StableCascade_StageB_Conditioning=cascade_prior
        WanImageToVideo=wan WanCameraImageToVideo=wan WanFirstLastFrameToVideo=wan WanFunInpaintToVideo=wan
        WanCameraEmbedding=camera Wan22ImageToVideoLatent=wan22_latent CosmosImageToVideoLatent=cosmos_latent
        CosmosPredict2ImageToVideoLatent=cosmos2_latent HunyuanImageToVideo=hunyuan_i2v LTXVImgToVideo=ltxv_i2v
        LTXVAddGuide=ltxv_guide LTXVCropGuides=pass_three SVD_img2vid_Conditioning=svd
        StableZero123_Conditioning=zero123 StableZero123_Conditioning_Batched=zero123_batched
        SV3D_Conditioning=sv3d HunyuanRefinerLatent=hunyuan_refiner
        StableCascade_SuperResolutionControlnet=cascade_larger
        """,
    ),
    **_pair_functions(
        "wan",
        """
        WanTrackToVideo=track WanFunControlToVideo=control Wan22FunControlToVideo=control WanVaceToVideo=vace
        WanPhantomSubjectToVideo=phantom WanSoundImageToVideo=sound WanSoundImageToVideoExtend=sound_extended
        WanHuMoImageToVideo=humo WanAnimateToVideo=animate
        """,
    ),
    **_pair_functions("rebatching", "RebatchImages=images RebatchLatents=latents"),
    **_pair_functions("latent_files", "SaveLatent=save LoadLatent=load"),
    **_pair_functions(
        "sound",
        """
        EmptyLatentAudio=empty_latent EmptyAceStepLatentAudio=empty_ace_step VAEDecodeAudio=decode VAEEncodeAudio=encode
        EmptyAudio=silence TrimAudioDuration=trim SplitAudioChannels=split AudioConcat=concat AudioMerge=merge
        AudioAdjustVolume=adjust_volume AudioEncoderLoader=load_encoder AudioEncoderEncode=listen
        """,
    ),
    **_pair_functions(
        "media_files",
        """
        SaveAudio=save_flac SaveAudioMP3=save_mp3 SaveAudioOpus=save_opus PreviewAudio=preview_audio
        LoadAudio=load_audio RecordAudio=load_audio CreateVideo=create_video GetVideoComponents=components
        LoadVideo=load_video SaveVideo=save_video SaveWEBM=save_webm
        """,
    ),
    **_pair_functions(
        "mask_ops",
        """
        SolidMask=solid InvertMask=invert MaskToImage=to_image ImageToMask=from_image ImageColorToMask=from_colour
        CropMask=crop MaskComposite=combine FeatherMask=feather GrowMask=grow ThresholdMask=threshold
        """,
    ),
    **_pair_functions(
        "compositing",
        """
        ImageCompositeMasked=images_masked LatentCompositeMasked=latents_masked LatentComposite=latents
        ImagePadForOutpaint=pad_for_outpaint JoinImageWithAlpha=join_alpha SplitImageWithAlpha=split_alpha
        PorterDuffImageComposite=porter_duff ResizeAndPadImage=resize_and_pad ImageStitch=stitch
        """,
    ),
    **_pair_functions(
        "editing",
        """
        ImageScaleToTotalPixels=scale_to_pixels ImageScaleToMaxDimension=scale_to_largest
        FluxKontextImageScale=scale_for_kontext GetImageSize=size RepeatImageBatch=repeat ImageFromBatch=from_batch
        ImageRotate=rotate ImageFlip=flip ImageAddNoise=add_noise ImageRGBToYUV=to_yuv ImageYUVToRGB=from_yuv
        ImageQuantize=quantize Canny=canny Morphology=morphology LTXVPreprocess=compress
        """,
    ),
    **_pair_functions("upscaling", "UpscaleModelLoader=load ImageUpscaleWithModel=upscale"),
    **_pair_functions("animation", "SaveAnimatedWEBP=save_webp SaveAnimatedPNG=save_png"),
    **_pair_functions(
        "files",
        """
        LoadImage=load_image SaveImage=save_image SaveImageWebsocket=send_images PreviewImage=preview_image
        LoadImageMask=load_mask LoadImageOutput=load_image MaskPreview=preview_mask PreviewAny=preview_any
        """,
    ),
    **_pair_functions(
        "primitives",
        "PrimitiveString=value PrimitiveStringMultiline=value PrimitiveInt=value PrimitiveFloat=value "
        "PrimitiveBoolean=value",
    ),
    **_pair_functions(
        "strings",
        """
        StringConcatenate=concatenate StringSubstring=substring StringLength=length CaseConverter=convert_case
        StringTrim=trim StringReplace=replace StringContains=contains StringCompare=compare
        """,
    ),
    **_pair_functions("regular_expressions", "RegexMatch=match RegexExtract=extract RegexReplace=substitute"),
}


def check_image(folders: Folders, image: str) -> str | None:
    """VALIDATE_INPUTS of what loads a picture: it vouches for `image` alone, whatever other inputs there are."""
    return cast("str | None", Deferred("files", "check")(folders, image))


def fingerprint_image(folders: Folders, image: str, **_others: Any) -> str:
    """IS_CHANGED of what loads a picture: the file's content."""
    return cast("str", Deferred("files", "fingerprint")(folders, image))


# VALIDATE_INPUTS and IS_CHANGED of the classes that load an uploaded file.
FILE_CHECKS: Mapping[str, tuple[Callable[..., str | None] | None, Callable[..., Any]]] = {
    "LoadImage": (Deferred("files", "check"), Deferred("files", "fingerprint")),
    "SaveImageWebsocket": (None, Deferred("files", "never_the_same")),
    "LoadImageMask": (check_image, fingerprint_image),
    "LoadImageOutput": (check_image, fingerprint_image),
    "LoadLatent": (Deferred("latent_files", "check"), Deferred("latent_files", "fingerprint")),
    "LoadAudio": (Deferred("media_files", "check_audio"), Deferred("media_files", "fingerprint_audio")),
    "LoadVideo": (Deferred("media_files", "check_video"), Deferred("media_files", "fingerprint_video")),
}
COMBOS: Mapping[str, Mapping[str, Combo]] = {
    "LoadImage": {"image": _list_images},
    "LoadImageMask": {"image": _list_images},
    "LoadLatent": {"latent": partial(list_input_files, suffix=".latent")},
    "LoadAudio": {"audio": partial(list_input_files, kinds=("audio", "video"))},
    "LoadVideo": {"file": partial(list_input_files, kinds=("video",))},
}
LIST_INPUT_CLASSES = frozenset({"RebatchImages", "RebatchLatents"})  # INPUT_IS_LIST
