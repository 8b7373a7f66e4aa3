"""Read a workflow for `init`, `open` and `template`: from JSON, or from a picture, film or sound that embeds it.

A workflow in UI format is converted to API format, by the node classes of a `NodeClassSource`. Suggesting slots belongs
to `sweeper.loading.suggest_slots`.

ComfyUI embeds the workflow in the files that it saves: in PNG text chunks, in the EXIF of WebP and JPEG, or in `comf`
chunks of APNG; in films and sounds in the tags of their container (SaveVideo, SaveAudio), or as JSON in the tag
`comment` (VHS_VideoCombine).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper import embedded
from sweeper.comfy.target import resolve_targets
from sweeper.errors import ImageError, InputError, Problem, TemplateError, UsageError
from sweeper.loading.load import read_workflow
from sweeper.loading.suggest_slots import Suggestion, choose_app_slots, suggest_slots
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.ui_format.convert import AppInput, ConversionResult, UiFormatError, convert_to_api
from sweeper.model.bounded_json import parse_json
from sweeper.model.expressions import has_jinja, quote_jinja
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.object_info import ClassReader
from sweeper.model.node_classes.template_check import UNCHECKED
from sweeper.model.picture_size import FILM_OPTIONS, PICTURE_FORMATS, check_pixels
from sweeper.model.source import Source
from sweeper.model.template import MISSING, ModelFile, Slot
from sweeper.model.workflow import Graph, encode_workflow, find_shape_problems, is_ui_format
from sweeper.running.node_class_cache import get_object_info
from sweeper.wording import join_command, join_names

if TYPE_CHECKING:
    from PIL.Image import Image

SLOT_COLUMNS: Final = ("name", "address", "class_type", "title", "type", "value")

# Where requests have the workflow: ComfyUI's /prompt, RunPod's worker-comfyui, Comfy Deploy and others.
_WRAPPERS: Final = (("prompt",), ("input", "workflow"), ("input", "prompt"), ("workflow",))

# The names of the two texts (ComfyUI's nodes.py and nodes_images.py): the workflow in API format and in UI format.
_PROMPT: Final = "prompt"
_WORKFLOW: Final = "workflow"
_PICTURES: Final = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_CONTAINERS: Final = {b"\x1aE\xdf\xa3": "WebM or Matroska", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}
_MAX_CLASS: Final = 64 * 2**20  # characters
_PIECE: Final = 2**16  # bytes of the file that are read at once


@dataclass(frozen=True)
class NodeClassSource:
    """The node classes that a command uses: those of `target` or in `file`, as given on the command line (not both)."""

    target: str | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.target is not None and self.file is not None:
            raise UsageError("--target and --object-info both say where node classes come from; give one")

    @property
    def is_default(self) -> bool:
        """Whether the classes are the embedded server's (the core classes only) because neither option was given."""
        return self.target is None and self.file is None

    @cached_property
    def object_info(self) -> Mapping[str, Any]:
        """The object_info as JSON. Raises UsageError for a wrong option or file, TargetError if the server lacks it."""
        if self.file is not None:
            return read_object_info(self.file)
        if self.target is None:
            return embedded.node_classes()
        target, *_ = resolve_targets([self.target], named=load_named_targets(), environ=os.environ)
        return asyncio.run(get_object_info(target))

    def select(self, graph: Graph) -> NodeInfo:
        """The classes of a workflow. Any name of a model file is allowed, because those come and go."""
        names = {node["class_type"] for node in graph.values()}
        info = NodeInfo.from_object_info(self.object_info, is_embedded=self.is_default, only=names)
        return info.with_any_model()


def read_object_info(path: Path) -> Mapping[str, Any]:
    """The JSON of a saved object_info, with equal lists as one object.

    Raises UsageError if it cannot be read or describes no node classes.
    """
    try:
        reader = ClassReader(_MAX_CLASS)
        with path.open("rb") as file:
            for piece in iter(partial(file.read, _PIECE), b""):
                reader.feed(piece)
        value = reader.finish()
        NodeInfo.from_object_info(value, only=())
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except InputError as error:
        raise UsageError(Problem(str(path), 0, "", str(error))) from error
    except (ValueError, OverflowError) as error:
        raise UsageError(Problem(str(path), 0, "", f"is not the JSON of an object_info: {error}")) from error
    if not value:
        raise UsageError(Problem(str(path), 0, "", "describes no node class"))
    return value


@dataclass(frozen=True, slots=True)
class LoadedWorkflow:
    """A checked workflow in API format. `notes` say how it was changed while it was read.

    `pictures` are those that came with it in a request, by name. `unchecked` are the classes that were read by the
    file's own names, `app_inputs` those that its author chose for the App mode. `content` is the workflow as the bytes
    of a JSON file: those of the file it came from, if `is_unchanged`.
    """

    source: Source
    content: bytes
    is_unchanged: bool
    notes: tuple[str, ...] = ()
    models: tuple[ModelFile, ...] = ()
    unchecked: tuple[str, ...] = ()
    app_inputs: tuple[AppInput, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        graph: Graph = self.source.value
        return graph


def read_graph(path: Path, classes: NodeClassSource, name: str | None = None) -> LoadedWorkflow:
    """Read the workflow of a file. `classes` are loaded only if it is in UI format and must be converted.

    `name`: what the notes call the file; None: its path. Raises TemplateError if the file cannot be read, holds no
    workflow, cannot be converted with certainty, or has links to nodes that do not exist. Raises UsageError and
    TargetError as `NodeClassSource.object_info` does.
    """
    file_format = _detect_format(path)
    source = _from_media(path, file_format) if file_format else read_workflow(path)
    source.name = name or source.name
    notes: list[str] = []
    where = _find_wrapper(source.value) if file_format is None else ()
    unwrapped = source
    if where:
        inner, depth = source.value, len(where)
        for key in where:
            inner = inner[key]
        unwrapped = Source(
            source.name,
            inner,
            lambda: {path[depth:]: line for path, line in source.lines.items() if path[:depth] == where},
        )
        message = f"the file holds the workflow inside a `{'.'.join(where)}` key; sweeper uses that workflow"
        notes.append(str(source.make_problem(where, message)))
    graph, facts = unwrapped, ConversionResult({}, ())
    if is_ui_format(unwrapped.value):
        graph, facts = _convert_ui_format(unwrapped, classes, notes)
    problems = [graph.make_problem(where, message) for where, message in find_shape_problems(graph.value)]
    if problems:
        raise TemplateError(problems)
    is_unchanged = file_format is None and graph is source
    content = path.read_bytes() if is_unchanged else encode_workflow(graph.value)
    pictures = dict(_iter_request_pictures(source.value)) if where else {}
    return LoadedWorkflow(
        graph, content, is_unchanged, tuple(notes), facts.models, facts.unchecked, facts.app_inputs, pictures
    )


def holds_workflow(path: Path) -> bool:
    """Whether a JSON file looks like a workflow, or a request with one. Raises TemplateError if it is not JSON."""
    value = read_workflow(path).value
    return isinstance(value, dict) and (
        is_ui_format(value) or bool(_find_wrapper(value)) or any(map(_is_node, value.values()))
    )


def suggest_workflow_slots(workflow: LoadedWorkflow, info: NodeInfo) -> tuple[Suggestion, ...]:
    """Suggest the slots that the author of a workflow chose for its App mode, or all that are possible."""
    chosen = choose_app_slots(workflow.graph, info, workflow.app_inputs)
    return chosen or suggest_slots(workflow.graph, info)


def list_slots(graph: Graph, info: NodeInfo, own: Mapping[str, Slot]) -> list[dict[str, Any]]:
    """Every input of a workflow as `iter_inputs` gives it: where it is, its value, and its JSON Schema."""
    columns = (*SLOT_COLUMNS, "schema", "others")
    return [
        {name: getattr(found, name) for name in columns} | {"others": [*found.others], "is_slot": is_slot}
        for found, is_slot in iter_inputs(graph, info, own)
    ]


def iter_inputs(graph: Graph, info: NodeInfo, own: Mapping[str, Slot]) -> Iterator[tuple[Suggestion, bool]]:
    """Yield every input of a workflow that can be a slot, and whether it is one.

    `own` are the slots of the template that the workflow is: they come first, with their own names.
    """
    suggestions = suggest_slots(graph, info)
    by_address = {address: suggestion for suggestion in suggestions for address in suggestion.addresses}
    for slot in own.values():
        address, *others = map(str, slot.addresses)
        node = graph[address.partition(".")[0]]
        title = str(node.get("_meta", {}).get("title", ""))
        value = None if slot.default is MISSING else slot.default
        found = by_address.get(address) or Suggestion(slot.name, address, node["class_type"], title, "", value)
        schema = slot.schema.rules or found.schema
        yield replace(found, name=slot.name, address=address, others=tuple(others), schema=schema), True
    taken = {str(address) for slot in own.values() for address in slot.addresses}
    names = set(own)
    for suggestion in suggestions:
        free = [address for address in suggestion.addresses if address not in taken]
        if free:
            name = f"{suggestion.name}_{free[0].partition('.')[0]}" if suggestion.name in names else suggestion.name
            node = graph[free[0].partition(".")[0]]
            title = str(node.get("_meta", {}).get("title", ""))
            facts = {"address": free[0], "class_type": node["class_type"], "title": title}
            yield replace(suggestion, name=name, others=tuple(free[1:]), **facts), False


def _find_wrapper(value: Any) -> tuple[str, ...]:
    """The keys that lead to the workflow in a request to a server; none if the file is a workflow itself."""
    for keys in _WRAPPERS:
        inner = value
        for key in keys:
            # A dictionary with a class_type is a node, whose id may be "prompt" or "input".
            inner = inner.get(key) if isinstance(inner, dict) and not _is_node(inner) else None
        if (
            isinstance(inner, dict)
            and not _is_node(inner)
            and (is_ui_format(inner) or any(map(_is_node, inner.values())))
        ):
            return keys
    return ()


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_type"), str)


def _iter_request_pictures(value: Any) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the pictures in a request of RunPod: `input.images`, each with `name` and base64 `image`."""
    request = value.get("input")
    pictures = request.get("images") if isinstance(request, dict) else None
    for picture in pictures if isinstance(pictures, list) else ():
        if isinstance(picture, dict) and isinstance(picture.get("name"), str) and isinstance(picture.get("image"), str):
            try:
                yield picture["name"], base64.b64decode(picture["image"].rpartition(",")[2], validate=True)
            except ValueError:
                continue


def _convert_ui_format(source: Source, classes: NodeClassSource, notes: list[str]) -> tuple[Source, ConversionResult]:
    """Convert a workflow from UI format to API format, and add what was left out to `notes`."""
    try:
        converted = convert_to_api(source.value, classes.object_info)
    except UiFormatError as error:
        problems = [source.make_problem(path, message) for path, message in error.problems]
        if classes.is_default:
            first = problems[0]
            message = f"{first.message}, by the embedded server's node classes (--target or --object-info gives others)"
            problems[0] = Problem(first.file, first.line, first.key, message)
        raise TemplateError(problems) from error
    notes += [str(source.make_problem(path, message)) for path, message in converted.notes]
    if converted.app_inputs:
        lists = join_command(["sweeper", "template", "slots", source.name])
        chosen = "the inputs that its author chose for the App mode become the slots"
        notes.append(f"{source.name}: {chosen}; `{lists}` lists all")
    if converted.unchecked:
        where = "a server that has them" if classes.is_default else "this server lacks them; one that has them"
        notes.append(f"{source.name}: {UNCHECKED}: {join_names(converted.unchecked)}; {where} checks them at `plan`")
    return Source(source.name, _quote_jinja(converted.graph), dict), converted


def _quote_jinja(value: Any) -> Any:
    """Quote texts that look like Jinja2: in a workflow that ComfyUI saved they are texts of nodes, not slots."""
    if isinstance(value, dict):
        return {key: _quote_jinja(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_quote_jinja(part) for part in value]
    return quote_jinja(value) if isinstance(value, str) and has_jinja(value) and "endraw" not in value else value


def _from_media(path: Path, file_format: str) -> Source:
    """The workflow embedded in a picture, film or sound, in either format."""
    texts = read_workflow_texts(path, file_format)
    name = _PROMPT if _PROMPT in texts else _WORKFLOW
    if name not in texts:
        message = (
            f"this {file_format} contains no workflow (neither a `prompt` text nor a `workflow` text); ComfyUI's "
            "SaveImage writes both unless metadata is disabled, and most web sites remove them"
        )
        raise TemplateError(Problem(str(path), 0, "", message))
    try:
        value = parse_json(texts[name], is_strict=False, keeps_surrogates=True)
    except ValueError as error:
        raise TemplateError(
            Problem(str(path), 0, name, f"the {file_format}'s workflow is not JSON: {error}")
        ) from error
    return Source(str(path), _strip_is_changed(value), dict)


def _strip_is_changed(value: Any) -> Any:
    """Remove `is_changed`, which ComfyUI adds to nodes that have run. It is often NaN, which JSON does not allow."""
    if not isinstance(value, Mapping):
        return value
    return {
        node_id: {key: part for key, part in node.items() if key != "is_changed"}
        if isinstance(node, dict) and "class_type" in node
        else node
        for node_id, node in value.items()
    }


def _detect_format(path: Path) -> str | None:
    """The format of a picture, film or sound, by its first bytes. None for another file, or if it cannot be opened."""
    if not path.is_file():  # a pipe would wait
        return None
    try:
        with path.open("rb") as file:
            first = file.read(12)
    except OSError:
        return None
    if first[4:8] == b"ftyp":
        return "MP4"
    if first.startswith(b"RIFF"):
        return "WebP" if first[8:] == b"WEBP" else None
    known = (*_PICTURES.items(), *_CONTAINERS.items())
    return next((name for signature, name in known if first.startswith(signature)), None)


def read_workflow_texts(path: Path, file_format: str) -> dict[str, str]:
    """The texts `prompt` and `workflow` in a file, if present. Raises TemplateError if it cannot be decoded."""
    texts: dict[str, str] = {}
    is_picture = file_format in (*_PICTURES.values(), "WebP")
    for name, text in _read_picture_texts(path, file_format) if is_picture else _read_tags(path, file_format):
        texts.setdefault(name.lower(), text)
    return {name: text for name, text in texts.items() if name in (_PROMPT, _WORKFLOW)}


def _read_picture_texts(path: Path, file_format: str) -> list[tuple[str, str]]:
    from PIL import Image

    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            check_pixels(image.size)  # the texts behind the pixels are read with them
            return list(_iter_texts(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageError) as error:
        raise TemplateError(Problem(str(path), 0, "", f"cannot be read as {file_format}: {error}")) from error


def _read_tags(path: Path, file_format: str) -> list[tuple[str, str]]:
    """(name, text) of every tag of a film or sound, and of every text in the JSON of its comment."""
    from sweeper.images.media import load_av

    try:
        av = load_av(path)
        with _open_with_tags(av, path) as container:
            parts = (container, *container.streams)
            found = [tag for part in parts for tag in part.metadata.items()]
        tags = [(_replace_surrogates(name), _replace_surrogates(text)) for name, text in found]
    except (OSError, ValueError, ImageError) as error:  # PyAV's errors are among the first two
        message = f"the {file_format} cannot be read: {error}" if not isinstance(error, ImageError) else str(error)
        raise TemplateError(Problem(str(path), 0, "", message)) from error
    for name, text in list(tags):
        if name.lower() == "comment" and text.startswith("{"):
            try:
                inner = json.loads(text)
            except (ValueError, RecursionError):
                continue
            tags += [(key, part if isinstance(part, str) else json.dumps(part)) for key, part in inner.items()]
    return tags


def _open_with_tags(av: Any, path: Path) -> Any:
    """Open a film or sound. The bytes of a tag that are not UTF-8 become surrogates, which PyAV 19 does by itself."""
    is_old = int(av.__version__.partition(".")[0]) < 19
    errors = {"metadata_errors": "surrogateescape"} if is_old else {}
    return av.open(str(path), options=FILM_OPTIONS, **errors)


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _iter_texts(image: Image) -> Iterator[tuple[str, str]]:
    for name, value in image.info.items():
        if isinstance(value, str):
            yield str(name), value
    for value in image.getexif().values():
        # SaveAnimatedWEBP writes "prompt:{...}" and "workflow:{...}" into the tags from 0x0110 down.
        name, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon:
            yield name, text.rstrip("\0")
    if image.format == "PNG":
        image.load()  # SaveAnimatedPNG writes its chunks after the pixels
        chunks: list[Any] = list(getattr(image, "private_chunks", ()))
        for chunk_id, data, *_ in chunks:
            head, zero, text_bytes = data.partition(b"\0")
            if chunk_id == b"comf" and zero:
                yield head.decode("latin-1"), text_bytes.decode("latin-1")
