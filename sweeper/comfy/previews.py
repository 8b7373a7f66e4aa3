"""Pictures of unfinished work, as servers send them in binary frames of the event stream. Pure: bytes in, a value out.

The frames are ComfyUI's (COMFYUI_BEHAVIOUR.md 4, COMFY_API.md), all numbers big-endian uint32: the kind, then for
kind 1 the format (1 JPEG, 2 PNG) and the picture, for kind 4 the length of a JSON text, that text and the picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

# The first word of a client that wants kind 4, which tells the job, in place of kind 1, which does not.
FEATURE_FLAGS_MESSAGE: Final = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
_KIND_PLAIN: Final = 1
_KIND_WITH_METADATA: Final = 4
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True, slots=True)
class Preview:
    """The bytes of a JPEG or PNG; `prompt_id` and `node` are empty where the frame does not tell them."""

    prompt_id: str
    node: str
    image: bytes


def read_preview(frame: bytes) -> Preview | None:
    """The picture in a frame; None for a frame of another kind, or one that is not what it says."""
    kind = int.from_bytes(frame[:4], "big")
    size = int.from_bytes(frame[4:8], "big")
    about: Any = {}
    if len(frame) < 8 or kind not in (_KIND_PLAIN, _KIND_WITH_METADATA):
        return None
    image = frame[8:]
    if kind == _KIND_WITH_METADATA:
        image = frame[8 + size :]
        try:
            about = json.loads(frame[8 : 8 + size])
        except (ValueError, RecursionError):
            return None
    if not isinstance(about, dict) or not image.startswith(_SIGNATURES):
        return None
    prompt_id, node = about.get("prompt_id"), about.get("node_id")
    return Preview(prompt_id if isinstance(prompt_id, str) else "", node if isinstance(node, str) else "", image)
