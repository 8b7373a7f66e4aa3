"""A small picture as HTML for notebooks. It carries its data, because the page of a notebook cannot open files."""

from __future__ import annotations

import base64
import html
import io
from typing import Any, Final

from PIL import Image

from sweeper.errors import ImageError
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels

_SIDE: Final = 128  # pixels of the longer side


def make_thumbnail(path: Any) -> str:
    """Return the picture as an `<img>`. For a URL or an unreadable file, return the path; "" if it is not a text."""
    label = html.escape(path) if isinstance(path, str) else ""
    url = make_thumbnail_url(path) if label else ""
    return f'<img src="{url}" title="{label}">' if url else label


def make_thumbnail_url(path: str) -> str:
    """Return the picture as a `data:` URL; "" for a URL or an unreadable file."""
    if "://" in path:
        return ""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            image.draft("RGB", (_SIDE, _SIDE))  # makes JPEG decode at about this size
            check_pixels(image.size)
            small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        data = io.BytesIO()
        small.save(data, "WEBP", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ImageError):
        return ""
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
