"""Which server made a picture, for people: what `sweeper.comfy.server_info` kept of it, and how two of them differ.

Also which models a workflow names, since no server tells their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from sweeper.model.workflow import encode_canonical

Facts = Mapping[str, Any]

_WORDS: Final = {"server": "", "comfyui": "ComfyUI", "python": "Python", "pytorch": "PyTorch"}
_MODEL_FILES: Final = (".safetensors", ".sft", ".ckpt", ".gguf", ".onnx", ".pth", ".pt", ".bin")


def server_key(facts: Facts) -> str:
    """A short name for a server's facts, the same for the same facts: `comfyui-0.3.64-1a2b3c4d`."""
    version = "".join(char for char in str(facts.get("comfyui") or "") if char.isalnum() or char in ".-")[:20]
    mark = hashlib.sha256(encode_canonical(dict(facts))).hexdigest()[:8]
    return f"comfyui-{version}-{mark}" if version else f"server-{mark}"


def describe_server(facts: Facts) -> str:
    """`ComfyUI 0.3.64, Python 3.12.1, PyTorch 2.4.0 on cuda:0 NVIDIA L4`; empty where nothing is known."""
    told = [f"{word} {_strip_note(facts[name])}".strip() for name, word in _WORDS.items() if facts.get(name)]
    devices = ", ".join(map(str, facts.get("devices", ())))
    return ", ".join(told) + (f" on {devices}" if told and devices else devices)


def list_changes(before: Facts, now: Facts) -> list[str]:
    """Fact by fact, what is another now: `PyTorch 2.4.0 -> 2.5.1`. Only what both tell can be another."""
    found = [
        f"{word or name} {_strip_note(before[name])} -> {_strip_note(now[name])}"
        for name, word in _WORDS.items()
        if before.get(name) and now.get(name) and _strip_note(before[name]) != _strip_note(now[name])
    ]
    for name, word in (("devices", "device"), ("argv", "options")):
        if name in before and name in now and before[name] != now[name]:
            old, new = (" ".join(map(str, one[name])) or "none" for one in (before, now))
            found.append(f"{word} {old} -> {new}")
    if "nodes" in before and "nodes" in now:
        packs = sorted({*before["nodes"], *now["nodes"]})
        pairs = [(pack, before["nodes"].get(pack, "none"), now["nodes"].get(pack, "none")) for pack in packs]
        found += [f"nodes {pack} {old} -> {new}" for pack, old, new in pairs if old != new]
    return found


def _strip_note(fact: Any) -> str:
    """Without the description behind a colon, which manifests of old hold of the embedded server."""
    return str(fact).partition(":")[0]


def describe_drift(before: Facts, now: Facts) -> str:
    """One sentence on the two servers of a comparison; empty where neither is known."""
    if not before and not now:
        return ""
    was, here = (describe_server(one) or "a server that told nothing" for one in (before, now))
    other = list_changes(before, now)
    if not other:
        return f"accepted on {was}, now on the same" if was == here else f"accepted on {was}, now on {here}"
    return f"accepted on {was}, now on {here} ({'; '.join(other)})"


def find_models(graph: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The model files that a workflow's nodes name, sorted."""
    values = (value for node in graph.values() for value in node["inputs"].values())
    return tuple(sorted({value for value in values if isinstance(value, str) and value.lower().endswith(_MODEL_FILES)}))
