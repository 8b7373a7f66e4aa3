"""The embedded server: a ComfyUI or a Comfy Cloud in this process, without GPU, key or credits.

`EmbeddedServer` is the way in. It imports nothing of sweeper but `sweeper.errors`, so that client and server are two
witnesses of the protocol. The name is resolved when it is asked for: importing this package must stay cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.embedded.embedded_server import EmbeddedServer as EmbeddedServer
    from sweeper.embedded.faults import Faults as Faults
    from sweeper.embedded.objectinfo import node_classes as node_classes
    from sweeper.embedded.scenario import Scenario as Scenario

_MODULES = {
    "EmbeddedServer": "embedded_server",
    "Faults": "faults",
    "Scenario": "scenario",
    "node_classes": "objectinfo",
}

__all__ = ["EmbeddedServer", "Faults", "Scenario", "node_classes"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sweeper.embedded.{_MODULES[name]}"), name)
