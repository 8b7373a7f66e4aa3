"""Caches what servers report, for planning before anything is sent: their node classes and how they cache results.

A real `object_info` has hundreds of kilobytes, and Comfy Cloud takes seconds to send it. So it is cached on disk by
the target's URL, for a day or until a server with another version or command line responds there. Models and files
come and go, so whoever finds a problem with cached classes fetches them again (`fresh=True`). What the classes mean is
defined in `sweeper.model.node_classes`.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from platformdirs import user_cache_path

from sweeper import embedded
from sweeper.comfy.protocol import Server
from sweeper.comfy.target import Target
from sweeper.errors import SweeperError, UnreachableError
from sweeper.files import atomic_write
from sweeper.model.node_classes import NodeInfo
from sweeper.planning.plan import Plan
from sweeper.planning.server_cache import CLASSIC_CACHE, ServerCache, detect_server_cache
from sweeper.running.target_models import ModelSource, TargetModels, read_target_models

_MAX_AGE: Final = 24 * 3600.0  # seconds
_CLASSES_KIND: Final = "object_info"
_SERVER_KIND: Final = "server"
_CONNECT_TIMEOUT: Final = 5.0  # seconds, for commands that can do without the server


@functools.cache
def get_embedded_classes() -> NodeInfo:
    """The node classes of the embedded server. They are parsed once, because a run asks for them twice."""
    return NodeInfo.from_object_info(get_embedded_object_info(), is_embedded=True)


def get_embedded_object_info() -> dict[str, Any]:
    """What the embedded server returns for `GET /object_info`, without starting one."""
    return embedded.node_classes()


async def get_object_info(target: Target) -> Mapping[str, Any]:
    """A target's `object_info`, cached or fetched.

    Raises TargetError if the target does not respond, refuses us, or returns something else.
    """
    if target.embedded:
        return get_embedded_object_info()
    cached: Mapping[str, Any] | None = _read_cache(target.url)
    if cached is not None and _parse_classes(cached) is not None:
        return cached
    from sweeper.comfy.client import ComfyClient

    async with ComfyClient(target) as client:
        save_server(target, await client.connect())
        answer = await client.get_object_info()
    if _parse_classes(answer) is None:
        raise UnreachableError(f"{target.name}: its answer to /object_info describes no node classes")
    _write_cache(target.url, answer)
    return answer


def get_cached_classes(target: Target) -> NodeInfo | None:
    """The cached classes of a target, at most a day old. Those of the embedded server are always known."""
    if target.embedded:
        return get_embedded_classes()
    return _parse_classes(_read_cache(target.url))


def get_cached_object_info(target: Target) -> Mapping[str, Any] | None:
    """The JSON that `get_cached_classes` parses, of a real target."""
    answer: Mapping[str, Any] | None = _read_cache(target.url)
    return None if _parse_classes(answer) is None else answer


class ClassSource(Protocol):
    """What has a target's node classes: its client, or on a cluster the worker beside it.

    `extra_data`: fields of every submission, such as the key for partner nodes.
    """

    target: Target
    extra_data: Mapping[str, str]

    @property
    def models(self) -> ModelSource: ...

    async def get_object_info(self) -> dict[str, Any]: ...


async def get_classes(client: ClassSource, *, fresh: bool = False) -> NodeInfo | None:
    """The classes of a connected target, cached unless `fresh`; None if it does not return them or they are invalid."""
    cached = None if fresh else get_cached_classes(client.target)
    if cached is not None:
        return cached
    try:
        answer = await client.get_object_info()
    except SweeperError:
        return None
    classes = _parse_classes(answer, is_embedded=client.target.embedded)
    if classes is not None and not client.target.embedded:
        _write_cache(client.target.url, answer)
    return classes


async def fetch_classes(target: Target, plan: Plan | None) -> tuple[NodeInfo | None, TargetModels | None]:
    """The classes of a target that is not connected yet, and the model files of a plan there, as far as it tells.

    Checks which server is there, so that the cache is right. Returns what is cached if it does not respond soon.
    """
    if target.embedded:
        return get_embedded_classes(), None
    from sweeper.comfy.client import ComfyClient

    with suppress(SweeperError, TimeoutError):
        async with ComfyClient(target) as client:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                save_server(target, await client.connect())
            classes = await get_classes(client)
            return classes, None if plan is None else await read_target_models(client.models, plan, classes)
    return get_cached_classes(target), None


def save_server(target: Target, server: Server) -> ServerCache:
    """Save which server a target is and how it caches results, and return the latter.

    If it is another server than before, the cached classes are removed.
    """
    server_cache = detect_server_cache(server.version, server.arguments, server.memory)
    if not target.embedded:
        # A digest, because a command line names folders of the server's machine, which do not belong here.
        identity = hashlib.sha256(repr((server.dialect, server.version, server.arguments)).encode()).hexdigest()
        saved = _read_cache(target.url, _SERVER_KIND)
        if not isinstance(saved, dict) or saved.get("identity") != identity:
            with suppress(OSError):
                _get_cache_path(target.url, _CLASSES_KIND).unlink(missing_ok=True)
        _write_cache(target.url, {"identity": identity, "cache": asdict(server_cache)}, _SERVER_KIND)
    return server_cache


def get_cache_mode(target: Target) -> ServerCache:
    """How a target cached results when it was last connected, at most a day ago; ComfyUI's default if unknown."""
    saved = None if target.embedded else _read_cache(target.url, _SERVER_KIND)
    try:
        return CLASSIC_CACHE if saved is None else ServerCache(**saved["cache"])
    except (TypeError, KeyError):
        return CLASSIC_CACHE


def _read_cache(url: str, kind: str = _CLASSES_KIND) -> Any:
    """The entry for a URL, if it is at most a day old; None otherwise."""
    path = _get_cache_path(url, kind)
    with suppress(OSError, ValueError):
        if time.time() - path.stat().st_mtime <= _MAX_AGE:
            return json.loads(path.read_text("utf-8"))
    return None


def _parse_classes(answer: Any, *, is_embedded: bool = False) -> NodeInfo | None:
    """Return None for an answer that is empty or no object_info, because no check is better than a wrong one."""
    if not isinstance(answer, Mapping) or not answer:
        return None
    try:
        return NodeInfo.from_object_info(answer, is_embedded=is_embedded)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _get_cache_path(url: str, kind: str) -> Path:
    return user_cache_path("sweeper", appauthor=False) / kind / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.json"


def _write_cache(url: str, answer: Mapping[str, Any], kind: str = _CLASSES_KIND) -> None:
    """Write an entry if possible; without it, the next command only takes longer."""
    with suppress(OSError), atomic_write(_get_cache_path(url, kind)) as file:
        file.write(json.dumps(answer).encode())
