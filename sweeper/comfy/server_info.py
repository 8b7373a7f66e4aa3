"""What a server says of itself: the versions that a picture depends on. Sans-IO, and never in anybody's way.

`/system_stats` is ComfyUI's (COMFYUI_BEHAVIOUR.md 3.7) and Comfy Cloud's; the list of node packs is ComfyUI-Manager's,
where it is installed: `{folder: {ver, cnr_id, aux_id, enabled}}`, with `/v2` in front since its version 4. Whatever is
not told, or not understood, is left out. What is made of it is the regression suite's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sweeper.comfy.protocol import Flow, ServerRequest, ServerResponse
from sweeper.errors import SweeperError

_MAX_LENGTH: Final = 200  # characters of one fact
_SECRET: Final = re.compile("key|token|secret|pass|auth|cred|cert", re.IGNORECASE)
_HARMLESS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?|[a-z][a-z0-9_]{0,15}")  # a number or a word: no path, no host


def query_server_info(dialect: str) -> Flow[dict[str, Any]]:
    """The facts, as JSON values: of `comfyui`, `python`, `pytorch`, `server`, `devices`, `argv` and `nodes` those that
    the server tells. Raises only what sending raises.
    """
    stats = _read_mapping(
        (yield ServerRequest("GET", "/system_stats" if dialect == "comfyui" else "/api/system_stats"))
    )
    system = stats.get("system")
    found: dict[str, Any] = _read_system(system) if isinstance(system, Mapping) else {}
    devices = stats.get("devices")
    if isinstance(devices, list):
        names = [_to_line(one.get("name")) for one in devices if isinstance(one, Mapping) and one.get("name")]
        found |= {"devices": names} if names else {}
    if dialect == "comfyui":
        for path in ("/v2/customnode/installed", "/customnode/installed"):
            nodes = _read_node_packs(_read_mapping((yield ServerRequest("GET", path))))
            if nodes:
                found["nodes"] = nodes
                break
    return found


def _read_mapping(reply: ServerResponse) -> Mapping[str, Any]:
    if reply.status != 200:
        return {}
    try:
        return reply.json_object()
    except SweeperError:
        return {}


def _read_system(system: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        "comfyui": system.get("comfyui_version"),
        "python": str(system.get("python_version") or "").partition(" ")[0],
        "pytorch": system.get("pytorch_version"),
        # Its name and version; what follows the colon describes it to people, and is no fact that a picture depends on.
        "server": str(system.get("embedded_server") or "").partition(":")[0],
    }
    found: dict[str, Any] = {name: _to_line(value) for name, value in told.items() if value and value != "none"}
    arguments = system.get("argv")
    if isinstance(arguments, list):
        found["argv"] = redact_arguments(str(one) for one in arguments)
    return found


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """The options of a command line, made to be published: of their values only numbers and plain words are kept, and
    none of an option that sounds like a secret.
    """
    found: list[str] = []
    secret = True  # what comes before the first option is the program's path
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            secret = bool(_SECRET.search(name))
            kept = not secret and bool(_HARMLESS.fullmatch(value))
            found.append(_to_line(f"{name}={value if kept else '...'}" if equals else name))
        elif not secret and _HARMLESS.fullmatch(argument):
            found.append(argument)
    return found


def _read_node_packs(installed: Mapping[str, Any]) -> dict[str, str]:
    return {
        _to_line(name): _to_line(pack.get("ver") or "unknown")
        for name, pack in sorted(installed.items())
        if isinstance(pack, Mapping) and "ver" in pack and pack.get("enabled", True)
    }


def _to_line(value: Any) -> str:
    """One line of bounded length that UTF-8 can hold: it ends up in a file that is committed."""
    plain = str(value).encode("utf-8", "replace").decode()
    return " ".join("".join(char if char.isprintable() else " " for char in plain).split())[:_MAX_LENGTH]
