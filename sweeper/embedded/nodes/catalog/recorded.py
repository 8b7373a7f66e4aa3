"""Node classes whose description is data: `recorded.json` holds, per class, what ComfyUI 0.3.64's `/object_info` said:
names, types, defaults, ranges, options, order. Its prose (tooltips, descriptions) is left out: no client needs it.

Which function runs a class stands in `implementations`; the classes that are spelled out in Python stand in the modules beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from sweeper.embedded.diffusion.names import CHECKPOINTS, CLIPS, VAES
from sweeper.embedded.nodes.base import InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.implementations import CHECKED, COMBOS, DOORS, LISTS
from sweeper.embedded.nodes.catalog.spec_builders import Deferred

# Which names a loader's input offers. In the recording these lists are empty: that server had no models.
_OFFERED: dict[str, tuple[str, ...]] = {
    "ckpt_name": CHECKPOINTS,
    "model_path": ("procedural-paint",),
    "control_net_name": ("procedural-canny.safetensors", "procedural-depth.safetensors", "procedural-tile.safetensors"),
    "style_model_name": ("procedural-style.safetensors",),
    "gligen_name": ("procedural-gligen.safetensors",),
    "hypernetwork_name": ("procedural-hypernetwork.pt",),
    "audio_encoder_name": ("procedural-audio-encoder.safetensors",),
    "name": ("procedural-model-patch.safetensors",),
    "photomaker_model_name": ("procedural-photomaker.safetensors",),
    "model_name": ("procedural-2x.pth", "procedural-4x.pth"),
    "vae_name": VAES,
    **{f"clip_name{number}": CLIPS for number in ("", 1, 2, 3, 4)},
}
_VISION = ("procedural-vision.safetensors",)


def _specs(group: Mapping[str, list[Any]], offered: Mapping[str, tuple[str, ...]]) -> dict[str, InputSpec]:
    specs: dict[str, InputSpec] = {}
    for name, (kind, *more) in group.items():
        options = more[0] if more else {}
        if name in offered and kind == "COMBO":  # the newer form keeps its list among the options
            specs[name] = kind, {**options, "options": list(offered[name])}
        else:
            specs[name] = list(offered[name]) if name in offered else kind, options
    return specs


def _node(name: str, told: Mapping[str, Any]) -> NodeClass:
    inputs = told["input"]
    required: dict[str, list[Any]] = inputs.get("required", {})
    offered = {
        input_name: _VISION if name == "CLIPVisionLoader" else _OFFERED[input_name]
        for input_name, spec in required.items()
        if input_name in _OFFERED and (spec[0] == [] or (spec[0] == "COMBO" and spec[1]["options"] == []))
    }
    flags = {flag: told[flag] for flag in ("deprecated", "experimental", "api_node") if flag in told}
    check, fingerprint = CHECKED.get(name, (None, None))
    return NodeClass(
        name=name,
        display_name=told["display_name"],
        category=told["category"],
        required=_specs(required, offered),
        optional=_specs(inputs.get("optional", {}), {}),
        hidden=inputs.get("hidden", {}),
        outputs=tuple(told["output"]),
        output_names=tuple(told["output_name"]),
        output_node=told["output_node"],
        run=Deferred(*DOORS[name].split(".")),
        fingerprint=fingerprint,
        check=check,
        combos=COMBOS.get(name, {}),
        models=frozenset(offered),
        python_module=told["python_module"],
        v3=len(flags) == 3,
        input_is_list=name in LISTS,
        output_is_list=tuple(told.get("output_is_list", ())),
        flags=flags,
    )


def _all() -> tuple[NodeClass, ...]:
    told = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))
    return tuple(_node(name, told[name]) for name in DOORS)


NODES: tuple[NodeClass, ...] = _all()
