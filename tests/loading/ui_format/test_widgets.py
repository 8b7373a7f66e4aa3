from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import UiFormatError, convert_to_api
from tests.loading.ui_format.ui_workflows import (
    GROWING,
    OBJECT_INFO,
    SEED,
    TEXT,
    canvas,
    declare_class,
    node,
    plain,
    socket,
)


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


@pytest.mark.parametrize("control", ["fixed", True, None], ids=["a word", "the first editors' boolean", "nothing"])
def test_all_values_of_the_seed_control_are_recognised(control: Any) -> None:
    assert convert(sample([2**64 - 1, control, 20, 8, "euler", False]))["3"][1]["seed"] == 2**64 - 1


def test_a_control_never_becomes_the_value_of_a_new_input() -> None:
    info = {"Paid": declare_class({"seed": SEED, "system_prompt": TEXT, "size": [["1K", "2K"]]}, [])}
    assert convert(node(1, "Paid", values=[5, "randomize"]), info=info) == {
        "1": ("Paid", {"seed": 5, "system_prompt": "", "size": "1K"})
    }
    assert reason(node(1, "Paid", values=[5, "1K", "randomize"]), info=info) == [
        "node 1 (Paid) has \"1K\" for the control of its input 'seed'"
    ]


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


def test_new_inputs_get_what_the_page_gives_them() -> None:
    info = {
        "Bare": declare_class(
            {"a": ["INT", {}], "b": ["INT", {}], "c": ["STRING"], "d": [[]], "e": [["first", "second"]]}, []
        )
    }
    assert convert(node(1, "Bare", values=[1]), info=info) == {"1": ("Bare", {"a": 1, "b": 0, "c": "", "e": "first"})}


def test_values_in_excess_are_those_of_previews() -> None:
    status = "Status: Completed\nPrice: $0.12"
    assert convert(sample([7, "randomize", 20, 8, "euler", True, status, {"a": 1}]))["3"][1]["tile"] is True


def test_an_upload_button_saved_as_an_object_is_skipped() -> None:
    assert convert(node(1, "Photo", values=["x.png", {"image": "x.png"}])) == {"1": ("Photo", {"image": "x.png"})}


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ([7, "randomize", "20", 8, "euler", True], "\"20\" for its input 'steps' (INT)"),
        ([7, "randomize", 20.5, 8, "euler", True], "20.5 for its input 'steps' (INT)"),
        ([7, "randomize", 20, True, "euler", True], "true for its input 'cfg' (FLOAT)"),
        ([7, "randomize", 20, 8, {"a": 1}, True], "{\"a\": 1} for its input 'sampler' (COMBO)"),
        ([7, "randomize", 20, 8, "euler", "yes"], "\"yes\" for its input 'tile' (BOOLEAN)"),
        ([7, "randomize", 20, float("nan"), "euler", True], "NaN for its input 'cfg' (FLOAT)"),
        ([7, "sometimes", 20, 8, "euler", True], "\"sometimes\" for the control of its input 'seed'"),
    ],
)
def test_a_value_that_cannot_be_its_widgets_is_refused(values: list[Any], wrong: str) -> None:
    (sentence,) = reason(sample(values, title="Main"))
    assert sentence.removesuffix("; the file was saved with another version of the class") == (
        f"node 3 (Sample, 'Main') has {wrong}"
    )


def test_null_is_kept_except_in_combos_and_long_texts() -> None:
    assert convert(sample([None, None, None, None, None, None]))["3"][1] == {
        "seed": None,
        "steps": None,
        "cfg": None,
        "sampler": "euler",
        "tile": None,
    }
    assert convert(node(1, "Encode", values=[None]))["1"][1] == {"text": ""}


def test_a_number_for_a_boolean_is_read_as_by_the_server() -> None:
    assert convert(sample([7, "fixed", 20, 8, "euler", 0]))["3"][1]["tile"] is False


def test_a_custom_class_may_have_widgets_that_only_its_script_knows() -> None:
    custom = {"python_module": "custom_nodes.numbers"}
    info = {"Number": {**OBJECT_INFO["Number"], **custom}, "Sample": {**OBJECT_INFO["Sample"], **custom}}
    assert convert(node(1, "Number", values=[1, "image", None]), info=info) == {"1": ("Number", {"value": 1})}
    assert reason(node(1, "Number", values=[1, 2]), sample([-1, "fixed", 20, 8, "euler", True]), info=info) == [
        "node 1 (Number) has 2 values for the 1 widgets of the server's class (value)",
        "node 3 (Sample) has -1 for its 'seed', which its page replaces by a random one; write a number",
    ]


def test_a_dynamic_combo_adds_the_inputs_of_its_branch() -> None:
    nested = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "n", "inputs": {"required": {"depth": ["INT", {}]}}}]}]
    options = [
        {"key": "width", "inputs": {"required": {"width": ["INT", {"default": 512}], "images": GROWING}}},
        {"key": "factor", "inputs": {"required": {"factor": ["FLOAT", {}]}, "optional": {"more": nested}}},
    ]
    resize = declare_class({"by": ["COMFY_DYNAMICCOMBO_V3", {"options": options}], "crop": [["no", "yes"]]}, ["IMAGE"])
    info = {**OBJECT_INFO, "Resize": resize}
    width = node(1, "Resize", socket("by.images.image0", "IMAGE", 1), values=["width", 640, "yes"])
    links = [(1, 9, 0, 1, 0, "IMAGE")]
    photo = node(9, "Photo", values=["x.png"])
    assert convert(width, photo, links=links, info=info)["1"][1] == {
        "by": "width",
        "by.width": 640,
        "by.images.image0": ["9", 0],
        "crop": "yes",
    }
    factor = node(1, "Resize", socket("by.images.image0", "IMAGE", 1), values=["factor", 1.5, "n", 3, "yes"])
    result = convert_to_api(canvas(factor, photo, links=links), info)
    assert result.graph["1"]["inputs"] == {
        "by": "factor",
        "by.factor": 1.5,
        "by.more": "n",
        "by.more.depth": 3,
        "crop": "yes",
    }
    assert result.notes[0][1] == "node 1 (Resize) has no input 'by.images.image0'; its link is left out"
    assert convert(node(1, "Resize", values=[]), info=info)["1"][1] == {"by": "width", "by.width": 512, "crop": "no"}
    assert reason(node(1, "Resize", values=["widht", 3, "yes"]), info=info) == [
        "node 1 (Resize) has \"widht\" for its input 'by', which the server does not offer; did you mean 'width'?"
    ]


def test_widgets_that_only_the_page_has_take_part_in_the_order() -> None:
    info = {
        "Crop": declare_class({"box": ["BOUNDING_BOX", {}], "pad": ["INT", {}]}, []),
        "Load3D": declare_class({"model_file": [["none"]], "width": ["INT", {}], "image": ["LOAD_3D", {}]}, []),
        "Viewer": declare_class({"viewport_state": ["LOAD_3D", {}], "width": ["INT", {}]}, []),
        "Compare": declare_class({"view": ["IMAGECOMPARE", {}], "width": ["INT", {}]}, []),
        "CustomCombo": declare_class({"choice": ["COMBO", {"options": []}]}, []),
        "Picks": declare_class({"model": [["a", "b"], {"control_after_generate": True}], "width": ["INT", {}]}, []),
    }
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    nodes = [
        *(node(1, "Crop", values=[box, 1, 2, 3, 4, 9]), node(2, "Viewer", values=["", 9])),
        *(node(3, "Compare", values=[9]), node(4, "CustomCombo", values=["b", 1, "a", "b", "", "c"])),
        node(5, "Picks", values=["b", "randomize", "", 9]),
    ]
    assert {node_id: inputs for node_id, (_, inputs) in convert(*nodes, info=info).items()} == {
        "1": {"box": box, "pad": 9},
        "2": {"viewport_state": "", "width": 9},
        "3": {"view": {"__value__": ["", ""]}, "width": 9},
        "4": {"choice": "b", "index": 1},
        "5": {"model": "b", "width": 9},
    }
    microphone = {"Mic": declare_class({"audio": ["AUDIO_RECORD", {}]}, ["AUDIO"])}
    result = convert_to_api(canvas(node(1, "Mic", values=["blob:1", ""])), microphone)
    assert (result.graph["1"]["inputs"], result.notes[0][1]) == (
        {"audio": ""},
        "node 1 (Mic) records nothing here; give its 'audio' an audio file",
    )
    buttons = ["upload3dmodel", "uploadExtraResources", "clear"]
    assert reason(node(1, "Load3D", values=["none", 9, *buttons, ""]), info=info) == [
        "node 1 (Load3D) gets its 'image' from ComfyUI's page when it queues"
    ]


def test_a_value_of_an_input_that_is_now_a_link_is_skipped() -> None:
    link = (1, 9, 0, 1, 0, "INT")
    for values in ([3], [0, 3]):  # without, and with the value that editors before 1.16 saved
        graph = convert(
            node(1, "Forced", socket("count", "INT", 1), values=values), node(9, "Number", values=[1]), links=[link]
        )
        assert graph["1"] == ("Forced", {"size": 3, "count": ["9", 0]})


def test_values_of_linked_widgets_may_be_anything() -> None:
    linked = [socket("seed", "INT", 1, widget=True), socket("steps", "INT", 2, widget=True)]
    linked += [socket("tile", "BOOLEAN", 3)]
    links = [(n, 9, 0, 3, n - 1, "INT") for n in (1, 2, 3)]
    values = [{"old": 1}, "randomize", "x", 8, "euler"]
    inputs = convert(sample(values, *linked), node(9, "Number", values=[1]), links=links)["3"][1]
    assert inputs["cfg"] == 8
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
    assert reason(node(1, "Coloured", values=["#fff"])) == [
        "node 1 (Coloured) has the input 'tint' (TINT), whose widget only ComfyUI's page knows"
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
