"""Any graph, drawn in one of the many ways of the editor, converts back to that graph."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.loading.ui_format.convert import UiFormatError, convert_to_api
from tests.loading.ui_format.ui_workflows import OBJECT_INFO, node, plain, socket

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}|\\/"), max_size=12)
VALUES = {
    "INT": st.integers(1, 100),
    "FLOAT": st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-9, 9),
    "STRING": TEXTS,
    "BOOLEAN": st.booleans(),
}
CLASSES = ["Load", "Encode", "Join", "Sample", "Number", "Photo", "Blur", "Swap", "Save"]


def inputs_of(kind: str) -> dict[str, list[Any]]:
    groups = OBJECT_INFO[kind]["input"]
    return {**groups["required"], **groups["optional"]}


def is_widget(spec: list[Any]) -> bool:
    return isinstance(spec[0], list) or spec[0] in WIDGETS


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """An API-format graph whose links all lead back to earlier nodes."""
    graph: dict[str, Any] = {}
    outputs: list[tuple[str, int, str]] = []  # node, output, type
    for index in range(1, draw(st.integers(1, 8)) + 1):
        class_type = draw(st.sampled_from(CLASSES))
        inputs: dict[str, Any] = {}
        for name, spec in inputs_of(class_type).items():
            type_name = spec[0]
            sources = [[item, output] for item, output, output_type in outputs if output_type == type_name]
            if sources and (not is_widget(spec) or draw(st.booleans())):
                inputs[name] = draw(st.sampled_from(sources))
            elif is_widget(spec):
                inputs[name] = draw(st.sampled_from(type_name) if isinstance(type_name, list) else VALUES[type_name])
        graph[str(index)] = {"class_type": class_type, "inputs": inputs}
        outputs += [(str(index), output, item) for output, item in enumerate(OBJECT_INFO[class_type]["output"])]
    return graph


class Drawing:
    """Builds a UI-format workflow, with random choices that do not change its meaning."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.subgraphs: list[dict[str, Any]] = []
        self.next_id = 100

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def link(self, origin: int, output: int, kind: str) -> int:
        link_id = self.new_id()
        self.links.append([link_id, origin, output, 0, 0, kind])
        return link_id

    def detour(self, origin: int, output: int, kind: str) -> tuple[int, int]:
        """Lead a link through a reroute, a bypassed node, or a Set and a Get node. Return its new origin."""
        way = self.draw(st.sampled_from(["straight", "straight", "reroute", "bypass", "set and get"]))
        if way == "straight":
            return origin, output
        middle, link = self.new_id(), self.link(origin, output, kind)
        if way == "reroute":
            self.nodes.append(node(middle, "Reroute", socket("", "*", link)))
        elif way == "bypass":
            other = socket("other", "OTHER")
            self.nodes.append(node(middle, "Gone", other, socket("it", kind, link), mode=4, outputs=[kind]))
        else:
            self.nodes.append(node(middle, "SetNode", socket("it", "*", link), values=[f"name {middle}"]))
            setter, middle = middle, self.new_id()
            self.nodes.append(node(middle, "GetNode", values=[f"name {setter}"]))
        return middle, 0

    def values(self, kind: str, inputs: dict[str, Any]) -> Any:
        """The values of the widgets, as a list or by name. A linked widget may have any old value."""
        values: list[Any] = []
        values_by_name: dict[str, Any] = {}
        for name, spec in inputs_of(kind).items():
            if is_widget(spec):
                value = inputs.get(name)
                values_by_name[name] = (
                    self.draw(st.sampled_from([0, None, "old"])) if isinstance(value, list) else value
                )
                values += [values_by_name[name], *(["randomize"] if name == "seed" else [])]
        if "image" in values_by_name:
            values += self.draw(st.sampled_from([[], ["image"], ["image", ""]]))
        return values_by_name if self.draw(st.integers(0, 4)) == 0 else values

    def node(self, node_id: str, one: dict[str, Any]) -> None:
        sockets = []
        kind, inputs = one["class_type"], dict(one["inputs"])
        for name, spec in inputs_of(kind).items():
            value = inputs.get(name)
            link_type = spec[0] if isinstance(spec[0], str) else "COMBO"
            if isinstance(value, list):
                link = self.link(*self.detour(int(value[0]), value[1], link_type), link_type)
                sockets.append(socket(name, link_type, link, widget=is_widget(spec)))
            elif not is_widget(spec):
                sockets.append(socket(name, link_type))
            elif spec[0] != "FLOAT" and self.draw(st.integers(0, 5)) == 0:  # from a primitive, which rounds floats
                primitive = self.new_id()
                self.nodes.append(node(primitive, "PrimitiveNode", values=[value, "fixed"]))
                sockets.append(socket(name, link_type, self.link(primitive, 0, link_type), widget=True))
                inputs[name] = ["primitive", 0]
            elif self.draw(st.booleans()):  # newer editors show a socket for every widget
                sockets.append(socket(name, link_type, widget=True))
        self.nodes.append(node(int(node_id), kind, *sockets, values=self.values(kind, inputs)))

    def canvas(self, graph: dict[str, Any]) -> dict[str, Any]:
        for node_id, one in graph.items():
            self.node(node_id, one)
        if self.draw(st.booleans()):
            self.nodes.append(node(self.new_id(), "Note", values=["a note"]))
        if self.draw(st.booleans()):
            self.nodes.append(node(self.new_id(), "Gone", mode=2, values=[1, 2, 3]))
        nodes = self.draw(st.permutations(self.nodes))
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        as_objects = self.draw(st.booleans())
        links = [dict(zip(keys, one, strict=True)) for one in self.links] if as_objects else self.links
        return {"nodes": nodes, "links": links}


def fold(drawn: dict[str, Any], host: int) -> dict[str, Any]:
    """The same workflow with everything in one subgraph, whose node is `host`."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [one if isinstance(one, dict) else dict(zip(keys, one, strict=True)) for one in drawn["links"]]
    inside = {"id": "all-of-it", "inputs": [], "outputs": [], "nodes": drawn["nodes"], "links": links}
    return {"nodes": [node(host, "all-of-it", outputs=[])], "links": [], "definitions": {"subgraphs": [inside]}}


@st.composite
def drawings(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    graph = draw(graphs())
    return graph, Drawing(draw).canvas(graph)


@settings(max_examples=110)
@given(drawings())
def test_any_drawing_of_a_graph_converts_back_to_the_graph(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, drawing = drawn
    before = copy.deepcopy(drawing)
    assert plain(convert_to_api(drawing, OBJECT_INFO).graph) == plain(graph)
    assert drawing == before


@settings(max_examples=30)
@given(drawings())
def test_a_subgraph_converts_to_the_same_graph_with_longer_ids(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, drawing = drawn
    expected = {
        f"99:{node_id}": (
            one["class_type"],
            {
                name: [f"99:{value[0]}", value[1]] if isinstance(value, list) else value
                for name, value in one["inputs"].items()
            },
        )
        for node_id, one in graph.items()
    }
    assert plain(convert_to_api(fold(drawing, 99), OBJECT_INFO).graph) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 200) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "type", "0"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=80)
@given(drawings(), st.data())
def test_a_damaged_file_is_converted_or_refused_without_a_crash(
    drawn: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    damaged = copy.deepcopy(drawn[1] if data.draw(st.booleans()) else fold(drawn[1], 7))
    for _ in range(data.draw(st.integers(1, 3))):
        container: Any = damaged
        while True:
            keys = list(container) if isinstance(container, dict) else list(range(len(container)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(container[key], (dict, list)) or data.draw(st.integers(0, 3)) == 0:
                container[key] = data.draw(JSON)
                break
            container = container[key]
    with suppress(UiFormatError):
        result = convert_to_api(damaged, OBJECT_INFO)
        assert {one["class_type"] for one in result.graph.values()} <= OBJECT_INFO.keys() | {*result.unchecked}
