"""What servers are, for planning before anything is sent: node classes and way of caching, kept on disk for a day.

A real `object_info` has hundreds of kilobytes, and a Cloud's takes seconds: so it is kept by the target's URL, until
another version or another command line answers there. Models and files come and go, so whoever finds a problem by what
was kept asks once more (`fresh=True`). What the classes mean is `sweeper.model.node_classes`' business.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import SweeperError, UnreachableError
from sweeper.model.node_classes import NodeInfo
from sweeper.planning.server_cache import CLASSIC_CACHE, ServerCache, parse_cache_arguments

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.comfy.target import Target

_MAX_AGE: Final = 24 * 3600.0  # seconds
_CLASSES_KIND: Final = "object_info"
_SERVER_KIND: Final = "server"
_CONNECT_TIMEOUT: Final = 5.0  # seconds, for commands that can do without


def get_embedded_classes() -> NodeInfo:
    """The classes of the embedded server, which asks for no model file by name."""
    return NodeInfo.from_object_info(get_embedded_object_info())


def get_embedded_object_info() -> dict[str, Any]:
    """What `GET /object_info` of the embedded server answers, without starting one."""
    from sweeper.embedded import node_classes

    return node_classes()


async def get_object_info(target: Target) -> Mapping[str, Any]:
    """A target's `object_info` as it answers it: kept for a day, or asked of it now.

    Raises TargetError: it cannot be reached, refuses us, or answers something else.
    """
    if target.embedded:
        return get_embedded_object_info()
    kept: Mapping[str, Any] | None = _read_cache(target.url)
    if kept is not None and _parse_classes(kept) is not None:
        return kept
    from sweeper.comfy.client import ComfyClient

    async with ComfyClient(target) as client:
        save_server(target, await client.connect())
        answer = await client.get_object_info()
    if _parse_classes(answer) is None:
        raise UnreachableError(f"{target.name}: its answer to /object_info describes no node classes")
    _write_cache(target.url, answer)
    return answer


def get_cached_classes(target: Target) -> NodeInfo | None:
    """What was kept of a target's classes, if it is no older than a day; the embedded server's are always known."""
    if target.embedded:
        return get_embedded_classes()
    return _parse_classes(_read_cache(target.url))


async def get_classes(client: ComfyClient, *, fresh: bool = False) -> NodeInfo | None:
    """The classes of a connected target; None where it does not tell, or tells what cannot be read."""
    known = None if fresh else get_cached_classes(client.target)
    if known is not None:
        return known
    try:
        answer = await client.get_object_info()
    except SweeperError:
        return None
    info = _parse_classes(answer)
    if info is not None and not client.target.embedded:
        _write_cache(client.target.url, answer)
    return info


async def fetch_classes(target: Target) -> NodeInfo | None:
    """The classes of a target, which is asked who it is: kept, or new; what was kept where it does not answer soon."""
    from sweeper.comfy.client import ComfyClient

    if target.embedded:
        return get_embedded_classes()
    with suppress(SweeperError, TimeoutError):
        async with ComfyClient(target) as client:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                save_server(target, await client.connect())
            return await get_classes(client)
    return get_cached_classes(target)


def save_server(target: Target, server: Server) -> ServerCache:
    """Note who answers at a target, and how it caches; what was kept of another server's classes there is dropped."""
    caching = parse_cache_arguments(server.arguments)
    if not target.embedded:
        # A digest: a command line names folders of the server's machine, which are nobody's business here.
        identity = hashlib.sha256(repr((server.dialect, server.version, server.arguments)).encode()).hexdigest()
        known = _read_cache(target.url, _SERVER_KIND)
        if not isinstance(known, dict) or known.get("identity") != identity:
            with suppress(OSError):
                _get_cache_path(target.url, _CLASSES_KIND).unlink(missing_ok=True)
        _write_cache(target.url, {"identity": identity, "kind": caching.kind, "size": caching.size}, _SERVER_KIND)
    return caching


def get_cache_mode(target: Target) -> ServerCache:
    """How a target cached when it was last asked, no longer than a day ago; ComfyUI's default otherwise."""
    known = None if target.embedded else _read_cache(target.url, _SERVER_KIND)
    try:
        return CLASSIC_CACHE if known is None else ServerCache(known["kind"], int(known["size"]))
    except (TypeError, KeyError, ValueError):
        return CLASSIC_CACHE


def _read_cache(url: str, kind: str = _CLASSES_KIND) -> Any:
    """What was kept for a URL, if it is no older than a day; None otherwise."""
    path = _get_cache_path(url, kind)
    with suppress(OSError, ValueError):
        if time.time() - path.stat().st_mtime <= _MAX_AGE:
            return json.loads(path.read_text("utf-8"))
    return None


def _parse_classes(answer: Any) -> NodeInfo | None:
    """None for an answer that is empty or no object_info: better no check than a wrong one."""
    if not isinstance(answer, Mapping) or not answer:
        return None
    try:
        return NodeInfo.from_object_info(answer)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _get_cache_path(url: str, kind: str) -> Path:
    from platformdirs import user_cache_path  # noqa: PLC0415 - only where something is kept

    return user_cache_path("sweeper", appauthor=False) / kind / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.json"


def _write_cache(url: str, answer: Mapping[str, Any], kind: str = _CLASSES_KIND) -> None:
    """Best effort: a cache that cannot be written costs time, nothing else."""
    path = _get_cache_path(url, kind)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump(answer, file)
        Path(file.name).replace(path)
