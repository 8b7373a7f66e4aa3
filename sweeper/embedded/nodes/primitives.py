"""Primitives: a value, handed on."""

from __future__ import annotations

from typing import Any

from sweeper.embedded.nodes.base import Context, NodeOutput


def value(_context: Context, value: Any) -> NodeOutput:
    return NodeOutput((value,))
