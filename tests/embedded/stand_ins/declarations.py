"""A small `object_info` with one class of each kind: custom nodes, partner nodes, V3 inputs, lists."""

from __future__ import annotations

from typing import Any

FLOAT = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.01}
GROWN_IMAGES = {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 9}
SEED = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}


def declare(
    required: dict[str, Any],
    outputs: list[Any],
    *,
    optional: dict[str, Any] | None = None,
    output_node: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One class, as `/object_info` describes it."""
    return {
        "input": {"required": required, "optional": optional or {"unused": ["INT", {"default": 0}]}},
        "output": outputs,
        "output_name": more.pop("names", None) or [str(output) for output in outputs],
        "output_is_list": more.pop("lists", None) or [False] * len(outputs),
        "output_node": output_node,
        "display_name": "A class",
        "description": "",
        "category": "test",
        "python_module": "custom_nodes.test",
        **more,
    }


OBJECT_INFO: dict[str, Any] = {
    "FilmLoader": declare({"model": [["film-14b.safetensors"], {}], "precision": [["fp16", "fp8"], {}]}, ["FILMMODEL"]),
    "FilmText": declare(
        {"positive_prompt": ["STRING", {"multiline": True}], "negative_prompt": ["STRING", {"multiline": True}]},
        ["FILMTEXT"],
    ),
    "FilmSampler": declare(
        {
            "model": ["FILMMODEL", {}],
            "text": ["FILMTEXT", {}],
            "width": ["INT", {"default": 64, "min": 16, "max": 4096}],
            "height": ["INT", {"default": 48, "min": 16, "max": 4096}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 100}],
            "strength": ["FLOAT", FLOAT],
            "looped": ["BOOLEAN", {"default": False}],
            "schedule": [["unipc", "euler"], {}],
            "seed": ["INT", SEED],
        },
        ["LATENT"],
    ),
    "AnyLoader": declare({"name": [["a.safetensors"], {}]}, ["MODEL", "CLIP", "VAE"]),
    "AnyPatch": declare(
        {"model": ["MODEL", {}], "clip": ["CLIP", {}], "strength": ["FLOAT", FLOAT]}, ["MODEL", "CLIP"]
    ),
    "AnyConditioning": declare(
        {"positive": ["CONDITIONING", {}], "negative": ["CONDITIONING", {}], "strength": ["FLOAT", FLOAT]},
        ["CONDITIONING", "CONDITIONING"],
        names=["positive", "negative"],
    ),
    "AnyLatentTool": declare({"samples": ["LATENT", {}], "amount": ["FLOAT", FLOAT]}, ["LATENT"]),
    "AnyFilter": declare({"image": ["IMAGE", {}], "amount": ["FLOAT", FLOAT]}, ["IMAGE", "MASK"]),
    "AnyMaskTool": declare({"mask": ["MASK", {}], "amount": ["FLOAT", FLOAT]}, ["MASK"]),
    "AnySoundTool": declare({"audio": ["AUDIO", {}], "amount": ["FLOAT", FLOAT]}, ["AUDIO"]),
    "PartnerImage": declare(
        {
            "prompt": ["STRING", {"multiline": True}],
            "aspect_ratio": ["COMBO", {"options": ["1:1", "2:1"]}],
            "seed": ["INT", SEED],
        },
        ["IMAGE"],
        api_node=True,
    ),
    "PartnerFilm": declare(
        {"prompt": ["STRING", {"multiline": True}], "duration": ["INT", {"default": 1}], "resolution": [["144p"], {}]},
        ["VIDEO"],
        api_node=True,
    ),
    "PartnerWriter": declare({"prompt": ["STRING", {"multiline": True}], "seed": ["INT", SEED]}, ["STRING"]),
    "Resize": declare(
        {
            "input": [
                "COMFY_MATCHTYPE_V3",
                {"template": {"template_id": "what", "allowed_types": "IMAGE,MASK"}},
            ],
            "kind": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "sides", "inputs": {"required": {"width": ["INT", {}], "height": ["INT", {}]}}},
                        {"key": "factor", "inputs": {"required": {"scale_by": ["FLOAT", {}]}}},
                    ]
                },
            ],
        },
        ["COMFY_MATCHTYPE_V3"],
        output_matchtypes=["what"],
    ),
    "Branch": declare(
        {
            "switch": ["BOOLEAN", {}],
            "on_false": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "what", "allowed_types": "*"}}],
            "on_true": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "what", "allowed_types": "*"}}],
        },
        ["COMFY_MATCHTYPE_V3"],
        output_matchtypes=["what"],
    ),
    "Batch": declare({"images": ["COMFY_AUTOGROW_V3", {"template": GROWN_IMAGES}]}, ["IMAGE"]),
    "Batches": declare(
        {"prompt": ["STRING", {}], "batch_size": ["INT", {}], "width": ["INT", {}]}, ["IMAGE"], lists=[True]
    ),
    "Caption": declare({"image": ["IMAGE", {}]}, ["STRING"]),
    "Split": declare({"images": ["IMAGE", {}]}, ["IMAGE"], lists=[True]),
    "Join": declare({"images": ["IMAGE", {}]}, ["IMAGE"], is_input_list=True),
    "Measure": declare({"image": ["IMAGE", {}]}, ["INT", "INT"], names=["width", "height"]),
    "Sides": declare(
        {
            "aspect_ratio": ["COMBO", {"options": ["1:1 (Square)", "16:9 (Wide)"]}],
            "megapixels": ["FLOAT", {"default": 1.0}],
            "multiple": ["INT", {"default": 8}],
        },
        ["INT", "INT"],
        names=["width", "height"],
    ),
    "Arithmetic": declare({"expression": ["STRING", {}], "a": ["INT", {}], "b": ["INT", {}]}, ["INT", "FLOAT"]),
    "Union": declare({"value": ["IMAGE,MASK", {}], "amount": ["FLOAT", FLOAT]}, ["IMAGE"]),
    "ShowText": declare({"text": ["STRING", {"forceInput": True}]}, ["STRING"], output_node=True),
    "SaveEverything": declare(
        {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {"default": "x"}]}, [], output_node=True
    ),
    "SaveModel3D": declare({"model": ["MODEL3D", {}]}, [], output_node=True),
    "MakeModel3D": declare(
        {"prompt": ["STRING", {"multiline": True}]}, ["MODEL3D"], optional={"curve": ["CURVE", {"default": {}}]}
    ),
}
