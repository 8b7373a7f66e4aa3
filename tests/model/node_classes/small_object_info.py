"""A small, invented `object_info` with every relevant shape, and a workflow that fits it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from sweeper.model.node_classes import NodeInfo, TemplateCheck, check_template
from sweeper.model.node_classes.graph_check import GraphProblem
from sweeper.model.template import Template

SAMPLERS = ["euler", "heun", "dpmpp_2m"]


def match(allowed: str) -> list[Any]:
    """Declare an input of the match template `t`."""
    return ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": allowed}}]


def node(
    required: dict[str, Any], *outputs: Any, output_node: bool = False, output_matchtypes: Any = None, **groups: Any
) -> dict[str, Any]:
    return {
        "output_matchtypes": output_matchtypes,
        "input": {"required": required, **groups},
        "input_order": {"required": list(required), **{name: list(group) for name, group in groups.items()}},
        "output": list(outputs),
        "output_node": output_node,
    }


OBJECT_INFO: dict[str, Any] = {
    "Loader": node(
        {"ckpt_name": [["paint.safetensors", "photo.safetensors"], {"tooltip": "x"}]}, "MODEL", "CLIP", "VAE"
    ),
    "Encode": node({"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}, "CONDITIONING"),
    "Latent": node(
        {
            "width": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
            "height": ["INT", {"default": 512, "min": 32, "max": 8192, "step": 8}],
        },
        "LATENT",
    ),
    "Sampler": node(
        {
            "model": ["MODEL"],
            "seed": ["INT", {"default": 0, "min": 0, "max": 18446744073709551615, "control_after_generate": True}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}],
            "sampler_name": [SAMPLERS],
            "positive": ["CONDITIONING", {"tooltip": "x"}],
            "latent_image": ["LATENT"],
        },
        "LATENT",
        optional={"tiled": ["BOOLEAN", {"default": False}], "denoise": ["FLOAT", {"default": 1.0, "min": 0, "max": 1}]},
    ),
    "Decode": node({"samples": ["LATENT"], "vae": ["VAE"]}, "IMAGE"),
    "Blend": node(
        {"image": ["IMAGE"], "mode": ["COMBO", {"options": ["normal", "multiply"], "multiselect": False}]},
        "IMAGE",
        optional={"mask": ["MASK"]},
    ),
    "Save": node(
        {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]},
        output_node=True,
        hidden={"prompt": "PROMPT"},
    ),
    "LoadImage": node({"image": [["hills.png", "sea.png"], {"image_upload": True}]}, "IMAGE", "MASK"),
    "Number": node({"value": ["INT", {}]}, "INT"),
    "Either": node({"value": ["INT,FLOAT", {"min": 0}]}, "INT,FLOAT"),
    "Switch": node({}, "*", optional={}),
    "Show": node({"source": ["*", {}]}, output_node=True),
    "Row": node({"image_1": ["IMAGE"], "count": ["INT", {"min": 1}]}, "IMAGE"),
    "Batch": node(
        {
            "images": [
                "COMFY_AUTOGROW_V3",
                {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 2, "max": 9}},
            ]
        },
        "IMAGE",
    ),
    "SaveAs": node(
        {
            "images": ["IMAGE"],
            "format": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "png", "inputs": {"required": {"depth": ["COMBO", {"options": ["8", "16"]}]}}},
                        {"key": "jpeg", "inputs": {"required": {"quality": ["INT", {"min": 1, "max": 100}]}}},
                    ]
                },
            ],
        },
        output_node=True,
    ),
    "Resize": node({"input": match("IMAGE,MASK")}, "COMFY_MATCHTYPE_V3", output_matchtypes=["t"]),
    "Pick": node({"on": ["BOOLEAN"], "a": match("*"), "b": match("*")}, "COMFY_MATCHTYPE_V3", output_matchtypes=["t"]),
    "Crop": node({"image": ["IMAGE"], "region": ["BOUNDING_BOX", {"socketless": True}]}, "IMAGE"),
    "CustomCombo": node({"choice": ["COMBO", {"options": []}]}, "STRING", "INT"),
    "Paint": node({"color": ["COLOR", {}]}, "IMAGE"),
    "Forced": node({"steps": ["INT", {"forceInput": True, "min": 1}]}, "LATENT"),
    "PickSampler": node({}, SAMPLERS),
    "PickOther": node({}, ["euler"]),
    "Tags": node({"tags": ["COMBO", {"options": ["a", "b"], "multiselect": True}]}, "STRING"),
    "Empty": node({"lora_name": [[]]}, "MODEL"),
}

WORKFLOW: dict[str, Any] = {
    "3": {
        "class_type": "Sampler",
        "inputs": {
            "seed": 7,
            "steps": 20,
            "cfg": 7,
            "sampler_name": "euler",
            "model": ["4", 0],
            "positive": ["6", 0],
            "latent_image": ["5", 0],
        },
        "_meta": {"title": "KSampler"},
    },
    "4": {"class_type": "Loader", "inputs": {"ckpt_name": "paint.safetensors"}},
    "5": {"class_type": "Latent", "inputs": {"width": 512, "height": 512}},
    "6": {"class_type": "Encode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "8": {"class_type": "Decode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "Save", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
}


def small_info() -> NodeInfo:
    return NodeInfo.from_object_info(OBJECT_INFO)


def workflow(**changes: Any) -> dict[str, Any]:
    """The workflow, with inputs set by `n3_seed=8` and nodes added or replaced by `n3={...}`."""
    graph = copy.deepcopy(WORKFLOW)
    for name, value in changes.items():
        node_id, _, key = name.removeprefix("n").partition("_")
        if key:
            graph[node_id]["inputs"][key] = value
        else:
            graph[node_id] = value
    return graph


def of(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def find_problems(check: TemplateCheck, params: Mapping[str, Any]) -> list[GraphProblem]:
    """The problems of the workflow for these params, by the checks of its inputs as far as these suffice."""
    results = [input_check.check_values(params) for input_check in check.input_checks]
    if any(changes_links for _, changes_links in results):
        return check.check_rendered(params)
    return [*check.fixed_problems, *(problem for problems, _ in results for problem in problems)]


def find_graph_notes(graph: dict[str, Any], info: NodeInfo) -> list[GraphProblem]:
    """What is odd about a workflow but runs."""
    return list(check_template(Template("t.json", graph, {}, ()), info).notes)
