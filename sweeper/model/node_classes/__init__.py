"""Check a workflow or a template against the node classes of a server before anything is sent.

Start with `NodeInfo.from_object_info(mapping)`. `spec` parses the `object_info` response of a server, `graph_check`
checks one concrete graph, and `template_check` checks all trials of a template at the cost of its values.
`sweeper.running.node_class_cache` fetches and stores `object_info`.
"""

from __future__ import annotations

from sweeper.model.node_classes.graph_check import find_graph_problems
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
    "find_graph_problems",
    "infer_slot_schema",
    "with_node_schemas",
]
