"""The workflow that ComfyUI leaves in a picture: PNG text chunks, the EXIF of WebP and JPEG, the `comf` of an APNG.

What the text means is `workflow_file`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import Problem, TemplateError

if TYPE_CHECKING:
    from PIL.Image import Image

# What savers call the two texts (ComfyUI's nodes.py and nodes_images.py): the API-format graph, and the UI's.
PROMPT: Final = "prompt"
WORKFLOW: Final = "workflow"
_SIGNATURES: Final = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WebP"}


def detect_image_format(path: Path) -> str | None:
    """`PNG`, `JPEG` or `WebP` by the file's first bytes, None for any other file or none."""
    try:
        with path.open("rb") as file:
            first = file.read(12)
    except OSError:
        return None
    kind = next((kind for start, kind in _SIGNATURES.items() if first.startswith(start)), None)
    return None if kind == "WebP" and first[8:] != b"WEBP" else kind


def read_workflow_texts(path: Path, image_format: str) -> dict[str, str]:
    """The texts called `prompt` and `workflow` in a picture, as far as they are there. Raises TemplateError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            found: dict[str, str] = {}
            for name, text in _iter_texts(image):
                found.setdefault(name.lower(), text)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TemplateError(Problem(str(path), 0, "", f"is no {image_format} that can be read: {error}")) from error
    return {name: text for name, text in found.items() if name in (PROMPT, WORKFLOW)}


def _iter_texts(image: Image) -> Iterator[tuple[str, str]]:
    for name, value in image.info.items():
        if isinstance(value, str):
            yield str(name), value
    for value in image.getexif().values():
        # SaveAnimatedWEBP: the tags from 0x0110 down hold "prompt:{...}" and "workflow:{...}".
        name, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon:
            yield name, text.rstrip("\0")
    if image.format == "PNG":
        image.load()  # SaveAnimatedPNG writes its chunks behind the pixels
        chunks: list[Any] = list(getattr(image, "private_chunks", ()))
        for chunk_id, data, *_ in chunks:
            head, zero, text_bytes = data.partition(b"\0")
            if chunk_id == b"comf" and zero:
                yield head.decode("latin-1"), text_bytes.decode("latin-1")
