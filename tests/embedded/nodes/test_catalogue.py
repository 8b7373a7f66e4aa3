"""The catalogue equals the object_info of a ComfyUI for the same classes (data/object_info.json).

Of what 0.33.0 has beyond 0.3.64, the data has two classes of each kind (see sweeper/embedded/nodes/__init__.py).

Descriptions and tooltips are not compared, because they are ComfyUI's own text and the catalogue does not contain them.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from sweeper.embedded.nodes import NODE_CLASSES
from sweeper.embedded.stand_ins.class_descriptions import list_known_classes

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text("utf-8"))


def without_prose(info: Any) -> dict[str, Any]:
    facts = {key: value for key, value in info.items() if key not in ("description", "output_tooltips")}
    for group in ("required", "optional"):
        for _, *options in facts["input"].get(group, {}).values():
            for option in options:
                option.pop("tooltip", None)
    return facts


@pytest.mark.parametrize("name", sorted(NODE_CLASSES.keys() - {"SaveVideo"}))  # it implements a part of its inputs
def test_class_is_described_as_comfyui_describes_it(name: str) -> None:
    node = NODE_CLASSES[name]
    expected = without_prose(json.loads(json.dumps(RECORDED[name])))
    for model in node.models:  # each server has its own model files
        if expected["input"]["required"][model][0] == "COMBO":
            expected["input"]["required"][model][1]["options"] = node.required[model][1]["options"]
        else:
            expected["input"]["required"][model][0] = node.required[model][0]
    # Compared as text: the order of inputs is part of it. [type] and [type, {}] mean the same to a client.
    described = without_prose(json.loads(json.dumps(node.declaration)))
    assert {key: json.dumps(described.get(key)).replace(", {}]", "]") for key in expected} == {
        key: json.dumps(value).replace(", {}]", "]") for key, value in expected.items()
    }


@pytest.mark.parametrize("name", sorted(NODE_CLASSES))
def test_the_function_of_a_class_takes_its_inputs(name: str) -> None:
    node = NODE_CLASSES[name]
    module, function_name = cast("partial[Any]", node.run).args
    function = getattr(importlib.import_module(f"sweeper.embedded.nodes.{module}"), function_name)
    parameters = [
        parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "context"
    ]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    demanded = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    assert open_ended or {*node.required, *node.optional} <= named
    assert open_ended or demanded <= set(node.required)


def test_other_recorded_classes_are_stand_ins_with_their_descriptions() -> None:
    known = list_known_classes()
    assert (len(known), len([*known]), RECORDED.keys() - known.keys()) == (887, 887, set())
    for name in RECORDED.keys() - (NODE_CLASSES.keys() - {"SaveVideo"}):
        declared, expected = copy.deepcopy(known[name].declaration), without_prose(copy.deepcopy(RECORDED[name]))
        assert declared is not None
        for spec in declared["input"].get("required", {}).values():
            options = spec[1] if len(spec) > 1 else {}
            offers_nothing = (options.get("options") if spec[0] == "COMBO" else spec[0]) == []
            assert options.pop("any_file", False) is offers_nothing, name
            spec[1:] = [options] if options else []  # [type] and [type, {}] mean the same
        for spec in expected["input"].get("required", {}).values():
            spec[1:] = [options for options in spec[1:] if options]
        expected |= {"price_badge": None} if "price_badge" in expected else {}  # a stand-in calls no partner
        assert {key: declared.get(key) for key in expected} == expected, name
        assert '"tooltip"' not in json.dumps(declared)


def test_catalogue_contains_no_prose_of_comfyui() -> None:
    for name, node in NODE_CLASSES.items():
        assert node.declaration["description"] == "", name
        assert not any("tooltip" in options for _, options in [*node.required.values(), *node.optional.values()]), name


def test_only_newer_classes_list_missing_output_tooltips() -> None:
    for name, node in NODE_CLASSES.items():
        nulls = [None] * len(node.outputs) if "api_node" in RECORDED[name] else None
        assert node.declaration.get("output_tooltips") == nulls, name


def test_a_model_combo_offers_something() -> None:
    for node in NODE_CLASSES.values():
        for name in node.models:
            kind, options = node.required[name]
            assert options["options"] if kind == "COMBO" else kind


def test_listing_the_nodes_imports_neither_numpy_nor_pillow() -> None:
    code = "import sys, sweeper.embedded.nodes; print(sorted({'numpy', 'PIL'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_load_image_lists_the_pictures_of_the_input_folder(context: Any) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (context.input_dir / name).write_bytes(b"")
    (context.input_dir / "folder.png").mkdir()
    required, _ = NODE_CLASSES["LoadImage"].load_input_specs(context)
    assert required["image"] == (["a.jpg", "b.png"], {"image_upload": True})
