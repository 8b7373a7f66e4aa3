"""Node classes for embedded servers whose tests are about something else than classes.

A server with all its 887 classes takes a quarter of a second of the processor for each new client: it lists them, the
client reads them, and asks for the files of 27 model folders.
"""

from __future__ import annotations

from sweeper.embedded.nodes import NodeClass
from sweeper.embedded.stand_ins.class_descriptions import list_known_classes

_FEW = (
    "CheckpointLoaderSimple", "CLIPTextEncode", "EmptyImage", "EmptyLatentImage", "ImageBlur", "KSampler", "LoadImage",
    "LoadImageMask", "MaskToImage", "PreviewImage", "SaveImage", "VAEDecode", "VAEEncode",
)  # fmt: skip


def pick_classes(*more: str) -> dict[str, NodeClass]:
    """The classes of workflows that make a picture of a text or of another picture, and more of these names."""
    known = list_known_classes()
    return {name: known[name] for name in (*_FEW, *more)}
