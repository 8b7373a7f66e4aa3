"""Small pictures for the page: WebP, made once for each file's content and kept beside the page.

A film is shown by its first frame where PyAV (the extra `media`) is installed. Any other file, and one that cannot be
read, has none; the page then shows the file itself where a browser can. Pillow is imported where a picture is opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ImageError, ResultsError
from sweeper.images.file_types import PICTURE_SUFFIXES

THUMBS_FOLDER: Final = "thumbs"
THUMB_SIDE: Final = 320  # pixels of the longer side: a cell of 160 on a screen of twice the density
SPRITE_SIDE: Final = 24  # pixels of the square that `sprites` puts on a sheet: ten thousand are 23 MB when decoded
SMALLER_SIDES: Final = (160, 80)  # for cells of fewer pixels: hundreds of them in view load, decode and fit in memory
_QUALITY: Final = 80
_METHOD: Final = 1  # a third of the time of 3, for files a twentieth larger
_INDEX_NAME: Final = "index.json"
_MAX_PIXELS: Final = 400_000_000  # a decompression bomb is a file without a thumbnail
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """What is known of a picture: its own size in pixels, its frames, its mean colour as `#rrggbb`, and whether it is a
    PNG that carries its workflow, as ComfyUI writes them.
    """

    width: int
    height: int
    frames: int
    colour: str
    workflow: bool


class Thumbnails:
    """The folder `thumbs` of a report, with an index that remembers sizes and colours, and what could not be read."""

    def __init__(self, report: Path) -> None:
        self.report = report
        self._folder = report / THUMBS_FOLDER
        self._index = self._read_index()
        self.sprites: dict[str, Any] = {}  # by SHA-256, of those made since: small Pillow images

    def make(self, files: Mapping[str, Path]) -> Mapping[str, Thumbnail]:
        """Make what is missing for these files (by SHA-256), and return all that have one.

        Raises ResultsError when the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            missing = [(sha, path) for sha, path in files.items() if _SHA256.fullmatch(sha) and not self._is_made(sha)]
            # Threads use every core: Pillow lets go of the interpreter while it decodes and encodes.
            with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
                for sha, made in pool.map(self._make_one, missing):
                    self._index[sha] = made
            self._write_index()
        except OSError as error:
            raise ResultsError(f"{self._folder}: {error.strerror or error}") from error
        return self.get_known(files)

    def get_known(self, shas: Iterable[str]) -> dict[str, Thumbnail]:
        """Those of these files that have one."""
        return {sha: thumb for sha in shas if (thumb := self._index.get(sha)) is not None}

    def prune_index(self, shas: Collection[str]) -> list[str]:
        """Forget all but these in the index. Returns those that it had, whose files are now to be removed."""
        gone = [sha for sha in self._index if sha not in shas]
        for sha in gone:
            del self._index[sha]
        if gone:
            self._write_index()
        return gone

    def _is_made(self, sha: str) -> bool:
        return sha in self._index and (
            self._index[sha] is None or (self._folder / f"{sha}-{SMALLER_SIDES[-1]}.webp").is_file()
        )

    def _make_one(self, item: tuple[str, Path]) -> tuple[str, Thumbnail | None]:
        from PIL import Image

        sha, path = item
        try:
            small, (width, height), frames, workflow = _open_film(path) if is_film(path) else _open_picture(path)
            small.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
            self._save(small, sha, "")
            for side in SMALLER_SIDES:
                small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
                self._save(small, sha, f"-{side}")
            self.sprites[sha] = make_sprite(small)
            colour = small.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        except (
            ImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning
        ):  # fmt: skip
            # What our reader of films and Pillow raise for files that are broken, unknown or absurdly large.
            return sha, None
        assert isinstance(colour, tuple)
        mean = "#{:02x}{:02x}{:02x}".format(*map(int, colour[:3]))
        return sha, Thumbnail(width, height, frames, mean, workflow)

    def _save(self, image: Any, sha: str, suffix: str) -> None:
        part = self._folder / f".{sha}{suffix}.part"
        image.save(part, "WEBP", quality=_QUALITY, method=_METHOD)
        part.replace(self._folder / f"{sha}{suffix}.webp")

    def _read_index(self) -> dict[str, Thumbnail | None]:
        try:
            read: Mapping[str, Any] = json.loads((self._folder / _INDEX_NAME).read_text("utf-8"))
            return {sha: None if one is None else Thumbnail(**one) for sha, one in read.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # it can be made again

    def _write_index(self) -> None:
        text = json.dumps({sha: one and asdict(one) for sha, one in self._index.items()})
        part = self._folder / f".{_INDEX_NAME}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(self._folder / _INDEX_NAME)


def iter_file_names(sha: str) -> Iterator[str]:
    """The names of a picture's thumbnails in their folder, and of what a kill in the middle of writing them leaves."""
    for ending in ("", *(f"-{side}" for side in SMALLER_SIDES)):
        yield f"{sha}{ending}.webp"
        yield f".{sha}{ending}.part"


def _open_picture(path: Path) -> tuple[Any, tuple[int, int], int, bool]:
    """A picture in 8 bits (a JPEG about as large as is needed), its own size, its frames, whether it has a workflow.

    Raises ValueError for one that is too large, and what Pillow raises.
    """
    from PIL import ExifTags, Image, ImageOps

    with Image.open(path) as image:
        width, height = image.size
        if width * height > _MAX_PIXELS:
            raise ValueError(f"{path}: {width} x {height} pixels")
        workflow = image.format == "PNG" and bool({"prompt", "workflow"} & image.info.keys())
        frames = int(getattr(image, "n_frames", 1))
        image.draft("RGB", (THUMB_SIDE * 2, THUMB_SIDE * 2))  # JPEG decodes straight to about the size needed
        exif = image.getexif()
        if exif.get(ExifTags.Base.Orientation, 1) >= 5:  # lies on its side, and is shown upright
            width, height = height, width
        return _to_eight_bit(ImageOps.exif_transpose(image) if exif else image), (width, height), frames, workflow


def _open_film(path: Path) -> tuple[Any, tuple[int, int], int, bool]:
    """The same of a film; its frames are not counted. Raises ImageError where it cannot be read."""
    image = read_first_frame(path)
    return image, image.size, 1, False


def read_first_frame(path: Path) -> Any:
    """What a film is shown by, a Pillow image. Raises ImageError where it cannot be read, or PyAV is missing."""
    from PIL import Image

    from sweeper.images.media import iter_film_frames  # noqa: PLC0415 - NumPy

    with closing(iter_film_frames(path)) as frames:
        return Image.fromarray(next(frames))


def is_film(path: Path) -> bool:
    """Whether a file is one by its suffix."""
    return path.suffix.lower() in FILMS


def make_sprite(small: Any) -> Any:
    """A small picture pressed into the square of a sprite, whatever its shape: the page draws it out again."""
    from PIL import Image

    return small.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.BOX)


def _to_eight_bit(image: Any) -> Any:
    """A copy in RGB or RGBA; 16-bit and float greys are scaled to 8 bits, where Pillow would clip them to white."""
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        scale = 255 / (high - low) if high > low else 0.0
        return image.point(lambda value: (value - low) * scale).convert("L").convert("RGB")
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def select_pictures(outputs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """One file for each content, of those whose kind may be a picture, or a film that can be opened here."""
    kinds = PICTURE_SUFFIXES | FILMS if find_spec("av") is not None else PICTURE_SUFFIXES
    return {sha: path for sha, path in outputs if path.suffix.lower() in kinds}


FILMS: Final = frozenset({".mp4", ".webm", ".mov", ".m4v", ".mkv"})
