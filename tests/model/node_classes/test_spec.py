"""`NodeInfo` parses `object_info`: both shapes of combos, limits, links, and odd declarations of custom nodes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sweeper.errors import InputError
from sweeper.model.node_classes import InputSpec, NodeInfo
from sweeper.model.template import MISSING
from tests.model.node_classes.small_object_info import OBJECT_INFO, SAMPLERS, match, node, small_info


def spec_of(declared: Any, *, others: dict[str, Any] | None = None) -> InputSpec:
    info = NodeInfo.from_object_info({"One": node({"x": declared}), **(others or {})})
    return info.classes["One"].inputs["x"]


@pytest.mark.parametrize(
    ("module", "pack"),
    [
        ("custom_nodes.ComfyUI-Impact-Pack", "ComfyUI-Impact-Pack"),
        ("custom_nodes.a.b", "a.b"),
        ("custom_nodes.websocket_image_save", ""),  # every ComfyUI has this file
        ("comfy_extras.nodes_flux", ""),
        ("nodes", ""),
        (3, ""),
    ],
)
def test_class_knows_the_folder_of_its_node_pack(module: Any, pack: str) -> None:
    info = NodeInfo.from_object_info({"One": {**node({}), "python_module": module}})
    assert info.classes["One"].pack == pack


def test_inputs_are_parsed_in_order_with_required_ones_first() -> None:
    sampler = small_info().classes["Sampler"]
    assert list(sampler.inputs) == [
        "model", "seed", "steps", "cfg", "sampler_name", "positive", "latent_image", "tiled", "denoise",
    ]  # fmt: skip
    assert [one.kind for one in sampler.inputs.values()] == (
        ["link", "widget", "widget", "widget", "widget", "link", "link", "widget", "widget"]
    )
    assert [name for name, one in sampler.inputs.items() if not one.required] == ["tiled", "denoise"]
    assert sampler.outputs == ("LATENT",)
    assert not sampler.is_output
    save = small_info().classes["Save"]
    assert save.is_output
    assert save.hidden == ("prompt",)


def test_input_order_has_precedence_over_the_order_of_the_mapping() -> None:
    declared = node({"b": ["INT"], "a": ["INT"]})
    declared["input_order"] = {"required": ["a", "gone", "b"]}
    assert list(NodeInfo.from_object_info({"One": declared}).classes["One"].inputs) == ["a", "b"]


@pytest.mark.parametrize(
    ("declared", "schema"),
    [
        (["INT", {"min": 0, "max": 2**64 - 1}], {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}),
        (["INT"], {"type": "integer"}),
        (["FLOAT", {"min": 0, "max": 1.5, "step": 0.5}], {"type": "number", "minimum": 0, "maximum": 1.5}),
        (["FLOAT", {"min": None, "max": float("inf")}], {"type": "number"}),
        (["STRING", {"multiline": True}], {"type": "string"}),
        (["BOOLEAN", None], {"type": "boolean"}),
        ([["a", "b", "a"]], {"enum": ["a", "b"]}),
        ([[1, 1.5, True, None]], {"enum": [1, 1.5, True, None]}),
        ([[]], {"enum": []}),
        (["COMBO", {"options": ["a"], "multiselect": False}], {"enum": ["a"]}),
        (["COMBO", {"options": ["a"], "multiselect": True}], {"type": "array", "items": {"enum": ["a"]}}),
        (["COMBO", {"remote": {"route": "/x"}}], {}),
        ([["x.png"], {"image_upload": True}], {"type": "string", "minLength": 1}),
        (["INT,FLOAT", {"min": 1}], {"type": ["integer", "number"], "minimum": 1}),
        (["COMBO,INT"], {"type": ["integer", "string"]}),
        (["IMAGE"], None),
        (["*", {}], {}),
        (["COLOR", {"default": "#fff"}], {"type": "string"}),
        (["CURVE", {"default": []}], {}),
        (["INT", {"forceInput": True}], {"type": "integer"}),
        (["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "IMAGE,MASK"}}], None),
    ],
)
def test_a_declaration_becomes_the_schema_of_its_literals(declared: Any, schema: Any) -> None:
    spec = spec_of(declared)
    assert spec.schema == schema
    if schema is not None:
        Draft202012Validator.check_schema(schema)
        json.dumps(schema, allow_nan=False)


def test_choices_with_pictures_are_accepted_whole_and_by_name() -> None:
    option = {"content": "a.safetensors", "image": "a.png"}
    schema = spec_of([[option]]).schema
    assert schema is not None
    validator = Draft202012Validator(schema)
    assert validator.is_valid(option)
    assert validator.is_valid("a.safetensors")
    assert validator.is_valid({"content": "a.safetensors", "image": None})
    assert not validator.is_valid("b.safetensors")


def test_types_of_outputs_are_links_and_other_types_are_widgets() -> None:
    assert spec_of(["COLOR"]).kind == "widget"
    linked = spec_of(["COLOR"], others={"Maker": node({}, "COLOR")})
    assert (linked.kind, linked.schema) == ("link", None)
    assert spec_of(["FLOATS", {"forceInput": True, "default": -1}]).schema is None
    assert spec_of(["INT", {"forceInput": True}]).kind == "link"
    assert spec_of(["INT", {"socketless": True}]).kind == "widget"
    assert spec_of(["IMAGE,NEW"]).kind == "link"


def test_a_union_of_types_is_a_link_unless_it_names_a_widget() -> None:
    assert spec_of(["FLOAT,INT", {"min": 1}]).kind == "link"
    assert spec_of(["FLOAT,INT", {"min": 1, "widgetType": "FLOAT"}]).kind == "widget"


def test_a_missing_default_differs_from_null() -> None:
    assert spec_of(["INT", {"default": 3}]).default == 3
    assert spec_of(["INT", {"default": None}]).default is None
    assert spec_of(["INT"]).default is MISSING


@pytest.mark.parametrize(
    "declared",
    [None, [], {}, 7, [None], [7, {}], [{"a": 1}], ["a", "b"], [[["a"], ["b"]]], ["COMBO"],
     ["COMBO", {"options": None}], ["INT", []], ["COMFY_AUTOGROW_V3"],
     ["COMFY_AUTOGROW_V3", {"template": {"input": None}}],
     ["COMFY_DYNAMICCOMBO_V3", {"options": [None, {"key": 1}]}], ["COMFY_NEW_V3", {}]],
)  # fmt: skip
def test_odd_declarations_of_custom_nodes_are_accepted(declared: Any) -> None:
    spec = NodeInfo.from_object_info({"One": node({"x": declared})}).classes["One"]
    for one in spec.inputs.values():
        if one.schema is not None:
            Draft202012Validator.check_schema(dict(one.schema))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["INT", "COMBO", "COMFY_AUTOGROW_V3", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["required", "optional", "input", "options", "key", "inputs", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=3))
def test_any_json_is_parsed_or_refused(answer: dict[str, Any]) -> None:
    try:
        info = NodeInfo.from_object_info(answer)
    except InputError:
        return
    assert set(info.classes) == set(answer)


def test_a_response_that_is_not_object_info_is_refused() -> None:
    with pytest.raises(InputError, match="this is not an object_info"):
        NodeInfo.from_object_info({"error": "unauthorized"})
    with pytest.raises(InputError, match="this is not an object_info"):
        NodeInfo.from_object_info([])  # type: ignore[arg-type]


def test_parsed_values_are_immutable() -> None:
    info = small_info()
    for value, name in (
        (info, "classes"),
        (info.classes["Save"], "inputs"),
        (info.classes["Save"].inputs["images"], "type"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_a_dynamic_combo_adds_the_inputs_of_its_value() -> None:
    spec = small_info().classes["SaveAs"]
    assert list(spec.resolve_inputs({"format": "png"})) == ["images", "format", "format.depth"]
    assert list(spec.resolve_inputs({"format": "jpeg"})) == ["images", "format", "format.quality"]
    assert list(spec.resolve_inputs({"format": "gif"})) == ["images", "format"]


def test_a_branch_may_contain_dynamic_inputs() -> None:
    inner = {"options": [{"key": "h264", "inputs": {"optional": {"crf": ["INT"]}}}, {"key": "auto", "inputs": {}}]}
    template = {"input": {"required": {"image": ["IMAGE"]}}, "prefix": "image", "min": 1, "max": 3}
    groups = {
        "required": {"codec": ["COMFY_DYNAMICCOMBO_V3", inner]},
        "optional": {"covers": ["COMFY_AUTOGROW_V3", {"template": template}]},
    }
    declared = node({"format": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "mp4", "inputs": groups}]}]})
    spec = NodeInfo.from_object_info({"One": declared}).classes["One"]
    resolved = spec.resolve_inputs({"format": "mp4", "format.codec": "h264", "format.covers.image2": ["1", 0]})
    assert {name: (one.kind, one.required) for name, one in resolved.items()} == {
        "format": ("widget", True),
        "format.codec": ("widget", True),
        "format.codec.crf": ("widget", False),
        "format.covers.image0": ("link", True),
        "format.covers.image2": ("link", False),
    }


def test_a_match_template_has_its_allowed_types() -> None:
    declared = node(
        {"x": match("IMAGE,MASK"), "y": match("*"), "z": ["INT"]},
        "COMFY_MATCHTYPE_V3",
        "INT",
        output_matchtypes=["t", None],
    )
    spec = NodeInfo.from_object_info({"One": declared}).classes["One"]
    assert [(one.kind, one.type, one.match_template) for one in spec.inputs.values()] == [
        ("link", "IMAGE,MASK", "t"),
        ("link", "*", "t"),
        ("widget", "INT", ""),
    ]
    assert spec.output_templates == ("t", "")


def test_an_autogrowing_input_has_numbered_inputs_and_requires_the_first() -> None:
    inputs = small_info().classes["Batch"].resolve_inputs({"images.image5": ["1", 0]})
    assert {name: spec.required for name, spec in inputs.items()} == {
        "images.image0": True,
        "images.image1": True,
        "images.image5": False,
    }
    assert all(spec.type == "IMAGE" for spec in inputs.values())


def test_an_autogrowing_input_may_list_names_or_accept_all() -> None:
    template = {"input": {"optional": {"x": ["INT", {"min": 3}]}}, "names": ["a", "b"], "min": 1}
    declared = node(
        {"row": ["COMFY_AUTOGROW_V3", {"template": template}], "new": ["COMFY_AUTOGROW_V3", {"template": 1}]}
    )
    spec = NodeInfo.from_object_info({"One": declared}).classes["One"]
    inputs = spec.resolve_inputs({"row.b": 1, "new.x": 2})
    assert [(name, input_spec.required, input_spec.schema) for name, input_spec in inputs.items()] == [
        ("row.b", False, {"type": "integer", "minimum": 3})
    ]
    assert spec.can_take_undeclared("new.x")
    assert not spec.can_take_undeclared("newer.x")


def test_with_any_model_frees_only_model_files() -> None:
    info = small_info().with_any_model()
    assert info.classes["Loader"].inputs["ckpt_name"].schema == {"type": "string", "minLength": 1}
    assert info.classes["Empty"].inputs["lora_name"].schema == {"type": "string", "minLength": 1}
    assert info.classes["Sampler"].inputs["sampler_name"].schema == {"enum": SAMPLERS}
    assert info.classes["Sampler"].inputs["sampler_name"].choices == tuple(SAMPLERS)


def test_parsing_does_not_change_the_response() -> None:
    before = json.dumps(OBJECT_INFO)
    small_info().with_any_model()
    assert json.dumps(OBJECT_INFO) == before
