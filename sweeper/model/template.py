"""A template: a workflow with named slots, compiled once and rendered for each trial.

`sweeper.loading.template_builder` makes a Template from a workflow file and its slots file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from sweeper.errors import Problem
from sweeper.model.expressions import Expression, ExpressionError
from sweeper.model.slot_values import SlotSchema
from sweeper.model.source import Source, format_key_path
from sweeper.schemas.values import KeyPath


class Missing(Enum):
    """The type of `MISSING`, which says that no value was given. null is a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING

# The dynamic combos of a node, parents first: by the name of the combo, the names of the inputs that each option adds.
Branches = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """The input of a node into which a value is written: `node_id.input`."""

    node: str
    input: str

    def __str__(self) -> str:
        return f"{self.node}.{self.input}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A named value of a template: its schema, its default, and the inputs that receive it.

    `path` is the location of the slot in the slots file, for messages; empty if it appears only in the Jinja2 of the
    workflow. A slot of kind `mask` masks the picture of the file slot `masked_slot` and has the same addresses.
    """

    name: str
    addresses: tuple[Address, ...]
    schema: SlotSchema
    default: Any = MISSING
    kind: Literal["value", "file", "mask"] = "value"
    description: str = ""
    path: KeyPath = ()
    masked_slot: str = ""

    @property
    def is_file(self) -> bool:
        return self.kind != "value"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that the workflow names: the folder of the server it belongs to, and where to get it, if known."""

    name: str
    folder: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value in the graph that depends on slots. `path` begins with the node id.

    `mask` is the slot of the mask of the picture that the value names. The mask does not change the value, but it
    changes the digest of the trial. `switch` is a slot of model files; if it is `(none)`, the value is some file of the
    server's, which does not change the digest.
    """

    path: KeyPath
    expression: Expression | None  # None: the value of the slot, unchanged
    slot: str | None = None
    mask: str | None = None
    switch: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        names = self.expression.names if self.expression is not None else (str(self.slot),)
        return (*names, self.mask) if self.mask is not None else names

    def evaluate(self, params: Mapping[str, Any]) -> Any:
        """Return the value for these params. Raises ExpressionError."""
        if self.expression is None:
            return params[str(self.slot)]
        try:
            return self.expression.evaluate(params)
        except ExpressionError as error:
            raise ExpressionError(f"{format_key_path(self.path)}: {error}") from error


@dataclass(frozen=True, slots=True)
class Template:
    """A workflow with named slots.

    `file` is the path of the workflow as the user wrote it, `graph` its content, which must not be changed. `source` is
    the parsed workflow and `sidecar` the parsed slots file beside it, for the lines in messages. `models` are the model
    files that the slots file lists, `branches` the dynamic combos of nodes by node id, `unchecked` the classes whose
    nodes were read by the names in a saved file.
    """

    file: str
    graph: Mapping[str, Mapping[str, Any]]
    slots: Mapping[str, Slot]
    leaves: tuple[Leaf, ...]
    description: str = ""
    models: tuple[ModelFile, ...] = ()
    branches: Mapping[str, Branches] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    source: Source | None = field(default=None, compare=False, repr=False)
    sidecar: Source | None = field(default=None, compare=False, repr=False)

    def render(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the concrete workflow for one value of every slot, as a new dict. Raises ExpressionError, KeyError.

        It lacks the inputs of branches that are not chosen.
        """
        graph: dict[str, Any] = _copy_json(dict(self.graph))
        for leaf in self.leaves:
            set_at_path(graph, leaf.path, _copy_json(leaf.evaluate(params)))
        for node_id, branches in self.branches.items():
            drop_unchosen_inputs(graph[node_id]["inputs"], branches)
        return graph

    def make_problem(self, path: KeyPath, message: str) -> Problem:
        if self.source is None:
            return Problem(self.file, 0, "", message)
        return self.source.make_problem(path, message)

    def locate_default(self, slot: str) -> Problem:
        """Return where the default of a slot is defined, as a Problem without a message."""
        definition = self.slots[slot]
        if self.sidecar is not None and (*definition.path, "default") in self.sidecar.lines:
            return self.sidecar.make_problem((*definition.path, "default"), "")
        address = definition.addresses[0]
        return self.make_problem((address.node, "inputs", address.input), "")

    def find_nodes(self, slot: str) -> frozenset[str]:
        return frozenset(address.node for address in self.slots[slot].addresses)


def _copy_json(value: Any) -> Any:
    """`copy.deepcopy` of a JSON value, in a tenth of its time."""
    if type(value) is dict:
        return {key: _copy_json(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy_json(item) for item in value]
    return value


def set_at_path(container: Any, path: KeyPath, value: Any) -> None:
    """Set the value at a path of nested mappings and lists, in place."""
    for key in path[:-1]:
        container = container[key]
    container[path[-1]] = value


def drop_unchosen_inputs(inputs: dict[str, Any], branches: Branches) -> None:
    """Remove the inputs of branches that are not chosen from the inputs of a node, in place.

    A server ignores their values, and a link among them makes the node fail. If a combo does not have the option that
    its value names, its inputs stay.
    """
    for combo, options in branches.items():
        option = inputs.get(combo)
        if isinstance(option, str) and option in options:
            for child in {child for children in options.values() for child in children} - {*options[option]}:
                for name in [name for name in inputs if name == child or name.startswith(f"{child}.")]:
                    del inputs[name]
