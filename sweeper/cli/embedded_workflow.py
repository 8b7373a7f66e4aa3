"""Read the workflow that ComfyUI embeds in a file that it saves.

Pictures have it in PNG text chunks, in the EXIF of WebP and JPEG, or in `comf` chunks of APNG; films and sounds in the
tags of their container (SaveVideo, SaveAudio), or as JSON in the tag `comment` (VHS_VideoCombine).

Parsing the texts belongs to `read_workflow`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ImageError, Problem, TemplateError
from sweeper.images.extras import load_av
from sweeper.model.picture_size import FILM_OPTIONS, PICTURE_FORMATS, check_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

# The names of the two texts (ComfyUI's nodes.py and nodes_images.py): the workflow in API format and in UI format.
PROMPT: Final = "prompt"
WORKFLOW: Final = "workflow"
_PICTURES: Final = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_CONTAINERS: Final = {b"\x1aE\xdf\xa3": "WebM or Matroska", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}


def detect_format(path: Path) -> str | None:
    """The format of a picture, film or sound, by its first bytes. None for another file, or if it cannot be opened."""
    if not path.is_file():  # a pipe would wait
        return None
    try:
        with path.open("rb") as file:
            first = file.read(12)
    except OSError:
        return None
    if first[4:8] == b"ftyp":
        return "MP4"
    if first.startswith(b"RIFF"):
        return "WebP" if first[8:] == b"WEBP" else None
    known = (*_PICTURES.items(), *_CONTAINERS.items())
    return next((name for signature, name in known if first.startswith(signature)), None)


def read_workflow_texts(path: Path, file_format: str) -> dict[str, str]:
    """The texts `prompt` and `workflow` in a file, if present. Raises TemplateError if it cannot be decoded."""
    texts: dict[str, str] = {}
    is_picture = file_format in (*_PICTURES.values(), "WebP")
    for name, text in _read_picture_texts(path, file_format) if is_picture else _read_tags(path, file_format):
        texts.setdefault(name.lower(), text)
    return {name: text for name, text in texts.items() if name in (PROMPT, WORKFLOW)}


def _read_picture_texts(path: Path, file_format: str) -> list[tuple[str, str]]:
    from PIL import Image

    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            check_pixels(image.size)  # the texts behind the pixels are read with them
            return list(_iter_texts(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageError) as error:
        raise TemplateError(Problem(str(path), 0, "", f"cannot be read as {file_format}: {error}")) from error


def _read_tags(path: Path, file_format: str) -> list[tuple[str, str]]:
    """(name, text) of every tag of a film or sound, and of every text in the JSON of its comment."""
    try:
        av = load_av(path)
        with av.open(str(path), options=FILM_OPTIONS, metadata_errors="replace") as container:
            parts = (container, *container.streams)
            tags = [(str(name), str(text)) for part in parts for name, text in part.metadata.items()]
    except (OSError, ValueError, ImageError) as error:  # PyAV's errors are among the first two
        message = f"the {file_format} cannot be read: {error}" if not isinstance(error, ImageError) else str(error)
        raise TemplateError(Problem(str(path), 0, "", message)) from error
    for name, text in list(tags):
        if name.lower() == "comment" and text.startswith("{"):
            try:
                inner = json.loads(text)
            except (ValueError, RecursionError):
                continue
            tags += [(key, part if isinstance(part, str) else json.dumps(part)) for key, part in inner.items()]
    return tags


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
