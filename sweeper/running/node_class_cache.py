"""Caches what servers report, for planning before anything is sent: their node classes and how they cache results.

A plan needs the classes of its own workflow, so a ComfyUI is asked for each of them. Only what needs all classes reads
the whole `object_info`: the nearest name of an unknown class, the conversion of workflows, and any question to a server
without the call for one class. A real one has a megabyte, or a hundred with 9,000 model files.

The answers are cached in a folder for each URL or launched ComfyUI, for a day or until a server with another version or
command line responds there. Models and files come and go, so whoever finds a problem with cached classes fetches them
again. What the classes mean is defined in `sweeper.model.node_classes`.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from platformdirs import user_cache_path

from sweeper import embedded
from sweeper.comfy.target import Target
from sweeper.errors import InputError, SweeperError, TransientError, UnreachableError
from sweeper.files import atomic_write
from sweeper.model.model_facts import ModelFacts
from sweeper.model.node_classes import NodeInfo, has_classes
from sweeper.model.node_classes.object_info import pack_object_info, unpack_object_info
from sweeper.planning.order import CLASSIC_CACHE, ServerCache, detect_server_cache
from sweeper.planning.plan import Plan
from sweeper.running.target_models import ModelSource, TargetModels, read_target_models

if TYPE_CHECKING:
    from sweeper.comfy.protocol import Server

_MAX_AGE: Final = 24 * 3600.0  # seconds
_WHOLE: Final = "all.jsonl"
_SERVER: Final = "server.json"
_NO_CALL: Final = "it does not list its node classes"
_NO_CLASSES: Final = "its answer to /object_info describes no node classes"
_MAX_SINGLE: Final = 200  # questions about one class each; a workflow of more classes asks for all at once
_CONNECT_TIMEOUT: Final = 5.0  # seconds, for commands that can do without the server
_LISTING_TIMEOUT: Final = 20.0  # seconds, for commands that need the files; a network drive takes its time

STARTS_LATER: Final = "its ComfyUI starts with the run"

Nodes = Collection[Mapping[str, Any]]  # of a workflow


def get_embedded_classes(nodes: Nodes | None = None) -> NodeInfo:
    """The classes of the embedded server that a workflow's nodes need (None: all of them)."""
    return _parse_embedded_classes(None if nodes is None else frozenset(node["class_type"] for node in nodes))


@functools.cache  # a run asks for them twice
def _parse_embedded_classes(only: frozenset[str] | None) -> NodeInfo:
    return NodeInfo.from_object_info(embedded.node_classes(), is_embedded=True, only=only)


async def get_object_info(target: Target) -> Mapping[str, Any]:
    """A target's `object_info`, cached or fetched; equal lists of names are one object.

    Raises TargetError if the target does not respond, refuses us, or returns something else.
    """
    if target.embedded:
        return embedded.node_classes()
    cached = _read_whole(target.identity)
    if cached is not None:
        return cached
    if target.launch is not None:
        raise UnreachableError(f"{target.name}: {STARTS_LATER}; start it yourself, and give its URL")
    from sweeper.comfy.client import ComfyClient

    async with ComfyClient(target) as client:
        save_server(target, await client.connect())
        try:
            return await _fetch_whole(client)
        except TransientError as error:
            raise UnreachableError(_describe_failure(error), trouble=error.trouble) from None


class ClassSource(Protocol):
    """What has a target's node classes: its client, or on a cluster the worker beside it.

    `extra_data`: fields of every submission, such as the key for partner nodes.
    """

    target: Target
    extra_data: Mapping[str, str]

    @property
    def models(self) -> ModelSource: ...


def get_cached_classes(target: Target, nodes: Nodes) -> NodeInfo | None:
    """The cached classes of a workflow's nodes, at most a day old. Those of the embedded server are always known."""
    if target.embedded:
        return get_embedded_classes(nodes)
    found = get_cached_object_info(target, nodes)
    return None if found is None else _parse_classes(found, nodes)


def use_cached_classes(target: Target, nodes: Nodes, check: Callable[[NodeInfo], bool], reason: str) -> NodeInfo | str:
    """The cached classes, which `check` sees first, or why they are not known."""
    classes = get_cached_classes(target, nodes)
    if classes is not None:
        check(classes)
    return classes or reason


async def get_classes(
    source: ClassSource, nodes: Nodes | None, check: Callable[[NodeInfo], bool] = lambda _: True, *, fresh: bool = False
) -> NodeInfo | str:
    """The classes of a connected target that a workflow's nodes need (None: all of them), or why they are not known.

    `check` sees them first. Unless `fresh`, they may be cached; if `check` is False of these, the server is asked
    again, because it may have got a file since.
    """
    cached = None if nodes is None or fresh else get_cached_classes(source.target, nodes)
    if cached is not None and check(cached):
        return cached
    try:
        if nodes is None:
            return NodeInfo.from_object_info(await _fetch_whole(source))
        classes = get_embedded_classes(nodes) if source.target.embedded else await _fetch_classes(source, nodes)
    except SweeperError as error:
        return _describe_failure(error)
    check(classes)
    return classes


async def _fetch_classes(source: ClassSource, nodes: Nodes) -> NodeInfo:
    """Ask for each class of a workflow; for all if there is no such call, or if a check needs the names of all.

    Raises TargetError and TransientError.
    """
    names = sorted({node["class_type"] for node in nodes})
    found = await source.models.get_node_classes(names) if len(names) <= _MAX_SINGLE else None
    if found is not None:
        for name, declared in found.items():
            _write_cache(source.target.identity, json.dumps({name: declared}), _get_class_file(name))
        classes = _parse_classes(found, nodes)
        if classes is not None and classes.classes.keys() == set(names) and not classes.needs_all_outputs(nodes):
            return classes
    whole: Mapping[str, Any] | None = _read_whole(source.target.identity) if found is not None else None
    if whole is None or not (found or {}).keys() >= whole.keys() & set(names):
        whole = await _fetch_whole(source)
    classes = _parse_classes({**whole, **(found or {})}, nodes)
    if classes is None:
        raise UnreachableError(_NO_CLASSES)
    return classes


async def _fetch_whole(source: ClassSource) -> Mapping[str, Any]:
    """All classes, which are then cached in place of single ones. Raises TargetError and TransientError."""
    answer = await source.models.get_object_info()
    if answer is None:
        raise UnreachableError(_NO_CALL)
    if not has_classes(answer):
        raise UnreachableError(_NO_CLASSES)
    _remove_classes(source.target.identity)
    _write_cache(source.target.identity, "".join(pack_object_info(answer)), _WHOLE)
    return answer


def _describe_failure(error: SweeperError) -> str:
    return str(error) if str(error) in (_NO_CALL, _NO_CLASSES) else f"its node classes cannot be read: {error}"


async def fetch_classes(
    target: Target, nodes: Nodes, plan: Plan | None, check: Callable[[NodeInfo], bool] = lambda _: True
) -> tuple[NodeInfo | str, TargetModels | None]:
    """The classes of a target that is not connected yet, or why they are not known; and the model files of a plan.

    Checks which server is there, so that the cache is right. Returns what is cached if it does not respond soon.
    `check` is that of `get_classes`.
    """
    if target.embedded:
        return get_embedded_classes(nodes), None
    if target.launch is not None:
        return use_cached_classes(target, nodes, check, STARTS_LATER), None
    from sweeper.comfy.client import ComfyClient

    reason = f"it does not respond within {_CONNECT_TIMEOUT:g} s"
    with suppress(TimeoutError):
        try:
            async with ComfyClient(target) as client:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    save_server(target, await client.connect())
                classes = await get_classes(client, nodes, check)
                if not isinstance(classes, str):
                    return classes, None if plan is None else await read_target_models(client.models, plan, classes)
                reason = classes
        except SweeperError as error:
            text = str(error).removeprefix(f"{target.name}: ")
            reason = text.replace("cannot be reached", "it does not respond", 1)
    return use_cached_classes(target, nodes, check, reason), None


Listing = Mapping[str, Mapping[str, ModelFacts]]  # the files of folders of a server; of others only their names


async def fetch_model_files(target: Target, folders: Collection[str]) -> Listing | str:
    """The model files of these folders on a target that is not connected yet, or why they are not known.

    If one of them is empty, all other folders have an entry too.
    """
    if target.launch is not None and not target.url:
        return STARTS_LATER
    from sweeper.comfy.client import ComfyClient

    with ExitStack() as stack, suppress(TimeoutError):
        if target.embedded:
            server = stack.enter_context(embedded.EmbeddedServer(dialect="cloud", permissive=True))
            target = replace(target, url=server.url)
        try:
            async with ComfyClient(target) as client, asyncio.timeout(_LISTING_TIMEOUT):
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    save_server(target, await client.connect())
                found = await client.models.list_all(folders)
                if client.models.unanswered or not found:
                    return next(iter(client.models.unanswered), "it lists no model files")
                if not all(found.values()):
                    found = {**{key: {} for key in await client.models.list_folders()}, **found}
                return found
        except SweeperError as error:
            return str(error).removeprefix(f"{target.name}: ").replace("cannot be reached", "it does not respond", 1)
    return f"it does not respond within {_CONNECT_TIMEOUT:g} s, or list its files within {_LISTING_TIMEOUT:g} s"


def save_server(target: Target, server: Server) -> ServerCache:
    """Save which server a target is and how it caches results, and return the latter.

    If it is another server than before, the cached classes are removed.
    """
    server_cache = detect_server_cache(server.version, server.arguments, server.memory)
    if not target.embedded:
        # A digest, because a command line names folders of the server's machine, which do not belong here.
        # Those that sweeper gives are others in each run.
        arguments = server.arguments if target.launch is None else ()
        identity = hashlib.sha256(repr((server.dialect, server.version, arguments)).encode()).hexdigest()
        saved = _read_server(target)
        if saved.get("identity") != identity:
            _remove_classes(target.identity)
        entry = {"identity": identity, "cache": asdict(server_cache)}
        _write_cache(target.identity, json.dumps(entry), _SERVER)
    return server_cache


def get_cache_mode(target: Target) -> ServerCache:
    """How a target cached results when it was last connected, at most a day ago; ComfyUI's default if unknown."""
    try:
        return CLASSIC_CACHE if target.embedded else ServerCache(**_read_server(target)["cache"])
    except (TypeError, KeyError):
        return CLASSIC_CACHE


def _read_server(target: Target) -> dict[str, Any]:
    """What `save_server` saved; empty if it is not there."""
    with suppress(ValueError):
        saved = json.loads(_read_cache(target.identity, _SERVER) or "{}")
        return saved if isinstance(saved, dict) else {}
    return {}


def _parse_classes(answer: Mapping[str, Any], nodes: Nodes) -> NodeInfo | None:
    """The classes of these nodes; None for what is no object_info, because no check is better than a wrong one."""
    try:
        return NodeInfo.from_object_info(answer, only={node["class_type"] for node in nodes})
    except (TypeError, ValueError, KeyError, AttributeError, InputError):
        return None


def get_cached_object_info(target: Target, nodes: Nodes) -> Mapping[str, Any] | None:
    """The cached JSON of the classes of a workflow's nodes, or of all classes; None if a check needs more."""
    url, names = target.identity, {node["class_type"] for node in nodes}
    single = {}
    for name in names:
        with suppress(ValueError, AttributeError):
            text = _read_cache(url, _get_class_file(name))
            if text is not None and (declared := json.loads(text).get(name)) is not None:
                single[name] = declared
    whole = _read_whole(url)
    found = {**(whole or {}), **single}
    classes = _parse_classes(found, nodes)
    is_enough = whole is not None or (classes and len(single) == len(names) and not classes.needs_all_outputs(nodes))
    return found if classes is not None and is_enough else None


def _read_whole(url: str) -> dict[str, Any] | None:
    """All cached classes of a server."""
    text = _read_cache(url, _WHOLE)
    with suppress(ValueError, LookupError, TypeError):
        answer = unpack_object_info(iter(text.splitlines())) if text is not None else {}
        return answer if has_classes(answer) else None
    return None


def _read_cache(url: str, name: str) -> str | None:
    """The entry for a URL, if it is at most a day old; None otherwise."""
    path = _get_folder(url) / name
    with suppress(OSError, ValueError):
        if time.time() - path.stat().st_mtime <= _MAX_AGE:
            return path.read_text("utf-8")
    return None


def _get_folder(url: str) -> Path:
    return user_cache_path("sweeper", appauthor=False) / "servers" / _digest(url)


def _get_class_file(class_type: str) -> str:
    return f"{_digest(class_type)}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]


def _remove_classes(url: str) -> None:
    for path in _get_folder(url).glob("*.json*"):
        if path.name != _SERVER:
            with suppress(OSError):
                path.unlink()


def _write_cache(url: str, text: str, name: str) -> None:
    """Write an entry if possible; without it, the next command only takes longer."""
    with suppress(OSError), atomic_write(_get_folder(url) / name) as file:
        file.write(text.encode())
