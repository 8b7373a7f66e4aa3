"""Which server made a picture, for people: what `sweeper.comfy.server_info` kept of it, and how two of them differ.

Also which models a workflow names, since no server tells their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from sweeper.model.workflow import encode

About = Mapping[str, Any]

_WORDS: Final = {"server": "", "comfyui": "ComfyUI", "python": "Python", "pytorch": "PyTorch"}
_MODEL_FILES: Final = (".safetensors", ".sft", ".ckpt", ".gguf", ".onnx", ".pth", ".pt", ".bin")


def server_key(about: About) -> str:
    """A short name for a server's facts, the same for the same facts: `comfyui-0.3.64-1a2b3c4d`."""
    version = "".join(char for char in str(about.get("comfyui") or "") if char.isalnum() or char in ".-")[:20]
    mark = hashlib.sha256(encode(dict(about))).hexdigest()[:8]
    return f"comfyui-{version}-{mark}" if version else f"server-{mark}"


def described(about: About) -> str:
    """`ComfyUI 0.3.64, Python 3.12.1, PyTorch 2.4.0 on cuda:0 NVIDIA L4`; empty where nothing is known."""
    told = [f"{word} {_short(about[name])}".strip() for name, word in _WORDS.items() if about.get(name)]
    devices = ", ".join(map(str, about.get("devices", ())))
    return ", ".join(told) + (f" on {devices}" if told and devices else devices)


def changes(before: About, now: About) -> list[str]:
    """Fact by fact, what is another now: `PyTorch 2.4.0 -> 2.5.1`. Only what both tell can be another."""
    found = [
        f"{word or name} {_short(before[name])} -> {_short(now[name])}"
        for name, word in _WORDS.items()
        if before.get(name) and now.get(name) and _short(before[name]) != _short(now[name])
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


def _short(fact: Any) -> str:
    """Without the description behind a colon, which manifests of old hold of the embedded server."""
    return str(fact).partition(":")[0]


def drift(before: About, now: About) -> str:
    """One sentence on the two servers of a comparison; empty where neither is known."""
    if not before and not now:
        return ""
    was, here = (described(one) or "a server that told nothing" for one in (before, now))
    other = changes(before, now)
    if not other:
        return f"accepted on {was}, now on the same" if was == here else f"accepted on {was}, now on {here}"
    return f"accepted on {was}, now on {here} ({'; '.join(other)})"


def models_of(graph: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The model files that a workflow's nodes name, sorted."""
    values = (value for node in graph.values() for value in node["inputs"].values())
    return tuple(sorted({value for value in values if isinstance(value, str) and value.lower().endswith(_MODEL_FILES)}))
