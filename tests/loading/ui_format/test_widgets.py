from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import UiFormatError, convert_to_api
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, canvas, declare_class, node, plain, socket


def convert(*nodes: dict[str, Any], links: Any = (), info: Any = OBJECT_INFO) -> dict[str, Any]:
    return plain(convert_to_api(canvas(*nodes, links=links), info).graph)


def reason(*nodes: dict[str, Any], links: Any = (), info: Any = OBJECT_INFO) -> list[str]:
    with pytest.raises(UiFormatError) as caught:
        convert_to_api(canvas(*nodes, links=links), info)
    return [sentence for _, sentence in caught.value.problems[1:]]


def sample(values: Any, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return node(3, "Sample", *inputs, values=values, **more)


def test_values_follow_the_order_of_the_class_without_controls() -> None:
    graph = convert(sample([7, "randomize", 20, 8, "euler", True]))
    assert graph == {"3": ("Sample", {"seed": 7, "steps": 20, "cfg": 8, "sampler": "euler", "tile": True})}
    assert list(graph["3"][1]) == ["seed", "steps", "cfg", "sampler", "tile"]


@pytest.mark.parametrize("control", [["fixed"], [True], []], ids=["a word", "the first editors' boolean", "none"])
def test_all_values_of_the_seed_control_are_recognised(control: list[Any]) -> None:
    assert convert(sample([2**64 - 1, *control, 20, 8, "euler", False]))["3"][1]["seed"] == 2**64 - 1


def test_an_input_named_seed_has_a_control() -> None:
    info = {"Old": declare_class({"noise_seed": ["INT", {"default": 0}], "end": ["INT", {}]}, [])}
    assert convert(node(1, "Old", values=[5, "increment", 9]), info=info) == {"1": ("Old", {"noise_seed": 5, "end": 9})}


def test_values_may_be_saved_by_name() -> None:
    values = {"seed": 1, "steps": 2, "cfg": 3.5, "sampler": "heun", "tile": False, "preview": {"hidden": True}}
    del (expected := dict(values))["preview"]
    assert convert(sample(values)) == {"3": ("Sample", expected)}


def test_a_missing_value_by_name_is_refused() -> None:
    assert reason(sample({"seed": 1, "steps": 2, "cfg": 3.5, "sampler": "heun"})) == [
        "node 3 (Sample) has no value for its input 'tile'"
    ]


def test_values_of_upload_buttons_and_previews_are_not_sent() -> None:
    assert convert(node(1, "Photo", values=["x.png", "image"])) == {"1": ("Photo", {"image": "x.png"})}
    assert convert(node(1, "Photo", values=["x.png", "image", ""])) == {"1": ("Photo", {"image": "x.png"})}
    assert convert(node(1, "Number", values=[4, None])) == {"1": ("Number", {"value": 4})}


def test_a_list_value_is_wrapped_to_differ_from_a_link() -> None:
    assert convert(node(1, "Many", values=[["a", "b"]])) == {"1": ("Many", {"names": {"__value__": ["a", "b"]}})}


def test_a_whole_float_becomes_an_integer() -> None:
    assert type(convert(node(1, "Number", values=[4.0]))["1"][1]["value"]) is int


def test_an_input_newer_than_the_file_gets_the_default_and_a_note() -> None:
    result = convert_to_api(canvas(sample([7, "fixed", 20, 8, "euler"])), OBJECT_INFO)
    assert result.graph["3"]["inputs"]["tile"] is False
    assert result.notes == (
        (("nodes", 0), "node 3 (Sample) was saved before its class had 'tile' = False, the server's default"),
    )


def test_a_new_input_without_a_safe_default_is_refused() -> None:
    info = {
        "Bare": declare_class({"a": ["INT", {}], "b": ["INT", {}]}, []),
        "Files": declare_class({"a": ["INT", {}], "b": [["m.safetensors"]]}, []),
        "Words": declare_class({"a": ["INT", {}], "b": [["first", "second"]]}, []),
    }
    assert len(reason(node(1, "Bare", values=[1]), node(2, "Files", values=[1]), info=info)) == 2
    assert convert(node(1, "Words", values=[1]), info=info) == {"1": ("Words", {"a": 1, "b": "first"})}


def test_a_short_list_must_respect_the_limits_of_the_class() -> None:
    assert reason(sample([7, "fixed", 512, 8, "euler"])) == [
        (
            'node 3 (Sample) has 5 values (7, "fixed", 512, 8, "euler"), which do not fit the 5 inputs that the '
            "server's class shows as widgets (seed, steps, cfg, sampler, tile)"
        )
    ]


@pytest.mark.parametrize(
    "values",
    [
        [7, "randomize", 20, 8, "euler", True, "more"],
        [7, "randomize", "20", 8, "euler", True],
        [7, "randomize", 20.5, 8, "euler", True],
        [7, "sometimes", 20, 8, "euler", True],
        [7, "randomize", 20, True, "euler", True],
        [7, "randomize", 20, 8, None, True],
        [7, "randomize", 20, 8, "euler", 1],
        [7, "randomize", 20, float("nan"), "euler", True],
    ],
)
def test_values_that_do_not_fit_are_refused_and_quoted(values: list[Any]) -> None:
    (sentence,) = reason(sample(values, title="Main"))
    assert sentence.startswith(f"node 3 (Sample, 'Main') has {len(values)} values (7, ")
    assert sentence.endswith("the server's class shows as widgets (seed, steps, cfg, sampler, tile)")


def test_ambiguous_values_are_refused() -> None:
    twice = {"seed": ["INT", {}], "on": ["BOOLEAN", {}], "off": ["BOOLEAN", {"default": True}]}
    info = {"Twice": declare_class(twice, [])}
    assert convert(node(1, "Twice", values=[1, True, False, True]), info=info) == {
        "1": ("Twice", {"seed": 1, "on": False, "off": True})
    }
    info = {
        "Loose": declare_class(
            {"seed": ["INT", {}], "mode": [["fixed", "free"]], "count": ["INT", {"forceInput": True}], "way": [["a"]]},
            [],
        )
    }
    assert reason(node(1, "Loose", values=[1, "fixed", "free", "a"]), info=info) == [
        "node 1 (Loose) has values that fit its inputs in more than one way"
    ]


def test_a_random_seed_is_refused() -> None:
    assert reason(sample([-1, "fixed", 20, 8, "euler", True])) == [
        "node 3 (Sample) has -1 for its 'seed', which its page replaces by a random one; write a number"
    ]


def test_a_value_of_an_input_that_is_now_a_link_is_skipped() -> None:
    link = (1, 9, 0, 1, 0, "INT")
    for values in ([3], [0, 3]):  # without, and with the value that editors before 1.16 saved
        graph = convert(
            node(1, "Forced", socket("count", "INT", 1), values=values), node(9, "Number", values=[1]), links=[link]
        )
        assert graph["1"] == ("Forced", {"size": 3, "count": ["9", 0]})


def test_a_linked_socket_without_a_widget_may_lack_a_value() -> None:
    graph = convert(
        node(1, "Number", socket("value", "INT", 1), values=[]),
        node(9, "Number", values=[1]),
        links=[(1, 9, 0, 1, 0, "INT")],
    )
    assert graph["1"] == ("Number", {"value": ["9", 0]})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, "randomize", 20, 8, "euler", None], {"cfg": 8, "sampler": "euler"}),  # of its type, or null
        ([{"old": 1}, "randomize", 20, 8, "euler", False], {"cfg": 8, "sampler": "euler"}),  # any value
    ],
)
def test_values_of_linked_widgets_do_not_shift_the_others(values: list[Any], expected: Any) -> None:
    linked = [socket("seed", "INT", 1, widget=True), socket("steps", "INT", 2, widget=True)]
    linked += [socket("tile", "BOOLEAN", 3, widget=True)]
    links = [(n, 9, 0, 3, n - 1, "INT") for n in (1, 2, 3)]
    inputs = convert(sample(values, *linked), node(9, "Number", values=[1]), links=links)["3"][1]
    assert {name: inputs[name] for name in expected} == expected
    assert inputs["seed"] == inputs["steps"] == inputs["tile"] == ["9", 0]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a fox", "a fox"),
        ("a fox // not this\nat night", "a fox \nat night"),
        ("a /* small\n */fox", "a fox"),
        ("a {red} fox", "a red fox"),
        (r"a \{red\|blue\} fox", "a {red|blue} fox"),
    ],
)
def test_a_prompt_is_converted_as_by_the_editor(text: str, sent: str) -> None:
    assert convert(node(1, "Encode", values=[text]))["1"][1]["text"] == sent


def test_a_prompt_with_random_choices_is_refused() -> None:
    assert reason(node(1, "Encode", values=["a {red|{dark |}blue} fox"])) == [
        (
            'node 1 (Encode) has the text "a {red|{dark |}blue} fox", and ComfyUI\'s page picks one of the '
            "{choices|like these} at random when it queues; write one of them (a sweep can try all of them: `choices`)"
        )
    ]


def test_deeply_nested_braces_are_refused() -> None:
    assert reason(node(1, "Encode", values=["{" * 5000])) == [
        "node 1 (Encode) has a text with more than 50 nested braces"
    ]


def test_inputs_with_unknown_widgets_are_refused() -> None:
    assert reason(node(1, "Coloured", values=["#fff"]), node(2, "Growing")) == [
        "node 1 (Coloured) has the input 'tint' (TINT), whose widget only ComfyUI's page knows",
        "node 2 (Growing) has the input 'images', which grows with what is linked to it",
    ]


def test_a_file_name_with_placeholders_of_the_page_gives_a_note() -> None:
    saved = node(9, "Save", socket("images", "IMAGE", 1), values=["%date:yyyy%/x"])
    result = convert_to_api(
        canvas(saved, node(1, "Photo", values=["x.png"]), links=[(1, 1, 0, 9, 0, "IMAGE")]), OBJECT_INFO
    )
    assert result.graph["9"]["inputs"] == {"filename_prefix": "%date:yyyy%/x", "images": ["1", 0]}
    assert [note for _, note in result.notes] == [
        "node 9 (Save) has '%date:yyyy%/x', whose %...% only ComfyUI's page replaces"
    ]


def test_custom_classes_give_a_note_about_their_scripts() -> None:
    info = {**OBJECT_INFO, "Number": {**OBJECT_INFO["Number"], "python_module": "custom_nodes.numbers"}}
    assert convert_to_api(canvas(node(1, "Number", values=[1])), info).notes == (
        ((), "what scripts of custom nodes change on the page is not followed: Number"),
    )
