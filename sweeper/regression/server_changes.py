"""Describe for people which server made a picture, and how two servers differ; list the models in a workflow.

The facts are those of `sweeper.comfy.responses`. The models come from the workflow, because no server reports them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from sweeper.model.node_classes.spec import MODEL_SUFFIXES
from sweeper.model.workflow import encode_canonical

Facts: TypeAlias = Mapping[str, Any]

_WORDS: Final = {"server": "", "comfyui": "ComfyUI", "python": "Python", "pytorch": "PyTorch"}


def server_key(facts: Facts) -> str:
    """A short name for a server, equal for equal facts: `comfyui-0.3.64-1a2b3c4d`."""
    version = "".join(char for char in str(facts.get("comfyui") or "") if char.isalnum() or char in ".-")[:20]
    digest = hashlib.sha256(encode_canonical(dict(facts))).hexdigest()[:8]
    return f"comfyui-{version}-{digest}" if version else f"server-{digest}"


def describe_server(facts: Facts) -> str:
    """`ComfyUI 0.3.64, Python 3.12.1, PyTorch 2.4.0 on cuda:0 NVIDIA L4`; empty if nothing is known."""
    versions = [f"{word} {_strip_note(facts[name])}".strip() for name, word in _WORDS.items() if facts.get(name)]
    devices = ", ".join(map(str, facts.get("devices", ())))
    return ", ".join(versions) + (f" on {devices}" if versions and devices else devices)


def list_changes(before: Facts, now: Facts) -> list[str]:
    """The facts that changed: `PyTorch 2.4.0 -> 2.5.1`. A fact that only one server reports does not count."""
    changes = [
        f"{word or name} {_strip_note(before[name])} -> {_strip_note(now[name])}"
        for name, word in _WORDS.items()
        if before.get(name) and now.get(name) and _strip_note(before[name]) != _strip_note(now[name])
    ]
    if "devices" in before and "devices" in now and before["devices"] != now["devices"]:
        old, new = (" ".join(map(str, facts["devices"])) or "none" for facts in (before, now))
        changes.append(f"device {old} -> {new}")
    if "argv" in before and "argv" in now:
        old_options, new_options = _read_options(before["argv"]), _read_options(now["argv"])
        changes += [
            f"option {name} {old_options.get(name, 'none')} -> {new_options.get(name, 'none')}"
            for name in dict.fromkeys((*old_options, *new_options))
            if old_options.get(name) != new_options.get(name)
        ]
    if "nodes" in before and "nodes" in now:
        packs = sorted({*before["nodes"], *now["nodes"]})
        pairs = [(pack, before["nodes"].get(pack, "none"), now["nodes"].get(pack, "none")) for pack in packs]
        changes += [f"nodes {pack} {old} -> {new}" for pack, old, new in pairs if old != new]
    return changes


def _read_options(arguments: Iterable[Any]) -> dict[str, str]:
    """The options of a command line with their values, `given` without one. What stands before them is `program`."""
    options: dict[str, str] = {}
    name = "program"
    for argument in map(str, arguments):
        value = argument
        if argument.startswith("--"):
            name, has_value, value = argument.partition("=")
            options.setdefault(name, "" if has_value else "given")
            if not has_value:
                continue
        known = options.get(name, "")
        options[name] = value if known in ("", "given") else f"{known} {value}"
    return options


def _strip_note(fact: Any) -> str:
    """The fact without the description that old manifests have after a colon for the embedded server."""
    return str(fact).partition(":")[0]


def describe_drift(before: Facts, now: Facts) -> str:
    """A sentence about the two servers of a comparison; empty if neither is known."""
    if not before and not now:
        return ""
    old, new = (describe_server(facts) or "an unknown server" for facts in (before, now))
    changes = list_changes(before, now)
    if changes:
        return f"accepted on {old}, now on {new} ({'; '.join(changes)})"
    return f"accepted on {old}, now on {'the same' if old == new else new}"


def find_models(graph: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of the model files in a workflow, sorted."""
    values = (value for node in graph.values() for value in node["inputs"].values())
    names = {value for value in values if isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES)}
    return tuple(sorted(names))
