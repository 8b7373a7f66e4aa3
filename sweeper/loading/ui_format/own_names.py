"""Read the nodes of classes that nobody here knows, by the names that the file itself gives to their values.

A file names values in three ways:

- `widgets_values` is an object (VideoHelperSuite), or `widgets_values_named` is one (the page since 1.49).
- The node has a socket for each of its widgets, in their order (the page since 1.16). The list also has values of the
  page's own widgets, the control behind a seed and buttons, so it is read only if there is one way to do so.
- All values belong to linked widgets, which have a socket in every file.

Everything else is refused. The result is a declaration for one node, without limits, choices and defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from typing import Any, Final

from sweeper.loading.ui_format.graph import Node, Socket, UiWorkflow
from sweeper.loading.ui_format.widgets import (
    BUTTON_TEXTS,
    CONTROL_WORDS,
    SEED_INPUTS,
    Widget,
    WidgetMismatchError,
    get_widget_type,
    is_possible,
    read_widgets,
)
from sweeper.model.node_classes import InputSpec, NodeInfo, NodeSpec
from sweeper.model.node_classes.spec import PAGE_FIELDS
from sweeper.schemas.values import KeyPath, is_number
from sweeper.wording import count_things, join_names

_BUTTON_TYPES: Final = frozenset({"IMAGEUPLOAD", "AUDIOUPLOAD", "VIDEOUPLOAD", "FILEUPLOAD", "AUDIO_UI"})
_CONTROLLED_TYPES: Final = ("INT", "FLOAT", "COMBO")
_MAX_READINGS: Final = 10_000  # of one list that are compared
_Reading = list[tuple[Socket, Any]]


class Declarations:
    """The declaration and the widgets of each node of a workflow: of its class, or else by the node's own names."""

    def __init__(self, workflow: UiWorkflow, info: NodeInfo) -> None:
        self.classes = info.classes
        self.has_all_sockets = _has_all_sockets(workflow, info)
        self.read_nodes: dict[KeyPath, tuple[NodeSpec, Mapping[str, Any]] | WidgetMismatchError] = {}

    def get_spec(self, node: Node) -> NodeSpec:
        """Return the declaration of a node. Raises WidgetMismatchError if the file does not name its values."""
        return self.classes[node.type] if node.type in self.classes else self._read_node(node)[0]

    def find_spec(self, node: Node) -> NodeSpec | None:
        try:
            return self.get_spec(node)
        except WidgetMismatchError:
            return None

    def read_widgets(self, node: Node, *, is_custom: bool = False) -> dict[str, Widget]:
        """Return the widgets of a node as `widgets.read_widgets` does. Raises WidgetMismatchError."""
        if node.type in self.classes:
            return read_widgets(node, self.classes[node.type], is_custom=is_custom)
        spec, values = self._read_node(node)
        return read_widgets(replace(node, values=values), spec, is_custom=is_custom)

    def _read_node(self, node: Node) -> tuple[NodeSpec, Mapping[str, Any]]:
        if node.path not in self.read_nodes:
            try:
                self.read_nodes[node.path] = _read_own_names(node, self.has_all_sockets)
            except WidgetMismatchError as error:
                self.read_nodes[node.path] = error
        found = self.read_nodes[node.path]
        if isinstance(found, WidgetMismatchError):
            raise found
        return found


def _has_all_sockets(workflow: UiWorkflow, info: NodeInfo) -> bool | None:
    """Whether the file has a socket for each widget, as the nodes of known classes show; None without such nodes."""
    answer = None
    for graph in (workflow.root, *workflow.subgraphs.values()):
        for node in graph.nodes.values():
            inputs = info.classes[node.type].inputs.values() if node.type in info.classes else ()
            first = next((spec.name for spec in inputs if get_widget_type(spec) is not None), None)
            if first is not None and not any(socket.widget == first for socket in node.inputs):
                return False
            answer = answer or first is not None or None
    return answer


def _read_own_names(node: Node, has_all_sockets: bool | None) -> tuple[NodeSpec, Mapping[str, Any]]:
    """Return a declaration of the node's sockets and named values, and the values by name."""
    values = _name_values(node, has_all_sockets)
    inputs: dict[str, InputSpec] = {}
    for socket in node.inputs:
        if socket.widget is None:
            inputs[socket.name] = InputSpec(socket.name, "link", socket.type, required=False)
        elif not _is_button(socket):
            inputs[socket.name] = _declare_widget(socket.name, socket.type, values.get(socket.name))
    for name, value in values.items():
        if name not in inputs:
            inputs[name] = _declare_widget(name, _guess_type(value), value)
    return NodeSpec(node.type, inputs), values


def _declare_widget(name: str, kind: str, value: Any) -> InputSpec:
    # `widgetType` makes a widget of every type, and `multiselect` lets a combo have a list.
    known = kind if get_widget_type(InputSpec(name, "widget", kind, required=True)) is not None else "TEXTAREA"
    return InputSpec(
        name, "widget", kind, required=True, options={"widgetType": known, "multiselect": isinstance(value, list)}
    )


def _guess_type(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    return "FLOAT" if is_number(value) else "STRING" if isinstance(value, str) else "*"


def _is_button(socket: Socket) -> bool:
    return socket.type in _BUTTON_TYPES or socket.name in PAGE_FIELDS


def _name_values(node: Node, has_all_sockets: bool | None) -> dict[str, Any]:
    """Return the values of a node by name, without nulls and values of the page."""
    named = node.values if isinstance(node.values, Mapping) else node.named_values
    if named is None:
        return _name_list(node, has_all_sockets)
    if isinstance(node.values, list) and node.values != [*named.values()]:
        raise WidgetMismatchError("and its values by name are not those of its list")
    own = {socket.name for socket in node.inputs if socket.widget is not None and not _is_button(socket)}
    kept: dict[str, Any] = {}
    for name, value in named.items():
        # The page tells equal names apart by `#1`; an unnamed control is called by its value.
        is_of_page = name.partition("#")[0] in PAGE_FIELDS or (name == value and name in CONTROL_WORDS)
        if name in own or not is_of_page:
            kept[name] = value
    return {name: value for name, value in kept.items() if value is not None}


def _name_list(node: Node, has_all_sockets: bool | None) -> dict[str, Any]:
    values = node.values if isinstance(node.values, list) else []
    sockets = [socket for socket in node.inputs if socket.widget is not None]
    unlinked = [socket for socket in sockets if socket.link is None]
    if has_all_sockets is None:
        has_all_sockets = any(socket.is_localized for socket in unlinked)
    found = {repr(reading): reading for reading in _list_readings(sockets, values, may_have_buttons=has_all_sockets)}
    is_ordered = has_all_sockets or not unlinked or len(sockets) == 1
    if not found or not is_ordered:
        count = count_things(len(values), "value")
        if len(sockets) >= len(values):
            names = join_names([socket.name for socket in sockets])
            raise WidgetMismatchError(f"and its widgets ({names}) do not fit its {count}")
        named = f"names only {len(sockets)} of its {count}" if sockets else f"does not name its {count}"
        raise WidgetMismatchError(f"and the file {named}")
    if len(found) > 1:
        raise WidgetMismatchError("and its values can be given to its inputs in more than one way")
    (reading,) = found.values()
    return {socket.name: value for socket, value in reading if value is not None and not _is_button(socket)}


def _list_readings(sockets: Sequence[Socket], values: Sequence[Any], *, may_have_buttons: bool) -> Iterator[_Reading]:
    """Yield every way to give the values to the sockets in order, with one value for each.

    Values may be left over only if they are controls, or can be those of buttons and viewers. Custom nodes put these
    anywhere, so each way to leave them out is a reading.
    """
    left_over = len(values) - len(sockets)
    is_spare = _is_of_page if may_have_buttons else _is_picture_list
    spare = [index for index, value in enumerate(values) if _is_control(value) or is_spare(value)]
    if left_over < 0 or comb(len(spare), left_over) > _MAX_READINGS:
        return
    for skipped in combinations(spare, left_over):
        kept = [index for index in range(len(values)) if index not in skipped]
        types = {index: socket.type for socket, index in zip(sockets, kept, strict=True)}
        reading = [(socket, values[index]) for socket, index in zip(sockets, kept, strict=True)]
        controls = [index for index in skipped if _is_control(values[index])]
        if all(types.get(index - 1) in _CONTROLLED_TYPES for index in controls) and _is_plausible(reading):
            yield reading


def _is_of_page(value: Any) -> bool:
    return isinstance(value, (dict, list)) or value in BUTTON_TEXTS


def _is_control(value: Any) -> bool:
    return isinstance(value, str) and value in CONTROL_WORDS


def _is_picture_list(value: Any) -> bool:
    """Whether this is what a viewer shows, `[{"url": ...}]`, and not the value of an input."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "url" in item for item in value)


def _is_plausible(reading: _Reading) -> bool:
    """Whether each value can be that of its socket, and no control of a seed is taken for the next value."""
    previous = ""
    for socket, value in reading:
        spec = _declare_widget(socket.name, socket.type, value)
        if value is not None and not _is_button(socket) and not is_possible(spec, value):
            return False
        if previous in SEED_INPUTS and _is_control(value):
            return False
        previous = socket.name
    return True
