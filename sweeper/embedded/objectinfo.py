"""Descriptions of node classes for `GET /object_info`, in ComfyUI's JSON form, and the lists of model files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.nodes.base import Folders, InputSpec, NodeClass
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
    folders: Folders,
    *,
    strict_models: bool = True,
    user_models: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Describe one class as `/object_info` does, with live lists read from the folders.

    Unless `strict_models`, an input for a model file accepts any name, and our option `any_file` says so.
    `user_models`: model folder -> the names of further files to list.
    """
    if node.declaration is not None:
        return dict(node.declaration)
    required, optional = node.load_input_specs(folders)
    if user_models:
        required, optional = (_add_models(node, specs, user_models) for specs in (required, optional))
    if not strict_models:
        required, optional = _mark_suggestions(node, required), _mark_suggestions(node, optional)
    groups: dict[str, dict[str, Any]] = {"required": {name: _spec_json(node, spec) for name, spec in required.items()}}
    if optional:
        groups["optional"] = {name: _spec_json(node, spec) for name, spec in optional.items()}
    if node.hidden:
        groups["hidden"] = dict(node.hidden)
    tips = {} if node.output_tooltips is None else {"output_tooltips": list(node.output_tooltips)}
    info: dict[str, Any] = {
        "input": groups,
        "input_order": {group: list(specs) for group, specs in groups.items()},
        "is_input_list": node.input_is_list,
        "output": list(node.outputs),
        "output_is_list": list(node.output_is_list or (False,) * len(node.outputs)),
        "output_name": list(node.output_names),
        **(tips if node.v3 else {}),  # ComfyUI puts them here for nodes of the newer form, else at the end
        "name": node.name,
        "display_name": node.display_name,
        "description": node.description,
        "python_module": node.python_module,
        "category": node.category,
        "output_node": node.output_node,
        "has_intermediate_output": False,
        "search_aliases": [],
    }
    return {**info, **(_V3_FLAGS if node.v3 else tips), **node.flags}


_V3_FLAGS = {
    "output_matchtypes": None,
    "deprecated": False,
    "experimental": False,
    "dev_only": False,
    "api_node": False,
    "price_badge": None,
    "essentials_category": None,
}


def _add_models(
    node: NodeClass, specs: dict[str, InputSpec], user_models: Mapping[str, Sequence[str]]
) -> dict[str, InputSpec]:
    extended = dict(specs)
    for name in node.models & specs.keys():
        kind, options = specs[name]
        more = user_models.get(_find_folder(node, name), ())
        if isinstance(kind, list):
            extended[name] = ([*kind, *more], options)
        else:
            extended[name] = (kind, {**options, "options": [*options["options"], *more]})
    return extended


def _find_folder(node: NodeClass, input_name: str) -> str:
    return "clip_vision" if node.name == "CLIPVisionLoader" else _MODEL_FOLDERS.get(input_name, input_name)


def _mark_suggestions(node: NodeClass, specs: Mapping[str, InputSpec]) -> dict[str, InputSpec]:
    return {
        name: (kind, {**options, "any_file": True}) if name in node.models else (kind, options)
        for name, (kind, options) in specs.items()
    }


def _spec_json(node: NodeClass, spec: InputSpec) -> list[Any]:
    kind, options = spec
    return [kind, options] if options or node.v3 else [kind]


def node_classes() -> dict[str, Any]:
    """The answer of `GET /object_info` of a new server, without starting one."""
    with tempfile.TemporaryDirectory() as empty:
        folders = ServerFolders(Path(empty))
        folders.prepare()
        nodes = list_known_classes().items()
        return {name: make_object_info(node, folders, strict_models=False) for name, node in nodes}


def list_model_files(nodes: Mapping[str, NodeClass], folders: Folders) -> dict[str, list[str]]:
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
