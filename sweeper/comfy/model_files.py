"""Ask a server about its node classes and model files, and about how long it has been up. Sans-IO.

Measured on ComfyUI 0.3.64 and 0.33.0: a listing shows a replaced file at once, without any option of the server, and
`/view_metadata` reads the header from the disk at each request. `/api/assets` of a local server is not asked: it needs
an option, and after a swap of equal size its hash stays wrong. Comfy Cloud has assets with hashes. All answers are
hints, and parts of another shape are ignored.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol
from urllib.parse import quote

from sweeper.comfy.protocol import Flow, ServerRequest, ServerResponse, ServerTraits, parse_json, raise_for_status
from sweeper.comfy.responses import read_messages, to_seconds
from sweeper.errors import TargetError, TransientError, Trouble, UnreachableError
from sweeper.model.model_facts import ModelFacts, ModelKey, Models, read_metadata
from sweeper.schemas.values import is_integer, is_number

_MAX_FOLDERS: Final = 300
_MAX_NAME: Final = 1024  # characters
_MAX_ASSETS: Final = "50"  # a longer name may contain a shorter one
_PARALLEL: Final = 4  # questions at a time
_FREE_SECONDS: Final = 0.5
_WITH_HEADER: Final = ".safetensors"  # of other files, ComfyUI reads no metadata


class ModelCalls(ServerTraits, Protocol):
    """The part of a dialect about node classes and models."""

    def request_classes(self, class_type: str = "") -> ServerRequest | None:
        """The request for all node classes, or for one, as ComfyUI describes them; None if there is no such call."""

    def get_model_facts(self, key: ModelKey, facts: ModelFacts) -> Flow[ModelFacts]:
        """Add to the facts in the listing of a folder what the server tells about one file."""


class ServerModels:
    """The questions about classes and models to one server. Every method raises TransientError and TargetError.

    `unanswered`: what the server did not answer about single folders and files, for people. The others have facts.
    """

    def __init__(self, run_flow: Callable[[Flow[Any]], Awaitable[Any]], get_dialect: Callable[[], ModelCalls]) -> None:
        self._run_flow, self._get_dialect = run_flow, get_dialect
        self.unanswered: list[str] = []

    async def get_object_info(self) -> dict[str, Any] | None:
        """All node classes, with equal lists of names as one object; None if the server does not list them."""
        request = self._get_dialect().request_classes()
        answer: dict[str, Any] | None = await self._run_flow(query_classes(request)) if request is not None else None
        return answer

    async def get_node_classes(self, names: Sequence[str]) -> dict[str, Any] | None:
        """The node classes of these names that the server has; None if it has no call that describes one class."""
        requests = [request for name in names if (request := self._get_dialect().request_classes(name)) is not None]
        try:
            answers = await run_few_at_once(self._run_flow, [query_classes(request, 500) for request in requests])
        except TransientError as error:
            if error.trouble is not Trouble.NOT_COMFYUI:
                raise
            return None
        found: dict[str, Any] = {}
        for name, answer in itertools.zip_longest(names, answers):
            if answer is None or (answer and name not in answer):
                return None
            found |= {name: answer[name]} if answer else {}
        return found

    async def list_all(self, only: Collection[str] | None = None) -> dict[str, dict[str, ModelFacts]]:
        """The files of each folder, or of some, with their sizes and times; empty if the server lists none."""
        path = self._get_dialect().models_path
        if path is None:
            return {}
        self.unanswered.clear()
        folders = await self._run_flow(list_folders(path)) if only is None else only
        found = await self._ask({folder: list_files(path, folder) for folder in folders})
        return {folder: files for folder, files in found.items() if files is not None}

    async def list_folders(self) -> Sequence[str]:
        """The names of the folders; none if the server lists none."""
        path = self._get_dialect().models_path
        folders: Sequence[str] = () if path is None else await self._run_flow(list_folders(path))
        return folders

    async def get_facts(self, listed: Models) -> dict[ModelKey, ModelFacts]:
        """Add to what the listings say about some files what the server tells about each."""
        get_facts = self._get_dialect().get_model_facts
        found = await self._ask({key: get_facts(key, facts) for key, facts in listed.items()})
        return {key: found[key] or facts for key, facts in listed.items()}

    async def find_oldest_job(self) -> float | None:
        """When the oldest job in the server's history began, by its clock; None if it has none, or does not say."""
        oldest: float | None = await self._run_flow(find_oldest_job()) if self._get_dialect().frees_memory else None
        return oldest

    async def free_memory(self) -> bool:
        """Let the server forget its results and its loaded models, so that it reads all files again.

        It does so before its next job, if that job comes later: measured on ComfyUI 0.33.0, the worker looks for this
        request when it is woken or has ended a job, so an idle one needs a moment. False if the server cannot do it.
        """
        if not self._get_dialect().frees_memory:
            return False
        try:
            await self._run_flow(free_memory())
        except TargetError as error:
            raise UnreachableError(
                f"model files were replaced, and the server cannot be asked to read them again (POST /free: {error}); "
                "restart it, then run the same command"
            ) from error
        await asyncio.sleep(_FREE_SECONDS)
        return True

    async def _ask(self, flows: Mapping[Any, Flow[Any]]) -> dict[Any, Any]:
        """The answer about each folder or file, None if there is none: a file may be half written."""

        async def run(question: tuple[Any, Flow[Any]]) -> Any:
            what, flow = question
            try:
                return await self._run_flow(flow)
            except (TransientError, UnreachableError) as error:
                self.unanswered.append(f"{what}: {error}")
                return None

        return dict(zip(flows, await run_few_at_once(run, flows.items()), strict=True))


async def run_few_at_once(run_flow: Callable[[Any], Awaitable[Any]], flows: Iterable[Any]) -> list[Any]:
    """The outcomes of flows, in their order. Raises what the first one raises that fails."""
    slots = asyncio.Semaphore(_PARALLEL)

    async def run(flow: Any) -> Any:
        async with slots:
            return await run_flow(flow)

    tasks = [asyncio.ensure_future(run(flow)) for flow in flows]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def query_classes(request: ServerRequest, *allowed: int) -> Flow[dict[str, Any] | None]:
    """The node classes in an answer; None if the server has no such call. Without one, a status may be `allowed`.

    A ComfyUI answers 500 about a class that it cannot describe, and leaves that class out of the list of all.
    """
    response = raise_for_status((yield request), 404, 405, 501, *allowed)
    return response.classes if response.classes is not None or response.status != 200 else response.json_object()


def list_folders(path: str) -> Flow[tuple[str, ...]]:
    """The names of the folders of models; empty if the server does not list them."""
    answer = _read_list((yield ServerRequest("GET", path)))
    return tuple(dict.fromkeys(_iter_names(answer)))[:_MAX_FOLDERS]


def list_files(path: str, folder: str) -> Flow[dict[str, ModelFacts]]:
    """The files of a folder: name -> size and times. Of two files of one name, ComfyUI uses the first."""
    answer = _read_list((yield ServerRequest("GET", f"{path}/{quote(folder, safe='')}")))
    found: dict[str, ModelFacts] = {}
    for entry, name in zip(answer, _iter_names(answer, keep_place=True), strict=True):
        if name and name not in found:
            size, modified, created = (entry.get(part) for part in ("size", "modified", "created"))
            times = [time for time in (modified, created) if is_number(time) and time > 0]
            found[name] = ModelFacts(
                size=size if is_integer(size) and size >= 0 else None,
                modified=float(modified) if is_number(modified) and modified > 0 else None,
                placed=max(times, default=None),
            )
    return found


def read_header(key: ModelKey, facts: ModelFacts) -> Flow[ModelFacts]:
    """Add to the facts of a file what its own header states."""
    if not key.name.endswith(_WITH_HEADER):
        return replace(facts, metadata="")
    path = f"/view_metadata/{quote(key.folder, safe='')}"
    response = raise_for_status((yield ServerRequest("GET", path, query={"filename": key.name})), 404)
    if response.status == 404 and response.content:  # not ComfyUI's own, which is empty, but of one without the call
        return facts
    metadata, stated = read_metadata(response.json_object() if response.status != 404 else {})
    return replace(facts, metadata=metadata, stated=stated)


def find_asset(key: ModelKey, facts: ModelFacts) -> Flow[ModelFacts]:
    """Add to the facts of a file on Comfy Cloud what its assets say: the size, the hash and the time."""
    name = key.name.rpartition("/")[2]
    query = {"include_tags": f"models,{key.folder}", "name_contains": name, "limit": _MAX_ASSETS}
    response = raise_for_status((yield ServerRequest("GET", "/api/assets", query=query)), 400, 404, 501)
    assets = response.json_object().get("assets") if response.status == 200 else None
    for asset in assets if isinstance(assets, list) else []:
        if isinstance(asset, Mapping) and asset.get("name") in (name, key.name):
            content, size = asset.get("asset_hash") or asset.get("hash"), asset.get("size")
            return replace(
                facts,
                size=size if is_integer(size) and size > 0 else facts.size,
                content=content if isinstance(content, str) and 0 < len(content) <= _MAX_NAME else None,
            )
    return facts


def find_oldest_job() -> Flow[float | None]:
    """When the oldest job of a ComfyUI's history began, in seconds since 1970; None if it has none."""
    query = {"max_items": "1", "offset": "0"}
    history = raise_for_status((yield ServerRequest("GET", "/history", query=query))).json_object()
    starts = []
    for entry in history.values():
        _, _, started, _ = read_messages(entry.get("status") if isinstance(entry, Mapping) else None)
        prompt = entry.get("prompt") if isinstance(entry, Mapping) else None
        extra = prompt[3] if isinstance(prompt, list) and len(prompt) > 3 else None
        created = to_seconds(extra.get("create_time")) if isinstance(extra, Mapping) else None
        starts += [time for time in (started, created) if time is not None]
    return min(starts, default=None)


def free_memory() -> Flow[None]:
    """Ask a ComfyUI to forget all results and loaded models before its next job."""
    raise_for_status((yield ServerRequest("POST", "/free", body={"unload_models": True, "free_memory": True})))


def _read_list(response: ServerResponse) -> list[Any]:
    """The JSON list of a response; empty for a server without the call. Raises the errors of `raise_for_status`."""
    if raise_for_status(response, 404, 405, 501).status != 200:
        return []
    try:
        answer = parse_json(response.content)
    except ValueError:
        return []
    return answer if isinstance(answer, list) else []


def _iter_names(entries: Iterable[Any], *, keep_place: bool = False) -> Iterable[str]:
    """The names in a list of mappings. With `keep_place`, an entry without a name has the name ""."""
    for entry in entries:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        is_name = isinstance(name, str) and 0 < len(name) <= _MAX_NAME
        if is_name or keep_place:
            yield str(name) if is_name else ""
