from __future__ import annotations

from typing import Any

import pytest

from sweeper.loading.ui_format.convert import ConversionResult, UiFormatError, convert_to_api
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, canvas, node, plain, socket, subgraph

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
    assert radius(convert(PHOTO, host(values={"amount": 2.5}), SAVE)) == 2.5
    assert radius(convert(PHOTO, host(values=[None]), SAVE)) == 1.5


def test_with_proxy_widgets_only_own_inputs_have_values() -> None:
    proxies = {"proxyWidgets": [["8", "radius"], ["-1", "amount"], ["8", "control_after_generate"]]}
    assert radius(convert(PHOTO, host(values=[1.5, 2.5], properties=proxies), SAVE)) == 2.5
    assert radius(convert(PHOTO, host(values=[None, 2.5, "fixed"], properties=proxies), SAVE)) == 2.5
    mirrored = {"proxyWidgets": [["8", "radius"]]}
    assert radius(convert(PHOTO, host(values=[1.5], properties=mirrored), SAVE)) == 1.5


def test_two_different_values_of_one_widget_are_refused() -> None:
    mirrored = {"proxyWidgets": [["8", "radius"]]}
    assert reason(PHOTO, host(values=[7.5], properties=mirrored, title="Soft"), SAVE) == [
        "node 57 (uuid-blur, 'Soft') shows another value of 'radius' than node 8 inside it has"
    ]


def test_values_that_do_not_fit_the_host_are_refused() -> None:
    sentence = "node 57 (uuid-blur) has 2 values for the 1 widgets that it shows"
    assert reason(PHOTO, host(values=[1.5, 2.5]), SAVE) == [sentence]
    assert reason(PHOTO, host(values=[1, 2], properties={"proxyWidgets": [["-1", "amount"]]}), SAVE) == [sentence]
    assert reason(PHOTO, host(values=["much"]), SAVE) == [
        "node 8 (Blur) gets \"much\" from its subgraph for its input 'radius' (FLOAT)"
    ]


def test_the_seed_control_among_host_values_is_skipped() -> None:
    sampling = subgraph(
        "uuid-sample",
        node(
            8, "Sample", socket("seed", "INT", 1, widget=True), socket("steps", "INT", 2, widget=True),
            values=[1, "fixed", 20, 8, "euler", False],
        ),
        links=[(1, -10, 0, 8, 0, "INT"), (2, -10, 1, 8, 1, "INT"), (3, 8, 0, -20, 0, "IMAGE")],
        ports=[("seed", "INT", [1]), ("steps", "INT", [2])],
        outputs=[("out", "IMAGE", [3])],
    )  # fmt: skip
    for values in ([5, "randomize", 30], [5, 30]):
        result = convert(node(57, "uuid-sample", values=values), links=[], subgraphs=[sampling])
        assert {name: result.graph["57:8"]["inputs"][name] for name in ("seed", "steps")} == {"seed": 5, "steps": 30}


def test_a_link_into_the_subgraph_has_precedence_over_values() -> None:
    linked = host(57, socket("amount", "FLOAT", 5, widget=True), values=[2.5])
    links = [*LINKS, (5, 2, 0, 57, 1, "FLOAT")]
    assert radius(convert(PHOTO, node(2, "Number", values=[3]), linked, SAVE, links=links)) == ["2", 0]


def test_a_primitive_linked_to_a_subgraph_is_refused() -> None:
    linked = host(57, socket("amount", "FLOAT", 5, widget=True), values=[2.5])
    links = [*LINKS, (5, 2, 0, 57, 1, "FLOAT")]
    assert reason(PHOTO, node(2, "PrimitiveNode", values=[3]), linked, SAVE, links=links) == [
        (
            "node 2 (PrimitiveNode) is linked to the input 'amount' of the subgraph node 57 (uuid-blur), which "
            "ComfyUI's versions treat differently; write the value into the widget of the subgraph"
        )
    ]


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
    with pytest.raises(UiFormatError) as caught:
        convert(PHOTO, host(), SAVE, info=known)
    assert caught.value.problems[1:] == (
        (
            ("definitions", "subgraphs", 0, "nodes", 0),
            "node 8 (Blur) is of a class that the server does not have",
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
