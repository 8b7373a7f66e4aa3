"""The node classes that the embedded server implements, by class name.

Importing this imports neither NumPy nor Pillow: what a node does is imported when it
first runs (`catalog.own_classes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sweeper.embedded.nodes.base import NodeClass
from sweeper.embedded.nodes.catalog.own_classes import NODES

__all__ = ["NODE_CLASSES"]

NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType({node.name: node for node in NODES})
