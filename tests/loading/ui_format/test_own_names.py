"""Nodes of classes that the server does not have are read by the file's own names, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import ConversionResult, UiFormatError, convert_to_api
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, canvas, node, plain, socket

SAVE = node(9, "Save", socket("images", "IMAGE", 9), socket("filename_prefix", "STRING", widget=True), values=["C"])
OLD_SAVE = node(9, "Save", socket("images", "IMAGE", 9), values=["C"])
SEED = socket("seed", "INT", widget=True)
STEPS = socket("steps", "INT", widget=True)
MODE = socket("mode", "COMBO", widget=True)


def convert(*sockets: dict[str, Any], values: Any, save: Any = SAVE, **more: Any) -> ConversionResult:
    """Convert a node of an unknown class whose picture is saved."""
    strange = node(3, "Strange", *sockets, values=values, outputs=["IMAGE"], **more)
    return convert_to_api(canvas(strange, save, links=[(9, 3, 0, 9, 0, "IMAGE")]), OBJECT_INFO)


def read(*sockets: dict[str, Any], **more: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = convert(*sockets, **more).graph["3"]["inputs"]
    return inputs


def refuse(*sockets: dict[str, Any], **more: Any) -> str:
    with pytest.raises(UiFormatError) as caught:
        convert(*sockets, **more)
    (_, sentence), *rest = caught.value.problems[1:]
    assert rest == []
    return sentence


def test_the_sockets_of_widgets_name_the_values() -> None:
    result = convert(SEED, STEPS, MODE, values=[7, "randomize", 20, "hard"])
    assert plain(result.graph)["3"] == ("Strange", {"seed": 7, "steps": 20, "mode": "hard"})
    assert result.unchecked == ("Strange",)


def test_a_class_that_the_server_has_is_checked() -> None:
    assert convert_to_api(canvas(node(1, "Number", values=[4])), OBJECT_INFO).unchecked == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7, 20, "hard"], {"seed": 7, "steps": 20, "mode": "hard"}),
        ([7, "fixed", 20, "increment", "hard"], {"seed": 7, "steps": 20, "mode": "hard"}),
        ([7, 20, "hard", "image", None], {"seed": 7, "steps": 20, "mode": "hard"}),
        ([7, 20, "hard", [{"url": "/view", "name": "A"}]], {"seed": 7, "steps": 20, "mode": "hard"}),
    ],
    ids=["no control", "two controls", "buttons", "a viewer"],
)
def test_values_of_the_page_are_left_out(values: list[Any], expected: dict[str, Any]) -> None:
    assert read(SEED, STEPS, MODE, values=values) == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([7, "randomize", "hard"], "its widgets (seed, steps, mode) do not fit its 3 values"),
        ([7, "randomize", 20], "its widgets (seed, steps, mode) do not fit its 3 values"),
        ([7, 20], "its widgets (seed, steps, mode) do not fit its 2 values"),
        ([7, 20, "hard", "more"], "the file names only 3 of its 4 values"),
        ([20.5, 20, "hard"], "its widgets (seed, steps, mode) do not fit its 3 values"),
        ([7, True, "hard"], "its widgets (seed, steps, mode) do not fit its 3 values"),
    ],
    ids=["a control for a number", "a control, and one too few", "too few", "too many", "a fraction", "a boolean"],
)
def test_counts_and_types_that_do_not_fit_are_refused(values: list[Any], reason: str) -> None:
    assert refuse(SEED, STEPS, MODE, values=values) == (
        f"node 3 (Strange) is of a class that the server does not have, and {reason}; give a server that has it: "
        "--target URL"
    )


def test_a_seed_control_is_never_taken_for_the_next_choice() -> None:
    assert "do not fit" in refuse(SEED, MODE, values=[7, "randomize"])


def test_two_possible_readings_are_refused() -> None:
    label = socket("label", "STRING", widget=True)
    assert "in more than one way" in refuse(STEPS, label, values=[7, "fixed", ""])


def test_a_value_that_a_script_put_first_is_not_taken_for_the_first_input() -> None:
    odd = socket("text", "AUTOCOMPLETE_TEXT", widget=True)  # a type whose values nobody here knows
    assert "in more than one way" in refuse(odd, values=[{"version": 1}, "", []])
    assert read(odd, values=[{"version": 1}, "a fox"]) == {"text": "a fox"}
    plain_text = socket("text", "STRING", widget=True)
    assert read(plain_text, values=[{"version": 1}, "a fox"]) == {"text": "a fox"}


def test_a_null_is_refused_unless_the_input_is_linked() -> None:
    assert "has no value for its input 'steps'" in refuse(STEPS, values=[None])
    linked = socket("steps", "INT", 5, widget=True)
    number = node(4, "Number", socket("value", "INT", widget=True), values=[6])
    strange = node(3, "Strange", linked, values=[None], outputs=["IMAGE"])
    file = canvas(number, strange, SAVE, links=[(5, 4, 0, 3, 0, "INT"), (9, 3, 0, 9, 0, "IMAGE")])
    assert convert_to_api(file, OBJECT_INFO).graph["3"]["inputs"] == {"steps": ["4", 0]}


def test_an_old_file_names_only_linked_widgets() -> None:
    assert "names only 1 of its 3 values" in refuse(STEPS, values=[20, "hard", 1], save=OLD_SAVE)
    assert read(STEPS, values=[20], save=OLD_SAVE) == {"steps": 20}
    # The order of two unlinked ones is that of their conversion to inputs.
    assert "names only" in refuse(STEPS, SEED, values=[20, 7, "fixed"], save=OLD_SAVE)


def test_values_saved_by_name_need_no_sockets() -> None:
    values = {"frame_rate": 8, "format": "video/h264-mp4", "save_output": True, "videopreview": {"params": {}}}
    assert read(values={**values, "crf": None}, save=OLD_SAVE) == {
        "frame_rate": 8, "format": "video/h264-mp4", "save_output": True
    }  # fmt: skip


def test_the_second_list_of_newer_files_names_the_values() -> None:
    named = {"seed": 7, "control_after_generate": "fixed", "resize.width": 64}
    more = {"save": OLD_SAVE, "widgets_values_named": named}
    assert read(values=[7, "fixed", 64], **more) == {"seed": 7, "resize.width": 64}
    assert "its values by name are not those of its list" in refuse(values=[7, "fixed", 65], **more)


def test_the_refusal_names_the_node_pack_of_the_file() -> None:
    pack = {"cnr_id": "comfyui-strange", "ver": "0123456789abcdef0123"}
    assert "(by the file of the node pack comfyui-strange 0123456789ab), and the file does not name its 2 values" in (
        refuse(values=[1, 2], properties=pack)
    )
    assert "(by the file of the node pack me/strange)" in refuse(values=[1], properties={"aux_id": "me/strange"})


def test_a_negative_seed_is_refused_as_for_known_custom_nodes() -> None:
    assert "has -1 for its 'seed', which its page replaces by a random one" in refuse(SEED, values=[-1, "randomize"])


def test_a_text_with_braces_is_sent_as_it_is_with_a_note() -> None:
    result = convert(socket("text", "STRING", widget=True), values=["{a|b}"])
    assert result.graph["3"]["inputs"] == {"text": "{a|b}"}
    assert "node 3 (Strange) has a text with braces or comments, which is sent as it is" in [n for _, n in result.notes]


def test_unread_nodes_that_no_output_needs_are_left_out_with_a_note() -> None:
    photo = node(1, "Photo", socket("image", "COMBO", widget=True), values=["x.png"])
    save = node(9, "Save", socket("images", "IMAGE", 9), values=["C"])
    shows = node(4, "ShowText", socket("text", "STRING", 10), values=["a", "b"], outputs=[])
    label = node(5, "Label", values=["words"], outputs=[])
    number = node(6, "Number", values=[1])
    links = [(9, 1, 0, 9, 0, "IMAGE"), (10, 6, 0, 4, 0, "STRING")]
    result = convert_to_api(canvas(photo, save, number, shows, label, links=links), OBJECT_INFO)
    assert result.graph.keys() == {"1", "6", "9"}
    assert [note.partition(":")[0] for _, note in result.notes] == [
        "node 4 (ShowText) is left out", "node 5 (Label) is left out"
    ]  # fmt: skip


def test_an_unread_node_that_may_save_is_refused() -> None:
    photo = node(1, "Photo", values=["x.png"])
    saver = node(4, "SaveBetter", socket("images", "IMAGE", 10), values=["a", "b"], outputs=[])
    links = [(9, 1, 0, 9, 0, "IMAGE"), (10, 1, 0, 4, 0, "IMAGE")]
    with pytest.raises(UiFormatError, match="SaveBetter"):
        convert_to_api(canvas(photo, OLD_SAVE, saver, links=links), OBJECT_INFO)


def test_many_nodes_of_unknown_classes_are_refused_by_pack() -> None:
    """The file states ten packs of two nodes, and no pack of four nodes more."""
    packs = [{"cnr_id": f"pack-{number % 10}"} if number < 20 else {} for number in range(24)]
    strange = [
        node(number + 10, f"Strange{number}", values=[1, 2], outputs=["IMAGE"], properties=pack)
        for number, pack in enumerate(packs)
    ]
    saves = [node(number + 50, "Save", socket("images", "IMAGE", number), values=["C"]) for number in range(24)]
    links = [(number, number + 10, 0, number + 50, 0, "IMAGE") for number in range(24)]
    with pytest.raises(UiFormatError) as caught:
        convert_to_api(canvas(*strange, *saves, links=links), OBJECT_INFO)
    assert [sentence for _, sentence in caught.value.problems[1:]] == [
        "4 nodes of node packs that the file does not state: Strange20, Strange21, Strange22, Strange23",
        *(f"2 nodes of the node pack pack-{number}: Strange{number}, Strange{number + 10}" for number in range(10)),
        "the server lacks the classes of these 24 nodes, and the file does not name their values; give a server that "
        "has them: --target URL",
    ]
