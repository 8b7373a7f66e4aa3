"""A baseline on disk: the accepted files, and `manifest.json`, which people can read and commit.

`accept` decides which pictures belong in it, and `comparison` compares today's with them. For attribution the manifest
also holds the workflows: once for all cases with the same nodes, plus the input values that differ in each case.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from sweeper.comfy.responses import natural_sort_key
from sweeper.errors import ResultsError
from sweeper.files import atomic_write, replace_file
from sweeper.model.bounded_json import parse_json
from sweeper.model.model_facts import MODELS_SHAPE, Models, decode_models, encode_models
from sweeper.model.workflow import encode_canonical, encode_graph
from sweeper.regression.cases import Case
from sweeper.schemas.values import fits_shape, format_value
from sweeper.store.containment import contain, is_plain_path

MANIFEST: Final = "manifest.json"
VERSION: Final = 4
_VERSION_KEY: Final = "sweeper_baseline"

# The keys of a manifest. Empty values may be missing.
_ACCEPTED_SHAPE: Final = {
    "file": str, "sha256": str, "pixels": (None, str), "size": int, "params": {...: object}, "digest": str,
    "target": str, "server": (None, str), "sweeper": (None, str), "ending": (None, str), "workflow": (None, str),
    "changes": (None, {...: object}), "inputs": (None, {...: {...: str}}), "models": (None, [str]),
    "model_facts": (None, str),
}  # fmt: skip
_SHAPES: Final = {
    "cases": [
        {"cells": {...: object}, "node": str, "title": (None, str), "position": int, "accepted": [_ACCEPTED_SHAPE]}
    ],
    "workflows": {...: {...: {"class_type": str, "inputs": {...: object}}}},
    "servers": {...: {...: object}},
    "model_facts": (None, {...: MODELS_SHAPE}),
}  # fmt: skip

Graph = Mapping[str, Mapping[str, Any]]

_EMPTY: Final[Mapping[str, Any]] = {}  # shared by all cases

Facts: TypeAlias = Mapping[str, Any]

_WORDS: Final = {"server": "", "comfyui": "ComfyUI", "python": "Python", "pytorch": "PyTorch"}


def server_key(facts: Facts) -> str:
    """A short name for a server, equal for equal facts: `comfyui-0.3.64-1a2b3c4d`."""
    version = "".join(char for char in str(facts.get("comfyui") or "") if char.isalnum() or char in ".-")[:20]
    digest = hashlib.sha256(encode_canonical(dict(facts))).hexdigest()[:8]
    return f"comfyui-{version}-{digest}" if version else f"server-{digest}"


def describe_server(facts: Facts) -> str:
    """`ComfyUI 0.3.64, Python 3.12.1, PyTorch 2.4.0 on cuda:0 NVIDIA L4`; empty if nothing is known."""
    versions = [f"{word} {facts[name]}".strip() for name, word in _WORDS.items() if facts.get(name)]
    devices = ", ".join(map(str, facts.get("devices", ())))
    return ", ".join(versions) + (f" on {devices}" if versions and devices else devices)


def list_changes(before: Facts, now: Facts) -> list[str]:
    """The facts that changed: `PyTorch 2.4.0 -> 2.5.1`. A fact that only one server reports does not count."""
    changes = [
        f"{word or name} {before[name]} -> {now[name]}"
        for name, word in _WORDS.items()
        if before.get(name) and now.get(name) and before[name] != now[name]
    ]
    if "devices" in before and "devices" in now and before["devices"] != now["devices"]:
        old, new = (" ".join(map(str, facts["devices"])) or "none" for facts in (before, now))
        changes.append(f"device {old} -> {new}")
    if "argv" in before and "argv" in now:
        changes += _list_differing("option", _read_options(before["argv"]), _read_options(now["argv"]))
    if "nodes" in before and "nodes" in now:
        changes += _list_differing("nodes", before["nodes"], now["nodes"])
    return changes


def _list_differing(word: str, before: Facts, now: Facts) -> list[str]:
    pairs = [(name, before.get(name, "none"), now.get(name, "none")) for name in dict.fromkeys((*before, *now))]
    return [f"{word} {name} {old} -> {new}" for name, old, new in pairs if old != new]


def _read_options(arguments: Iterable[Any]) -> dict[str, str]:
    """The options of a command line with their values, `given` without one. What stands before them is `program`."""
    program, *options = re.split(" (?=--)", " ".join(["", *map(str, arguments)]))
    pairs = (re.split("[ =]", option, maxsplit=1) for option in options)
    return {"program": program.strip(), **{name: value[0] if value else "given" for name, *value in pairs}}


def describe_drift(before: Facts, now: Facts) -> str:
    """A sentence about the two servers of a comparison; empty if neither is known."""
    if not before and not now:
        return ""
    old, new = (describe_server(facts) or "an unknown server" for facts in (before, now))
    changes = list_changes(before, now)
    if changes:
        return f"accepted on {old}, now on {new} ({'; '.join(changes)})"
    return f"accepted on {old}, now on {'the same' if old == new else new}"


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """One accepted file of a case, and how it was made. The fields are the keys in the manifest.

    `file` is its name in the baseline's folder, `sha256` the hash of its bytes, and `pixels` the hash of its decoded
    pixels (None if it is not a picture). `size` is in bytes, and `ending` are the checksums at the end of a PNG's
    pixels, in hex (see `sweeper.images.compare.png_checksums`).

    `workflow` names a graph in the baseline, and `changes` are the inputs (`node.input`) with other values in this
    trial. `inputs` are the local files that it read: address -> {file, sha256}. `server` names a server in the
    baseline, `models` are the model files in the workflow, `model_facts` names in the baseline what the server told
    about them, and `sweeper` is the version that accepted the file.
    """

    file: str
    sha256: str
    pixels: str | None
    size: int
    params: Mapping[str, Any]
    digest: str
    target: str
    server: str | None = None
    sweeper: str = ""
    ending: str = ""
    workflow: str | None = None
    changes: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _EMPTY)
    models: tuple[str, ...] = ()
    model_facts: str | None = None

    @property
    def waiting_name(self) -> str:
        """The name of the file until the manifest names it and it takes its place."""
        return f".{self.sha256[:12]}.{self.file}"


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """A case and its accepted files. A picture that matches one of them passes."""

    case: Case
    accepted: tuple[AcceptedFile, ...]


@dataclass(slots=True)
class Baseline:
    """The accepted files of an experiment: entries by case key, and the workflows, servers and models they share.

    `stamp` identifies the manifest that was read, as `read_stamp` does.
    """

    folder: Path
    experiment: str
    entries: dict[str, BaselineEntry] = field(default_factory=dict)
    workflows: dict[str, Graph] = field(default_factory=dict)
    servers: dict[str, Facts] = field(default_factory=dict)
    model_facts: dict[str, Models] = field(default_factory=dict)
    exists: bool = False
    stamp: str = ""

    def list_files(self) -> set[str]:
        """The names of the files of the baseline: the manifest, and what it accepts."""
        return {MANIFEST, *(accepted.file for entry in self.entries.values() for accepted in entry.accepted)}

    def complete(self) -> None:
        """Put the files that wait for their places there, also those of an `accept` that was killed. Raises OSError."""
        waiting = {path.name for path in self.folder.iterdir() if path.name.startswith(".")}
        for accepted in (file for entry in self.entries.values() for file in entry.accepted if waiting):
            path = self.folder / accepted.waiting_name
            if path.name in waiting and path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):  # another process has just done it
                    replace_file(path, self.folder / accepted.file)

    def get_graph(self, accepted: AcceptedFile) -> dict[str, Any] | None:
        """The workflow that made an accepted file, as a new dict; None if it is not known."""
        base = self.workflows.get(accepted.workflow or "")
        if base is None:
            return None
        graph = {node: {**content, "inputs": dict(content["inputs"])} for node, content in base.items()}
        for address, value in accepted.changes.items():
            node, _, name = address.partition(".")
            if node not in graph:  # somebody may have edited the manifest
                return None
            graph[node]["inputs"][name] = value
        return graph

    def get_server(self, accepted: AcceptedFile) -> Facts:
        """The facts about the server that made an accepted file; empty if they are not known."""
        return self.servers.get(accepted.server or "", {})

    def add_server(self, facts: Facts) -> str | None:
        """Add a server and return its name in the baseline, or None if there are no facts."""
        if not facts:
            return None
        name = server_key(facts)
        self.servers[name] = facts
        return name

    def get_models(self, accepted: AcceptedFile) -> Models:
        """What the server told about the model files of an accepted file; empty if it is not known."""
        return self.model_facts.get(accepted.model_facts or "", {})

    def add_models(self, models: Models) -> str | None:
        """Add what a server told about model files; return its name in the baseline, or None if it told nothing."""
        if not models:
            return None
        name = hashlib.sha256(encode_canonical(encode_models(models))).hexdigest()[:8]
        self.model_facts[name] = models
        return name

    def add_graph(self, graph: Graph) -> tuple[str, dict[str, Any]]:
        """Add a workflow. Returns the name of the graph with the same nodes, and the inputs that differ from it."""
        shape = _graph_shape(graph)
        for name, base in self.workflows.items():
            if _graph_shape(base) == shape:
                return name, {
                    f"{node}.{key}": value
                    for node, content in graph.items()
                    for key, value in content["inputs"].items()
                    if encode_canonical(value) != encode_canonical(base[node]["inputs"][key])
                }
        name = hashlib.sha256(encode_graph(graph)).hexdigest()[:12]
        self.workflows[name] = graph
        return name, {}

    def save(self) -> None:
        """Write the manifest atomically, without the workflows and servers that no file uses. Raises OSError."""
        files = [accepted for entry in self.entries.values() for accepted in entry.accepted]
        workflows, servers = {file.workflow for file in files}, {file.server for file in files}
        models = {file.model_facts: self.get_models(file) for file in files if file.model_facts}
        self.workflows = {name: graph for name, graph in sorted(self.workflows.items()) if name in workflows}
        self.servers = {name: facts for name, facts in sorted(self.servers.items()) if name in servers}
        entries = sorted(self.entries.values(), key=lambda entry: natural_sort_key(entry.case.name))
        value = {
            _VERSION_KEY: VERSION,
            "experiment": self.experiment,
            "servers": self.servers,
            **({"model_facts": {name: encode_models(models[name]) for name in sorted(models)}} if models else {}),
            "cases": [_to_json(entry) for entry in entries],
            "workflows": self.workflows,
        }
        text = json.dumps(value, ensure_ascii=False, indent=1)
        with atomic_write(self.folder / MANIFEST) as file:
            file.write(text.encode("utf-8", "surrogatepass") + b"\n")
        self.exists, self.stamp = True, read_stamp(self.folder)


def read_stamp(folder: Path) -> str:
    """The SHA-256 of the manifest in a folder; empty if there is none. Raises OSError."""
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def read_baseline(folder: Path, experiment: str) -> Baseline:
    """Read the baseline in a folder; it is empty if there is no manifest.

    Raises ResultsError for a manifest that cannot be read, that another sweeper wrote, or of another experiment.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        value = parse_json(content.decode("utf-8", "surrogatepass"), keeps_surrogates=True)
    except FileNotFoundError:
        return Baseline(folder, experiment)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(value, dict) or _VERSION_KEY not in value:
        raise ResultsError(f"{path}: this is not the manifest of a baseline; `sweeper accept` writes one")
    if value[_VERSION_KEY] != VERSION:
        raise ResultsError(
            f"{path}: written by another version of sweeper (format {value[_VERSION_KEY]}, this one reads {VERSION}); "
            "upgrade sweeper, or accept the pictures again into a new folder"
        )
    if value.get("experiment") != experiment:
        raise ResultsError(
            f"{path}: belongs to the experiment '{value.get('experiment')}', not to '{experiment}'; "
            "give another folder with --baseline"
        )
    for name, shape in _SHAPES.items():
        if not fits_shape(value.get(name), shape):
            raise ResultsError(f"{path}: damaged (`{name}` is not as sweeper writes it); restore it from git")
    try:
        entries = _parse_entries(value["cases"], folder)
        workflows: dict[str, Graph] = value["workflows"]
        servers: dict[str, Facts] = value["servers"]
        models: dict[str, Models] = {
            name: decode_models(facts) for name, facts in (value.get("model_facts") or {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path}: damaged ({type(error).__name__}: {error}); restore it from git") from error
    stamp = hashlib.sha256(content).hexdigest()
    baseline = Baseline(folder, experiment, entries, workflows, servers, models, exists=True, stamp=stamp)
    with suppress(OSError):  # in a folder that nobody may write to, the files differ from the manifest
        baseline.complete()
    return baseline


def default_folder(experiment_file: Path, name: str) -> Path:
    """`baselines/<name>/` beside the experiment file. Raises ResultsError for a name that leads out of that folder."""
    if not is_plain_path(name):  # the name may come from somebody else's results folder
        raise ResultsError(
            f"the results are of an experiment named {format_value(name)}, which leads out of "
            f"{experiment_file.parent / 'baselines'}; name the baseline's folder with --baseline"
        )
    return experiment_file.parent / "baselines" / name


def _parse_entries(cases: list[dict[str, Any]], folder: Path) -> dict[str, BaselineEntry]:
    """Entries by case key. Empties the list on the way, because the parsed JSON needs more memory than the entries."""
    entries: dict[str, BaselineEntry] = {}
    cases.reverse()
    while cases:
        entry = _parse_entry(cases.pop(), folder)
        entries[entry.case.key] = entry
    return entries


def _parse_entry(value: dict[str, Any], folder: Path) -> BaselineEntry:
    """One entry. Entries share equal texts, because most texts are repeated."""
    node, title = sys.intern(value["node"]), sys.intern(value.get("title") or "")
    case = Case(_intern_texts(value["cells"]), node, int(value["position"]), title=title)
    accepted = tuple(map(_parse_accepted, value["accepted"]))
    for file in accepted:  # a manifest may come from a pull request
        if "/" in file.file:
            raise ValueError(f"{file.file!r} is not a file name in {folder}")
        contain(folder, file.file)
    if not accepted:
        raise ValueError(f"no accepted file for {case.name}")
    return BaselineEntry(case, accepted)


def _parse_accepted(value: dict[str, Any]) -> AcceptedFile:
    if value.get("models"):
        value["models"] = tuple(map(sys.intern, value["models"]))
    for name in ("target", "server", "sweeper", "ending", "workflow", "model_facts"):
        if value.get(name):
            value[name] = sys.intern(value[name])
    value["params"] = _intern_texts(value["params"])
    return AcceptedFile(**value)


def _intern_texts(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sys.intern(value) if isinstance(value, str) else value for name, value in cells.items()}


def _to_json(entry: BaselineEntry) -> dict[str, Any]:
    accepted = [
        {name: value for name in AcceptedFile.__slots__ if (value := getattr(file, name)) not in (None, {}, "", ())}
        | {"pixels": file.pixels, "params": dict(file.params)}
        for file in entry.accepted
    ]
    return {
        "case": entry.case.name,
        "cells": dict(entry.case.cells),
        "node": entry.case.node,
        **({"title": entry.case.title} if entry.case.title else {}),
        "position": entry.case.position,
        "accepted": accepted,
    }


def _graph_shape(graph: Graph) -> bytes:
    return encode_canonical(
        {node: [content["class_type"], sorted(content["inputs"])] for node, content in graph.items()}
    )
