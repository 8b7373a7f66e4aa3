"""Thumbnails for the page: small WebP pictures, made once for each content and kept beside the page.

With PyAV (the extra `media`), the thumbnail of a film is its first frame, that of a sound its waveform. Other files,
and files that cannot be read, have none; the page then shows the file itself if a browser can.

Sprite sheets have all of these pictures again, very small, hundreds of them in one file. A browser spends a third of a
millisecond on each file it requests, so ten thousand files cannot keep up with a scroll. The page loads a few sheets
when it opens; a cell then shows a blurred picture at once, until its thumbnail is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from PIL import ExifTags, Image, ImageDraw, ImageOps, ImageStat

from sweeper.errors import ImageError, ResultsError
from sweeper.files import atomic_write
from sweeper.images.media import is_film, is_sound, iter_film_frames, read_peaks
from sweeper.model.picture_size import PICTURE_FORMATS, PICTURE_SUFFIXES, check_pixels

THUMBS_FOLDER: Final = "thumbs"
THUMB_SIDE: Final = 320  # pixels of the longer side, for a cell of 160 pixels on a screen with double density
SPRITE_SIDE: Final = 24  # pixels of a sprite's square; ten thousand decoded sprites take 23 MB
_MANY_SPRITES: Final = 30_000  # more have half that side, so that a browser keeps a hundred thousand decoded, in 58 MB
SMALLER_SIDES: Final = (160, 80)  # pixels, for smaller cells, so that hundreds of them load and fit in memory
_WAVE_COLOUR: Final = "#7d8fa8"  # to be seen on light and on dark grounds
_QUALITY: Final = 80
_METHOD: Final = 1  # takes a third of the time of method 3, for files that are 5% larger
_SPRITE_QUALITY: Final = 75
_BATCH: Final = 16  # pictures for a thread at a time; handing over each takes a tenth of a small one's time
_SPRITES_PER_LINE: Final = 40  # sprites in a line of a sheet, and lines of a full sheet
_SPRITES_PER_SHEET: Final = _SPRITES_PER_LINE * _SPRITES_PER_LINE
THUMB_NAME: Final = re.compile(r"([0-9a-f]{64}(-\d+)?|sprites-[0-9a-f]{20})\.webp")  # also of a sheet of sprites
_INDEX_NAME: Final = "index.json"
_MAX_BLACK: Final = 6.0  # of 255: the mean and the deviation of the light in a picture that is nearly black
_MAYBE_BLACK: Final = 80  # the mean of the brightest channel; above it, even pure blue is lighter than _MAX_BLACK
_MAX_FLAT: Final = 8  # of 255: the range of each channel in a picture of one colour; its thumbnail is compressed
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What Pillow and the film reader raise for files that are broken, unknown or far too large.
UNREADABLE: Final = (
    ImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class Thumbnail(NamedTuple):
    """Facts of a picture: its own size in pixels, number of frames, mean colour as `#rrggbb`.

    `workflow`: whether it is a PNG that contains its workflow, as ComfyUI writes them. `look`: `nearly black` or `flat`
    if a still picture shows nothing, else empty. The index stores these fields.
    """

    width: int
    height: int
    frames: int
    colour: str
    workflow: bool
    look: str


@dataclass(frozen=True, slots=True)
class Sprites:
    """The sheets, and by SHA-256 the index of each picture's sprite, counted line by line through all sheets."""

    sheets: tuple[str, ...]
    indices: dict[str, int]

    def as_data(self) -> dict[str, Any]:
        """The page's `sprites`; paths are relative to the report."""
        return {"across": _SPRITES_PER_LINE, "sheets": list(self.sheets), "count": len(self.indices)}


class Thumbnails:
    """The folder `thumbs` of a report. Its index stores the facts of each picture, and which files cannot be read.

    `known`: the facts by SHA-256, None for a file that cannot be read.
    """

    def __init__(self, report: Path) -> None:
        self.report = report
        self._folder = report / THUMBS_FOLDER
        self.known = self._read_index()

    def make(self, list_files: Callable[[], Iterator[tuple[str, str]]], sprite_count: int) -> Sprites:
        """Make the missing thumbnails of files (SHA-256, path), and the sprite sheets of all that have one.

        `sprite_count`: about how many sprites these are; 0 makes none. Files that follow each other share a sheet. A
        sheet is named by its content and made once. If a thumbnail is damaged, all are made again from their pictures.
        Raises ResultsError if the folder cannot be read or written.
        """
        try:
            try:
                return self._make(list_files(), sprite_count)
            except ImageError:
                self.known = {}
                return self._make(list_files(), sprite_count)
        except OSError as error:
            raise ResultsError(f"{self._folder}: {error.strerror or error}") from error

    def _make(self, pictures: Iterator[tuple[str, str]], sprite_count: int) -> Sprites:
        """Do what `make` does. Raises ImageError if a thumbnail is damaged, and OSError."""
        side = SPRITE_SIDE if sprite_count <= _MANY_SPRITES else SPRITE_SIDE // 2
        make_thumbnail = partial(self._make_thumbnail, sprite_side=side)
        indices, sheets = dict[str, int](), list[str]()
        sprites: dict[str, Any] = {}  # of the thumbnails that are new, until their sheet is made
        is_changed = False
        self._folder.mkdir(parents=True, exist_ok=True)
        present = {path.name for path in self._folder.iterdir()} if self.known else set()
        # Threads for all cores, because Pillow releases the GIL while it decodes and encodes
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            while part := dict(islice(pictures, _SPRITES_PER_SHEET)):
                missing = [item for item in part.items() if self._is_missing(item[0], present)]
                batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
                made = pool.map(lambda batch: [*map(make_thumbnail, batch)], batches)
                for sha, thumb, sprite in chain.from_iterable(made):
                    self.known[sha], is_changed = thumb, True
                    sprites |= {sha: sprite} if sprite_count and thumb else {}
                for sha in part:
                    if sprite_count and self.known.get(sha):
                        indices.setdefault(sha, len(indices))
                while len(indices) >= (len(sheets) + 1) * _SPRITES_PER_SHEET:
                    self._add_sheet(sheets, [*indices], sprites, side, pool)
            if len(indices) > len(sheets) * _SPRITES_PER_SHEET:
                self._add_sheet(sheets, [*indices], sprites, side, pool)
        if is_changed:
            self._write_index()
        return Sprites(tuple(sheets), indices)

    def _add_sheet(
        self, sheets: list[str], shas: Sequence[str], sprites: dict[str, Any], side: int, pool: Executor
    ) -> None:
        """Make the sheet that follows `sheets`, unless it exists, and remove its pictures from `sprites`."""
        start = len(sheets) * _SPRITES_PER_SHEET
        part = shas[start : start + _SPRITES_PER_SHEET]
        name = f"sprites-{sha256(' '.join([str(side), *part]).encode()).hexdigest()[:20]}.webp"
        sheets.append(f"{THUMBS_FOLDER}/{name}")
        made = [sprites.pop(sha, None) for sha in part]
        if (self._folder / name).is_file():
            return
        loaded = pool.map(lambda sha, sprite: sprite or self._load_sprite(sha, side), part, made)
        images = list(loaded)
        mode = "RGBA" if any(image.mode == "RGBA" for image in images) else "RGB"
        sheet = Image.new(mode, (_SPRITES_PER_LINE * side, -(-len(part) // _SPRITES_PER_LINE) * side))
        for index, image in enumerate(images):
            line, column = divmod(index, _SPRITES_PER_LINE)
            sheet.paste(image, (column * side, line * side))
        with atomic_write(self._folder / name) as file:
            sheet.save(file, "WEBP", quality=_SPRITE_QUALITY, method=_METHOD)

    def _load_sprite(self, sha: str, side: int) -> Any:
        path = self._folder / _list_names(sha, self.known[sha])[-1]
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                check_pixels(image.size)
                return _make_sprite(image, side)
        except UNREADABLE as error:
            raise ImageError(f"{path}: {error}") from error

    def is_shown(self, name: str, sprites: Sprites) -> bool:
        """Whether a file of the folder is the index, a sheet, or a thumbnail of a picture that has a sprite."""
        sha = name[:64]
        if sha in sprites.indices:
            return name[64:] == ".webp" or name in _list_names(sha, self.known[sha])
        return name == _INDEX_NAME or f"{THUMBS_FOLDER}/{name}" in sprites.sheets

    def prune_index(self, sprites: Sprites) -> None:
        """Remove the pictures that have no sprite from the index; the caller deletes their files."""
        kept = {sha: thumb for sha, thumb in self.known.items() if thumb is None or sha in sprites.indices}
        if len(kept) < len(self.known):
            self.known = kept
            self._write_index()

    def _is_missing(self, sha: str, present: set[str]) -> bool:
        if sha not in self.known:
            return _SHA256.fullmatch(sha) is not None
        return self.known[sha] is not None and not present.issuperset(_list_names(sha, self.known[sha]))

    def _make_thumbnail(self, item: tuple[str, str], sprite_side: int) -> tuple[str, Thumbnail | None, Any]:
        """Make the thumbnails of a file; returns its SHA-256, its facts and its sprite, None if it cannot be read."""
        sha, path = item[0], Path(item[1])
        try:
            if is_film(path) or is_sound(path):
                small = read_first_frame(path) if is_film(path) else draw_waveform(path)
                (width, height), frames, workflow = small.size, 1, False
            else:
                small, (width, height), frames, workflow = open_picture(path, (THUMB_SIDE * 2, THUMB_SIDE * 2))
            small.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS, reducing_gap=1.5)
            self._save(small, f"{sha}.webp")
            for side in SMALLER_SIDES:
                if max(width, height) > side:  # a smaller picture is not enlarged: its thumbnail serves all cells
                    small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
                    self._save(small, f"{sha}-{side}.webp")
            opaque = small.convert("RGB")
            colour = opaque.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        except UNREADABLE:
            return sha, None, None
        assert isinstance(colour, tuple)
        mean = "#{:02x}{:02x}{:02x}".format(*map(int, colour))
        look = "" if is_film(path) or frames > 1 else _judge_look(opaque, max(map(int, colour)))
        return sha, Thumbnail(width, height, frames, mean, workflow, look), _make_sprite(small, sprite_side)

    def _save(self, image: Any, name: str) -> None:
        with atomic_write(self._folder / name) as file:
            image.save(file, "WEBP", quality=_QUALITY, method=_METHOD)

    def _read_index(self) -> dict[str, Thumbnail | None]:
        try:
            index: dict[str, Any] = json.loads((self._folder / _INDEX_NAME).read_text("utf-8"))
            for sha, fields in index.items():  # in place, because a second mapping takes 10 MB
                if fields is not None:
                    width, height, frames, colour, workflow, look = fields
                    index[sha] = Thumbnail(int(width), int(height), int(frames), str(colour), bool(workflow), str(look))
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return {}  # somebody else wrote it, so make all thumbnails again
        return index

    def _write_index(self) -> None:
        with atomic_write(self._folder / _INDEX_NAME) as file:
            file.write(json.dumps(self.known).encode())


def _judge_look(image: Any, brightest: int) -> str:
    """Whether a thumbnail in RGB shows nothing, as after an overflow in a VAE or with a missing model.

    `brightest`: the mean of its brightest channel.
    """
    if brightest < _MAYBE_BLACK:
        light = ImageStat.Stat(image.convert("L"))
        if light.mean[0] < _MAX_BLACK and light.stddev[0] < _MAX_BLACK:
            return "nearly black"
    return "flat" if all(most - least <= _MAX_FLAT for least, most in image.getextrema()) else ""


def _make_sprite(image: Any, side: int) -> Any:
    """Squeeze a picture into a square; the page restores its shape."""
    return image.resize((side, side), Image.Resampling.BOX)


def _list_names(sha: str, thumb: Thumbnail | None) -> list[str]:
    """The file names of a picture's thumbnails, the largest first. `js/media.js` knows them, too."""
    side = 0 if thumb is None else max(thumb.width, thumb.height)
    smaller = (f"-{smaller}" for smaller in SMALLER_SIDES if smaller < side)
    return [f"{sha}{suffix}.webp" for suffix in ("", *smaller)]


def is_whole_webp(path: Path) -> bool:
    """Whether a WebP has the length that stands at its beginning. True for files with another suffix."""
    with path.open("rb") as file:
        head = file.read(8)
    return path.suffix != ".webp" or int.from_bytes(head[4:], "little") + 8 == path.stat().st_size


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


def draw_waveform(path: Path) -> Any:
    """The peaks of a sound on a transparent ground, as a Pillow image. Raises ImageError if it cannot be read."""
    width, middle = THUMB_SIDE, THUMB_SIDE // 4
    image = Image.new("RGBA", (width, 2 * middle))
    pen = ImageDraw.Draw(image)
    for x, peak in enumerate(read_peaks(path, width)):
        height = max(1, round(min(1.0, peak) * (middle - 2)))
        pen.line([(x, middle - height), (x, middle + height)], fill=_WAVE_COLOUR)
    return image


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


def can_show(name: str) -> bool:
    """Whether a file can have a thumbnail, by the suffix of its name."""
    if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES:  # noqa: PTH122 - of many
        return True
    return (is_film(PurePosixPath(name)) or is_sound(PurePosixPath(name))) and find_spec("av") is not None
