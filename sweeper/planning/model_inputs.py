"""Which inputs of a plan name model files, and which files each trial uses.

It follows from the server and not from the names of classes: an input names files of a folder if the options that its
class declares are mostly the names in that folder. Others may stand beside them (`None`, or built-in ones), some may be
missing (a loader that lists one suffix only), and the two lists may be of different moments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from sweeper.model.axis_values import NONE
from sweeper.model.expressions import ExpressionError
from sweeper.model.model_facts import ModelKey
from sweeper.model.node_classes import NodeInfo
from sweeper.model.template import Leaf, Template
from sweeper.model.trial import Trial
from sweeper.model.workflow import find_sinks, find_upstream
from sweeper.planning.compatibility import iter_options
from sweeper.planning.plan import Plan

Folders = Mapping[str, Collection[str]]  # the names of the model files in each folder of a server


class PlanModels:
    """The model files that the trials of a plan use on one server."""

    def __init__(self, plan: Plan, classes: NodeInfo, folders: Folders) -> None:
        self._plan, self._classes, self.folders = plan, classes, folders
        self._template = plan.experiment.template
        self._inputs = list(self._find_inputs(self._template))
        self._known: dict[tuple[Any, ...], tuple[ModelKey, ...]] = {}  # by the names and the folders of the inputs

    def list_keys(self, trial: Trial) -> tuple[ModelKey, ...]:
        """The files that a trial uses, each once, sorted. Equal tuples are the same object."""
        template = self._plan.get_template(trial)
        inputs = self._inputs if template is self._template else list(self._find_inputs(template))
        pairs = tuple((_read_values(value, trial.params), folders) for value, folders in inputs)
        if pairs not in self._known:
            keys = {key for names, folders in pairs for key in self._find_keys(names, folders)}
            self._known[pairs] = tuple(sorted(keys))
        return self._known[pairs]

    def list_all_keys(self) -> tuple[ModelKey, ...]:
        """The files that any trial uses. Of a product of axes, also those of combinations that filters drop."""
        if not self._plan.parts:
            return tuple(sorted({key for trial in self._plan.written() for key in self.list_keys(trial)}))
        grids = [part.grid for part in self._plan.parts]
        keys: set[ModelKey] = set()
        for value, folders in self._inputs:
            is_leaf = isinstance(value, Leaf)
            for option in iter_options(self._template, grids, value.path) if is_leaf else [value]:
                keys.update(self._find_keys(_list_names(option), folders))
        return tuple(sorted(keys))

    def _find_keys(self, names: Iterable[str], folders: Iterable[str]) -> Iterator[ModelKey]:
        return (ModelKey(folder, name) for name in names for folder in folders if name in self.folders[folder])

    def _find_inputs(self, template: Template) -> Iterator[tuple[Leaf | Any, tuple[str, ...]]]:
        """The inputs that name files: what makes their values, and the folders in which these files can be."""
        leaves = {leaf.path: leaf for leaf in template.leaves}
        for node_id in sorted(find_running_nodes(template, self._classes)):
            node = template.graph[node_id]
            spec = self._classes.classes.get(node["class_type"])
            if spec is None:
                continue
            inputs = {found.name: found for found in spec.list_branch_inputs()} | spec.resolve_inputs(node["inputs"])
            for name in node["inputs"]:
                found = inputs.get(name)
                if found is None or found.is_upload or not found.choices:
                    continue
                folders = _find_folders(found.choices, self.folders)
                if folders:
                    yield leaves.get((node_id, "inputs", name), node["inputs"][name]), folders


def list_used_packs(plan: Plan, classes: NodeInfo) -> frozenset[str]:
    """The folders of the node packs whose classes the trials execute. No slot changes the class of a node."""
    template = plan.experiment.template
    used = {template.graph[node_id]["class_type"] for node_id in find_running_nodes(template, classes)}
    return frozenset(spec.pack for name in used if (spec := classes.classes.get(name)) is not None and spec.pack)


def list_nodes(plan: Plan) -> list[Mapping[str, Any]]:
    """The nodes of the workflow, whose classes the trials of a plan need; of all workflows if each has its own."""
    nodes = list(plan.experiment.template.graph.values())
    return nodes or [node for trial in plan.written() for node in plan.workflow(trial).values()]


def may_name_models(plan: Plan, classes: NodeInfo) -> bool:
    """Whether the workflow has an input with options that look like files, so that asking for folders can be of use."""
    nodes = list_nodes(plan)
    specs = (spec for node in nodes if (spec := classes.classes.get(node["class_type"])) is not None)
    inputs = (found for spec in specs for found in (*spec.inputs.values(), *spec.list_branch_inputs()))
    return any(
        not found.is_upload and any("." in str(choice) or "/" in str(choice) for choice in found.choices or ())
        for found in inputs
    )


def find_running_nodes(template: Template, classes: NodeInfo) -> frozenset[str]:
    """The nodes that an output node needs, because a server executes no others.

    If no class is known to be an output, those that no other node uses are taken for the outputs.
    """
    graph = template.graph
    outputs = [
        node_id
        for node_id, node in graph.items()
        if (spec := classes.classes.get(node["class_type"])) is not None and spec.is_output
    ]
    return find_upstream(graph, outputs or find_sinks(graph))


def _find_folders(choices: Iterable[Any], folders: Folders) -> tuple[str, ...]:
    """The folders that share the most names with the options; often one, none if no folder shares any."""
    options = {choice for choice in choices if isinstance(choice, str)}
    counts = {name: len(options.intersection(files)) for name, files in folders.items()}
    most = max(counts.values(), default=0)
    return tuple(name for name, count in counts.items() if count == most > 0)


def _read_values(value: Leaf | Any, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that an input has in a trial; none for `(none)`, which names a file only for its class."""
    if isinstance(value, Leaf) and any(params.get(name) == NONE for name in value.names):
        return ()
    try:
        return _list_names(value.evaluate(params) if isinstance(value, Leaf) else value)
    except ExpressionError:
        return ()


def _list_names(value: Any) -> tuple[str, ...]:
    """One name, or several where the class lets several be chosen."""
    return tuple(text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))
