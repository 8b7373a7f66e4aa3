"""Read the binary frames of the event stream: previews, and the texts that nodes show while they run. Pure.

ComfyUI and Comfy Cloud send the same frames. All numbers are big-endian uint32. A frame begins with its kind. Kind 1
goes on with the format (1 JPEG, 2 PNG) and the picture; kind 4 with the length of a JSON text, that text, and the
picture; kind 3 with the length of a node's id, that id, and a text in UTF-8 (`PromptServer.send_progress_text` of
ComfyUI 0.33.0). A server with the feature `supports_progress_text_metadata` puts the id of the job before that of the
node, with its length, as ComfyUI's frontend reads it.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final

from sweeper.comfy.untrusted_json import parse_json

# A client that sends this as its first message gets kind 4, which names the job, instead of kind 1, which does not, and
# texts that name their job.
_FEATURES: Final = {"supports_preview_metadata": True, "supports_progress_text_metadata": True}
FEATURE_FLAGS_MESSAGE: Final = json.dumps({"type": "feature_flags", "data": _FEATURES})
_KIND_PLAIN: Final = 1
_KIND_TEXT: Final = 3
_KIND_WITH_METADATA: Final = 4
_MAX_ID_BYTES: Final = 800  # four for each character that an id may have
_MAX_TEXT_BYTES: Final = 16 * 1024  # of a node's text that is read; the rest is cut off
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True, slots=True)
class Preview:
    """The bytes of a JPEG or PNG. `prompt_id` and `node` are empty if the frame does not name them."""

    prompt_id: str
    node: str
    image: bytes


@dataclass(frozen=True, slots=True)
class NodeText:
    """A text that a node shows while it runs. `prompt_id` is empty if the frame does not name the job."""

    prompt_id: str
    node: str
    text: str


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


def read_node_text(frame: bytes, prompt_ids: Container[str]) -> NodeText | None:
    """The text in a frame; None for a frame of another kind, or an invalid one.

    `prompt_ids`: the ids of our jobs, by which a frame that names its job is known. No node has such an id.
    """
    if frame[:4] != _KIND_TEXT.to_bytes(4, "big"):
        return None
    first, rest = _read_prefixed(frame[4:])
    if first not in prompt_ids:
        return NodeText("", first, _decode(rest)) if first else None
    node, rest = _read_prefixed(rest)
    return NodeText(first, node, _decode(rest)) if node else None


def _read_prefixed(content: bytes) -> tuple[str, bytes]:
    """Read a text whose length stands before it. Returns it and the rest; it is empty if its length is wrong."""
    size = int.from_bytes(content[:4], "big")
    if not 0 < size <= min(_MAX_ID_BYTES, len(content) - 4):
        return "", b""
    return _decode(content[4 : 4 + size]), content[4 + size :]


def _decode(content: bytes) -> str:
    return content[:_MAX_TEXT_BYTES].decode("utf-8", "replace")
