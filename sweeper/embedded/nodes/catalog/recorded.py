"""The node classes by their descriptions: `recorded.json` holds, per class, what ComfyUI 0.3.64's `/object_info` said:
names, types, defaults, ranges, options, order. Its prose (tooltips, descriptions) is left out: no client needs it.

`implementations` says which function runs a class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from sweeper.embedded.diffusion.names import CHECKPOINTS, CLIPS, LORAS, VAES
from sweeper.embedded.nodes.base import InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.implementations import COMBOS, FILE_CHECKS, IMPLEMENTATIONS, LIST_INPUT_CLASSES
from sweeper.embedded.nodes.catalog.spec_builders import Deferred

# Which names a loader's input offers. In the recording these lists are empty: that server had no models.
_OFFERED: dict[str, tuple[str, ...]] = {
    "ckpt_name": CHECKPOINTS,
    "unet_name": CHECKPOINTS,
    "lora_name": LORAS,
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


def _read_specs(group: Mapping[str, list[Any]], offered: Mapping[str, tuple[str, ...]]) -> dict[str, InputSpec]:
    specs: dict[str, InputSpec] = {}
    for name, (kind, *more) in group.items():
        options = more[0] if more else {}
        if name in offered and kind == "COMBO":  # the newer form keeps its list among the options
            specs[name] = kind, {**options, "options": list(offered[name])}
        else:
            specs[name] = list(offered[name]) if name in offered else kind, options
    return specs


def _read_node(name: str, record: Mapping[str, Any]) -> NodeClass:
    inputs = record["input"]
    required: dict[str, list[Any]] = inputs.get("required", {})
    offered = {
        input_name: _VISION if name == "CLIPVisionLoader" else _OFFERED[input_name]
        for input_name, spec in required.items()
        if input_name in _OFFERED and (spec[0] == [] or (spec[0] == "COMBO" and spec[1]["options"] == []))
    }
    flags = {flag: record[flag] for flag in ("deprecated", "experimental", "api_node") if flag in record}
    check, fingerprint = FILE_CHECKS.get(name, (None, None))
    return NodeClass(
        name=name,
        display_name=record["display_name"],
        category=record["category"],
        required=_read_specs(required, offered),
        optional=_read_specs(inputs.get("optional", {}), {}),
        hidden=inputs.get("hidden", {}),
        outputs=tuple(record["output"]),
        output_names=tuple(record["output_name"]),
        output_node=record["output_node"],
        run=Deferred(*IMPLEMENTATIONS[name].split(".")),
        fingerprint=fingerprint,
        check=check,
        combos=COMBOS.get(name, {}),
        models=frozenset(offered),
        python_module=record["python_module"],
        v3=len(flags) == 3,
        input_is_list=name in LIST_INPUT_CLASSES,
        output_is_list=tuple(record.get("output_is_list", ())),
        flags=flags,
    )


def _read_all() -> tuple[NodeClass, ...]:
    records = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))
    return tuple(_read_node(name, records[name]) for name in records)


NODES: tuple[NodeClass, ...] = _read_all()
