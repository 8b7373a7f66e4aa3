"""Mutate real prompts: one small mistake, or one unusual but valid change, in a workflow in API format."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from sweeper.model.node_classes import InputSpec, NodeInfo, NodeSpec
from sweeper.model.workflow import is_link

ODD_VALUES: Final = [
    0, 1, -1, 4.9, 7.0, "7", "0.5", "x", "", True, False, "false", None, {"__value__": 4}, {"a": 1}, [], [1, 2, 3],
    ["zz", 0], 10**30, {"__value__": ["a"]}, {"__value__": "x"},
]  # fmt: skip
Graph = dict[str, Any]


class Mutator:
    """Makes mutations of the nodes of one graph, with the classes of a server and a random generator."""

    def __init__(self, graph: Mapping[str, Any], info: NodeInfo, choose: random.Random) -> None:
        self.graph: Graph = copy.deepcopy(dict(graph))
        self.info = info
        self.choose = choose
        nodes = [node_id for node_id, node in self.graph.items() if node["class_type"] in info.classes]
        dynamic = [
            node_id for node_id in nodes if any("COMFY_" in one.type for one in self.spec(node_id).inputs.values())
        ]
        self.node_id = choose.choice(dynamic if dynamic and choose.random() < 0.6 else nodes)
        self.inputs: dict[str, Any] = self.graph[self.node_id]["inputs"]

    def spec(self, node_id: str) -> NodeSpec:
        return self.info.classes[self.graph[node_id]["class_type"]]

    def mutate(self) -> str:
        """Change the graph, and return what was changed."""
        kinds: list[Callable[[], str]] = [
            self.set_odd_value, self.set_edge_value, self.set_other_choice, self.misspell_choice, self.link, self.link,
            self.break_link, self.drop_input, self.rename_input, self.add_undeclared, self.change_class,
            self.drop_node, self.unlink,
        ]  # fmt: skip
        if any("COMFY_" in one.type for one in self.spec(self.node_id).inputs.values()):
            kinds += 2 * [
                self.switch_branch,
                self.break_key,
                self.add_sibling,
                self.grow,
                self.shrink,
                self.send_parent,
            ]
        return self.choose.choice(kinds)()

    def pick_input(self, accepts: Callable[[InputSpec | None], bool]) -> str | None:
        resolved = self.spec(self.node_id).resolve_inputs(self.inputs)
        names = [name for name in self.inputs if accepts(resolved.get(name))]
        return self.choose.choice(names) if names else None

    def describe(self, action: str, name: str | None) -> str:
        value = repr(self.inputs.get(name))[:60] if name is not None else ""
        return f"{action} {self.node_id} ({self.graph[self.node_id]['class_type']}) {name} {value}"

    def set_odd_value(self) -> str:
        name = self.pick_input(lambda spec: True)
        if name is not None:
            self.inputs[name] = copy.deepcopy(self.choose.choice(ODD_VALUES))
        return self.describe("odd value", name)

    def set_edge_value(self) -> str:
        name = self.pick_input(lambda spec: spec is not None and {"min", "max"} & set(spec.options) != set())
        if name is not None:
            options = self.spec(self.node_id).resolve_inputs(self.inputs)[name].options
            edge = options[self.choose.choice([key for key in ("min", "max") if key in options])]
            self.inputs[name] = edge + self.choose.choice([-1, -0.001, 0, 0.001, 1])
        return self.describe("edge value", name)

    def set_other_choice(self) -> str:
        name = self.pick_input(lambda spec: spec is not None and bool(spec.choices))
        if name is not None:
            choices = self.spec(self.node_id).resolve_inputs(self.inputs)[name].choices or ()
            self.inputs[name] = self.choose.choice(choices)
        return self.describe("other choice", name)

    def misspell_choice(self) -> str:
        name = self.pick_input(lambda spec: spec is not None and spec.choices is not None)
        if name is not None:
            self.inputs[name] = f"{self.inputs[name]}_"
        return self.describe("misspelt choice", name)

    def link(self) -> str:
        name = self.pick_input(lambda spec: True)
        source = self.choose.choice(list(self.graph))
        if name is not None:
            self.inputs[name] = [source, self.choose.choice([0, 0, 0, 1, 2])]
        return self.describe("link", name)

    def break_link(self) -> str:
        names = [name for name, value in self.inputs.items() if is_link(value)]
        name = self.choose.choice(names) if names else None
        if name is not None:
            source, output = self.inputs[name]
            broken: list[Any] = [[source, 99], ["gone", output], [source, -1], [source], [source, str(output)]]
            self.inputs[name] = self.choose.choice(broken)
        return self.describe("broken link", name)

    def unlink(self) -> str:
        names = [name for name, value in self.inputs.items() if is_link(value)]
        name = self.choose.choice(names) if names else None
        if name is not None:
            self.inputs[name] = self.choose.choice(["a text", 3, None, {}])
        return self.describe("literal for a link", name)

    def drop_input(self) -> str:
        name = self.pick_input(lambda spec: True)
        self.inputs.pop(str(name), None)
        return self.describe("dropped", name)

    def rename_input(self) -> str:
        name = self.pick_input(lambda spec: True)
        if name is not None:
            self.inputs[name + self.choose.choice(["x", "0", ".x"])] = self.inputs.pop(name)
        return self.describe("renamed", name)

    def add_undeclared(self) -> str:
        source = self.choose.choice(list(self.graph))
        name = self.choose.choice(["upload", "audioUI", "control_after_generate", "preview", "extra.child"])
        self.inputs[name] = self.choose.choice(["image", 1, None, "", [source, 0], {"a": 1}])
        return self.describe("undeclared", name)

    def change_class(self) -> str:
        classes = ["Nope", "PreviewImage", "ImageInvert", "ComfySwitchNode", "CLIPTextEncode", "BatchImagesNode"]
        self.graph[self.node_id]["class_type"] = self.choose.choice(classes)
        return self.describe("other class", None)

    def drop_node(self) -> str:
        description = self.describe("dropped node", None)
        del self.graph[self.node_id]
        return description

    # dynamic inputs

    def pick_dynamic(self, accepts: Callable[[InputSpec], bool]) -> InputSpec | None:
        """Return a dynamic input of the node; those of branches only if they are chosen."""
        node_spec = self.spec(self.node_id)
        found = [
            one for one in (*node_spec.inputs.values(), *node_spec.resolve_inputs(self.inputs).values()) if accepts(one)
        ]
        return self.choose.choice(found) if found else None

    def switch_branch(self) -> str:
        """Choose another branch, and give none, some or all of its inputs."""
        combo = self.pick_dynamic(lambda one: bool(one.branches))
        if combo is None:
            return "nothing"
        key = self.inputs[combo.name] = self.choose.choice(list(combo.branches))
        share = self.choose.choice([0, 0.5, 1, 1])
        for child in combo.branches[key].values():
            if child.name not in self.inputs and self.choose.random() < share:
                self.inputs[child.name] = self.make_value(child)
        return self.describe("branch", combo.name)

    def make_value(self, spec: InputSpec) -> Any:
        """Return a value that fits an input, or a link to some node."""
        if spec.choices:
            return self.choose.choice(spec.choices)
        if spec.kind == "link":
            return [self.choose.choice(list(self.graph)), 0]
        if spec.type in ("INT", "FLOAT"):
            return spec.options.get("default", spec.options.get("min", 1))
        return {"STRING": "text", "BOOLEAN": True}.get(spec.type, {})

    def break_key(self) -> str:
        combo = self.pick_dynamic(lambda one: bool(one.branches))
        if combo is None:
            return "nothing"
        key = next(iter(combo.branches))
        odd = [
            f"{key}_",
            key.upper(),
            "",
            None,
            1,
            {"__value__": key},
            [self.choose.choice(list(self.graph)), 0],
            [key],
        ]
        self.inputs[combo.name] = self.choose.choice(odd)
        if self.choose.random() < 0.2:
            del self.inputs[combo.name]
        return self.describe("key", combo.name)

    def add_sibling(self) -> str:
        """Give an input of a branch that is not chosen."""
        combo = self.pick_dynamic(lambda one: bool(one.branches))
        children = [] if combo is None else [child for branch in combo.branches.values() for child in branch.values()]
        if not children:
            return "nothing"
        child = self.choose.choice(children)
        self.inputs[child.name] = self.make_value(child)
        return self.describe("input of a branch", child.name)

    def grow(self) -> str:
        """Link one more input of an autogrowing input: a declared one, one too many, or a wrong name."""
        grown = self.pick_dynamic(lambda one: bool(one.autogrow_inputs))
        if grown is None:
            return "nothing"
        names = [one.name for one in grown.autogrow_inputs]
        name = self.choose.choice([*names, f"{names[-1]}9", f"{grown.name}.other", names[0].partition(".")[2]])
        self.inputs[name] = self.make_value(grown.autogrow_inputs[0])
        return self.describe("grown", name)

    def shrink(self) -> str:
        grown = self.pick_dynamic(lambda one: bool(one.autogrow_inputs))
        names = [name for name in self.inputs if grown is not None and name.startswith(f"{grown.name}.")]
        if names:
            del self.inputs[names[0]]
        return self.describe("shrunk", names[0] if names else None)

    def send_parent(self) -> str:
        """Give an autogrowing input itself a value."""
        grown = self.pick_dynamic(lambda one: bool(one.autogrow_inputs))
        if grown is None:
            return "nothing"
        self.inputs[grown.name] = self.choose.choice([[self.choose.choice(list(self.graph)), 0], "x", {}])
        return self.describe("parent", grown.name)
