"""Check a workflow or a template against the node classes of a server before anything is sent.

Start with `NodeInfo.from_object_info(mapping)`. `spec` parses the `object_info` response of a server, `graph_check`
checks one concrete graph, and `template_check` checks all trials of a template at the cost of its values.
`object_info` reads large responses piece by piece; `sweeper.running.node_class_cache` fetches and stores them.
"""

from __future__ import annotations

from sweeper.model.node_classes.graph_check import find_graph_problems as find_graph_problems
from sweeper.model.node_classes.spec import InputSpec as InputSpec
from sweeper.model.node_classes.spec import NodeInfo as NodeInfo
from sweeper.model.node_classes.spec import NodeSpec as NodeSpec
from sweeper.model.node_classes.spec import has_classes as has_classes
from sweeper.model.node_classes.template_check import SlotInputCheck as SlotInputCheck
from sweeper.model.node_classes.template_check import TemplateCheck as TemplateCheck
from sweeper.model.node_classes.template_check import check_template as check_template
from sweeper.model.node_classes.template_check import infer_slot_schema as infer_slot_schema
