"""Read the previews of running jobs, which servers send in binary frames of the event stream. Pure.

Both dialects use ComfyUI's frames. All numbers are big-endian uint32. A frame begins with its kind. Kind 1 goes on with
the format (1 JPEG, 2 PNG) and the picture; kind 4 with the length of a JSON text, that text, and the picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sweeper.comfy.untrusted_json import parse_json

# A client that sends this as its first message gets kind 4, which names the job, instead of kind 1, which does not.
FEATURE_FLAGS_MESSAGE: Final = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
_KIND_PLAIN: Final = 1
_KIND_WITH_METADATA: Final = 4
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True, slots=True)
class Preview:
    """The bytes of a JPEG or PNG. `prompt_id` and `node` are empty if the frame does not name them."""

    prompt_id: str
    node: str
    image: bytes


def is_picture(content: bytes) -> bool:
    """Whether these bytes begin as a JPEG or PNG does."""
    return content.startswith(_SIGNATURES)


def read_preview(frame: bytes) -> Preview | None:
    """The preview in a frame; None for a frame of another kind, or an invalid one."""
    kind = int.from_bytes(frame[:4], "big")
    size = int.from_bytes(frame[4:8], "big")
    metadata: Any = {}
    if len(frame) < 8 or kind not in (_KIND_PLAIN, _KIND_WITH_METADATA):
        return None
    image = frame[8:]
    if kind == _KIND_WITH_METADATA:
        image = frame[8 + size :]
        try:
            metadata = parse_json(frame[8 : 8 + size])
        except ValueError:
            return None
    if not isinstance(metadata, dict) or not is_picture(image):
        return None
    prompt_id, node = metadata.get("prompt_id"), metadata.get("node_id")
    return Preview(prompt_id if isinstance(prompt_id, str) else "", node if isinstance(node, str) else "", image)
