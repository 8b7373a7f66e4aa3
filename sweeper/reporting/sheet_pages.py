"""Draws a contact sheet: a grid of cells of one size with labels, on pages with a limited number of pixels.

A sheet is a stack of strips: the title of a section, the column labels, a row of pictures. Pages are filled strip by
strip, and every page begins with the title and repeats the labels. Texts are wrapped, and cut after some lines.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from sweeper.errors import UsageError
from sweeper.images.decoding import read_size
from sweeper.images.media import is_film
from sweeper.model.picture_size import MAX_SHEET_MEGAPIXELS
from sweeper.reporting.thumbnails import UNREADABLE, open_picture, read_first_frame
from sweeper.wording import to_one_line

# All sizes are in pixels.
_MARGIN: Final = 24
_GAP: Final = 6
_TILE_GAP: Final = 2  # between the pictures of one trial
_TITLE, _HEADING, _LABEL, _SMALL = 28, 18, 15, 13  # the letters
_MAX_LINES: Final = 8  # of a text; the table has the rest
_MIN_CELL_WIDTH: Final = 96  # leaves room for labels beside small pictures
_MIN_PAGE_WIDTH: Final = 480  # room for a few words of the title in a line
_MAX_LABELS_WIDTH: Final = 240  # of the row labels
_MAX_SIDE: Final = 16_383  # of a WebP, by its file format; a longer side is not useful in a PNG either
_BACKGROUND, _TEXT_COLOUR, _DIM_COLOUR, _DASH_COLOUR = "#ffffff", "#1d1e20", "#6a6e73", "#c4c8d0"
_EMPTY_BACKGROUND, _ERROR_BACKGROUND, _ERROR_COLOUR = "#f0f0ee", "#fbe9e7", "#b3261e"
# Pillow's own font has ASCII. For other letters, Pillow looks these names up in the system's font folders.
_FONTS: Final = (
    None, "DejaVuSans.ttf", "arial.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "Arial Unicode.ttf",
    "PingFang.ttc", "msyh.ttc", "malgun.ttf",
)  # fmt: skip
_NONCHARACTER: Final = "\uffff"  # no font has it, so it is drawn as a missing character


@dataclass(frozen=True, slots=True)
class Cell:
    """The pictures of a trial, which share a cell, or the reason why there is none."""

    paths: tuple[Path, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Section:
    """One combination of the axes that are neither across nor down; cells by (index down, index across)."""

    title: str
    cells: Mapping[tuple[int, int], Cell]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The content of a sheet. `across` and `down` are (index of the value, label) in the order of drawing."""

    title: str
    across: tuple[tuple[int, str], ...]
    down: tuple[tuple[int, str], ...]
    sections: tuple[Section, ...]
    footer: str


@dataclass(frozen=True, slots=True)
class _Strip:
    height: int
    draw: Callable[[Any, int], None]  # on an image, with its top at a height


def draw_pages(sheet: Sheet, side: int, megapixels: float) -> Iterator[Any]:
    """Yield the pages as Pillow images. `side`: the longer side of a cell at most.

    Raises UsageError if not a single row fits a page.
    """
    renderer = _SheetRenderer(sheet, side, megapixels)
    pages = renderer.split_pages()
    for number, strips in enumerate(pages, 1):
        yield renderer.render_page(strips, f"page {number} of {len(pages)}" if len(pages) > 1 else "")


class _SheetRenderer:
    def __init__(self, sheet: Sheet, side: int, megapixels: float) -> None:
        cells = [cell for section in sheet.sections for cell in section.cells.values()]
        labels = [label for _, label in (*sheet.across, *sheet.down)]
        titles = [sheet.title, sheet.footer, *(section.title for section in sheet.sections)]
        self.sheet, self.side = sheet, side
        self.text = _TextRenderer([*titles, *labels, *(cell.reason for cell in cells)])
        self.sizes = {cell.paths: size for cell in cells if (size := _measure_cell(cell, side)) is not None}
        widest = max((width for width, _ in self.sizes.values()), default=side)
        highest = max((height for _, height in self.sizes.values()), default=side)
        self.cell = max(widest, min(side, _MIN_CELL_WIDTH)), highest  # small pictures must leave room for labels
        widths = [self.text.measure_width(label, _LABEL) for _, label in sheet.down if label]
        self.labels_width = min(_MAX_LABELS_WIDTH, max(widths)) + 2 * _GAP if widths else 0
        widest_page = int(megapixels * 1e6 // (2 * self.cell[1] + 300))  # that has room for at least two rows
        room = min(_MAX_SIDE, widest_page) - 2 * _MARGIN - self.labels_width
        self.columns = max(1, min(len(sheet.across), room // (self.cell[0] + _GAP)))
        used = self.labels_width + self.columns * (self.cell[0] + _GAP)
        self.width = max(_MIN_PAGE_WIDTH, 2 * _MARGIN + used)
        self.max_height = min(_MAX_SIDE, int(megapixels * 1e6 // self.width))

    # --- pages

    def split_pages(self) -> list[list[_Strip]]:
        title, footer = self._make_strip(self.sheet.title, _TITLE, below=_MARGIN // 2), self._make_footer("")
        free = self.max_height - 2 * _MARGIN - title.height - footer.height
        pages: list[list[_Strip]] = []
        used = free + 1
        for header, rows in self._iter_row_groups():
            above = header  # the next row, unless the page has it already
            for row in rows:
                if _add_heights([*header, row]) > free:
                    raise UsageError(
                        f"--cell {self.side}: not one row of pictures fits the {self.max_height} pixels of a page; "
                        f"make it smaller, or raise --megapixels, at most to {MAX_SHEET_MEGAPIXELS}"
                    )
                if used + _add_heights([*above, row]) > free:
                    pages.append([title])
                    used, above = 0, header
                pages[-1] += [*above, row]
                used += _add_heights([*above, row])
                above = []
        return pages

    def render_page(self, strips: Sequence[_Strip], page_label: str) -> Any:
        strips = [*strips, self._make_footer(page_label)]
        image = Image.new("RGB", (self.width, _add_heights(strips) + 2 * _MARGIN), _BACKGROUND)
        top = _MARGIN
        for strip in strips:
            strip.draw(image, top)
            top += strip.height
        return image

    def _iter_row_groups(self) -> Iterator[tuple[list[_Strip], list[_Strip]]]:
        """Yield the header and the rows that have it above them on each page."""
        for section in self.sheet.sections:
            title = [self._make_strip(section.title, _HEADING, above=_GAP, below=_GAP)] if section.title else []
            for start in range(0, len(self.sheet.across), self.columns):
                part = self.sheet.across[start : start + self.columns]
                found = [
                    (label, [section.cells.get((down, index)) for index, _ in part]) for down, label in self.sheet.down
                ]
                yield [*title, self._make_header(part)], [self._make_row(*row) for row in found if any(row[1])]

    # --- strips

    def _make_strip(
        self, text: str, size: int, colour: str = _TEXT_COLOUR, *, above: int = 0, below: int = 0
    ) -> _Strip:
        width = self.width - 2 * _MARGIN

        def draw(image: Any, top: int) -> None:
            self.text.draw(image, (_MARGIN, top + above), text, size, colour, width=width)

        return _Strip(above + self.text.measure_height(text, size, width) + below, draw)

    def _make_footer(self, page_label: str) -> _Strip:
        text = " · ".join(part for part in (self.sheet.footer, page_label) if part)
        return self._make_strip(text, _SMALL, _DIM_COLOUR, above=_GAP)

    def _make_header(self, across: Sequence[tuple[int, str]]) -> _Strip:
        labels = [label for _, label in across if label]
        height = max((self.text.measure_height(label, _LABEL, self.cell[0]) for label in labels), default=0)

        def draw(image: Any, top: int) -> None:
            for column, label in enumerate(labels):
                high = self.text.measure_height(label, _LABEL, self.cell[0])
                at = (self._get_left(column), top + height - high)
                self.text.draw(image, at, label, _LABEL, _TEXT_COLOUR, width=self.cell[0], is_centred=True)

        return _Strip(height + _GAP, draw)

    def _make_row(self, label: str, cells: Sequence[Cell | None]) -> _Strip:
        room = self.labels_width - 2 * _GAP
        label_height = self.text.measure_height(label, _LABEL, room) if label else 0
        height = max([label_height, *(self._measure_height(cell) for cell in cells if cell is not None)])

        def draw(image: Any, top: int) -> None:
            if self.labels_width:
                above = (height - label_height) // 2
                self.text.draw(image, (_MARGIN, top + above), label, _LABEL, _TEXT_COLOUR, width=room)
            for column, cell in enumerate(cells):
                self._draw_cell(image, cell, (self._get_left(column), top), height)

        return _Strip(height + _GAP, draw)

    def _measure_height(self, cell: Cell) -> int:
        """The height that a cell needs: that of its picture, if there is one."""
        if not cell.paths:
            reason = self.text.measure_height(cell.reason, _SMALL, self.cell[0] - 2 * _GAP) + 2 * _GAP
            return max(self.cell[1], reason)
        size = self.sizes.get(cell.paths) if len(cell.paths) == 1 else None
        return self.cell[1] if size is None else size[1]

    def _get_left(self, column: int) -> int:
        return _MARGIN + self.labels_width + column * (self.cell[0] + _GAP)

    # --- cells

    def _draw_cell(self, image: Any, cell: Cell | None, origin: tuple[int, int], height: int) -> None:
        if cell is None:  # the sweep does not have this combination; a dash says so, as in a table
            long = self.cell[0] // 10
            left, top = origin[0] + (self.cell[0] - long) // 2, origin[1] + height // 2
            ImageDraw.Draw(image).rectangle((left, top, left + long - 1, top + 1), fill=_DASH_COLOUR)
            return
        if not cell.paths:
            self._draw_reason(image, cell.reason, origin, (self.cell[0], height))
            return
        across, down = _arrange_tiles(len(cell.paths))
        box = ((self.cell[0] + _TILE_GAP) // across - _TILE_GAP, (height + _TILE_GAP) // down - _TILE_GAP)
        for number, path in enumerate(cell.paths):
            left = origin[0] + number % across * (box[0] + _TILE_GAP)
            top = origin[1] + number // across * (box[1] + _TILE_GAP)
            small = load_small_picture(path, box)
            if small is None:
                self._draw_reason(image, f"{path.name} cannot be read as a picture", (left, top), box)
            else:
                image.paste(small, (left + (box[0] - small.width) // 2, top + (box[1] - small.height) // 2), small)

    def _draw_reason(self, image: Any, reason: str, origin: tuple[int, int], box: tuple[int, int]) -> None:
        """Write why there is no picture, as much as fits into the box."""
        failed = reason.startswith("failed")
        corners = (origin[0], origin[1], origin[0] + box[0] - 1, origin[1] + box[1] - 1)
        ImageDraw.Draw(image).rectangle(corners, fill=_ERROR_BACKGROUND if failed else _EMPTY_BACKGROUND)
        lines = max(1, (box[1] - 2 * _GAP) // _get_line_height(_SMALL))
        at, colour = (origin[0] + _GAP, origin[1] + _GAP), _ERROR_COLOUR if failed else _DIM_COLOUR
        self.text.draw(image, at, reason, _SMALL, colour, width=box[0] - 2 * _GAP, lines=lines)


def _add_heights(strips: Iterable[_Strip]) -> int:
    return sum(strip.height for strip in strips)


def _measure_cell(cell: Cell, max_side: int) -> tuple[int, int] | None:
    if not cell.paths:
        return None
    path = cell.paths[0]
    try:
        width, height = read_first_frame(path).size if is_film(path) else read_size(path)
    except UNREADABLE:
        return None
    across, down = _arrange_tiles(len(cell.paths))
    width, height = across * (width + _TILE_GAP) - _TILE_GAP, down * (height + _TILE_GAP) - _TILE_GAP
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _arrange_tiles(count: int) -> tuple[int, int]:
    """Columns and rows of a nearly square arrangement of `count` pictures."""
    across = math.ceil(math.sqrt(count))
    return across, math.ceil(count / across)


def load_small_picture(path: Path, box: tuple[int, int]) -> Any:
    """Load a picture, or the first frame of a film, scaled down to `box`, in RGBA; None if it cannot be read."""
    try:
        small = (read_first_frame(path) if is_film(path) else open_picture(path, box)[0]).convert("RGBA")
    except UNREADABLE:
        return None
    small.thumbnail((max(1, box[0]), max(1, box[1])), Image.Resampling.LANCZOS)
    return small


# --- texts


class _TextRenderer:
    """Measures and draws texts with one font, that with most letters of `texts`. Sizes and widths are in pixels."""

    def __init__(self, texts: Iterable[str]) -> None:
        letters = set("".join(map(to_one_line, texts)))
        self._font_name = max(
            (name for name in _FONTS if _load_font(name, _LABEL)), key=lambda name: _count_glyphs(name, letters)
        )

    def measure_width(self, text: str, size: int) -> int:
        return int(_load_font(self._font_name, size).getlength(to_one_line(text))) + 1

    def measure_height(self, text: str, size: int, width: int) -> int:
        """The height of a text that is wrapped, at most that of `_MAX_LINES`."""
        font = _load_font(self._font_name, size)
        return len(wrap_text(text, font.getlength, width, _MAX_LINES)) * _get_line_height(size)

    def draw(
        self, image: Any, origin: tuple[int, int], text: str, size: int, colour: str, *,
        width: int, lines: int = _MAX_LINES, is_centred: bool = False,
    ) -> None:  # fmt: skip
        """Draw a text on a Pillow image with its top left corner at `origin`."""
        font = _load_font(self._font_name, size)
        for number, line in enumerate(wrap_text(text, font.getlength, width, lines)):
            left = origin[0] + (max(0, (width - int(font.getlength(line))) // 2) if is_centred else 0)
            top = origin[1] + number * _get_line_height(size)
            ImageDraw.Draw(image).text((left, top), line, fill=colour, font=font)


def wrap_text(text: str, measure: Callable[[str], float], width: int, lines: int) -> list[str]:
    """Wrap a text to some lines of `width` pixels, between words, or inside a word that is too long.

    The last line ends with an ellipsis if the text goes on.
    """
    wrapped: list[str] = []
    line = ""
    shown = to_one_line(text)[: lines * (width + 1) + 1]  # no more fits: a letter has a pixel
    for word in shown.split():
        if measure(f"{line} {word}".strip()) <= width:
            line = f"{line} {word}".strip()
            continue
        wrapped += [line] if line else []
        line = word
        while measure(line) > width and len(line) > 1 and len(wrapped) <= lines:
            lengths = range(1, len(line) + 1)
            end = max(1, bisect_right(lengths, float(width), key=lambda length: measure(line[:length])))
            wrapped.append(line[:end])
            line = line[end:]
        if len(wrapped) > lines:
            break
    wrapped.append(line)
    return wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], f"{wrapped[lines - 1][:-1]}…"]


def _get_line_height(size: int) -> int:
    """The distance from one line to the next."""
    return round(size * 1.3)


@cache
def _load_font(name: str | None, size: int) -> Any:
    """A font of the system, or Pillow's own for None; None if the system does not have it."""
    try:
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    except OSError:
        return None


def _count_glyphs(name: str | None, letters: Iterable[str]) -> int:
    font = _load_font(name, _LABEL)
    missing = bytes(font.getmask(_NONCHARACTER))
    return sum(bytes(font.getmask(letter)) != missing for letter in letters)
