"""A template: a workflow with named slots, compiled once and rendered many times.

Here live the values: Slot, Address, Leaf, Template, and how params become a concrete workflow. How a file and its
sidecar become a Template, with every mistake found, is `binding`'s business.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from sweeper.errors import Problem
from sweeper.model.expressions import Expression, ExpressionError
from sweeper.model.slot_values import SlotSchema
from sweeper.model.source import KeyPath, Source, format_key_path


class Missing(Enum):
    """The type of `MISSING`: no value was given, which is another thing than null."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a value is written: `node_id.input`."""

    node: str
    input: str

    def __str__(self) -> str:
        return f"{self.node}.{self.input}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A named hole: what it takes, what it takes by default, and the addresses that it reaches.

    `path` is where the slots file names it, for messages; empty for a slot that stands inline only. A slot of kind
    `mask` masks the picture of the file slot `of`, and reaches where that one does.
    """

    name: str
    addresses: tuple[Address, ...]
    normalise: SlotSchema
    default: Any = MISSING
    kind: Literal["value", "file", "mask"] = "value"
    description: str = ""
    path: KeyPath = ()
    masked_slot: str = ""

    @property
    def is_file(self) -> bool:
        """Whether its values are names of local files."""
        return self.kind != "value"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place of the graph whose value params decide: `path` begins with the node id.

    `mask` is the slot of the mask over the picture that stands there. It does not change the value, which is the
    picture's name, but it does change the work.
    """

    path: KeyPath
    expression: Expression | None  # None: the slot's value as it is
    slot: str | None = None
    mask: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The slots that it depends on."""
        read = self.expression.names if self.expression is not None else (str(self.slot),)
        return (*read, self.mask) if self.mask is not None else read

    def evaluate(self, params: Mapping[str, Any]) -> Any:
        """What stands there for these params. Raises ExpressionError."""
        if self.expression is None:
            return params[str(self.slot)]
        try:
            return self.expression.evaluate(params)
        except ExpressionError as error:
            raise ExpressionError(f"{format_key_path(self.path)}: {error}") from error


@dataclass(frozen=True, slots=True)
class Template:
    """A workflow with named slots. `graph` is the file's own; never change it.

    `file` is the workflow as the user named it; `source` and `sidecar` are its texts, for the line of a message.
    """

    file: str
    graph: Mapping[str, Mapping[str, Any]]
    slots: Mapping[str, Slot]
    leaves: tuple[Leaf, ...]
    description: str = ""
    source: Source | None = field(default=None, compare=False, repr=False)
    sidecar: Source | None = field(default=None, compare=False, repr=False)

    def render(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The concrete workflow for one value of every slot, a new dict. Raises ExpressionError, KeyError."""
        graph = copy.deepcopy(dict(self.graph))
        for leaf in self.leaves:
            place: Any = graph
            for part in leaf.path[:-1]:
                place = place[part]
            place[leaf.path[-1]] = copy.deepcopy(leaf.evaluate(params))
        return graph

    def make_problem(self, path: KeyPath, message: str) -> Problem:
        """A problem at a place of the workflow."""
        return (
            self.source.make_problem(path, message) if self.source is not None else Problem(self.file, 0, "", message)
        )

    def locate_default(self, slot: str) -> Problem:
        """Where a slot has its default from, as a Problem without its message."""
        declared = self.slots[slot]
        if self.sidecar is not None and (*declared.path, "default") in self.sidecar.lines:
            return self.sidecar.make_problem((*declared.path, "default"), "")
        first = declared.addresses[0]
        return self.make_problem((first.node, "inputs", first.input), "")

    def find_nodes(self, slot: str) -> frozenset[str]:
        """The ids of the nodes whose inputs the slot decides."""
        return frozenset(address.node for address in self.slots[slot].addresses)
