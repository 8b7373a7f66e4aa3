"""Small UI-format workflows made by hand, and the node classes that they use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SEED = ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}]
GROWING = ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"i": ["IMAGE"]}}, "prefix": "image", "max": 9}}]
TEXT = ["STRING", {"multiline": True, "dynamicPrompts": True}]


def declare_class(required: Mapping[str, Any], outputs: list[str], **more: Any) -> dict[str, Any]:
    return {"input": {"required": required, "optional": more.pop("optional", {})}, "output": outputs, **more}


OBJECT_INFO: dict[str, Any] = {
    "Load": declare_class({"name": [["a.safetensors", "b.safetensors"]]}, ["MODEL", "CLIP"], display_name="Load Model"),
    "Encode": declare_class({"text": TEXT, "clip": ["CLIP"]}, ["CONDITIONING"]),
    "Join": declare_class({"one": ["CONDITIONING"], "other": ["CONDITIONING"]}, ["CONDITIONING"]),
    "Sample": declare_class(
        {
            "model": ["MODEL"],
            "seed": SEED,
            "steps": ["INT", {"default": 20, "min": 1, "max": 100}],
            "cfg": ["FLOAT", {"default": 8.0}],
            "sampler": [["euler", "heun"]],
            "positive": ["CONDITIONING"],
        },
        ["IMAGE"],
        optional={"tile": ["BOOLEAN", {"default": False}]},
    ),
    "Number": declare_class({"value": ["INT", {"default": 0}]}, ["INT"]),
    "Photo": declare_class({"image": [["x.png"], {"image_upload": True}]}, ["IMAGE", "MASK"]),
    "Blur": declare_class({"image": ["IMAGE"], "radius": ["FLOAT", {"default": 1.0}]}, ["IMAGE"]),
    "Swap": declare_class({"mask": ["MASK"], "image": ["IMAGE"]}, ["IMAGE", "MASK"]),
    "Forced": declare_class({"count": ["INT", {"forceInput": True}], "size": ["INT", {}]}, ["INT"]),
    "Many": declare_class({"names": [["a", "b"], {"multiselect": True}]}, ["STRING"]),
    "Coloured": declare_class({"tint": ["TINT", {}]}, ["STRING"]),
    "Save": declare_class({"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "C"}]}, [], output_node=True),
}


def socket(name: str, kind: str, link: int | None = None, *, widget: bool = False) -> dict[str, Any]:
    """An input of a node in the editor."""
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def node(node_id: int | str, kind: str, *inputs: dict[str, Any], values: Any = None, **more: Any) -> dict[str, Any]:
    """A node in the editor; `values` are its `widgets_values`."""
    outputs = more.pop("outputs", OBJECT_INFO.get(kind, {}).get("output", ["*"]))
    return {
        "id": node_id,
        "type": kind,
        "mode": 0,
        "inputs": list(inputs),
        "outputs": [{"name": one, "type": one} for one in outputs],
        "properties": {},
        "widgets_values": [] if values is None else values,
        **more,
    }


def canvas(*nodes: dict[str, Any], links: list[Any] = (), **more: Any) -> dict[str, Any]:  # type: ignore[assignment]
    """A file. A link is `(id, origin node, its output, target node, its input, type)`."""
    return {"nodes": list(nodes), "links": [list(one) for one in links], "version": 0.4, **more}


def subgraph(name: str, *nodes: dict[str, Any], links: list[Any], ports: Any, outputs: Any) -> dict[str, Any]:
    """A definition; `ports` and `outputs` are `(name, type, link ids)`. Inside, -10 is its inputs, -20 its outputs."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        "id": name,
        "name": name,
        "inputNode": {"id": -10},
        "outputNode": {"id": -20},
        "inputs": [{"name": one, "type": kind, "linkIds": ids} for one, kind, ids in ports],
        "outputs": [{"name": one, "type": kind, "linkIds": ids} for one, kind, ids in outputs],
        "nodes": list(nodes),
        "links": [dict(zip(keys, one, strict=True)) for one in links],
    }


def plain(graph: Mapping[str, Any]) -> dict[str, Any]:
    """A converted graph as `{id: (class, inputs)}`."""
    return {node_id: (one["class_type"], one["inputs"]) for node_id, one in graph.items()}
