"""The node classes by their descriptions: `recorded.json` holds, per class, what ComfyUI 0.3.64's `/object_info` said:
names, types, defaults, ranges, options, order. Its prose (tooltips, descriptions) is left out: no client needs it.
Some classes are as in ComfyUI 0.33.0, because saved workflows need what it added: CLIPLoader and DualCLIPLoader have
more kinds of text encoders, FluxKontextMultiReferenceLatentMethod has another method, classes that save or show hand on
their input, CreateVideo and GetVideoComponents know 10 bits, LTXVAddGuide has two more inputs, and the index of
ImageFromBatch and LatentFromBatch may count from the end.

`own_classes` says which function runs a class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from sweeper.embedded.diffusion.names import CHECKPOINTS, CLIPS, LORAS, VAES
from sweeper.embedded.nodes.base import InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.own_classes import CHECKS, COMBOS, FINGERPRINTS, FUNCTIONS

# Which names a loader's input offers. In the recording these lists are empty: that server had no models.
_OFFERED: dict[str, tuple[str, ...]] = {
    "ckpt_name": CHECKPOINTS,
    "unet_name": CHECKPOINTS,
    "lora_name": LORAS,
    "model_name": ("procedural-2x.pth", "procedural-4x.pth"),
    "vae_name": VAES,
    **{f"clip_name{number}": CLIPS for number in ("", 1, 2, 3)},
}


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
        input_name: _OFFERED[input_name]
        for input_name, spec in required.items()
        if input_name in _OFFERED and (spec[0] == [] or (spec[0] == "COMBO" and spec[1]["options"] == []))
    }
    flags = {flag: record[flag] for flag in ("deprecated", "experimental", "api_node") if flag in record}
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
        run=FUNCTIONS[name],
        fingerprint=FINGERPRINTS.get(name),
        check=CHECKS.get(name),
        combos=COMBOS.get(name, {}),
        models=frozenset(offered),
        python_module=record["python_module"],
        v3=len(flags) == 3,
        flags=flags,
    )


RECORDS: Mapping[str, Mapping[str, Any]] = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))
NODES: tuple[NodeClass, ...] = tuple(_read_node(name, record) for name, record in RECORDS.items() if name in FUNCTIONS)


def _accept_any_file(group: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as a server of ours describes them: it takes any name where the recording server had no files to offer."""
    specs = dict(group)
    for name, spec in group.items():
        options = spec[1] if len(spec) > 1 else {}
        if spec[0] == [] or (spec[0] == "COMBO" and options.get("options") == []):
            specs[name] = [spec[0], {**options, "any_file": True}]
    return specs


def list_other_declarations() -> dict[str, dict[str, Any]]:
    """The recorded classes that the server does not implement, in the form of `/object_info`."""
    return {
        name: {
            "input_order": {group: list(specs) for group, specs in record["input"].items()},
            "is_input_list": False,
            "output_is_list": [False] * len(record["output"]),
            "name": name,
            "description": "",
            **record,
            "input": {group: _accept_any_file(specs) for group, specs in record["input"].items()},
        }
        for name, record in RECORDS.items()
        if name not in FUNCTIONS
    }
