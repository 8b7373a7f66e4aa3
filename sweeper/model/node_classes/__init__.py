"""What a server's node classes accept, and whether a workflow or a template fits them, before anything is sent.

`spec` reads an `object_info` answer into values, `check` holds one concrete graph to it, `split` does the same for a
template and its million trials at the cost of its values. Fetching `object_info` and keeping it on disk is not done
here: `NodeInfo.from_object_info(mapping)` is the door.
"""

from __future__ import annotations

from sweeper.model.node_classes.graph_check import find_graph_notes, find_graph_problems
from sweeper.model.node_classes.spec import InputSpec, NodeInfo, NodeSpec
from sweeper.model.node_classes.template_check import (
    SlotInputCheck,
    TemplateCheck,
    check_template,
    infer_slot_schema,
    with_node_schemas,
)

__all__ = [
    "InputSpec",
    "NodeInfo",
    "NodeSpec",
    "SlotInputCheck",
    "TemplateCheck",
    "check_template",
    "find_graph_notes",
    "find_graph_problems",
    "infer_slot_schema",
    "with_node_schemas",
]
