"""The embedded server: a ComfyUI or a Comfy Cloud in this process, without GPU, key or credits.

`EmbeddedServer` is the way in. It imports nothing of sweeper but `sweeper.errors`, so that client and server are two
witnesses of the protocol. The name is resolved when it is asked for: importing this package must stay cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.embedded.faults import Faults as Faults
    from sweeper.embedded.scenario import Scenario as Scenario
    from sweeper.embedded.server import EmbeddedServer as EmbeddedServer

__all__ = ["EmbeddedServer", "Faults", "Scenario"]


def __getattr__(name: str) -> Any:
    if name == "EmbeddedServer":
        from sweeper.embedded.server import EmbeddedServer  # noqa: PLC0415 - see above

        return EmbeddedServer
    if name == "Faults":
        from sweeper.embedded.faults import Faults  # noqa: PLC0415 - see above

        return Faults
    if name == "Scenario":
        from sweeper.embedded.scenario import Scenario  # noqa: PLC0415 - see above

        return Scenario
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
