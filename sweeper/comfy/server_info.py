"""Ask a server for the versions that a picture depends on. Sans-IO, and never a reason for a run to fail.

`/system_stats` belongs to ComfyUI and Comfy Cloud. The list of node packs comes from ComfyUI-Manager, where it is
installed: `{folder: {ver, cnr_id, aux_id, enabled}}`, below `/v2` since its version 4. Facts that are missing or
malformed are left out. `sweeper.regression.server_changes` compares the facts of two servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from sweeper.comfy.protocol import Flow, ServerRequest, ServerResponse
from sweeper.comfy.untrusted_json import to_text
from sweeper.errors import SweeperError
from sweeper.wording import to_one_line

_MAX_LENGTH: Final = 200  # characters of one fact
_MAX_FACTS: Final = 2000  # of one kind, such as node packs
_SECRET: Final = re.compile("key|token|secret|pass|auth|cred|cert", re.IGNORECASE)
_HARMLESS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?|[a-z][a-z0-9_]{0,15}")  # a number or a word, not a path or host


def query_server_info(dialect: str) -> Flow[dict[str, Any]]:
    """Ask for `comfyui`, `python`, `pytorch`, `server`, `devices`, `argv` and `nodes`; return the known ones, as JSON.

    Raises only the errors of sending a request.
    """
    path = "/system_stats" if dialect == "comfyui" else "/api/system_stats"
    stats = _read_mapping((yield ServerRequest("GET", path)))
    system = stats.get("system")
    facts: dict[str, Any] = _read_system(system) if isinstance(system, Mapping) else {}
    devices = stats.get("devices")
    if isinstance(devices, list):
        names = [
            _to_line(device["name"])
            for device in devices[:_MAX_FACTS]
            if isinstance(device, Mapping) and device.get("name")
        ]
        facts |= {"devices": names} if names else {}
    if dialect == "comfyui":
        for path in ("/v2/customnode/installed", "/customnode/installed"):
            nodes = _read_node_packs(_read_mapping((yield ServerRequest("GET", path))))
            if nodes:
                facts["nodes"] = nodes
                break
    return facts


def read_memory(system: Mapping[str, Any]) -> tuple[int, int]:
    """The total and free bytes of memory in the `system` of `/system_stats`; 0 for a number that is not there."""
    total, free = (value if isinstance(value := system.get(f"ram_{name}"), int) else 0 for name in ("total", "free"))
    return total, free


def _read_mapping(response: ServerResponse) -> Mapping[str, Any]:
    if response.status != 200:
        return {}
    try:
        return response.json_object()
    except SweeperError:
        return {}


def _read_system(system: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        "comfyui": system.get("comfyui_version"),
        "python": to_text(system.get("python_version") or "").partition(" ")[0],
        "pytorch": system.get("pytorch_version"),
        # "name version: description". No picture depends on the description.
        "server": to_text(system.get("embedded_server") or "").partition(":")[0],
    }
    facts: dict[str, Any] = {name: _to_line(value) for name, value in values.items() if value and value != "none"}
    arguments = system.get("argv")
    if isinstance(arguments, list):
        facts["argv"] = redact_arguments(to_text(argument) for argument in arguments[:_MAX_FACTS])
    return facts


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """The options of a command line, safe to publish.

    Of their values only numbers and plain words remain, and none of an option that sounds like a secret.
    """
    safe: list[str] = []
    is_secret = True  # arguments before the first option are the program's path
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            is_secret = bool(_SECRET.search(name))
            is_shown = not is_secret and bool(_HARMLESS.fullmatch(value))
            safe.append(_to_line(f"{name}={value if is_shown else '...'}" if equals else name))
        elif not is_secret and _HARMLESS.fullmatch(argument):
            safe.append(argument)
    return safe


def _read_node_packs(installed: Mapping[str, Any]) -> dict[str, str]:
    return {
        _to_line(name): _to_line(pack.get("ver") or "unknown")
        for name, pack in islice(sorted(installed.items()), _MAX_FACTS)
        if isinstance(pack, Mapping) and "ver" in pack and pack.get("enabled", True)
    }


def _to_line(value: Any) -> str:
    """One line of bounded length in valid UTF-8, because the facts end up in a file that is committed."""
    plain = to_text(value)[: 10 * _MAX_LENGTH].encode("utf-8", "replace").decode()
    return to_one_line(plain)[:_MAX_LENGTH]
