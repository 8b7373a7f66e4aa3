from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import ConversionResult, UiFormatError, convert_to_api
from sweeper.model.workflow import EXPORT_HINT
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, canvas, declare_class, node, plain, socket, subgraph

IMAGE = "IMAGE"
PHOTO = node(1, "Photo", values=["x.png", "image"])


def save(link: int | None = 9, **more: Any) -> dict[str, Any]:
    return node(9, "Save", socket("images", IMAGE, link), values=["C"], **more)


def convert(*nodes: dict[str, Any], links: Any, **more: Any) -> ConversionResult:
    return convert_to_api(canvas(*nodes, links=links, **more), OBJECT_INFO)


def reason(*nodes: dict[str, Any], links: Any, **more: Any) -> list[str]:
    with pytest.raises(UiFormatError) as caught:
        convert(*nodes, links=links, **more)
    return [sentence for _, sentence in caught.value.problems[1:]]


def images(result: ConversionResult) -> Any:
    return result.graph["9"]["inputs"].get("images")


def test_links_may_be_arrays_or_objects() -> None:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    link = [9, 1, 1, 9, 0, "MASK"]
    for links in ([link], [dict(zip(keys, link, strict=True))]):
        assert images(convert_to_api({"nodes": [PHOTO, save()], "links": links}, OBJECT_INFO)) == ["1", 1]


def test_null_links_and_textual_output_indexes_of_old_files_are_accepted() -> None:
    assert images(
        convert_to_api({"nodes": [PHOTO, save()], "links": [None, [9, 1, "1", 9, 0, "MASK"]]}, OBJECT_INFO)
    ) == [
        "1",
        1,
    ]


def test_titles_come_from_the_file_or_from_the_class() -> None:
    result = convert(node(4, "Load", values=["a"]), node(5, "Load", values=["b"], title="Base"), links=[])
    assert [one["_meta"]["title"] for one in result.graph.values()] == ["Load Model", "Base"]


def test_nodes_are_in_execution_order() -> None:
    nodes = [node(n, "Number", values=[n], order=-n) for n in (1, 2, 3)]
    assert list(convert(*nodes, links=[]).graph) == ["3", "2", "1"]


def test_links_pass_through_reroutes() -> None:
    reroutes = [
        node(2, "Reroute", socket("", "*", 1), outputs=[IMAGE]),
        node(3, "Reroute (rgthree)", socket("", "*", 2), outputs=["*"]),
    ]
    links = [(1, 1, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (9, 3, 0, 9, 0, IMAGE)]
    result = convert(PHOTO, *reroutes, save(), links=links)
    assert images(result) == ["1", 0]
    assert set(result.graph) == {"1", "9"}


def test_a_primitive_gives_its_value_to_linked_widgets() -> None:
    result = convert(
        node(1, "Number", socket("value", "INT", 1, widget=True), values=[4]),
        node(2, "Blur", socket("image", IMAGE), socket("radius", "FLOAT", 2, widget=True), values=[1.5]),
        node(3, "PrimitiveNode", values=[12, "randomize"], outputs=["INT"]),
        links=[(1, 3, 0, 1, 0, "INT"), (2, 3, 0, 2, 1, "FLOAT")],
    )
    assert plain(result.graph) == {"1": ("Number", {"value": 12}), "2": ("Blur", {"radius": 12})}


def test_the_value_of_a_primitive_is_converted_by_the_widget() -> None:
    link = [(1, 3, 0, 1, 0, "STRING")]
    encode = node(1, "Encode", socket("text", "STRING", 1, widget=True), values=["old"])
    result = convert(encode, node(3, "PrimitiveNode", values=["a fox // at night"]), links=link)
    assert result.graph["1"]["inputs"] == {"text": "a fox "}
    assert reason(encode, node(3, "PrimitiveNode", values=[7]), links=link) == [
        "node 1 (Encode) has 7 for its input 'text' (STRING); the file was saved with another version of the class"
    ]


def test_a_primitive_rounds_to_the_step_of_the_widget() -> None:
    info = {
        "Size": declare_class(
            {"width": ["INT", {"min": 16, "step": 8}], "scale": ["FLOAT", {"step": 0.01, "max": 2.0}]}, []
        )
    }
    size = node(1, "Size", socket("width", "INT", 1), socket("scale", "FLOAT", 2), values=[512, 1])
    primitives = [node(2, "PrimitiveNode", values=[100]), node(3, "PrimitiveNode", values=[0.128])]
    drawn = canvas(size, *primitives, links=[(1, 2, 0, 1, 0, "INT"), (2, 3, 0, 1, 1, "FLOAT")])
    assert convert_to_api(drawn, info).graph["1"]["inputs"] == {"width": 104, "scale": 0.13}


def test_a_primitive_gives_no_value_through_a_reroute_or_to_a_socket() -> None:
    primitive = node(3, "PrimitiveNode", values=[12], title="Amount")
    rerouted = convert(
        node(1, "Number", socket("value", "INT", 1, widget=True), values=[4]),
        *(primitive, node(2, "Reroute", socket("", "*", 2))),
        links=[(1, 2, 0, 1, 0, "INT"), (2, 3, 0, 2, 0, "*")],
    )
    assert rerouted.graph["1"]["inputs"] == {"value": 4}
    forced = convert(
        node(1, "Forced", socket("count", "INT", 1), values=[3]), primitive, links=[(1, 3, 0, 1, 0, "INT")]
    )
    assert forced.graph["1"]["inputs"] == {"size": 3}
    assert [note for _, note in (*rerouted.notes, *forced.notes)] == [
        (
            "'value' of node 1 (Number) is not linked: node 3 (PrimitiveNode, 'Amount') is linked through a reroute or "
            "a subgraph, which pass no value on"
        ),
        (
            "'count' of node 1 (Forced) is not linked: node 3 (PrimitiveNode, 'Amount') can give its value only to a "
            "widget"
        ),
    ]


def test_a_primitive_that_cannot_be_followed_is_a_problem() -> None:
    widget = node(1, "Number", socket("value", "INT", 1, widget=True), values=[4])
    empty = node(3, "PrimitiveNode", values=[])
    assert reason(widget, empty, links=[(1, 3, 0, 1, 0, "INT")]) == ["node 3 (PrimitiveNode) has no value"]
    replacing = node(3, "PrimitiveNode", values=["%a.b%"], properties={"Run widget replace on values": True})
    assert reason(widget, replacing, links=[(1, 3, 0, 1, 0, "INT")]) == [
        "node 3 (PrimitiveNode) has '%a.b%', in which ComfyUI's page inserts values of other nodes"
    ]


def test_muted_nodes_and_links_to_them_are_left_out() -> None:
    result = convert(node(1, "Photo", values=["x.png"], mode=2), save(), links=[(9, 1, 0, 9, 0, IMAGE)])
    assert plain(result.graph) == {"9": ("Save", {"filename_prefix": "C"})}
    assert [note for _, note in result.notes] == [
        "left out, because muted: node 1 (Photo)",
        "'images' of node 9 (Save) is not linked: it was linked to node 1 (Photo), which is muted",
    ]


def test_muted_and_bypassed_nodes_may_have_unknown_classes() -> None:
    lost = [node(7, "Elsewhere", mode=2, values=[1, 2]), node(8, "Elsewhere", mode=4)]
    assert set(convert(PHOTO, *lost, links=[]).graph) == {"1"}


@pytest.mark.parametrize("output", [0, 1])
def test_a_bypassed_node_passes_on_an_input_of_the_fitting_type(output: int) -> None:
    swap = node(2, "Swap", socket("mask", "MASK", 1), socket("image", IMAGE, 2), mode=4)  # swaps image and mask
    links = [(1, 1, 1, 2, 0, "MASK"), (2, 1, 0, 2, 1, IMAGE), (9, 2, output, 9, 0, IMAGE)]
    assert images(convert(PHOTO, swap, save(), links=links)) == ["1", 0]


def test_a_bypassed_node_prefers_the_input_at_the_index_of_the_output() -> None:
    join = node(2, "Join", socket("a", IMAGE, 1), socket("b", IMAGE, 2), mode=4, outputs=[IMAGE, IMAGE])
    links = [(1, 1, 0, 2, 0, IMAGE), (2, 3, 0, 2, 1, IMAGE), (9, 2, 1, 9, 0, IMAGE)]
    assert images(convert(PHOTO, node(3, "Photo", values=["x.png"]), join, save(), links=links)) == ["3", 0]


def test_a_bypassed_node_prefers_the_exact_type() -> None:
    nodes = [
        node(2, "Odd", socket("m", "MASK"), socket("any", "*", 1), socket("b", IMAGE, 2), mode=4, outputs=[IMAGE]),
        node(3, "Photo", values=["x.png"]),
    ]
    links = [(1, 1, 0, 2, 1, "*"), (2, 3, 0, 2, 2, IMAGE), (9, 2, 0, 9, 0, IMAGE)]
    assert images(convert(PHOTO, *nodes, save(), links=links)) == ["3", 0]


def test_types_match_ignoring_case_in_unions_and_with_a_star() -> None:
    for kind in ("image", "LATENT,IMAGE", "*"):
        one = node(2, "Any", socket("a", "MASK", 1), socket("b", kind, 2), mode=4, outputs=["MASK", kind])
        links = [(1, 1, 1, 2, 0, "MASK"), (2, 1, 0, 2, 1, kind), (9, 2, 1, 9, 0, IMAGE)]
        assert images(convert(PHOTO, one, save(), links=links)) == ["1", 0]


def test_a_bypassed_node_without_a_fitting_input_gives_a_note() -> None:
    result = convert(node(1, "Photo", mode=4), save(), links=[(9, 1, 0, 9, 0, IMAGE)])
    assert images(result) is None
    assert result.notes[-1][1] == (
        "'images' of node 9 (Save) is not linked: it was linked to node 1 (Photo), which is bypassed and has no input "
        "of the type IMAGE"
    )


def test_links_pass_through_get_and_set_nodes() -> None:
    pair = [node(2, "SetNode", socket("IMAGE", "*", 1), values=["pic"]), node(3, "GetNode", values=["pic"])]
    links = [(1, 1, 0, 2, 0, IMAGE), (9, 3, 0, 9, 0, IMAGE)]
    assert images(convert(PHOTO, *pair, save(), links=links)) == ["1", 0]
    behind = [(1, 1, 0, 2, 0, IMAGE), (9, 2, 0, 9, 0, IMAGE)]  # a SetNode passes its own link on, too
    assert images(convert(PHOTO, pair[0], save(), links=behind)) == ["1", 0]


def test_a_get_node_needs_exactly_one_set_node() -> None:
    get = node(3, "GetNode", values=["pic"])
    links = [(9, 3, 0, 9, 0, IMAGE)]
    assert reason(get, save(), links=links) == ["node 3 (GetNode) gets 'pic', which no SetNode sets"]
    setters = [node(n, "SetNode", socket("IMAGE", "*"), values=["pic"]) for n in (5, 6)]
    assert reason(get, *setters, save(), links=links) == ["node 3 (GetNode) gets 'pic', which 2 SetNodes set"]


def test_nodes_of_the_editor_only_are_left_out() -> None:
    page = [node(n, kind) for n, kind in enumerate(["Note", "MarkdownNote", "Label (rgthree)"], 20)]
    assert set(convert(PHOTO, *page, links=[]).graph) == {"1"}
    assert reason(save(), node(5, "Note"), links=[(9, 5, 0, 9, 0, IMAGE)]) == [
        "node 5 (Note) is linked to, but exists only on ComfyUI's page"
    ]


def test_a_dangling_link_is_refused_as_by_the_page() -> None:
    blur = node(8, "Blur", socket("image", IMAGE, 5), values=[1])
    assert reason(PHOTO, save(77), blur, links=[(5, 99, 0, 8, 0, "")]) == [
        (
            "the link of 'images' of node 9 (Save) is not in the file; connect the input again in ComfyUI, which does "
            "not queue such a workflow either"
        ),
        (
            "'image' of node 8 (Blur) is linked to node 99, which is not in the file; connect the input again in "
            "ComfyUI, which does not queue such a workflow either"
        ),
    ]


def test_a_link_to_an_input_that_the_class_lost_is_left_out_with_a_note() -> None:
    lost = node(5, "Number", socket("old", "INT", 1, widget=True), values=[3])
    drawn = canvas(lost, node(6, "Number", values=[5]), links=[(1, 6, 0, 5, 0, "INT")])
    result = convert_to_api(drawn, OBJECT_INFO)
    assert result.graph["5"]["inputs"] == {"value": 3}
    assert [note for _, note in result.notes] == ["node 5 (Number) has no input 'old'; its link is left out"]
    custom = {"Number": {**OBJECT_INFO["Number"], "python_module": "custom_nodes.numbers"}}
    with pytest.raises(UiFormatError, match="links 'old', which the server's class does not have"):
        convert_to_api(drawn, custom)


def test_a_cycle_of_reroutes_is_a_problem() -> None:
    circle = [node(2, "Reroute", socket("", "*", 1)), node(3, "Reroute", socket("", "*", 2))]
    links = [(1, 3, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (9, 3, 0, 9, 0, IMAGE)]
    (sentence,) = reason(*circle, save(), links=links)
    assert sentence.startswith("the links into node")
    assert sentence.endswith("form a cycle, or pass through more than 150 nodes")


def test_all_nodes_that_cannot_be_converted_are_reported_after_advice() -> None:
    broken = canvas(
        node(1, "Photos", socket("pixels", "IMAGE", 1), values=["x.png"]),
        node(2, "workflow>Mine", title="Group"),
        node(3, "Anything Everywhere3"),
        node(4, "Number", values=[]),
        node(5, "Number", values=["x"]),
        links=[(1, 4, 0, 1, 0, "IMAGE")],
        extra={"ue_links": [{"downstream": 1}]},
    )
    with pytest.raises(UiFormatError) as caught:
        convert_to_api(broken, {name: OBJECT_INFO[name] for name in ("Photo", "Save", "Encode", "Number")})
    assert caught.value.problems == (
        ((), f"{EXPORT_HINT}. 5 problems prevent the conversion here"),
        (
            ("nodes", 1),
            "node 2 (workflow>Mine, 'Group') is a group node; convert it to nodes or to a subgraph in ComfyUI",
        ),
        (("nodes", 2), "node 3 (Anything Everywhere3) draws links that are not in the file"),
        (
            ("nodes", 4),
            "node 5 (Number) has \"x\" for its input 'value' (INT); the file was saved with another version "
            "of the class",
        ),
        (("extra", "ue_links"), "Anything Everywhere draws links that are not in the file"),
        (
            ("nodes", 0),
            "node 1 (Photos) is of a class that the server does not have (the nearest is Photo), and the file does not "
            "name its 1 value; give a server that has it: --target URL",
        ),
    )


@pytest.mark.parametrize(
    ("broken", "path", "sentence"),
    [
        ({"nodes": [{"id": 1}], "links": []}, ("nodes", 0), "is not a node: it needs an `id` and a `type`"),
        ({"nodes": [3], "links": []}, ("nodes", 0), "a mapping is needed here"),
        ({"nodes": {}, "links": []}, ("nodes",), "a list is needed here"),
        ({"nodes": [PHOTO, PHOTO], "links": []}, ("nodes", 1), "two nodes have the id 1"),
        ({"nodes": [PHOTO], "links": [[1, 2]]}, ("links", 0), "is not a link"),
        ({"nodes": [PHOTO], "links": [{"id": 1}]}, ("links", 0), "is not a link"),
        ({"nodes": [], "links": []}, ("nodes",), "no node of it would be sent to a server"),
    ],
)
def test_a_malformed_file_is_refused(broken: Any, path: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(UiFormatError) as caught:
        convert_to_api(broken, OBJECT_INFO)
    assert caught.value.problems[1:] == ((path, sentence),)


@pytest.mark.parametrize("output", [3, -1, -(2**70)])
def test_a_link_through_an_output_that_is_not_there_is_left_out(output: int) -> None:
    reroute = node(2, "Reroute", outputs=["*"])
    result = convert(PHOTO, reroute, save(), links=[(8, 1, 0, 2, 0, IMAGE), (9, 2, output, 9, 0, IMAGE)])
    assert images(result) is None
    assert f"it leads through node 2 (Reroute), which has no input {output}" in result.notes[0][1]


@pytest.mark.parametrize("output", [1, -1, -(2**70)])
def test_a_subgraph_has_no_outputs_before_the_first(output: int) -> None:
    inner = subgraph("g", PHOTO, links=[(5, 1, 0, -20, 0, IMAGE)], ports=[], outputs=[("out", IMAGE, [5])])
    result = convert(node(7, "g"), save(), links=[(9, 7, output, 9, 0, IMAGE)], definitions={"subgraphs": [inner]})
    assert images(result) is None


def test_ids_of_thousands_of_digits_are_texts() -> None:
    inner = subgraph("g", node("9" * 5_000, "Number", values=[4]), links=[], ports=[], outputs=[])
    for last_id in (10**4_000, "5", True):
        definitions: Any = {"definitions": {"subgraphs": [inner]}, "last_node_id": last_id}
        assert images(convert(node(7, "g"), PHOTO, save(), links=[(9, 1, 0, 9, 0, IMAGE)], **definitions)) == ["1", 0]
    assert reason(PHOTO, save(), links=[(9, 1, "9" * 5_000, 9, 0, IMAGE)]) == ["is not a link"]


def test_nested_brackets_are_no_list_of_shown_widgets() -> None:
    inner = subgraph("g", node(3, "Number", values=[4]), links=[], ports=[], outputs=[])
    host = node(7, "g", properties={"proxyWidgets": "[" * 100_000})
    assert convert(host, links=[], definitions={"subgraphs": [inner]}).graph["7:3"]["inputs"] == {"value": 4}


@pytest.mark.parametrize("limits", [{"step": "x"}, {"precision": -400}, {"step": -1}, {"step": 1e-320}])
def test_a_primitive_with_limits_that_are_no_numbers_is_refused(limits: dict[str, Any]) -> None:
    info = {**OBJECT_INFO, "PrimitiveFloat": declare_class({"value": ["FLOAT", {}]}, ["FLOAT"])}
    number = node(4, "PrimitiveFloat", socket("value", "FLOAT", 7, widget=True), values=[1.0], properties=limits)
    source = node(3, "PrimitiveNode", values=[5.5, "fixed"])
    with pytest.raises(UiFormatError, match=r"cannot round 5\.5 for its input 'value' by its limits"):
        convert_to_api(canvas(source, number, links=[(7, 3, 0, 4, 0, "FLOAT")]), info)


def test_many_bypassed_nodes_are_one_note() -> None:
    nodes = [node(number, "Photo", mode=4) for number in range(20, 25)]
    assert [sentence for _, sentence in convert(PHOTO, *nodes, save(), links=[(9, 1, 0, 9, 0, IMAGE)]).notes] == [
        "bypassed, so that their links are passed on: node 20 (Photo), node 21 (Photo), node 22 (Photo), "
        "node 23 (Photo), node 24 (Photo)"
    ]
