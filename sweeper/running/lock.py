"""The lock of an experiment: what its plan needs on a server, as Comfy's `comfy-build.yaml`, and how servers differ.

The format is that of comfy-cli (`comfy_cli/command/build_spec.py`, and its skill `comfy-build-authoring`). It keeps
unknown keys of the top level and sends only `definition` to Comfy's builder; it drops comments. So facts that have no
key in the format are in `x-sweeper`, and comments are for people. The builder verifies a `sha256` against the whole
file. Headers of safetensors files state hashes of the weights alone, so these never stand there.

Nothing is downloaded or installed, and no path in a lock is opened: its names are only looked up in a server's lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import yaml

from sweeper.answers.parts import Item, Line, Note, Part, Table
from sweeper.answers.render import NOT_IN_JSON
from sweeper.comfy.responses import NodePack
from sweeper.comfy.target import Target
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.load import read_yaml_file
from sweeper.loading.read_scope import EVERYTHING, ReadScope, find_project
from sweeper.model.experiment import Experiment
from sweeper.model.model_facts import NO_MODELS, Change, ModelFacts, ModelKey, Models, to_local_time
from sweeper.model.node_classes import NodeInfo
from sweeper.planning.model_inputs import PlanModels, list_used_packs
from sweeper.planning.plan import Plan
from sweeper.running.node_class_cache import get_classes
from sweeper.running.stop_control import run_sync
from sweeper.schemas import find_schema_problems
from sweeper.wording import count_things, join_command, join_names, shorten, to_one_line

LOCK_NAME: Final = "comfy-build.yaml"
_DEFINITION: Final = "distribution-definition/0"
_COMPARED: Final = ("schema", "baseComfyVersion", "models", "customNodes")  # the keys of `definition`
_ITEM: Final = "\n  - "  # how an item of `models` begins in the text
_MAX_TRIALS: Final = 100_000
_MAX_TEXT: Final = 200  # characters of the facts about a file
_PATIENCE: Final = 20.0  # seconds
_COMMIT: Final = re.compile(r"[0-9a-f]{7,40}")
_RELEASE: Final = re.compile(r"v?(\d+(?:\.\d+)+)")
_OLD_FOLDERS: Final = {"unet": "diffusion_models", "clip": "text_encoders"}  # as ComfyUI's folder_paths.py maps them


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock states; "" for what it does not. `unknown` is what no server tells.

    `models` are the facts by folder and name, such as `loras/style/a.safetensors`, and `packs` the packs by folder.
    """

    base_version: str
    models: Mapping[str, ModelFacts]
    packs: Mapping[str, NodePack]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a target has. `version` is that of ComfyUI, "" if it does not tell.

    `packs` are those that ComfyUI-Manager lists, by folder; `class_packs` are the folders of all known node classes.
    `names` are the model files that it lists, as a Lock names them; `facts` are about some of them. `used_models` and
    `used_packs` are those of the plan.
    """

    target: str
    version: str
    packs: Mapping[str, NodePack]
    facts: Models
    names: Mapping[str, ModelKey]
    class_packs: frozenset[str] = frozenset()
    used_models: tuple[ModelKey, ...] = ()
    used_packs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as the lock states. `kind`: `model`, `node pack` or `ComfyUI`."""

    kind: str
    name: str
    locked: str
    found: str


@dataclass(frozen=True, slots=True)
class TargetDrift:
    """How a target differs from a lock, and what cannot be compared."""

    target: str
    drifts: tuple[Drift, ...]
    not_compared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockCheck:
    """The answer of `sweeper lock --check`."""

    file: str
    ok: bool
    targets: tuple[TargetDrift, ...]

    def parts(self) -> Iterator[Part]:
        """What differs on each target, and what cannot be compared."""
        for found in self.targets:
            count = count_things(len(found.drifts), "difference") if found.drifts else "no difference"
            yield Line(f"{found.target}: {count} from {self.file}")
            if found.drifts:
                rows = [(drift.kind, drift.name, drift.locked, drift.found) for drift in found.drifts]
                yield Table(("what", "name", "in the lock", "on the server"), rows)
            if found.not_compared:
                yield Line("not compared:")
                yield from map(Item, found.not_compared)


@dataclass(frozen=True, slots=True)
class NewLock:
    """The answer of `sweeper lock`: what the plan needs, as on `target`. `models` and `packs` are as in the file.

    `written`: whether the file changed. `text` is its new content.
    """

    file: str
    target: str
    base_version: str | None
    models: tuple[Mapping[str, Any], ...]
    packs: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    text: str = field(metadata=NOT_IN_JSON)
    written: bool = True

    def parts(self) -> Iterator[Part]:
        """What the lock has, and what it lacks for Comfy's tools."""
        counts = f"{count_things(len(self.models), 'model')}, {count_things(len(self.packs), 'node pack')}"
        version = f"ComfyUI {self.base_version}, " if self.base_version else ""
        state = "written" if self.written else "unchanged"
        yield Line(f"{self.file}: {version}{counts}, as on {self.target} ({state})")
        yield from map(Note, self.notes)

    @property
    def is_current(self) -> bool:
        """Whether the file has this text already. Raises OSError."""
        path, content = Path(self.file), self.text.encode()
        is_file = path.is_file() and not path.is_symlink()
        return is_file and path.stat().st_size == len(content) and path.read_bytes() == content

    def write(self) -> None:
        """Write the file as a whole; a link in its place is replaced, not followed. Raises OSError."""
        with atomic_write(Path(self.file)) as file:
            file.write(self.text.encode())


async def read_server(target: Target, plans: Sequence[Plan], lock: Lock | None = None) -> ServerState:
    """Ask a target what it has of what the plans use and the lock names.

    Raises TargetError and TransientError, and UsageError if the plans are too large to look at.
    """
    from sweeper.comfy.client import ComfyClient

    if sum(part.count for plan in plans for part in plan.parts) > _MAX_TRIALS:
        raise UsageError(f"a lock needs a plan of at most {_MAX_TRIALS:,} trials, with all combinations of a search")
    async with ComfyClient(target, patience=_PATIENCE) as client:
        await client.connect()
        info = await client.get_server_info()
        packs = await client.get_node_packs()
        found = await get_classes(client, None)  # all, because they name the node packs
        classes = NodeInfo({}) if isinstance(found, str) else found
        folders = await client.models.list_all()
        used = {key for plan in plans for key in PlanModels(plan, classes, folders).list_all_keys()}
        names = _name_files(ModelKey(folder, name) for folder, files in folders.items() for name in files)
        wanted = used | {key for path in (lock.models if lock else ()) if (key := _find_file(path, names)) is not None}
        facts = await client.models.get_facts({key: folders[key.folder][key.name] for key in sorted(wanted)})
    class_packs = frozenset(spec.pack for spec in classes.classes.values())
    used_packs = frozenset(name for plan in plans for name in list_used_packs(plan, classes))
    version = info.get("comfyui") or ""
    return ServerState(target.name, version, packs, facts, names, class_packs, tuple(sorted(used)), used_packs)


def _name_files(keys: Iterable[ModelKey]) -> dict[str, ModelKey]:
    """The files by their names in a lock, which have `/` where a server on Windows writes a backslash."""
    return {str(key).replace("\\", "/"): key for key in keys}


def _find_file(path: str, names: Mapping[str, ModelKey]) -> ModelKey | None:
    """The file of a server that a lock names; its folder may have the name that it had in earlier versions."""
    folder, slash, rest = path.partition("/")
    return names.get(path) or names.get(f"{_OLD_FOLDERS.get(folder, folder)}{slash}{rest}")


def make_lock(experiment: Experiment, file: Path, state: ServerState) -> NewLock:
    """Make the lock of what the plans of an experiment use on a server, as `read_server` found it."""
    urls = {(model.folder, model.name): model.url for model in experiment.template.models if model.url}
    models, remarks, stated = [], [], {}
    for path, key in sorted(_name_files(state.used_models).items(), key=lambda item: item[0].rpartition("/")):
        facts = state.facts[key]
        url = urls.get((key.folder, key.name)) or urls.get(("", key.name)) or ""
        uri = url if url.startswith("https://") else None  # what Comfy's builder accepts
        kind, _, content = (facts.content or "").partition(":")
        folder, _, name = path.rpartition("/")
        sha256 = content if kind == "sha256" else None
        models.append(_drop_unknown(filename=name, sha256=sha256, sizeBytes=facts.size, sourceUri=uri, type=folder))
        stated[path] = {name: part for name, part in facts.to_json().items() if name not in ("size", "modified")}
        # In UTC, because another machine may write the lock again.
        time = "" if facts.modified is None else f"{to_local_time(facts.modified).astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        known = _describe(facts), time, f"from {url}" if url and uri is None else ""
        remarks.append(to_one_line(", ".join(filter(None, known))))
    packs = [_make_pack_entry(name, state.packs.get(name, NodePack())) for name in sorted(state.used_packs)]
    release = _read_release(state.version)
    base = f"v{release}" if release else state.version or None
    spec = {
        "schema": "comfy-build/1", "id": None, "name": experiment.name,
        "description": "what a sweep needs, written by sweeper lock", "syncedRevision": None,
        "definition": _drop_unknown(schema=_DEFINITION, baseComfyVersion=base, models=models, customNodes=packs),
        "x-sweeper": {"models": stated},
    }  # fmt: skip
    text = yaml.safe_dump(spec, allow_unicode=True, sort_keys=False, width=4096)
    head, *items = text.encode("utf-8", "replace").decode().split(_ITEM, len(models))
    text = head + "".join(f"\n  # {remark}{_ITEM}{item}" for remark, item in zip(remarks, items, strict=True))
    return NewLock(str(file), state.target, base, tuple(models), tuple(packs), _list_notes(state, models, packs), text)


def _read_release(version: str) -> str:
    """`0.33.0` from `v0.33.0`; "" for anything that is not a release, such as a branch."""
    match = _RELEASE.fullmatch(version)
    return match[1] if match else ""


def _make_pack_entry(name: str, pack: NodePack) -> dict[str, Any]:
    if _COMMIT.fullmatch(pack.version):
        return _drop_unknown(gitRef=pack.version, name=name, repository=pack.repository or None)
    return _drop_unknown(id=pack.registry_id or None, name=name, registryVersion=pack.version or None)


def _drop_unknown(**entry: Any) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _list_notes(state: ServerState, models: Sequence[Any], packs: Sequence[Any]) -> tuple[str, ...]:
    without = [entry["filename"] for entry in models if "sourceUri" not in entry]
    unknown = [entry["name"] for entry in packs if not {"registryVersion", "gitRef"} & entry.keys()]
    notes = {
        f"{state.target} does not tell its version of ComfyUI, so the lock has none": not state.version,
        f"{state.target} lists no model files, so the lock has none": not state.names,
        f"no source is known of {join_names(without)}: Comfy's builder needs one, so write its `url` (https) under "
        "`models` of the slots file, and lock again": without,
        f"no version is known of {join_names(unknown)}: only ComfyUI-Manager tells those of node packs": unknown,
    }
    return tuple(note for note, is_needed in notes.items() if is_needed)


def read_lock(file: Path, scope: ReadScope = EVERYTHING) -> Lock:
    """Read a lock, also one that Comfy's tools wrote. Raises UsageError with every mistake."""
    source = read_yaml_file(file, scope)
    problems = find_schema_problems("lock", source.value)
    if problems:
        raise UsageError(source.make_problem(path, message) for path, message in problems)
    definition: Mapping[str, Any] = source.value["definition"]
    stated: Mapping[str, Any] = source.value.get("x-sweeper", {}).get("models", {})
    models: dict[str, ModelFacts] = {}
    unknown = [f"{name}: no server tells it" for name in definition if name not in _COMPARED and definition[name]]
    for index, entry in enumerate(definition.get("models", ())):
        url, sha256, size = (entry.get(name) for name in ("sourceUri", "sha256", "sizeBytes"))
        name = entry.get("filename") or unquote(re.split("[?#]", url or "")[0].rpartition("/")[2])
        path = f"{entry['type'].strip('/')}/{name}"
        facts = ModelFacts.from_json(stated.get(path, {}))
        content = f"sha256:{sha256.lower()}" if sha256 else facts.content
        models[path] = replace(facts, size=facts.size if size is None else size, content=content)
        if not name:
            unknown.append(f"definition.models[{index}]: it has no filename")
            del models[path]
    packs: dict[str, NodePack] = {}
    for entry in definition.get("customNodes", ()):
        identity, url = (entry.get(name) or "" for name in ("id", "repository"))
        versions = (entry.get(name) for name in ("registryVersion", "commit", "gitRef"))
        packs[entry["name"]] = NodePack(next(filter(None, versions), ""), identity, url)
    return Lock(definition.get("baseComfyVersion") or "", models, packs, tuple(unknown))


def check_lock(file: Path, lock: Lock, targets: Sequence[Target], plans: Sequence[Plan]) -> LockCheck:
    """Compare each target with a lock. Raises TargetError, TransientError and UsageError as `read_server` does."""
    states = [run_sync(partial(read_server, target, plans, lock)) for target in targets]
    found = tuple(compare_lock(lock, state) for state in states)
    return LockCheck(str(file), not any(target.drifts for target in found), found)


def compare_lock(lock: Lock, state: ServerState) -> TargetDrift:
    """Compare a server with a lock. What only one of them tells does not differ."""
    found = list(_compare_all(lock, state))
    drifts = tuple(part for part in found if isinstance(part, Drift))
    return TargetDrift(state.target, drifts, (*lock.unknown, *(part for part in found if isinstance(part, str))))


def _compare_all(lock: Lock, state: ServerState) -> Iterator[Drift | str]:
    """Each difference, and a sentence for each part of the lock that cannot be compared."""
    locked, found = _read_release(lock.base_version), _read_release(state.version)
    if lock.base_version and not (locked and found):
        yield f"ComfyUI {lock.base_version}: the server tells {state.version or 'no version'}"
    elif lock.base_version and locked != found:
        yield Drift("ComfyUI", "baseComfyVersion", locked, found)
    for path, facts in lock.models.items() if state.names else ():
        yield from _compare_model(path, facts, state)
    if lock.models and not state.names:
        yield "model files: the server lists none"
    for name, pack in lock.packs.items():
        yield from _compare_pack(name, pack, state)
    keys = {_find_file(path, state.names) for path in lock.models}
    packs = [_find_pack(name, pack, state.packs) for name, pack in lock.packs.items()]
    unlisted = [str(key) for key in state.used_models if key not in keys]
    unlisted += [name for name in sorted({*state.used_packs} - {*lock.packs}) if state.packs.get(name) not in packs]
    yield from (f"{name}: the plan uses it, and the lock does not list it" for name in unlisted)


def _compare_model(path: str, locked: ModelFacts, state: ServerState) -> Iterator[Drift | str]:
    key = _find_file(path, state.names)
    if key is None:
        yield Drift("model", path, _describe(locked), "missing")
        return
    now = state.facts.get(key, ModelFacts())
    kind, kind_now = ((facts.content or "").partition(":")[0] for facts in (locked, now))
    if kind != kind_now:  # one hash is unknown, or of another kind
        now = replace(now, content=None)
    if locked.compare(now, same_server=False) is Change.CHANGED:
        before, after = _describe(locked), _describe(now)
        if before == after:
            before, after = (f"another header, {(facts.metadata or 'none')[:8]}" for facts in (locked, now))
        yield Drift("model", path, before, after)
    elif kind and kind != kind_now:
        yield f"{path}: the server does not tell its {kind}; what it tells agrees"
    elif not (kind or locked.stated):
        yield f"{path}: nothing states its content" + ("" if locked.size is None else ", and its size agrees")


def _describe(facts: ModelFacts) -> str:
    """The facts without the time, which says nothing on another server."""
    return shorten(to_one_line(replace(facts, modified=None).describe()), _MAX_TEXT)


def _compare_pack(name: str, locked: NodePack, state: ServerState) -> Iterator[Drift | str]:
    found = _find_pack(name, locked, state.packs)
    is_commit = bool(_COMMIT.fullmatch(locked.version))
    if found is None and state.packs and name not in state.class_packs:
        yield Drift("node pack", name, locked.version or "any version", "missing")
    elif found is None or found.version in ("", "unknown"):
        yield f"node pack {name}: the server does not tell its version"
    elif not (is_commit or _RELEASE.fullmatch(locked.version)):
        yield f"node pack {name}: the lock has {locked.version or 'nothing'} for its version"
    elif found.version != locked.version and not (is_commit and found.version.startswith(locked.version)):
        yield Drift("node pack", name, locked.version, found.version)


def _find_pack(name: str, locked: NodePack, packs: Mapping[str, NodePack]) -> NodePack | None:
    """The pack of a server with the folder, the id in the registry or the repository of a locked one."""
    repository = locked.repository.rstrip("/").removesuffix(".git")
    for folder, pack in packs.items():
        pairs = (folder, name), (pack.registry_id, locked.registry_id), (pack.repository, repository)
        if any(first and first.casefold() == second.casefold() for first, second in pairs):
            return pack
    return None


def describe_drift(plan: Plan, infos: Mapping[str, Mapping[str, Any]], models: Mapping[str, Models]) -> Iterator[str]:
    """One line for each target that differs from the lock beside an experiment, or for a lock with mistakes.

    `infos`: by target, what the run knows of its server. `models`: the facts about the files of the plan there. Only
    what these have is compared, because the run itself refuses what is missing. Nothing for a round of a search, which
    would repeat it.
    """
    file = plan.experiment.file
    path = file.with_name(LOCK_NAME)
    if plan.search_columns is not None or not path.is_file():
        return
    command = join_command(["sweeper", "lock", "--check", str(file)])
    try:
        lock = read_lock(path, ReadScope(find_project(file)))
    except UsageError as error:
        yield f"{error.problems[0]}; nothing was compared with this lock, and `{command}` shows all mistakes"
        return
    for target, info in infos.items():
        facts = models.get(target, NO_MODELS)
        names = _name_files(facts)
        packs = {name: NodePack(version) for name, version in info.get("nodes", {}).items()}
        known = {path: locked for path, locked in lock.models.items() if _find_file(path, names)}
        known_packs = {name: pack for name, pack in lock.packs.items() if _find_pack(name, pack, packs)}
        state = ServerState(target, info.get("comfyui") or "", packs, facts, names)
        drifts = compare_lock(Lock(lock.base_version, known, known_packs), state).drifts
        if drifts:
            more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
            first = f"{drifts[0].name}: {drifts[0].locked} -> {drifts[0].found}"
            yield f"{target} differs from {LOCK_NAME}: {first}{more}; `{command}` shows all"
