"""Make a folder with a template and an experiment that runs as it is, for the user to edit; and add files to it."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.editing.read_workflow import (
    LoadedWorkflow,
    NodeClassSource,
    holds_workflow,
    read_graph,
    suggest_workflow_slots,
)
from sweeper.errors import ImageError, InputError, Problem, TemplateError, UsageError
from sweeper.files import make_portable, write_new
from sweeper.loading.starter_experiment import has_axis, order_slots, render_experiment, render_slots_file
from sweeper.loading.suggest_slots import Suggestion, find_output_nodes
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.graph_check import GraphCheck, find_graph_problems
from sweeper.model.picture_size import FILM_TYPES, PICTURE_FORMATS, PICTURE_SUFFIXES, SOUND_TYPES, check_pixels
from sweeper.model.template import Address
from sweeper.model.workflow import find_upstream
from sweeper.running.node_class_cache import get_embedded_classes
from sweeper.schemas import make_editor_line
from sweeper.wording import find_nearest, join_names, shorten, to_one_line

_STARTER: Final = Path(__file__).parent / "starter" / "txt2img.json"
EXPERIMENT: Final = "experiment.yaml"
INPUTS: Final = "inputs"  # the folder of input files, beside an experiment
_MAX_NAME_BYTES: Final = 255  # of a file, on most systems
_OTHER_SUFFIXES: Final = frozenset(f".{name}" for name in FILM_TYPES | SOUND_TYPES)
_MAX_FOLDERS: Final = 100  # of one name
_MAX_STEM: Final = 60  # characters, of up to 4 bytes, of an input file
LOCAL_COMFYUI: Final = "http://127.0.0.1:8188"
_PLACEHOLDER_SIZE: Final = (512, 512)


def make_experiment(
    source: Path | None, folder: Path | None, classes: NodeClassSource, *, axis: str | None = None,
    is_moved: bool = False,
) -> tuple[Path, list[str]]:  # fmt: skip
    """Make the folder of an experiment for the workflow of a file, and return the experiment and what to know of it.

    `folder` None: one of the file's name in the current folder, with a number if that is taken. A folder with an
    experiment for this very workflow is taken as it is. `axis`, `is_moved`: see `make_starter_files`. Raises
    UsageError if a given `folder` has other files, and the errors of `make_starter_files`.
    """
    base = folder or Path(to_file_name((source or _STARTER).stem) or "sweep")
    for number in range(1, _MAX_FOLDERS + 1):
        home = base if number == 1 else base.with_name(f"{base.name}-{number}")
        contents, notes = make_starter_files(home, source, classes, axis=axis, is_moved=is_moved)
        workflow = next(name for name in contents if name.endswith(".json"))
        if (home / EXPERIMENT).is_file() and _has_content(home / workflow, contents[workflow]):
            return home / EXPERIMENT, []
        if folder is not None or not home.exists():
            write_starter_folder(home, contents)
            return home / EXPERIMENT, notes
    raise UsageError(f"{base}: {_MAX_FOLDERS} folders of this name have other things; give a folder by --into")


def write_starter_folder(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write the files of a new folder, by their path in it, but for those that are there with the same content.

    Returns what it wrote. Raises UsageError if there is another file in the place of one; then it writes nothing.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give the name of a folder")
    # The workflow and its pictures may be in the folder already.
    contents = {name: content for name, content in contents.items() if not _has_content(folder / name, content)}
    present = [name for name in contents if (folder / name).exists()]
    if present:
        raise UsageError(f"{folder}: already contains {', '.join(present)}; give another folder, or move them away")
    for name, content in reversed(contents.items()):  # the experiment last: with it, the folder is whole
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_new(folder / name, content)  # fails if another process just made the file
    return [folder / name for name in contents]


def _has_content(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def make_each(
    folder: Path, workflows: Path, classes: NodeClassSource
) -> tuple[dict[Path, dict[str, bytes]], dict[Path, str], list[str]]:
    """The files of an experiment for each workflow (*.json) below a folder, with the values that it was saved with.

    Returns the files of each new folder by their paths in it, for each workflow without one the reason, and messages. A
    workflow whose model files the server does not list is left out, and so is other JSON. Raises TemplateError
    with the mistakes of all files, and UsageError if the folder has no workflow.
    """
    if not workflows.is_dir():
        raise UsageError(f"{workflows}: is not a folder; --each takes a folder of workflows")
    paths = ((path, path.relative_to(workflows)) for path in workflows.rglob("*.json") if not path.is_dir())
    found = [path for path, relative in paths if not any(part.startswith(".") for part in relative.parts)]
    names = set[str]()  # some systems do not tell A from a
    folders: dict[Path, dict[str, bytes]] = {}
    left_out: dict[Path, str] = {}
    notes: list[str] = []
    problems: list[Problem] = []
    for path in sorted(found):
        try:
            reason = _find_reason_to_leave_out(path, workflows, classes)
            if reason is not None:
                left_out[path] = reason
                continue
            stem = to_file_name("-".join(path.relative_to(workflows).with_suffix("").parts)) or "workflow"
            numbered = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
            name = next(name for name in numbered if name.casefold() not in names)
            names.add(name.casefold())
            home = folder / name
            folders[home], more = make_starter_files(home, path, classes, is_saved=True)
            notes += [f"{home}: {note}" for note in more]
        except InputError as error:
            problems += error.problems
    if problems:
        raise TemplateError(problems)
    if not folders and not left_out:
        raise UsageError(f"{workflows}: has no workflow; save one as JSON (*.json) there")
    return folders, left_out, notes


def _find_reason_to_leave_out(path: Path, workflows: Path, classes: NodeClassSource) -> str | None:
    """Why a file gets no experiment; None if it gets one, also if the server will refuse it for another reason."""
    # Not by `resolve`, which raises RuntimeError for a loop of links.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(workflows)):
        return "is a link that leads out of the folder"
    if not holds_workflow(path):
        return "is not a workflow"
    if classes.is_default:
        return None
    workflow = read_graph(path, classes)
    known = classes.select(workflow.graph)
    uploaded = [
        Address(*address.split(".", 1))
        for slot in suggest_workflow_slots(workflow, known) if slot.type == "file"
        for address in slot.addresses
    ]  # fmt: skip
    info = NodeInfo.from_object_info(classes.object_info)
    problems = find_graph_problems(workflow.graph, info, uploaded=uploaded)
    if not problems or find_graph_problems(workflow.graph, known, uploaded=uploaded):
        return None
    return "; ".join(message for _, message in problems)


def make_starter_files(
    folder: Path, source: Path | None, classes: NodeClassSource, *, axis: str | None = None, is_saved: bool = False,
    is_moved: bool = False,
) -> tuple[dict[str, bytes], list[str]]:  # fmt: skip
    """The files of a new folder for the workflow of a file, by their path in it, and what the user should know of them.

    `source` None: text to image. `axis`: see `render_experiment`. `is_saved`: one trial, with the values that the
    workflow was saved with. `is_moved`: `source` will not stay, so the notes name the file in the folder. Raises
    UsageError if nothing in the workflow can be swept, and as `read_graph` does.
    """
    source = source or _STARTER
    stem = to_file_name(source.stem) or "workflow"
    workflow = read_graph(source, classes, str(folder / f"{stem}.json") if is_moved else None)
    info = classes.select(workflow.graph)
    slots = suggest_workflow_slots(workflow, info)
    outputs = find_output_nodes(workflow.graph, info)
    if not workflow.app_inputs:
        slots = order_slots(slots, find_upstream(workflow.graph, outputs)) or slots
    if not slots and not is_saved:
        raise UsageError(f"{source}: no node of this workflow has an input that can be a slot")
    notes = list(workflow.notes)
    files, contents = _collect_inputs(source, workflow, slots, notes)
    choices = _list_choices(workflow, slots, classes)
    if not is_saved and axis is None and not has_axis(slots, choices):
        _add_mirrored_picture(files, contents)
    if not classes.is_default:
        notes += _find_absent_values(slots, choices)
    title = f"Made by `sweeper init` from {to_one_line(source.name)}."
    # The name of the folder, which may have more kinds of characters than that of an experiment.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    experiment = render_experiment(
        make_portable(name[:90], "sweep") or "first-sweep", title=title, template=f"{stem}.json",
        target=_choose_target(workflow, classes.target, notes), slots=slots, files=files, choices=choices,
        has_pictures=any("Audio" not in workflow.graph[key]["class_type"] for key in outputs),
        keep_temp=bool(GraphCheck(workflow.graph, info).find_unsaved_outputs()), is_saved=is_saved, axis=axis,
    )  # fmt: skip
    slots_file = render_slots_file(
        f"{stem}.json", workflow.graph, info, slots, models=workflow.models, unchecked=workflow.unchecked
    )
    return {
        EXPERIMENT: f"{make_editor_line('experiment')}\n{experiment}".encode(),
        f"{stem}.json": workflow.content,
        f"{stem}.slots.yaml": slots_file.encode(),
        **contents,
    }, notes


def _choose_target(workflow: LoadedWorkflow, target: str | None, notes: list[str]) -> tuple[str, str]:
    """The experiment's target and a remark: the user's, or the embedded server."""
    if target is not None:
        return target, "or another server: embedded, cloud, a URL"
    nodes = workflow.graph.values()
    missing = {str(node["class_type"]) for node in nodes} - get_embedded_classes(nodes).classes.keys()
    if missing:
        notes.append(
            f"sweeper's own server lacks {join_names(sorted(missing))}: stand-ins run these nodes, so that you can try "
            f"the sweep; for real pictures: `sweeper run --target URL`"
        )
    return "embedded", f"sweeper's own server draws no real model; yours: {LOCAL_COMFYUI}, or cloud"


def _list_choices(
    workflow: LoadedWorkflow, slots: tuple[Suggestion, ...], classes: NodeClassSource
) -> dict[str, tuple[Any, ...]]:
    """What the server offers for each slot that has a list: samplers, and model files if it is the user's server."""
    graph = workflow.graph
    info = classes.select(graph) if classes.is_default else NodeInfo.from_object_info(classes.object_info)
    found: dict[str, tuple[Any, ...]] = {}
    for slot in slots:
        node, _, name = slot.address.partition(".")
        declared = info.find_input(workflow.graph, node, name)
        if declared is not None and declared.choices:
            found[slot.name] = declared.choices
    return found


def _find_absent_values(slots: tuple[Suggestion, ...], choices: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Messages about values of the workflow that the server does not offer, such as a model file that it lacks."""
    for slot in slots:
        offered = choices.get(slot.name)
        if offered and slot.type != "file" and slot.value not in offered:
            nearest = find_nearest(str(slot.value), map(str, offered)) or offered[0]
            yield (
                f"the server does not list {slot.value!r} for `{slot.name}`; if the run is refused, remove the `#` of "
                f"`{slot.name}` in {EXPERIMENT} and name one that it has, such as {nearest!r}"
            )


def _collect_inputs(
    source: Path, workflow: LoadedWorkflow, slots: tuple[Suggestion, ...], notes: list[str]
) -> tuple[dict[str, tuple[list[str], str]], dict[str, bytes]]:
    """The local file for each slot of a file, and the content of those to write.

    A file that the workflow names is taken from the request that it came in, or from the folder of the workflow. A
    grey picture stands in for one that is not there.
    """
    files: dict[str, tuple[list[str], str]] = {}
    contents: dict[str, bytes] = {}
    for slot in (slot for slot in slots if slot.type == "file"):
        name = str(slot.value).removesuffix(" [input]").replace("\\", "/")  # maybe in a subfolder of ComfyUI's input
        suffix = PurePosixPath(name).suffix.lower()
        content = workflow.pictures.get(PurePosixPath(name).name) or _read_neighbour(source, name)
        path = f"{INPUTS}/{to_file_name(name) or 'picture.png'}"
        remark = f'or {{files: "{INPUTS}/*{PurePosixPath(path).suffix}"}}: one trial for each file'
        if content is None and suffix not in _OTHER_SUFFIXES:
            content = _draw_placeholder()
            path = f"{INPUTS}/{to_file_name(name.removesuffix(suffix)) or 'picture'}.png"
            remark = f"a grey placeholder, because {slot.value!r} was not found: put your picture there"
            notes.append(
                f"the workflow names the picture {slot.value!r}, which is not beside {source.name}; a grey placeholder "
                f"is in {path}: replace it by your picture before you run on a real server"
            )
        elif content is None:
            notes.append(
                f"the workflow names the file {slot.value!r}, which is not beside {source.name}; put it at "
                f"{path} before you run"
            )
        files[slot.name] = ([path], " ".join(remark.split()))
        if content is not None:
            contents[path] = content
    return files, contents


def _add_mirrored_picture(files: dict[str, tuple[list[str], str]], contents: dict[str, bytes]) -> None:
    """Add a mirrored copy of the first picture, so that there are two trials to compare."""
    from PIL import Image, ImageOps

    for paths, _ in files.values():
        content = contents.get(paths[0])
        if content is not None and PurePosixPath(paths[0]).suffix.lower() in PICTURE_SUFFIXES:
            buffer = io.BytesIO()
            try:
                with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
                    check_pixels(picture.size)
                    ImageOps.mirror(picture.convert("RGB")).save(buffer, "PNG")
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageError):
                continue  # `run` reports a picture that is broken
            paths.append(f"{INPUTS}/{PurePosixPath(paths[0]).stem}-mirrored.png")
            contents[paths[1]] = buffer.getvalue()
            return


def _read_neighbour(source: Path, name: str) -> bytes | None:
    """A picture, film or sound of this name in the folder of the workflow, or in `input/` or `inputs/` there.

    If these two have it in the subfolder of its name, it is that.
    """
    is_medium = PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES | _OTHER_SUFFIXES
    if not is_medium or len(name.encode(errors="replace")) > _MAX_NAME_BYTES:  # a stranger's workflow may name any file
        return None
    home, base = source.parent.resolve(), PurePosixPath(name).name
    candidates = [home / folder / name for folder in ("input", "inputs") if name != base]
    candidates += [home / folder / base for folder in (".", "input", "inputs")]
    is_near = (path for path in candidates if path.is_file() and path.resolve().is_relative_to(home))  # by no link
    return next((path.read_bytes() for path in is_near), None)


def to_file_name(text: str) -> str:
    return make_portable(re.sub(r"[^\w.-]+", "-", text).strip("-.")[:100], "file")


def find_input_file(folder: Path, name: str) -> Path | None:
    """The file of this name in `inputs/` of a folder, unless one of them is a link or it is hidden."""
    inputs = folder / INPUTS
    paths = inputs.iterdir() if inputs.is_dir() and not inputs.is_symlink() else ()
    found = (path for path in paths if path.name == name and path.is_file() and not path.is_symlink())
    return next((path for path in found if not name.startswith(".")), None)


def add_input_file(folder: Path, name: str, data: bytes) -> str:
    """Write a file into `inputs/` of a folder, and return its path there; another content keeps its name.

    Raises UsageError for another kind of file, and if `inputs/` is a link, and ImageError for a broken picture.
    """
    from sweeper.images.decoding import check_whole

    suffix = PurePosixPath(name).suffix.lower()
    inputs = folder / INPUTS
    if suffix not in PICTURE_SUFFIXES | _OTHER_SUFFIXES:
        raise UsageError(f"{shorten(name)!r} is neither a picture nor a film nor a sound that sweeper knows")
    if inputs.is_symlink():
        raise UsageError(f"{inputs} is a link, so sweeper writes nothing there; put the file into it yourself")
    if suffix in PICTURE_SUFFIXES:
        check_whole(data, shorten(name))
    inputs.mkdir(exist_ok=True)
    stem = to_file_name(name[: -len(suffix)])[:_MAX_STEM] or "file"
    for number in itertools.count(1):
        chosen = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        try:
            if find_input_file(folder, chosen) is None or not _has_content(inputs / chosen, data):
                write_new(inputs / chosen, data)
        except FileExistsError:
            continue
        return f"{INPUTS}/{chosen}"
    raise AssertionError


def _draw_placeholder() -> bytes:
    """A grey picture with a slope from side to side, so that it differs from its mirror image, as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").rotate(90).resize(_PLACEHOLDER_SIZE).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
