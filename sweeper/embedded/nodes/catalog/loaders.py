"""Loaders and text: the classes as ComfyUI 0.3.64's object_info describes them."""

from __future__ import annotations

from sweeper.embedded.diffusion.names import CHECKPOINTS, CLIPS, LORAS, VAES
from sweeper.embedded.nodes.base import InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.spelling import combo, integer, link, node, number, text

_PROMPT = {"multiline": True, "dynamicPrompts": True}
_KINDS = (
    "stable_diffusion",
    "stable_cascade",
    "sd3",
    "stable_audio",
    "mochi",
    "ltxv",
    "pixart",
    "cosmos",
    "lumina2",
    "wan",
    "hidream",
    "chroma",
    "ace",
    "omnigen2",
    "qwen_image",
    "hunyuan_image",
)
_DEVICE: dict[str, InputSpec] = {"device": combo(("default", "cpu"), advanced=True)}
_STRENGTH = "How strongly to modify the {}. This value can be negative."
_LORA = (
    "LoRAs are used to modify diffusion and CLIP models, altering the way in which latents are denoised such as "
    "applying styles. Multiple LoRA nodes can be linked together."
)
_CLIP_RECIPES = (
    "[Recipes]\n\nstable_diffusion: clip-l\nstable_cascade: clip-g\nsd3: t5 xxl/ clip-g / clip-l\nstable_audio: t5 base"
    "\nmochi: t5 xxl\ncosmos: old t5 xxl\nlumina2: gemma 2 2B\nwan: umt5 xxl\n hidream: llama-3.1 (Recommend) or t5\n"
    "omnigen2: qwen vl 2.5 3B"
)
_DUAL_RECIPES = (
    "[Recipes]\n\nsdxl: clip-l, clip-g\nsd3: clip-l, clip-g / clip-l, t5 / clip-g, t5\nflux: clip-l, t5\nhidream: at "
    "least one of t5 or llama, recommended t5 and llama\nhunyuan_image: qwen2.5vl 7b and byt5 small"
)

NODES: tuple[NodeClass, ...] = (
    node(
        "CheckpointLoaderSimple",
        ("loading", "checkpoint"),
        "loaders",
        {"ckpt_name": combo(CHECKPOINTS, tooltip="The name of the checkpoint (model) to load.")},
        ("MODEL", "CLIP", "VAE"),
        title="Load Checkpoint",
        description="Loads a diffusion model checkpoint, diffusion models are used to denoise latents.",
        models=("ckpt_name",),
        tips=(
            "The model used for denoising latents.",
            "The CLIP model used for encoding text prompts.",
            "The VAE model used for encoding and decoding images to and from latent space.",
        ),
    ),
    node(
        "UNETLoader",
        ("loading", "unet"),
        "advanced/loaders",
        {
            "unet_name": combo(CHECKPOINTS),
            "weight_dtype": combo(("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")),
        },
        ("MODEL",),
        title="Load Diffusion Model",
        models=("unet_name",),
    ),
    node(
        "CLIPLoader",
        ("loading", "clip"),
        "advanced/loaders",
        {"clip_name": combo(CLIPS), "type": combo(_KINDS)},
        ("CLIP",),
        optional=_DEVICE,
        title="Load CLIP",
        description=_CLIP_RECIPES,
        models=("clip_name",),
    ),
    node(
        "DualCLIPLoader",
        ("loading", "dual_clip"),
        "advanced/loaders",
        {
            "clip_name1": combo(CLIPS),
            "clip_name2": combo(CLIPS),
            "type": combo(("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image")),
        },
        ("CLIP",),
        optional=_DEVICE,
        description=_DUAL_RECIPES,
        models=("clip_name1", "clip_name2"),
    ),
    node(
        "VAELoader",
        ("loading", "vae"),
        "loaders",
        {"vae_name": combo(VAES)},
        ("VAE",),
        title="Load VAE",
        models=("vae_name",),
    ),
    node(
        "LoraLoader",
        ("loading", "lora"),
        "loaders",
        {
            "model": link("MODEL", "The diffusion model the LoRA will be applied to."),
            "clip": link("CLIP", "The CLIP model the LoRA will be applied to."),
            "lora_name": combo(LORAS, tooltip="The name of the LoRA."),
            "strength_model": number(1.0, -100.0, 100.0, 0.01, tooltip=_STRENGTH.format("diffusion model")),
            "strength_clip": number(1.0, -100.0, 100.0, 0.01, tooltip=_STRENGTH.format("CLIP model")),
        },
        ("MODEL", "CLIP"),
        title="Load LoRA",
        description=_LORA,
        models=("lora_name",),
        tips=("The modified diffusion model.", "The modified CLIP model."),
    ),
    node(
        "LoraLoaderModelOnly",
        ("loading", "lora_model_only"),
        "loaders",
        {
            "model": link("MODEL"),
            "lora_name": combo(LORAS),
            "strength_model": number(1.0, -100.0, 100.0, 0.01),
        },
        ("MODEL",),
        description=_LORA,
        models=("lora_name",),
        tips=("The modified diffusion model.", "The modified CLIP model."),  # inherited there, hence one too many
    ),
    node(
        "CLIPTextEncode",
        ("conditioning", "text_encode"),
        "conditioning",
        {
            "text": text(**_PROMPT, tooltip="The text to be encoded."),
            "clip": link("CLIP", "The CLIP model used for encoding the text."),
        },
        ("CONDITIONING",),
        title="CLIP Text Encode (Prompt)",
        description="Encodes a text prompt using a CLIP model into an embedding that can be used to guide the "
        "diffusion model towards generating specific images.",
        tips=("A conditioning containing the embedded text used to guide the diffusion model.",),
    ),
    node(
        "CLIPSetLastLayer",
        ("conditioning", "set_last_layer"),
        "conditioning",
        {"clip": link("CLIP"), "stop_at_clip_layer": integer(-1, -24, -1, 1)},
        ("CLIP",),
        title="CLIP Set Last Layer",
    ),
    node(
        "CLIPTextEncodeFlux",
        ("conditioning", "text_encode_flux"),
        "advanced/conditioning/flux",
        {
            "clip": link("CLIP"),
            "clip_l": text(**_PROMPT),
            "t5xxl": text(**_PROMPT),
            "guidance": number(3.5, 0.0, 100.0, 0.1),
        },
        ("CONDITIONING",),
        title=None,
        module="comfy_extras.nodes_flux",
        v3=True,
    ),
    node(
        "FluxGuidance",
        ("conditioning", "flux_guidance"),
        "advanced/conditioning/flux",
        {"conditioning": link("CONDITIONING"), "guidance": number(3.5, 0.0, 100.0, 0.1)},
        ("CONDITIONING",),
        title=None,
        module="comfy_extras.nodes_flux",
        v3=True,
    ),
    node(
        "ConditioningCombine",
        ("conditioning", "combine"),
        "conditioning",
        {"conditioning_1": link("CONDITIONING"), "conditioning_2": link("CONDITIONING")},
        ("CONDITIONING",),
        title="Conditioning (Combine)",
    ),
    node(
        "ConditioningConcat",
        ("conditioning", "concat"),
        "conditioning",
        {"conditioning_to": link("CONDITIONING"), "conditioning_from": link("CONDITIONING")},
        ("CONDITIONING",),
        title="Conditioning (Concat)",
    ),
    node(
        "ConditioningAverage",
        ("conditioning", "average"),
        "conditioning",
        {
            "conditioning_to": link("CONDITIONING"),
            "conditioning_from": link("CONDITIONING"),
            "conditioning_to_strength": number(1.0, 0.0, 1.0, 0.01),
        },
        ("CONDITIONING",),
    ),
    node(
        "ConditioningZeroOut",
        ("conditioning", "zero_out"),
        "advanced/conditioning",
        {"conditioning": link("CONDITIONING")},
        ("CONDITIONING",),
    ),
)
