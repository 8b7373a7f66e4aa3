"""The node classes by their descriptions: `recorded.json` holds, per class, what ComfyUI 0.3.64's `/object_info` said:
names, types, defaults, ranges, options, order. Its prose (tooltips, descriptions) is left out: no client needs it.
Some classes are as in ComfyUI 0.33.0, because saved workflows need what it added: kinds of text encoders, a method of
FluxKontextMultiReferenceLatentMethod, the outputs of classes that save or show, films of 10 bits, inputs of
LTXVAddGuide and ImageScaleToTotalPixels, and an index of ImageFromBatch and LatentFromBatch that counts from the end.

`own_classes` says which function runs a class.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from sweeper.embedded.diffusion.names import CHECKPOINTS, CLIPS, LORAS, VAES
from sweeper.embedded.nodes.base import NodeClass, complete_declaration, hash_files, make_node_class
from sweeper.embedded.nodes.catalog.own_classes import FUNCTIONS, INPUT_FILES

# Which names a loader's input offers. In the recording these lists are empty: that server had no models.
_OFFERED: dict[str, tuple[str, ...]] = {
    "ckpt_name": CHECKPOINTS,
    "unet_name": CHECKPOINTS,
    "lora_name": LORAS,
    "model_name": ("procedural-2x.pth", "procedural-4x.pth"),
    "vae_name": VAES,
    **{f"clip_name{number}": CLIPS for number in ("", 1, 2, 3)},
}


RECORDS: Mapping[str, Mapping[str, Any]] = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))


def _offers_nothing(spec: list[Any]) -> bool:
    """Whether a combo is empty. The newer form keeps its list among the options."""
    choices = spec[1].get("options") if spec[0] == "COMBO" else spec[0]
    return isinstance(choices, list) and not choices


def _fill(spec: list[Any], names: tuple[str, ...]) -> list[Any]:
    return ["COMBO", {**spec[1], "options": [*names]}] if spec[0] == "COMBO" else [[*names], *spec[1:]]


def _find_fingerprint(name: str) -> Callable[..., Any] | None:
    if name == "SaveImageWebsocket":  # what is sent and kept nowhere is sent each time
        return lambda _folders, /, **_inputs: time.time()
    return hash_files(INPUT_FILES[name]) if name in INPUT_FILES else None


def _make_own_class(name: str, record: Mapping[str, Any]) -> NodeClass:
    required: dict[str, list[Any]] = record["input"].get("required", {})
    offered = {
        key: _fill(spec, _OFFERED[key]) for key, spec in required.items() if key in _OFFERED and _offers_nothing(spec)
    }
    return make_node_class(
        name,
        {**record, "input": {**record["input"], "required": {**required, **offered}}},
        FUNCTIONS[name],
        fingerprint=_find_fingerprint(name),
        input_files=INPUT_FILES.get(name, {}),
        models=frozenset(offered),
    )


NODES: tuple[NodeClass, ...] = tuple(
    _make_own_class(name, record) for name, record in RECORDS.items() if name in FUNCTIONS
)


def _accept_any_file(group: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as a server of ours describes them: it takes any name where the recording server had no files to offer."""
    return {
        name: [spec[0], {**(spec[1] if len(spec) > 1 else {}), "any_file": True}] if _offers_nothing(spec) else spec
        for name, spec in group.items()
    }


def list_other_declarations() -> dict[str, dict[str, Any]]:
    """The recorded classes that the server does not implement, in the form of `/object_info`."""
    return {
        name: complete_declaration(
            name, {**record, "input": {group: _accept_any_file(specs) for group, specs in record["input"].items()}}
        )
        for name, record in RECORDS.items()
        if name not in FUNCTIONS
    }
