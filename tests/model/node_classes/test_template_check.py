"""The check of a template finds the same problems as a check of every rendered workflow."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.loading.parse import parse_json, parse_yaml
from sweeper.loading.template_builder import build_template
from sweeper.model.node_classes import (
    check_template,
    find_graph_problems,
    infer_slot_schema,
)
from sweeper.model.template import Template
from tests.model.node_classes.small_object_info import find_problems, of, small_info, workflow

INFO = small_info()


def template(graph: dict[str, Any], slots: dict[str, Any] | None = None) -> Template:
    sidecar = parse_yaml(json.dumps({"slots": slots}), "x.slots.yaml") if slots else None
    return build_template(parse_json(json.dumps(graph), "x.json"), sidecar)


def sentences(bound: Template, **params: Any) -> list[str]:
    return [message for _, message in find_problems(check_template(bound, INFO), params)]


# --- both checks agree

# The forms of an input: its own value, an own or shared slot, a text of two slots, a computation, a part.
FORMS = ["own", "{{ a }}", "{{ b }}", "{{ c | default(3) }}", "{{ a }}-{{ b }}", "x{{ a }}", "{{ a ~ b }}", "nested"]
PLACES = [
    ("3", "seed"), ("3", "steps"), ("3", "cfg"), ("3", "sampler_name"), ("3", "model"), ("3", "tiled"), ("3", "zz"),
    ("4", "ckpt_name"), ("5", "width"), ("6", "text"), ("9", "images"), ("10", "format"), ("10", "format.quality"),
    ("11", "tags"), ("12", "image"), ("13", "any"), ("14", "image_1"), ("15", "thing"),
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            0, 1, 20, 512, 2**64, -1, 7.5, 20.0, True, None, "", "euler", "eul", "paint.safetensors", "7", "png",
            "jpeg", "hills.png", "a", ["4", 0], ["5", 0], ["3", 0], ["8", 0], ["14", 0], ["99", 0], ["4", 9], [4, 0],
            [1, 2, 3], {"__value__": 20}, {"__value__": ["a"]}, {"__value__": ["c"]}, {"x": 1}, [], ["a", "b"],
        ]
    ),
    st.integers(),
    st.text(max_size=3),
)  # fmt: skip
EXTRA = {
    "10": of("SaveAs", images=["8", 0], format="jpeg", **{"format.quality": 9, "format.depth": "8"}),
    "11": of("Tags", tags={"__value__": ["a"]}),
    "12": of("LoadImage", image="hills.png"),
    "13": of("Switch", any=["8", 0]),
    "14": of("Row", image_1=["12", 0], count=1),
    "15": of("Gone", thing=1),
}


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """A workflow with random slots: inline in every form, and in a slots file."""
    nodes = draw(st.sets(st.sampled_from(list(EXTRA))))
    nodes |= {"12"} if "14" in nodes else set()
    graph = workflow(**{f"n{node_id}": copy.deepcopy(EXTRA[node_id]) for node_id in sorted(nodes)})
    if "11" in nodes and draw(st.booleans()):
        graph["6"]["inputs"]["text"] = ["11", 0]
    if "14" in nodes and draw(st.booleans()):
        graph["9"]["inputs"]["images"] = ["14", 0]
    if draw(st.booleans()):
        del graph["6"]["inputs"]["clip"]
    slots: dict[str, Any] = {}
    for node_id, name in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=6, unique=True)):
        if node_id not in graph:
            continue
        inputs = graph[node_id]["inputs"]
        form = draw(st.sampled_from(FORMS))
        if form == "own":
            inputs.setdefault(name, 0)
            slots[f"slot_{node_id}_{name.replace('.', '_')}"] = {"at": f"{node_id}.{name}"}
        elif form == "nested":
            inputs[name] = draw(
                st.sampled_from([{"__value__": ["{{ a }}", "b"]}, ["{{ a }}", "{{ b }}"], {"x": "{{ c }}"}])
            )
        else:
            inputs[name] = form
    return template(graph, slots or None)


@settings(max_examples=80)
@given(bound=templates(), data=st.data())
def test_the_template_check_agrees_with_the_check_of_each_workflow(bound: Template, data: st.DataObject) -> None:
    check = check_template(bound, INFO)
    for _ in range(3):
        params = {name: data.draw(VALUES, label=name) for name in bound.slots}
        fast = sorted(map(repr, find_problems(check, params)))
        slow = sorted(map(repr, find_graph_problems(bound.render(params), INFO)))
        assert fast == slow


@settings(max_examples=30)
@given(bound=templates(), data=st.data())
def test_an_input_check_depends_only_on_its_slots(bound: Template, data: st.DataObject) -> None:
    for piece in check_template(bound, INFO).input_checks:
        params = {name: data.draw(VALUES, label=name) for name in bound.slots}
        own = {name: params[name] for name in piece.slots}
        assert repr(piece.check_values(params)) == repr(piece.check_values(own))


# --- cost


def test_sole_slots_have_a_check_and_free_texts_have_none() -> None:
    graph = workflow(n3_seed="{{ seed }}", n5_width="{{ size }}", n5_height="{{ size }}", n6_text="{{ a }}, {{ b }}")
    pieces = check_template(template(graph), INFO).input_checks
    assert {(piece.node, piece.input, piece.slots) for piece in pieces} == {
        ("3", "seed", ("seed",)),
        ("5", "width", ("size",)),
        ("5", "height", ("size",)),
    }


def test_a_combined_name_is_checked_over_all_its_slots() -> None:
    bound = template(workflow(n4_ckpt_name="{{ style }}.{{ kind }}"))
    check = check_template(bound, INFO)
    assert [piece.slots for piece in check.input_checks] == [("style", "kind")]
    assert find_problems(check, {"style": "paint", "kind": "safetensors"}) == []
    assert sentences(bound, style="oil", kind="pt") == [
        "node 4 (Loader) ckpt_name: found 'oil.pt'; allowed: paint.safetensors, photo.safetensors"
    ]


def test_a_combined_text_fits_a_number_input_only_if_it_is_a_number() -> None:
    bound = template(workflow(n3_steps="{{ a }}{{ b }}"))
    assert sentences(bound, a=1, b=2) == []
    assert sentences(bound, a=1, b="x") == ["node 3 (Sampler) steps: found '1x', but an integer is needed"]


def test_a_node_with_a_dynamic_combo_is_checked_as_a_whole() -> None:
    save = of("SaveAs", images=["8", 0], format="{{ format }}", **{"format.quality": "{{ quality }}"})
    bound = template(workflow(n9=save))
    check = check_template(bound, INFO)
    assert [piece.slots for piece in check.input_checks] == [("format", "quality")]
    assert find_problems(check, {"format": "jpeg", "quality": 90}) == []
    assert sentences(bound, format="jpeg", quality=900) == [
        "node 9 (SaveAs) format.quality: found 900, but at most 100 is needed"
    ]
    assert sentences(bound, format="png", quality=900) == [
        "node 9 (SaveAs): the required input 'format.depth' is missing; format 'png' needs it (to sweep 'format', list "
        "under `branches` in the slots file which inputs each choice has)"
    ]


def test_a_value_that_is_a_link_makes_the_whole_graph_be_checked() -> None:
    graph = workflow(n20=of("Loader", ckpt_name="gone.pt"))
    bound = template(graph, {"model": {"at": "3.model", "default": ["4", 0]}})
    check = check_template(bound, INFO)
    assert check.input_checks[0].check_values({"model": ["4", 0]})[1]
    assert find_problems(check, {"model": ["4", 0]}) == []
    assert [message for _, message in find_problems(check, {"model": ["20", 0]})] == [
        "node 20 (Loader) ckpt_name: found 'gone.pt'; allowed: paint.safetensors, photo.safetensors"
    ]
    assert not check.input_checks[0].check_values({"model": "x"})[1]


# --- problems of the template alone


def test_problems_without_slots_are_fixed_problems() -> None:
    check = check_template(template(workflow(n3_steps=0, n3_seed="{{ seed }}")), INFO)
    assert [message for _, message in check.fixed_problems] == [
        "node 3 (Sampler) steps: found 0, but at least 1 is needed"
    ]
    assert [message for _, message in find_problems(check, {"seed": -1})][1:] == [
        "node 3 (Sampler) seed: found -1, but at least 0 is needed"
    ]


def test_a_slot_at_an_undeclared_input_is_ignored() -> None:
    check = check_template(template(workflow(n3_stps="{{ steps }}")), INFO)
    assert check.ignored == (
        (
            ("3", "inputs", "stps"),
            "node 3 (Sampler) stps: steps would change nothing: Sampler has no such input; did you mean 'steps'?",
        ),
    )
    switch = workflow(n7=of("Switch", any="{{ x }}"), n9_images=["7", 0])
    assert check_template(template(switch), INFO).ignored == ()


def test_a_slot_without_effect_gives_a_note() -> None:
    check = check_template(template(workflow(n20=of("Latent", width="{{ lost }}", height=64))), INFO)
    assert find_problems(check, {"lost": "nonsense"}) == []
    assert "slot 'lost' has no effect: no output depends on node 20" in [message for _, message in check.notes]


def test_the_file_of_a_file_slot_may_be_missing_on_the_server() -> None:
    graph = workflow(n7=of("LoadImage", image="hills.png"), n9_images=["7", 0])
    bound = template(graph, {"picture": {"at": "7.image", "kind": "file"}})
    assert sentences(bound, picture="inputs/mine.png") == []
    assert sentences(bound, picture="mine.png") == []
    assert infer_slot_schema(bound, "picture", INFO) is None
    at_a_link = template(graph, {"picture": {"at": "9.images", "kind": "file"}})
    assert sentences(at_a_link, picture="mine.png") == [
        "node 9 (Save) images: found 'mine.png', but a link to an IMAGE output is needed"
    ]


# --- schemas


@pytest.mark.parametrize(
    ("changes", "schema"),
    [
        ({"n3_seed": "{{ x }}"}, {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}),
        ({"n3_steps": "{{ x | default(20) }}"}, {"type": "integer", "minimum": 1, "maximum": 10000}),
        ({"n6_text": "{{ x | default('a, b') }}"}, {"type": "string"}),
        ({"n3_sampler_name": "{{- x -}}"}, {"enum": ["euler", "heun", "dpmpp_2m"]}),
        ({"n5_width": "{{ x }}", "n5_height": "{{ x }}"}, {"type": "integer", "minimum": 32, "maximum": 8192}),
        ({"n3_steps": "{{ x }}", "n3_cfg": "{{ x }}"}, {"type": "number", "minimum": 0.0, "maximum": 100.0}),
        ({"n3_steps": "{{ x * 2 }}"}, None),
        ({"n6_text": "a {{ x }}"}, None),
        ({"n3_model": "{{ x }}"}, None),
        ({"n3_steps": "{{ x | default(1, true) }}"}, None),
        ({"n3_extra": "{{ x }}"}, None),
        ({"n6_text": {"__value__": ["{{ x }}"]}}, None),
    ],
)
def test_the_schema_of_a_slot_is_that_of_its_first_whole_input(changes: dict[str, Any], schema: Any) -> None:
    assert infer_slot_schema(template(workflow(**changes)), "x", INFO) == schema
