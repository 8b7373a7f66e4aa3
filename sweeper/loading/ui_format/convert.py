"""Convert a UI-format workflow, which ComfyUI's editor saves, into the API-format graph that the editor would send.

The conversion follows the editor's `graphToPrompt` (Comfy-Org/ComfyUI_frontend, src/utils/executionUtil.ts). It needs
the `object_info` of a server, because a UI file has values without names. A node that cannot be converted with
certainty is refused. `graph` parses the file, `widgets` assigns the values to inputs, and `links` follows the links and
finds the values that the node of a subgraph has itself. `own_names` reads nodes whose class the server does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeper.loading.ui_format.graph import BYPASSED, MUTED, MalformedWorkflowError, Node, UiWorkflow, parse_ui_workflow
from sweeper.loading.ui_format.links import (
    LinkEnd,
    LinkFollower,
    NodeOrigin,
    NoOrigin,
    Origin,
    Scope,
    SubgraphValues,
    UnresolvedError,
    ValueOrigin,
    is_frontend_only,
)
from sweeper.loading.ui_format.own_names import Declarations
from sweeper.loading.ui_format.widgets import (
    RECORDING,
    Widget,
    WidgetMismatchError,
    convert_value,
    convert_widgets,
    get_widget_type,
    resolve_dynamic_prompt,
    round_as_page,
)
from sweeper.model.node_classes import InputSpec, NodeInfo, NodeSpec
from sweeper.model.node_classes.spec import ANY
from sweeper.model.template import MISSING, Address, ModelFile
from sweeper.model.workflow import EXPORT_HINT, find_upstream, is_link, iter_links
from sweeper.schemas.values import KeyPath, fits_shape
from sweeper.wording import count_things, join_names, shorten, to_one_line

# `%date:yyyy-MM-dd%` and `%KSampler.seed%`, which the editor replaces (searchAndReplace.ts). The server does `%year%`.
_FRONTEND_TEXT: Final = re.compile(r"%(date:[^%]*|[^%.]+\.[^%.]+)%")
_MAX_NODES: Final = 100_000  # with subgraphs expanded: thirty that each use the next one twice make a billion
_MAX_NESTED: Final = 50
_UUID_LENGTH: Final = 36
_TEXT_TYPES: Final = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"})
_MAX_SINGLE: Final = 3  # refused nodes that are listed one by one; more of them are grouped by their node pack
_GIVE_CLASSES: Final = "give a server that has it: --target URL"


class UiFormatError(Exception):
    """The workflow cannot be converted with certainty. `problems` are (path, sentence) pairs; the first is advice."""

    def __init__(self, problems: list[tuple[KeyPath, str]]) -> None:
        count = f"{len(problems)} problems prevent" if len(problems) > 1 else "One problem prevents"
        head = f"{EXPORT_HINT}. {count} the conversion here"
        self.problems: tuple[tuple[KeyPath, str], ...] = (((), head), *problems)
        super().__init__("\n".join(sentence for _, sentence in self.problems))


@dataclass(frozen=True, slots=True)
class AppInput:
    """An input that the author of a workflow chose for its App mode: its addresses, and its name or the author's."""

    addresses: tuple[str, ...]
    name: str
    is_label: bool = False


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """The API-format graph, notes as (path, sentence) pairs on what it lacks, and the model files of the file.

    `unchecked` are the classes that the server does not have: their nodes were read by the file's own names.
    `app_inputs` are what its author chose for the App mode, in order.
    """

    graph: dict[str, Any]
    notes: tuple[tuple[KeyPath, str], ...]
    models: tuple[ModelFile, ...] = ()
    unchecked: tuple[str, ...] = ()
    app_inputs: tuple[AppInput, ...] = ()


def convert_to_api(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> ConversionResult:
    """Convert a UI-format workflow, `{"nodes": [...], "links": [...]}`, with a server's response to GET /object_info.

    Raises UiFormatError with everything that cannot be converted with certainty, and InputError if `object_info` is
    something else.
    """
    info = NodeInfo.from_object_info(object_info, only=dict.fromkeys(_iter_types(workflow)))
    try:
        ui_workflow = parse_ui_workflow(workflow)
        converter = _Converter(ui_workflow, info, object_info)
        converter.convert_graph(Scope(ui_workflow.root))
    except MalformedWorkflowError as error:
        raise UiFormatError([(error.path, str(error))]) from error
    extra = workflow.get("extra")
    if isinstance(extra, dict) and extra.get("ue_links"):
        converter.problems.append((("extra", "ue_links"), "Anything Everywhere draws links that are not in the file"))
    converter.leave_out_unknown_nodes()
    converter.drop_loose_links()
    converter.note_inactive_nodes()
    converter.note_scripts()
    if not converter.graph and not converter.problems:
        converter.problems.append((("nodes",), "no node of it would be sent to a server"))
    if converter.problems:
        raise UiFormatError(list(dict.fromkeys(converter.problems)))
    models = dict.fromkeys([*_iter_models(workflow.get("models")), *converter.models])
    classes = dict.fromkeys(node["class_type"] for node in converter.graph.values())
    unchecked = tuple(name for name in classes if name not in info.classes)
    app_inputs = tuple(converter.find_app_inputs(extra.get("linearData") if isinstance(extra, dict) else None))
    return ConversionResult(
        converter.graph, tuple(dict.fromkeys(converter.notes)), tuple(models), unchecked, app_inputs
    )


def _iter_types(value: Any) -> Iterator[str]:
    """Yield every `type` in a workflow, among them the classes of its nodes, also of those in subgraphs."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        yield value["type"]
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _iter_types(part)


def _iter_models(items: Any) -> Iterator[ModelFile]:
    """Yield the model files of `models` in the properties of a node, `[{"name", "url", "directory"}]`."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str) and item["name"]:
            yield ModelFile(item["name"], str(item.get("directory") or ""), str(item.get("url") or ""))


def _may_be_dynamic(value: Any) -> bool:
    """Whether this is a text that the page would change for an input with `dynamicPrompts`."""
    try:
        return isinstance(value, str) and resolve_dynamic_prompt(value) != value
    except WidgetMismatchError:
        return True


def _describe_pack(node: Node, *details: str) -> str:
    """Return the node pack that a file states for a node, with details such as its version; "" if it states none."""
    properties = node.properties or {}
    names = (properties.get("cnr_id") or properties.get("aux_id"), *map(properties.get, details))
    words = [to_one_line(name) for name in names if isinstance(name, str) and name]
    return " ".join([*(shorten(word) for word in words[:1]), *(word[:12] for word in words[1:])])  # a commit, cut


def _group_by_pack(nodes: list[Node]) -> Iterator[tuple[KeyPath, str]]:
    """Yield a problem for each node pack whose classes the server lacks: how many nodes, and their classes."""
    packs: dict[str, list[Node]] = {}
    for node in nodes:
        packs.setdefault(_describe_pack(node), []).append(node)
    for pack, found in sorted(packs.items(), key=lambda item: -len(item[1])):
        classes = dict.fromkeys(to_one_line(node.type) for node in found)
        where = f"of the node pack {pack}" if pack else "of node packs that the file does not state"
        yield ("nodes",), f"{count_things(len(found), 'node')} {where}: {join_names(classes)}"
    message = f"the server lacks the classes of these {len(nodes)} nodes, and the file does not name their values"
    yield ("nodes",), f"{message}; give a server that has them: --target URL"


class _Converter:
    """Converts one workflow and collects problems and notes."""

    def __init__(self, workflow: UiWorkflow, info: NodeInfo, object_info: Mapping[str, Any]) -> None:
        self.workflow = workflow
        self.info = info
        self.object_info = object_info
        self.link_follower = LinkFollower(workflow)
        self.declarations = Declarations(workflow, info)
        self.subgraph_values = SubgraphValues(workflow, self.declarations)
        self.graph: dict[str, Any] = {}
        self.shown_values: dict[tuple[str, str], list[Address]] = {}  # by the primitive or host that has them
        self.labels: dict[tuple[str, str], str] = {}  # the names that the user gave to widgets
        self.unknown: dict[str, tuple[Node, str]] = {}  # of unknown classes, with the reason why they are unread, or ""
        self.node_count = 0
        self.problems: list[tuple[KeyPath, str]] = []
        self.notes: list[tuple[KeyPath, str]] = []
        self.inactive: dict[int, list[Node]] = {}  # by mode, muted or bypassed
        self.models: list[ModelFile] = []

    def convert_graph(self, scope: Scope) -> None:
        for node in sorted(scope.graph.nodes.values(), key=lambda node_in_order: node_in_order.order):
            self.node_count += 1
            for socket in node.inputs:
                if socket.label and socket.widget is not None:
                    self.labels[scope.to_api_id(node), socket.name] = socket.label
            if self.node_count > _MAX_NODES:
                raise MalformedWorkflowError(("nodes",), f"with its subgraphs it has more than {_MAX_NODES:,} nodes")
            if is_frontend_only(node):
                continue
            # The page expands a muted or bypassed subgraph if it is inside of another one (SubgraphNode.getInnerNodes).
            is_inner_host = scope.host is not None and node.type in self.workflow.subgraphs
            if node.mode in (MUTED, BYPASSED) and not is_inner_host:
                self.inactive.setdefault(node.mode, []).append(node)
            elif node.type in self.workflow.subgraphs:
                inner_scope = scope.enter(node, self.workflow.subgraphs[node.type])
                if len(inner_scope.ids) > min(len(self.workflow.subgraphs), _MAX_NESTED):
                    message = f"is a subgraph that contains itself, or more than {_MAX_NESTED} nested levels"
                    self.add_problem(node, message)
                else:
                    self.convert_graph(inner_scope)
            else:
                self.convert_node(scope, node)

    def add_problem(self, node: Node, reason: str) -> None:
        self.problems.append((node.path, f"{node} {reason}"))

    def convert_node(self, scope: Scope, node: Node) -> None:
        if "Everywhere" in node.type:
            self.add_problem(node, "draws links that are not in the file")
            return
        if node.type.startswith(("workflow>", "workflow/")) and node.type not in self.info.classes:
            self.add_problem(node, "is a group node; convert it to nodes or to a subgraph in ComfyUI")
            return
        api_id = scope.to_api_id(node)
        if node.type not in self.info.classes:
            self.unknown[api_id] = node, ""
        title = node.title or self.object_info.get(node.type, {}).get("display_name") or node.type
        self.graph[api_id] = {"inputs": {}, "class_type": node.type, "_meta": {"title": title}}
        try:
            self.graph[api_id]["inputs"] = self.convert_inputs(scope, node, self.declarations.get_spec(node))
        except WidgetMismatchError as error:
            if node.type not in self.info.classes:
                self.unknown[api_id] = node, f"{self.describe_unknown_class(node)}, {error}"
            else:
                self.add_problem(node, str(error))
        except UnresolvedError as error:
            self.problems.append((node.path, str(error)))
        else:
            self.models += _iter_models((node.properties or {}).get("models"))

    def describe_unknown_class(self, node: Node) -> str:
        pack = _describe_pack(node, "ver")
        nearest = self.info.find_misspelt(node.type)
        details = [f"by the file of the node pack {pack}"] if pack else []
        details += [f"the nearest is {nearest}"] if nearest else []
        return "is of a class that the server does not have" + (f" ({'; '.join(details)})" if details else "")

    def leave_out_unknown_nodes(self) -> None:
        """Leave out nodes of unknown classes that no output needs: those without links, and those that are unread.

        Refuse the unread nodes that an output needs. A node of an unknown class is an output if nothing uses it, unless
        it is unread and gets only texts and numbers, because then it can only show them.
        """
        used = {source for node in self.graph.values() for _, source, _ in iter_links(node)}
        specs = {key: self.info.classes.get(node["class_type"]) for key, node in self.graph.items()}
        outputs = {key for key, spec in specs.items() if (key not in used if spec is None else spec.is_output)}
        loose, shows_text = set(), set()
        for key, (node, reason) in self.unknown.items():
            types = {socket.type for socket in node.inputs if socket.link is not None}
            if not types and key not in used:
                loose.add(key)
            elif reason and key not in used and types <= _TEXT_TYPES:
                shows_text.add(key)
        outputs = outputs - loose - shows_text or outputs
        needed = find_upstream(self.graph, outputs)
        refused = [(node, reason) for key, (node, reason) in self.unknown.items() if reason and key in needed]
        if len(refused) > _MAX_SINGLE:
            self.problems += _group_by_pack([node for node, _ in refused])
        else:
            self.problems += [(node.path, f"{node} {reason}; {_GIVE_CLASSES}") for node, reason in refused]
        for key, (node, reason) in self.unknown.items():
            if key not in needed and (reason or key in loose):
                why = f"no output needs it, and it {reason}" if reason else "it is linked to nothing"
                self.notes.append((node.path, f"{node} is left out: {why}"))
                del self.graph[key]

    def convert_inputs(self, scope: Scope, node: Node, spec: NodeSpec) -> dict[str, Any]:
        """Return the inputs as the page sends them: the values of widgets in the order of the class, then links."""
        widgets = self.read_widgets(node, spec)
        origins = self.find_origins(scope, node, spec, widgets)
        found = {name: self.find_received(scope, node, name, widgets.get(name), origins.get(name))
                 for name in {**widgets, **origins}}  # fmt: skip
        received = {name: value for name, value in found.items() if value is not MISSING}
        inputs = {**convert_widgets(node, spec, widgets, received), **received}
        own = inputs.keys() - received
        defaults = [f"'{name}' = {inputs[name]!r}" for name in widgets if name in own and not widgets[name].is_saved]
        if defaults:
            names = " and ".join(defaults)
            self.notes.append((node.path, f"{node} was saved before its class had {names}, the server's default"))
        for name in own & widgets.keys():
            if get_widget_type(widgets[name].spec) == RECORDING:
                self.notes.append((node.path, f"{node} records nothing here; give its '{name}' an audio file"))
        if node.type not in self.info.classes and any(map(_may_be_dynamic, inputs.values())):
            self.notes.append((node.path, f"{node} has a text with braces or comments, which is sent as it is"))
        prefix = inputs.get("filename_prefix")
        if isinstance(prefix, str) and _FRONTEND_TEXT.search(prefix):
            self.notes.append((node.path, f"{node} has '{prefix}', whose %...% only ComfyUI's page replaces"))
        return inputs

    def is_custom(self, class_type: str) -> bool:
        """Whether scripts of a custom node may change the class on the page."""
        if class_type not in self.object_info:
            return True
        return str(self.object_info[class_type].get("python_module", "")).startswith("custom_nodes")

    def read_widgets(self, node: Node, spec: NodeSpec) -> dict[str, Widget]:
        sockets = {socket.name for socket in node.inputs if socket.widget is None}
        for name, declared in spec.inputs.items():
            is_unknown = declared.kind == "widget" and get_widget_type(declared) is None
            if is_unknown and declared.required and name not in sockets:
                message = f"has the input '{name}' ({declared.type}), whose widget only ComfyUI's page knows"
                raise WidgetMismatchError(message)
        return self.declarations.read_widgets(node, is_custom=self.is_custom(node.type))

    def find_origins(
        self, scope: Scope, node: Node, spec: NodeSpec, widgets: Mapping[str, Widget]
    ) -> dict[str, Origin]:
        """Return the origins of the inputs by name. Inputs that the node does not have with these values lose them."""
        origins: dict[str, Origin] = {}
        values = {name: widget.value for name, widget in widgets.items()}
        declared = spec.resolve_inputs({**dict.fromkeys(socket.name for socket in node.inputs), **values})
        for index, socket in enumerate(node.inputs):
            is_part = socket.name not in spec.inputs and socket.name.partition(".")[0] in spec.inputs
            if socket.name not in declared and (is_part or socket.widget is not None):
                if socket.link is not None and self.is_custom(node.type):
                    raise WidgetMismatchError(f"links '{socket.name}', which the server's class does not have")
                if socket.link is not None:
                    self.notes.append((node.path, f"{node} has no input '{socket.name}'; its link is left out"))
                continue
            origin = self.link_follower.find_origin(scope, node, index)
            reason = origin.reason if isinstance(origin, NoOrigin) else ""
            if isinstance(origin, ValueOrigin) and socket.name not in widgets:
                reason = f"{origin.primitive} can give its value only to a widget"
            if reason:
                self.notes.append((node.path, f"'{socket.name}' of {node} is not linked: {reason}"))
            origins[socket.name] = origin
        return origins

    def find_received(self, scope: Scope, node: Node, name: str, widget: Widget | None, origin: Origin | None) -> Any:
        """Return what an input receives: a link, or a value from a primitive or a subgraph; MISSING if nothing."""
        if widget is not None:
            self.record_shown_value(scope, node, name, origin)
        value = self.subgraph_values.find_value(LinkEnd(scope, node, name)) if widget is not None else MISSING
        if value is MISSING and isinstance(origin, NodeOrigin):
            return [origin.node_id, origin.output]
        if value is MISSING and isinstance(origin, ValueOrigin) and widget is not None:
            value = self.subgraph_values.find_value(LinkEnd(scope, origin.primitive, "value"))
            if value is MISSING:
                return convert_value(widget.spec, round_as_page(widget.spec, node, origin.value))
        if value is MISSING and isinstance(origin, NoOrigin) and origin.end is not None:
            value = self.subgraph_values.find_value(origin.end)
        spec = widget.spec if widget is not None else InputSpec(name, "link", ANY, required=False)
        return value if value is MISSING else convert_value(spec, value, is_host_value=True)

    def record_shown_value(self, scope: Scope, node: Node, name: str, origin: Origin | None) -> None:
        """Record which primitive, or which node of a subgraph, shows the value of a widget on the page."""
        if isinstance(origin, ValueOrigin):
            shown_by = scope.to_api_id(origin.primitive), ""  # a primitive shows one value, under any name
        elif isinstance(origin, NoOrigin) and origin.end is not None and origin.end.is_left:
            shown_by = origin.end.scope.to_api_id(origin.end.node), origin.end.name
        else:
            return
        self.shown_values.setdefault(shown_by, []).append(Address(scope.to_api_id(node), name))

    def find_app_inputs(self, chosen: Any) -> Iterator[AppInput]:
        """Yield the inputs of `extra.linearData`, `{"inputs": [[node, widget], ...]}`, that have a value.

        A node is an id, the path `57:8`, or `GRAPH:8:WIDGET` with the UUID of its graph (appModeStore.ts of
        ComfyUI_frontend 1.58).
        """
        entries = chosen.get("inputs") if isinstance(chosen, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            if not fits_shape(entry[:2] if isinstance(entry, list) else entry, ([str, str], [int, str])):
                continue
            graph_id, _, rest = str(entry[0]).partition(":")
            is_path = len(graph_id) != _UUID_LENGTH or not rest
            reference, _, name = (str(entry[0]), "", "") if is_path else rest.partition(":")
            name, given = name or entry[1], entry[1]  # some files have a label in the place of the widget
            addresses = self.find_shown_addresses(reference, name)
            if addresses:
                label = self.labels.get((reference, name), "") or (given if given != name else "")
                yield AppInput(tuple(map(str, addresses)), label or name, bool(label))
            else:
                message = (
                    f"the author chose '{name}' of node {reference} for the App mode, but it is not there or is linked"
                )
                self.notes.append((("extra", "linearData"), message))

    def find_shown_addresses(self, reference: str, name: str) -> list[Address]:
        """Return where the value of a widget is sent. Nodes inside of a subgraph may be named without its node."""
        inner = [key for key in self.graph if key.endswith(f":{reference}") or key.startswith(f"{reference}:")]
        inner = [key for key in inner if name in self.graph[key]["inputs"]]
        found = [Address(reference, name)] if reference in self.graph else []
        found = found or self.shown_values.get((reference, name)) or self.shown_values.get((reference, ""), [])
        found = found or [Address(key, name) for key in inner if len(inner) == 1]
        values = [self.graph.get(address.node, {}).get("inputs", {}).get(address.input) for address in found]
        return [address for address, value in zip(found, values, strict=True) if not (value is None or is_link(value))]

    def drop_loose_links(self) -> None:
        for node in self.graph.values():
            for name, value in list(node["inputs"].items()):
                if isinstance(value, list) and value[0] not in self.graph:
                    del node["inputs"][name]

    def note_inactive_nodes(self) -> None:
        """Note first which nodes are muted or bypassed."""
        effects = {MUTED: "left out, because muted", BYPASSED: "bypassed, so that their links are passed on"}
        found = ((nodes[0].path, f"{effects[mode]}: {join_names(nodes)}") for mode, nodes in self.inactive.items())
        self.notes[:0] = found

    def note_scripts(self) -> None:
        """Note custom nodes, because their scripts for ComfyUI's page may change values when it queues a workflow."""
        classes = {node["class_type"] for node in self.graph.values()} & self.object_info.keys()
        custom = sorted(filter(self.is_custom, classes))
        if custom:
            message = f"what scripts of custom nodes change on the page is not followed: {join_names(custom)}"
            self.notes.append(((), message))
