from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import ConversionResult, UiFormatError, convert_to_api
from sweeper.model.workflow import EXPORT_HINT
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, canvas, node, plain, socket

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


def test_links_are_read_as_arrays_and_as_objects() -> None:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    link = [9, 1, 1, 9, 0, "MASK"]
    for links in ([link], [dict(zip(keys, link, strict=True))]):
        assert images(convert_to_api({"nodes": [PHOTO, save()], "links": links}, OBJECT_INFO)) == ["1", 1]


def test_old_files_have_holes_among_their_links_and_outputs_written_as_text() -> None:
    assert images(
        convert_to_api({"nodes": [PHOTO, save()], "links": [None, [9, 1, "1", 9, 0, "MASK"]]}, OBJECT_INFO)
    ) == [
        "1",
        1,
    ]


def test_titles_come_from_the_canvas_or_from_the_class() -> None:
    result = convert(node(4, "Load", values=["a"]), node(5, "Load", values=["b"], title="Base"), links=[])
    assert [one["_meta"]["title"] for one in result.graph.values()] == ["Load Model", "Base"]


def test_nodes_come_in_the_order_in_which_the_canvas_runs_them() -> None:
    nodes = [node(n, "Number", values=[n], order=-n) for n in (1, 2, 3)]
    assert list(convert(*nodes, links=[]).graph) == ["3", "2", "1"]


def test_reroutes_are_passed_through() -> None:
    reroutes = [
        node(2, "Reroute", socket("", "*", 1), outputs=[IMAGE]),
        node(3, "Reroute (rgthree)", socket("", "*", 2), outputs=["*"]),
    ]
    links = [(1, 1, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (9, 3, 0, 9, 0, IMAGE)]
    result = convert(PHOTO, *reroutes, save(), links=links)
    assert images(result) == ["1", 0]
    assert set(result.graph) == {"1", "9"}


def test_a_primitive_gives_its_value_to_the_widgets_that_it_is_linked_to() -> None:
    result = convert(
        node(1, "Number", socket("value", "INT", 1, widget=True), values=[4]),
        node(2, "Blur", socket("image", IMAGE), socket("radius", "FLOAT", 2, widget=True), values=[1.5]),
        node(3, "PrimitiveNode", values=[12, "randomize"], outputs=["INT"]),
        links=[(1, 3, 0, 1, 0, "INT"), (2, 3, 0, 2, 1, "FLOAT")],
    )
    assert plain(result.graph) == {"1": ("Number", {"value": 12}), "2": ("Blur", {"radius": 12})}


def test_a_primitives_value_is_sent_as_the_widget_would_send_it() -> None:
    link = [(1, 3, 0, 1, 0, "STRING")]
    encode = node(1, "Encode", socket("text", "STRING", 1, widget=True), values=["old"])
    result = convert(encode, node(3, "PrimitiveNode", values=["a fox // at night"]), links=link)
    assert result.graph["1"]["inputs"] == {"text": "a fox "}
    assert reason(encode, node(3, "PrimitiveNode", values=[7]), links=link) == [
        "node 1 (Encode) has 7 for its input 'text' (STRING)"
    ]


def test_a_primitive_that_cannot_be_followed_is_named() -> None:
    number = node(1, "Number", socket("value", "INT", 1), values=[4])
    primitive = node(3, "PrimitiveNode", values=[12], title="Amount")
    assert reason(number, primitive, links=[(1, 3, 0, 1, 0, "INT")]) == [
        "node 3 (PrimitiveNode, 'Amount') is linked to 'value' of node 1 (Number), which is not a widget"
    ]
    widget = node(1, "Number", socket("value", "INT", 1, widget=True), values=[4])
    rerouted = [primitive, node(2, "Reroute", socket("", "*", 2))]
    assert reason(widget, *rerouted, links=[(1, 2, 0, 1, 0, "INT"), (2, 3, 0, 2, 0, "*")]) == [
        "node 3 (PrimitiveNode, 'Amount') is linked through a reroute, where ComfyUI does not pass its value on"
    ]
    empty = node(3, "PrimitiveNode", values=[])
    assert reason(widget, empty, links=[(1, 3, 0, 1, 0, "INT")]) == ["node 3 (PrimitiveNode) has no value"]
    replacing = node(3, "PrimitiveNode", values=["%a.b%"], properties={"Run widget replace on values": True})
    assert reason(widget, replacing, links=[(1, 3, 0, 1, 0, "INT")]) == [
        "node 3 (PrimitiveNode) has '%a.b%', in which ComfyUI's page inserts values of other nodes"
    ]


def test_a_muted_node_is_left_out_and_so_are_the_links_to_it() -> None:
    result = convert(node(1, "Photo", values=["x.png"], mode=2), save(), links=[(9, 1, 0, 9, 0, IMAGE)])
    assert plain(result.graph) == {"9": ("Save", {"filename_prefix": "C"})}
    assert [note for _, note in result.notes] == [
        "node 1 (Photo) is muted and left out",
        "'images' of node 9 (Save) is not linked: it was linked to node 1 (Photo), which is muted",
    ]


def test_muted_and_bypassed_nodes_need_not_be_known_to_the_server() -> None:
    lost = [node(7, "Elsewhere", mode=2, values=[1, 2]), node(8, "Elsewhere", mode=4)]
    assert set(convert(PHOTO, *lost, links=[]).graph) == {"1"}


@pytest.mark.parametrize("output", [0, 1])
def test_a_bypassed_node_passes_on_the_input_whose_type_fits(output: int) -> None:
    swap = node(2, "Swap", socket("mask", "MASK", 1), socket("image", IMAGE, 2), mode=4)  # image and mask swap places
    links = [(1, 1, 1, 2, 0, "MASK"), (2, 1, 0, 2, 1, IMAGE), (9, 2, output, 9, 0, IMAGE)]
    assert images(convert(PHOTO, swap, save(), links=links)) == ["1", 0]


def test_a_bypassed_node_prefers_the_input_in_the_place_of_the_output() -> None:
    join = node(2, "Join", socket("a", IMAGE, 1), socket("b", IMAGE, 2), mode=4, outputs=[IMAGE, IMAGE])
    links = [(1, 1, 0, 2, 0, IMAGE), (2, 3, 0, 2, 1, IMAGE), (9, 2, 1, 9, 0, IMAGE)]
    assert images(convert(PHOTO, node(3, "Photo", values=["x.png"]), join, save(), links=links)) == ["3", 0]


def test_a_bypassed_node_prefers_exactly_the_type_to_one_that_also_fits() -> None:
    nodes = [
        node(2, "Odd", socket("m", "MASK"), socket("any", "*", 1), socket("b", IMAGE, 2), mode=4, outputs=[IMAGE]),
        node(3, "Photo", values=["x.png"]),
    ]
    links = [(1, 1, 0, 2, 1, "*"), (2, 3, 0, 2, 2, IMAGE), (9, 2, 0, 9, 0, IMAGE)]
    assert images(convert(PHOTO, *nodes, save(), links=links)) == ["3", 0]


def test_types_fit_without_regard_to_case_in_lists_and_with_a_star() -> None:
    for kind in ("image", "LATENT,IMAGE", "*"):
        one = node(2, "Any", socket("a", "MASK", 1), socket("b", kind, 2), mode=4, outputs=["MASK", kind])
        links = [(1, 1, 1, 2, 0, "MASK"), (2, 1, 0, 2, 1, kind), (9, 2, 1, 9, 0, IMAGE)]
        assert images(convert(PHOTO, one, save(), links=links)) == ["1", 0]


def test_a_bypassed_node_without_a_fitting_input_links_nothing_and_a_note_says_so() -> None:
    result = convert(node(1, "Photo", mode=4), save(), links=[(9, 1, 0, 9, 0, IMAGE)])
    assert images(result) is None
    assert result.notes[-1][1] == (
        "'images' of node 9 (Save) is not linked: it was linked to node 1 (Photo), which is bypassed and has no input "
        "of the type IMAGE"
    )


def test_a_widget_whose_link_leads_nowhere_keeps_its_own_value() -> None:
    number = node(1, "Number", socket("value", "INT", 1, widget=True), values=[4])
    assert convert(number, links=[]).graph["1"]["inputs"] == {"value": 4}
    broken = node(1, "Number", socket("value", "INT", 1, widget=True), values=["?"])
    assert reason(broken, links=[]) == ["node 1 (Number) has \"?\" for its input 'value' (INT)"]


def test_get_and_set_nodes_are_a_link() -> None:
    pair = [node(2, "SetNode", socket("IMAGE", "*", 1), values=["pic"]), node(3, "GetNode", values=["pic"])]
    links = [(1, 1, 0, 2, 0, IMAGE), (9, 3, 0, 9, 0, IMAGE)]
    assert images(convert(PHOTO, *pair, save(), links=links)) == ["1", 0]
    behind = [(1, 1, 0, 2, 0, IMAGE), (9, 2, 0, 9, 0, IMAGE)]  # a SetNode passes its own link on, too
    assert images(convert(PHOTO, pair[0], save(), links=behind)) == ["1", 0]


def test_a_get_node_without_its_one_set_node_is_named() -> None:
    get = node(3, "GetNode", values=["pic"])
    links = [(9, 3, 0, 9, 0, IMAGE)]
    assert reason(get, save(), links=links) == ["node 3 (GetNode) gets 'pic', which no SetNode sets"]
    setters = [node(n, "SetNode", socket("IMAGE", "*"), values=["pic"]) for n in (5, 6)]
    assert reason(get, *setters, save(), links=links) == ["node 3 (GetNode) gets 'pic', which 2 SetNodes set"]


def test_notes_and_other_furniture_of_the_page_are_left_out() -> None:
    page = [node(n, kind) for n, kind in enumerate(["Note", "MarkdownNote", "Label (rgthree)"], 20)]
    assert set(convert(PHOTO, *page, links=[]).graph) == {"1"}
    assert reason(save(), node(5, "Note"), links=[(9, 5, 0, 9, 0, IMAGE)]) == [
        "node 5 (Note) is linked to, but exists only on ComfyUI's page"
    ]


def test_a_link_that_the_file_lacks_is_noted() -> None:
    result = convert(
        PHOTO, save(77), node(8, "Blur", socket("image", IMAGE, 5), values=[1]), links=[(5, 99, 0, 8, 0, "")]
    )
    assert [note for _, note in result.notes] == [
        "'images' of node 9 (Save) is not linked: the link 77 is not in the file",
        "'image' of node 8 (Blur) is not linked: it was linked to node 99, which is not in the file",
    ]


def test_reroutes_in_a_circle_are_named() -> None:
    circle = [node(2, "Reroute", socket("", "*", 1)), node(3, "Reroute", socket("", "*", 2))]
    links = [(1, 3, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (9, 3, 0, 9, 0, IMAGE)]
    (sentence,) = reason(*circle, save(), links=links)
    assert sentence.startswith("the links into node")
    assert sentence.endswith("form a cycle, or pass through more than 150 nodes")


def test_every_node_that_cannot_be_converted_is_named_and_the_way_out_told_first() -> None:
    broken = canvas(
        node(1, "Photos"),
        node(2, "workflow>Mine", title="Group"),
        node(3, "Anything Everywhere3"),
        node(4, "Number", values=[]),
        node(5, "Number", socket("seed", "INT", 1, widget=True), values=[3]),
        node(6, "Number", values=[5]),
        links=[(1, 6, 0, 5, 0, "INT")],
        extra={"ue_links": [{"downstream": 1}]},
    )
    with pytest.raises(UiFormatError) as caught:
        convert_to_api(broken, {name: OBJECT_INFO[name] for name in ("Photo", "Save", "Encode", "Number")})
    assert caught.value.problems == (
        ((), f"{EXPORT_HINT}. 5 problems prevent the conversion here"),
        (("nodes", 0), "node 1 (Photos) is of a class that the server does not have (the nearest is Photo)"),
        (
            ("nodes", 1),
            "node 2 (workflow>Mine, 'Group') is a group node; convert it to nodes or to a subgraph in ComfyUI",
        ),
        (("nodes", 2), "node 3 (Anything Everywhere3) draws links that are not in the file"),
        (("nodes", 4), "node 5 (Number) links its widget 'seed', which the server's class does not have"),
        (("extra", "ue_links"), "Anything Everywhere draws links that are not in the file"),
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
def test_a_file_that_is_no_canvas_is_refused(broken: Any, path: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(UiFormatError) as caught:
        convert_to_api(broken, OBJECT_INFO)
    assert caught.value.problems[1:] == ((path, sentence),)
