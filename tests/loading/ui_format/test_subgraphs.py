from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import ConversionResult, UiFormatError, convert_to_api
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, canvas, declare_class, node, plain, socket, subgraph

# A subgraph with a Blur (node 8), whose radius is a widget of the host.
BLURRING = subgraph(
    "uuid-blur",
    node(8, "Blur", socket("image", "IMAGE", 1), socket("radius", "FLOAT", 2, widget=True), values=[1.5]),
    links=[(1, -10, 0, 8, 0, "IMAGE"), (2, -10, 1, 8, 1, "FLOAT"), (3, 8, 0, -20, 0, "IMAGE")],
    ports=[("picture", "IMAGE", [1]), ("amount", "FLOAT", [2])],
    outputs=[("out", "IMAGE", [3])],
)
PHOTO = node(1, "Photo", values=["x.png"])
SAVE = node(9, "Save", socket("images", "IMAGE", 9), values=["C"])
LINKS = [(4, 1, 0, 57, 0, "IMAGE"), (9, 57, 0, 9, 0, "IMAGE")]


def host(node_id: int = 57, *more: dict[str, Any], link: int | None = 4, **rest: Any) -> dict[str, Any]:
    return node(node_id, "uuid-blur", socket("picture", "IMAGE", link), *more, outputs=["IMAGE"], **rest)


def convert(
    *nodes: dict[str, Any], links: Any = LINKS, subgraphs: Any = (BLURRING,), info: Any = OBJECT_INFO
) -> ConversionResult:
    return convert_to_api(canvas(*nodes, links=links, definitions={"subgraphs": list(subgraphs)}), info)


def reason(*nodes: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(UiFormatError) as caught:
        convert(*nodes, **more)
    return [sentence for _, sentence in caught.value.problems[1:]]


def radius(result: ConversionResult, node_id: str = "57:8") -> Any:
    return result.graph[node_id]["inputs"]["radius"]


def test_a_subgraph_is_expanded_with_the_ids_of_comfyui() -> None:
    assert plain(convert(PHOTO, host(), SAVE).graph) == {
        "1": ("Photo", {"image": "x.png"}),
        "57:8": ("Blur", {"radius": 1.5, "image": ["1", 0]}),
        "9": ("Save", {"filename_prefix": "C", "images": ["57:8", 0]}),
    }


def test_the_value_of_the_host_has_precedence() -> None:
    assert radius(convert(PHOTO, host(values=[2.5]), SAVE)) == 2.5
    assert radius(convert(PHOTO, host(values=[2.5, 3.5]), SAVE)) == 2.5
    assert radius(convert(PHOTO, host(values=[None]), SAVE)) is None


def test_values_follow_the_proxy_widgets_if_there_are_any() -> None:
    proxies = {"proxyWidgets": [["8", "control_after_generate"], ["-1", "amount"]]}
    assert radius(convert(PHOTO, host(values=["fixed", 2.5], properties=proxies), SAVE)) == 2.5
    assert radius(convert(PHOTO, host(values=[None, 2.5], properties=proxies), SAVE)) == 2.5
    by_node = {"proxyWidgets": [["8", "12: radius"]]}
    assert radius(convert(PHOTO, host(values=[3.5], properties=by_node), SAVE)) == 3.5
    as_text = {"proxyWidgets": '[["99", "gone"], ["8", "radius"]]'}
    assert radius(convert(PHOTO, host(values=[1, 3.5], properties=as_text), SAVE)) == 3.5
    for ignored in ("[", [["99", "gone"], [8, "radius"]]):
        assert radius(convert(PHOTO, host(values=[4.5, 3.5], properties={"proxyWidgets": ignored}), SAVE)) == 4.5


def test_a_host_may_show_widgets_that_no_input_leads_to() -> None:
    unlinked = subgraph(
        "uuid-blur",
        *(node(8, "Blur", socket("image", "IMAGE", 1), values=[1.5]), node(7, "Number", values=[5])),
        *(node(6, "Number", values=[6]), node(5, "PrimitiveNode", values=[7])),
        node(4, "Number", socket("value", "INT", 2, widget=True), values=[8]),
        links=[(1, -10, 0, 8, 0, "IMAGE"), (2, 5, 0, 4, 0, "INT"), (3, 8, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1])],
        outputs=[("out", "IMAGE", [3])],
    )
    proxies = {"proxyWidgets": [["8", "radius"], ["7", "value"], ["5", "value"]]}
    graph = convert(PHOTO, host(values=[2.5, None, 70], properties=proxies), SAVE, subgraphs=[unlinked]).graph
    assert graph["57:8"]["inputs"]["radius"] == 2.5
    assert [graph[f"57:{n}"]["inputs"]["value"] for n in (7, 6, 4)] == [5, 6, 70]


def test_a_shown_primitive_that_the_page_would_connect_elsewhere_is_refused() -> None:
    inside = subgraph(
        "uuid-blur",
        node(8, "Blur", socket("radius", "FLOAT", 2, widget=True), socket("image", "IMAGE", 1), values=[1.5]),
        node(5, "PrimitiveNode", values=[7]),
        links=[(1, -10, 0, 8, 1, "IMAGE"), (2, 5, 0, 8, 0, "FLOAT"), (3, 8, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1])],
        outputs=[("out", "IMAGE", [3])],
    )
    assert radius(convert(PHOTO, host(), SAVE, subgraphs=[inside])) == 7
    shown = host(values=[2], properties={"proxyWidgets": [["5", "value"]]})
    assert reason(PHOTO, shown, SAVE, subgraphs=[inside]) == [
        (
            "node 57 (uuid-blur) shows the value of node 5 (PrimitiveNode), which ComfyUI's page gives to another "
            "input than 'radius' of node 8 (Blur); give the value to the nodes themselves"
        )
    ]


def test_a_value_of_the_host_must_fit_the_widget() -> None:
    assert reason(PHOTO, host(values=["much"]), SAVE) == [
        "node 8 (Blur) has \"much\" for its input 'radius' (FLOAT); the file was saved with another version of "
        "the class"
    ]


def test_all_widgets_of_an_input_get_the_value_of_the_first() -> None:
    two = subgraph(
        "uuid-two",
        *(node(n, "Number", socket("value", "INT", n, widget=True), values=[n]) for n in (8, 9)),
        node(7, "Any", socket("source", "*", 7)),
        links=[(n, -10, 0, n, 0, "INT") for n in (8, 9, 7)],
        ports=[("amount", "INT", [8, 9, 7])],
        outputs=[],
    )
    info = {**OBJECT_INFO, "Any": declare_class({"source": ["*", {}]}, [])}
    graph = convert(node(57, "uuid-two"), links=[], subgraphs=[two], info=info).graph
    assert [graph[f"57:{n}"]["inputs"] for n in (8, 9, 7)] == [{"value": 8}, {"value": 8}, {"source": 8}]


def test_a_value_for_a_widget_that_the_class_lost_shifts_no_other_value() -> None:
    lost = node(
        7, "Number", socket("value", "INT", 7, widget=True), socket("unit", "COMBO", 6, widget=True), values=[1]
    )
    two = subgraph(
        "uuid-two",
        node(8, "Number", socket("value", "INT", 8, widget=True), values=[2]),
        lost,
        links=[(6, -10, 0, 7, 1, "COMBO"), (7, -10, 1, 7, 0, "INT"), (8, -10, 2, 8, 0, "INT")],
        ports=[("unit", "COMBO", [6]), ("amount", "INT", [7]), ("count", "INT", [8])],
        outputs=[],
    )
    outer = node(57, "uuid-two", values=["cm", 30, 5])
    result = convert(outer, links=[], subgraphs=[two])
    assert plain(result.graph) == {"57:7": ("Number", {"value": 30}), "57:8": ("Number", {"value": 5})}
    assert [sentence for _, sentence in result.notes] == ["node 7 (Number) has no input 'unit'; its link is left out"]
    unknown = {**two, "nodes": [two["nodes"][0], {**lost, "type": "Lost"}]}
    expected = [
        "node 7 (Lost) is of a class that the server does not have, and its widgets (value, unit) do not fit its 1 "
        "value; give a server that has it: --target URL"
    ]
    assert reason(outer, links=[], subgraphs=[unknown]) == expected


def test_a_link_into_the_subgraph_has_precedence_over_values() -> None:
    linked = host(57, socket("amount", "FLOAT", 5, widget=True), values=[2.5])
    links = [*LINKS, (5, 2, 0, 57, 1, "FLOAT")]
    assert radius(convert(PHOTO, node(2, "Number", values=[3]), linked, SAVE, links=links)) == ["2", 0]


def test_a_primitive_gives_no_value_into_a_subgraph() -> None:
    linked = host(57, socket("amount", "FLOAT", 5, widget=True), values=[2.5])
    links = [*LINKS, (5, 2, 0, 57, 1, "FLOAT")]
    result = convert(PHOTO, node(2, "PrimitiveNode", values=[3]), linked, SAVE, links=links)
    assert radius(result) == 1.5
    assert result.notes[-1][1] == (
        "'radius' of node 8 (Blur) is not linked: node 2 (PrimitiveNode) is linked through a reroute or a subgraph, "
        "which pass no value on"
    )


def test_ids_that_are_taken_outside_are_replaced_as_by_the_page() -> None:
    inside = subgraph(
        "uuid-blur",
        *(node(9, "Blur", socket("image", "IMAGE", 1), values=[1.5]), node(60, "Number", values=[4])),
        links=[(1, -10, 0, 9, 0, "IMAGE"), (3, 9, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1])],
        outputs=[("out", "IMAGE", [3])],
    )
    shown = host(values=[2.5], properties={"proxyWidgets": [["9", "radius"]]})
    drawn = canvas(PHOTO, shown, SAVE, links=LINKS, definitions={"subgraphs": [inside]}, last_node_id=58)
    assert plain(convert_to_api(drawn, OBJECT_INFO).graph) == {
        "1": ("Photo", {"image": "x.png"}),
        "57:59": ("Blur", {"radius": 2.5, "image": ["1", 0]}),
        "57:60": ("Number", {"value": 4}),
        "9": ("Save", {"filename_prefix": "C", "images": ["57:59", 0]}),
    }


def test_a_subgraph_may_be_used_twice() -> None:
    links = [(4, 1, 0, 57, 0, "IMAGE"), (5, 57, 0, 58, 0, "IMAGE"), (9, 58, 0, 9, 0, "IMAGE")]
    result = convert(PHOTO, host(57, values=[2.5]), host(58, link=5), SAVE, links=links)
    assert result.graph["58:8"]["inputs"] == {"radius": 1.5, "image": ["57:8", 0]}
    assert radius(result) == 2.5
    assert result.graph["9"]["inputs"]["images"] == ["58:8", 0]


@pytest.mark.parametrize(
    ("outer", "inner", "expected"), [([4.5], [3.5], 4.5), ([], [3.5], 3.5), ([], [], 1.5), ([4.5], [], 4.5)]
)
def test_nested_subgraphs_take_the_outermost_value(outer: list[float], inner: list[float], expected: float) -> None:
    wrapping = subgraph(
        "uuid-outer",
        node(
            3, "uuid-blur", socket("picture", "IMAGE", 1), socket("amount", "FLOAT", 2, widget=True),
            outputs=["IMAGE"], values=inner,
        ),
        links=[(1, -10, 0, 3, 0, "IMAGE"), (2, -10, 1, 3, 1, "FLOAT"), (3, 3, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1]), ("strength", "FLOAT", [2])],
        outputs=[("out", "IMAGE", [3])],
    )  # fmt: skip
    outside = node(57, "uuid-outer", socket("picture", "IMAGE", 4), outputs=["IMAGE"], values=outer)
    result = convert(PHOTO, outside, SAVE, subgraphs=[BLURRING, wrapping])
    assert result.graph["57:3:8"]["inputs"] == {"radius": expected, "image": ["1", 0]}
    assert result.graph["9"]["inputs"]["images"] == ["57:3:8", 0]


def test_a_bypassed_subgraph_passes_links_on_but_a_muted_one_does_not() -> None:
    assert plain(convert(PHOTO, host(mode=4), SAVE).graph)["9"] == (
        "Save",
        {"filename_prefix": "C", "images": ["1", 0]},
    )
    muted = convert(PHOTO, host(mode=2), SAVE)
    assert set(muted.graph) == {"1", "9"}
    assert muted.notes[-1][1] == (
        "'images' of node 9 (Save) is not linked: it was linked to node 57 (uuid-blur), which is muted"
    )


@pytest.mark.parametrize("mode", [2, 4])
def test_a_subgraph_inside_another_is_expanded_in_every_mode(mode: int) -> None:
    wrapping = subgraph(
        "uuid-outer",
        node(3, "uuid-blur", socket("picture", "IMAGE", 1), outputs=["IMAGE"], mode=mode),
        links=[(1, -10, 0, 3, 0, "IMAGE"), (3, 3, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1])],
        outputs=[("out", "IMAGE", [3])],
    )
    outside = node(57, "uuid-outer", socket("picture", "IMAGE", 4), outputs=["IMAGE"])
    graph = convert(PHOTO, outside, SAVE, subgraphs=[BLURRING, wrapping]).graph
    assert graph["57:3:8"]["inputs"] == {"radius": 1.5, "image": ["1", 0]}
    assert graph["9"]["inputs"].get("images") == (["1", 0] if mode == 4 else None)


def test_a_bypassed_node_passes_on_the_value_that_the_host_shows() -> None:
    inside = subgraph(
        "uuid-blur",
        node(7, "Number", socket("value", "INT", widget=True), values=[5], mode=4, outputs=["INT"]),
        node(8, "Blur", socket("image", "IMAGE", 1), socket("radius", "FLOAT", 2, widget=True), values=[1.5]),
        links=[(1, -10, 0, 8, 0, "IMAGE"), (2, 7, 0, 8, 1, "INT"), (3, 8, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1])],
        outputs=[("out", "IMAGE", [3])],
    )
    number = inside["nodes"][0]
    number["inputs"][0]["type"] = number["outputs"][0]["type"] = "FLOAT"
    shown = host(values=[2.5], properties={"proxyWidgets": [["7", "value"]]})
    assert radius(convert(PHOTO, shown, SAVE, subgraphs=[inside])) == 2.5
    assert radius(convert(PHOTO, host(), SAVE, subgraphs=[inside])) == 1.5


def test_a_link_may_pass_straight_through_a_subgraph() -> None:
    straight = subgraph(
        "uuid-blur",
        links=[(1, -10, 0, -20, 0, "IMAGE")],
        ports=[("picture", "IMAGE", [1])],
        outputs=[("o", "IMAGE", [1])],
    )
    assert convert(PHOTO, host(), SAVE, subgraphs=[straight]).graph["9"]["inputs"]["images"] == ["1", 0]


def test_a_get_node_inside_finds_the_set_node_outside() -> None:
    inside = subgraph(
        "uuid-blur",
        node(8, "Blur", socket("image", "IMAGE", 1), values=[1.5]),
        node(7, "GetNode", values=["pic"]),
        links=[(1, 7, 0, 8, 0, "IMAGE"), (3, 8, 0, -20, 0, "IMAGE")],
        ports=[],
        outputs=[("out", "IMAGE", [3])],
    )
    setter = node(2, "SetNode", socket("IMAGE", "*", 4), values=["pic"])
    links = [(4, 1, 0, 2, 0, "IMAGE"), (9, 57, 0, 9, 0, "IMAGE")]
    result = convert(PHOTO, setter, host(link=None), SAVE, links=links, subgraphs=[inside])
    assert result.graph["57:8"]["inputs"]["image"] == ["1", 0]


def test_an_unknown_class_inside_is_reported_at_its_path() -> None:
    known = {name: one for name, one in OBJECT_INFO.items() if name != "Blur"}
    inner = {**BLURRING["nodes"][0], "widgets_values": [1.5, "gauss"]}
    with pytest.raises(UiFormatError) as caught:
        convert(PHOTO, host(), SAVE, info=known, subgraphs=[{**BLURRING, "nodes": [inner]}])
    assert caught.value.problems[1:] == (
        (
            ("definitions", "subgraphs", 0, "nodes", 0),
            "node 8 (Blur) is of a class that the server does not have, and the file names only 1 of its 2 values; "
            "give a server that has it: --target URL",
        ),
    )


def test_recursive_and_exploding_subgraphs_are_refused() -> None:
    endless = subgraph("uuid-blur", node(3, "uuid-blur"), links=[], ports=[], outputs=[])
    assert reason(PHOTO, host(), subgraphs=[endless]) == [
        "node 3 (uuid-blur) is a subgraph that contains itself, or more than 50 nested levels"
    ]
    doubling = [
        subgraph(f"s{n}", node(1, f"s{n + 1}"), node(2, f"s{n + 1}"), links=[], ports=[], outputs=[]) for n in range(30)
    ]
    assert reason(node(57, "s0"), links=[], subgraphs=[*doubling, subgraph("s30", links=[], ports=[], outputs=[])]) == [
        "with its subgraphs it has more than 100,000 nodes"
    ]
