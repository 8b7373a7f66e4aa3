"""Loaders and text: the classes as ComfyUI 0.3.64's object_info describes them."""

from __future__ import annotations

from sweeper.embedded.diffusion.names import CHECKPOINTS, CLIPS, LORAS, VAES
from sweeper.embedded.nodes.base import InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.spec_builders import combo, integer, link, node, number, text

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

NODES: tuple[NodeClass, ...] = (
    node(
        "CheckpointLoaderSimple",
        ("loading", "checkpoint"),
        "loaders",
        {"ckpt_name": combo(CHECKPOINTS)},
        ("MODEL", "CLIP", "VAE"),
        title="Load Checkpoint",
        models=("ckpt_name",),
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
            "model": link("MODEL"),
            "clip": link("CLIP"),
            "lora_name": combo(LORAS),
            "strength_model": number(1.0, -100.0, 100.0, 0.01),
            "strength_clip": number(1.0, -100.0, 100.0, 0.01),
        },
        ("MODEL", "CLIP"),
        title="Load LoRA",
        models=("lora_name",),
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
        models=("lora_name",),
    ),
    node(
        "CLIPTextEncode",
        ("conditioning", "text_encode"),
        "conditioning",
        {
            "text": text(**_PROMPT),
            "clip": link("CLIP"),
        },
        ("CONDITIONING",),
        title="CLIP Text Encode (Prompt)",
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
