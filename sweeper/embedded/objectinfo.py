"""Descriptions of node classes for `GET /object_info`, in ComfyUI's JSON form, and the lists of model files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.nodes.base import NodeClass
from sweeper.embedded.stand_ins.class_descriptions import list_known_classes

# Input of a loader -> its model folder, as in ComfyUI's folder_paths. For other inputs the folder is the input's name.
_MODEL_FOLDERS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "vae_name": "vae",
    "clip_name3": "text_encoders",
    "clip_name4": "text_encoders",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "model_name": "upscale_models",
    "model_path": "diffusers",
    "audio_encoder_name": "audio_encoders",
    "name": "model_patches",
    "photomaker_model_name": "photomaker",
}


def make_object_info(
    node: NodeClass,
    folders: ServerFolders,
    *,
    strict_models: bool = True,
) -> dict[str, Any]:
    """Describe one class as `/object_info` does, with live lists read from the folders.

    Unless `strict_models`, an input for a model file accepts any name, and our option `any_file` says so.
    """
    if node.select_inputs is not None:
        return dict(node.declaration)
    groups = {group: dict(specs) for group, specs in node.declaration["input"].items()}
    for group, specs in zip(("required", "optional"), node.load_input_specs(folders), strict=True):
        for name in specs.keys() & (node.models | node.input_files.keys()):
            kind, options = specs[name]
            if name in node.models:
                options = options if strict_models else {**options, "any_file": True}
            groups[group][name] = [kind, options] if options else [kind]
    return {**node.declaration, "input": groups}


def _find_folder(node: NodeClass, input_name: str) -> str:
    return "clip_vision" if node.name == "CLIPVisionLoader" else _MODEL_FOLDERS.get(input_name, input_name)


def node_classes() -> dict[str, Any]:
    """The answer of `GET /object_info` of a new server, without starting one."""
    with tempfile.TemporaryDirectory() as empty:
        folders = ServerFolders(Path(empty))
        folders.prepare()
        nodes = list_known_classes().items()
        return {name: make_object_info(node, folders, strict_models=False) for name, node in nodes}


def list_model_files(nodes: Mapping[str, NodeClass], folders: ServerFolders) -> dict[str, list[str]]:
    """Model folder -> the file names that the loaders list, in order and without duplicates."""
    folder_files: dict[str, list[str]] = {}
    for node in nodes.values():
        required, optional = node.load_input_specs(folders) if node.models else ({}, {})
        for name, (kind, options) in {**required, **optional}.items():
            if name in node.models:
                files = folder_files.setdefault(_find_folder(node, name), [])
                choices = kind if isinstance(kind, list) else options.get("options", [])
                files += [file for file in choices if file not in files]
    return folder_files
