"""Read the workflow that ComfyUI embeds in a picture: PNG text chunks, EXIF of WebP and JPEG, `comf` chunks of APNG.

Parsing the texts belongs to `read_workflow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ImageError, Problem, TemplateError
from sweeper.model.picture_size import check_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

# The names of the two texts (ComfyUI's nodes.py and nodes_images.py): the workflow in API format and in UI format.
PROMPT: Final = "prompt"
WORKFLOW: Final = "workflow"
_SIGNATURES: Final = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WebP"}


def detect_image_format(path: Path) -> str | None:
    """`PNG`, `JPEG` or `WebP`, by the file's first bytes. None for any other file, or if it cannot be opened."""
    try:
        with path.open("rb") as file:
            first = file.read(12)
    except OSError:
        return None
    name = next((name for signature, name in _SIGNATURES.items() if first.startswith(signature)), None)
    return None if name == "WebP" and first[8:] != b"WEBP" else name


def read_workflow_texts(path: Path, image_format: str) -> dict[str, str]:
    """The texts `prompt` and `workflow` in a picture, if present. Raises TemplateError if it cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            check_pixels(image.size)  # the texts behind the pixels are read with them
            texts: dict[str, str] = {}
            for name, text in _iter_texts(image):
                texts.setdefault(name.lower(), text)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageError) as error:
        raise TemplateError(Problem(str(path), 0, "", f"cannot be read as {image_format}: {error}")) from error
    return {name: text for name, text in texts.items() if name in (PROMPT, WORKFLOW)}


def _iter_texts(image: Image) -> Iterator[tuple[str, str]]:
    """(name, text) of every text in a picture."""
    for name, value in image.info.items():
        if isinstance(value, str):
            yield str(name), value
    for value in image.getexif().values():
        # SaveAnimatedWEBP writes "prompt:{...}" and "workflow:{...}" into the tags from 0x0110 down.
        name, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon:
            yield name, text.rstrip("\0")
    if image.format == "PNG":
        image.load()  # SaveAnimatedPNG writes its chunks after the pixels
        chunks: list[Any] = list(getattr(image, "private_chunks", ()))
        for chunk_id, data, *_ in chunks:
            head, zero, text_bytes = data.partition(b"\0")
            if chunk_id == b"comf" and zero:
                yield head.decode("latin-1"), text_bytes.decode("latin-1")
