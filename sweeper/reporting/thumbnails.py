"""Thumbnails for the page: small WebP pictures, made once for each content and kept beside the page.

The thumbnail of a film is its first frame, if PyAV (the extra `media`) is installed. Other files, and files that cannot
be read, have none; the page then shows the file itself if a browser can.

Sprite sheets have all of these pictures again, very small, hundreds of them in one file. A browser spends a third of a
millisecond on each file it requests, so ten thousand files cannot keep up with a scroll. The page loads a few sheets
when it opens; a cell then shows a blurred picture at once, until its thumbnail is loaded.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from PIL import ExifTags, Image, ImageOps

from sweeper.errors import ImageError, ResultsError
from sweeper.files import atomic_write
from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.images.media import is_film, iter_film_frames
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels

THUMBS_FOLDER: Final = "thumbs"
THUMB_SIDE: Final = 320  # pixels of the longer side, for a cell of 160 pixels on a screen with double density
SPRITE_SIDE: Final = 24  # pixels of a sprite's square; ten thousand decoded sprites take 23 MB
SMALLER_SIDES: Final = (160, 80)  # pixels, for smaller cells, so that hundreds of them load and fit in memory
_QUALITY: Final = 80
_METHOD: Final = 1  # takes a third of the time of method 3, for files that are 5% larger
_SPRITE_QUALITY: Final = 75
_SPRITES_PER_LINE: Final = 40  # sprites in a line of a sheet, and lines of a full sheet
_SPRITES_PER_SHEET: Final = _SPRITES_PER_LINE * _SPRITES_PER_LINE
THUMB_NAME: Final = re.compile(r"([0-9a-f]{64}(-\d+)?|sprites-[0-9a-f]{20})\.webp")  # also of a sheet of sprites
_INDEX_NAME: Final = "index.json"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What Pillow and the film reader raise for files that are broken, unknown or far too large.
UNREADABLE: Final = (
    ImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Facts of a picture: its own size in pixels, number of frames, mean colour as `#rrggbb`.

    `workflow`: whether it is a PNG that contains its workflow, as ComfyUI writes them. The index stores these fields.
    """

    width: int
    height: int
    frames: int
    colour: str
    workflow: bool


@dataclass(frozen=True, slots=True)
class Sprites:
    """The sheets, and by SHA-256 the index of each picture's sprite, counted line by line through all sheets."""

    sheets: tuple[str, ...]
    indices: dict[str, int]

    def as_data(self) -> dict[str, Any]:
        """The page's `sprites`; paths are relative to the report."""
        return {"across": _SPRITES_PER_LINE, "sheets": list(self.sheets), "count": len(self.indices)}


class Thumbnails:
    """The folder `thumbs` of a report. Its index stores the facts of each picture, and which files cannot be read."""

    def __init__(self, report: Path) -> None:
        self.report = report
        self._folder = report / THUMBS_FOLDER
        self._index = self._read_index()

    def make(self, files: Mapping[str, Path]) -> Mapping[str, Thumbnail]:
        """Make the missing thumbnails of these files (by SHA-256), and return the facts of all that have one.

        Raises ResultsError if the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            missing = [(sha, path) for sha, path in files.items() if _SHA256.fullmatch(sha) and not self._is_made(sha)]
            with _open_pool() as pool:
                self._index.update(pool.map(self._make_thumbnail, missing))
            self._write_index()
        except OSError as error:
            raise ResultsError(f"{self._folder}: {error.strerror or error}") from error
        return self.get_known(files)

    def make_sprites(self, shas: Sequence[str]) -> Sprites:
        """Make the sprite sheets of these pictures, in this order. All must have a thumbnail.

        Pictures that are neighbours in the run share a sheet. A sheet is named by its content and made once. Raises
        ResultsError if the folder cannot be read or written.
        """
        sheets = []
        try:
            for start in range(0, len(shas), _SPRITES_PER_SHEET):
                part = shas[start : start + _SPRITES_PER_SHEET]
                name = f"sprites-{sha256(' '.join([str(SPRITE_SIDE), *part]).encode()).hexdigest()[:20]}.webp"
                sheets.append(f"{THUMBS_FOLDER}/{name}")
                if not (self._folder / name).is_file():
                    self._make_sheet(part, self._folder / name)
        except OSError as error:
            raise ResultsError(f"{self._folder}: {error.strerror or error}") from error
        except UNREADABLE as error:
            raise ResultsError(
                f"{self._folder}: has a thumbnail that cannot be read: {error}; delete this folder"
            ) from error
        return Sprites(tuple(sheets), {sha: index for index, sha in enumerate(shas)})

    def _make_sheet(self, shas: Sequence[str], path: Path) -> None:
        with _open_pool() as pool:
            sprites = list(pool.map(self._load_sprite, shas))
        mode = "RGBA" if any(sprite.mode == "RGBA" for sprite in sprites) else "RGB"
        sheet = Image.new(mode, (_SPRITES_PER_LINE * SPRITE_SIDE, -(-len(shas) // _SPRITES_PER_LINE) * SPRITE_SIDE))
        for index, sprite in enumerate(sprites):
            line, column = divmod(index, _SPRITES_PER_LINE)
            sheet.paste(sprite, (column * SPRITE_SIDE, line * SPRITE_SIDE))
        with atomic_write(path) as file:
            sheet.save(file, "WEBP", quality=_SPRITE_QUALITY, method=_METHOD)

    def _load_sprite(self, sha: str) -> Any:
        with Image.open(self._folder / f"{sha}-{SMALLER_SIDES[-1]}.webp", formats=PICTURE_FORMATS) as image:
            check_pixels(image.size)
            # Squeezed into a square; the page restores its shape.
            return image.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.BOX)

    def get_known(self, shas: Iterable[str]) -> dict[str, Thumbnail]:
        """The facts of these files, of those that have a thumbnail."""
        return {sha: thumb for sha in shas if (thumb := self._index.get(sha)) is not None}

    def prune_index(self, shas: Collection[str]) -> None:
        """Remove all but these from the index; the caller deletes their files."""
        self._index = {sha: thumb for sha, thumb in self._index.items() if sha in shas}
        self._write_index()

    def _is_made(self, sha: str) -> bool:
        return sha in self._index and (
            self._index[sha] is None or (self._folder / f"{sha}-{SMALLER_SIDES[-1]}.webp").is_file()
        )

    def _make_thumbnail(self, item: tuple[str, Path]) -> tuple[str, Thumbnail | None]:
        sha, path = item
        try:
            if is_film(path):
                small = read_first_frame(path)
                (width, height), frames, workflow = small.size, 1, False
            else:
                small, (width, height), frames, workflow = open_picture(path, (THUMB_SIDE * 2, THUMB_SIDE * 2))
            small.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
            content = _encode(small)
            self._save(content, sha, "")
            for side in SMALLER_SIDES:
                if max(small.size) > side:  # a smaller picture is not enlarged, and stays the same
                    small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
                    content = _encode(small)
                self._save(content, sha, f"-{side}")
            colour = small.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        except UNREADABLE:
            return sha, None
        assert isinstance(colour, tuple)
        mean = "#{:02x}{:02x}{:02x}".format(*map(int, colour[:3]))
        return sha, Thumbnail(width, height, frames, mean, workflow)

    def _save(self, content: bytes, sha: str, suffix: str) -> None:
        with atomic_write(self._folder / f"{sha}{suffix}.webp") as file:
            file.write(content)

    def _read_index(self) -> dict[str, Thumbnail | None]:
        try:
            index: Mapping[str, Any] = json.loads((self._folder / _INDEX_NAME).read_text("utf-8"))
            return {sha: None if fields is None else Thumbnail(**fields) for sha, fields in index.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # make all thumbnails again

    def _write_index(self) -> None:
        text = json.dumps(
            {
                sha: thumb and {name: getattr(thumb, name) for name in Thumbnail.__slots__}
                for sha, thumb in self._index.items()
            }
        )
        with atomic_write(self._folder / _INDEX_NAME) as file:
            file.write(text.encode())


def _encode(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=_METHOD)
    return buffer.getvalue()


def list_file_names(sha: str) -> list[str]:
    """The file names of a picture's thumbnails."""
    return [f"{sha}{suffix}.webp" for suffix in ("", *(f"-{side}" for side in SMALLER_SIDES))]


def _open_pool() -> ThreadPoolExecutor:
    """Threads for all cores, because Pillow releases the GIL while it decodes and encodes."""
    return ThreadPoolExecutor(max(2, os.cpu_count() or 1))


def open_picture(path: Path, box: tuple[int, int]) -> tuple[Any, tuple[int, int], int, bool]:
    """Return a picture with 8 bits a channel, its own size, its number of frames, and whether it has a workflow.

    A JPEG is decoded at about the size of `box`. Raises ImageError if the picture is too large, and what Pillow raises.
    """
    with Image.open(path, formats=PICTURE_FORMATS) as image:
        width, height = image.size
        workflow = image.format == "PNG" and bool({"prompt", "workflow"} & image.info.keys())
        frames = int(getattr(image, "n_frames", 1))
        image.draft("RGB", box)
        check_pixels(image.size)
        exif = image.getexif()
        if exif.get(ExifTags.Base.Orientation, 1) >= 5:  # stored on its side and shown upright
            width, height = height, width
        return _to_eight_bit(ImageOps.exif_transpose(image) if exif else image), (width, height), frames, workflow


def read_first_frame(path: Path) -> Any:
    """The first frame of a film as a Pillow image. Raises ImageError if it cannot be read or PyAV is missing."""
    with closing(iter_film_frames(path)) as frames:
        return Image.fromarray(next(frames))


def _to_eight_bit(image: Any) -> Any:
    """Convert to RGB or RGBA. Greys of 16 bits or floats are scaled, because Pillow would clip them to white."""
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        scale = 255 / (high - low) if high > low else 0.0
        return image.point(lambda value: (value - low) * scale).convert("L").convert("RGB")
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def select_pictures(artifacts: Mapping[str, tuple[Path | None, str]]) -> dict[str, Path]:
    """One file for each content (SHA-256), of the files that can have a thumbnail; see `contents.collect_artifacts`."""
    has_av = find_spec("av") is not None
    return {
        sha: path
        for path, sha in artifacts.values()
        if path is not None and (path.suffix.lower() in PICTURE_SUFFIXES or (has_av and is_film(path)))
    }
