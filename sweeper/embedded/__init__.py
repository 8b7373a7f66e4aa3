"""The embedded server: a ComfyUI or a Comfy Cloud in this process, without GPU, key or credits.

Start with `EmbeddedServer`. The package imports no client code of sweeper, so that client and server implement the
protocol independently of each other. Its names are imported on first use, because importing the package must be fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.embedded.embedded_server import EmbeddedServer as EmbeddedServer
    from sweeper.embedded.faults import Faults as Faults
    from sweeper.embedded.faults import Scenario as Scenario
    from sweeper.embedded.stand_ins.class_descriptions import node_classes as node_classes

_MODULES = {
    "EmbeddedServer": "embedded_server",
    "Faults": "faults",
    "Scenario": "faults",
    "node_classes": "stand_ins.class_descriptions",
}

__all__ = ["EmbeddedServer", "Faults", "Scenario", "node_classes"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sweeper.embedded.{_MODULES[name]}"), name)
