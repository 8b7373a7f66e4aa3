"""Draws contact sheets and breaks them into pages under a limit of pixels.

A sheet is a stack of strips (a section's title, the labels across, a row of pictures), each with its height; pages are
filled strip by strip, and every page begins with the title and repeats the labels. Nothing is scaled to make it fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.errors import UsageError
from sweeper.reporting.sheets.cells import LABEL, TIGHT, Cell, cell_size, small_picture, tiles
from sweeper.reporting.sheets.limits import LONGEST, NO_PICTURE, Limits
from sweeper.reporting.sheets.text_layout import Lettering

_MARGIN: Final = 24  # pixels, as all below
_GAP: Final = 6
_TITLE, _HEADING, _SMALL = 28, 18, 13
_SAMPLED: Final = 12  # cells of a section whose pictures are looked at for their size
_NARROWEST_PAGE: Final = 480  # titles want some words in a line
_REASON: Final = 8  # lines of an error before it is cut; the table has all of it
_ARROWS: Final = "→↓"
_LABELS: Final = 240  # the most that the labels down the side take
_GROUND, _INK, _DIM, _EMPTY, _FAILED, _BAD = "#ffffff", "#1d1e20", "#6a6e73", "#f0f0ee", "#fbe9e7", "#b3261e"
_ABSENT: Final = "#c4c6c8"
_DASH: Final = 8  # the shortest


@dataclass(frozen=True, slots=True)
class Section:
    """One combination of the axes that are neither across nor down; cells by (place down, place across)."""

    title: str
    cells: Mapping[tuple[int, int], Cell]


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that is to be drawn. `across` and `down` are (place, label) in their order."""

    title: str
    now: str
    x: str
    y: str
    across: tuple[tuple[int, str], ...]
    down: tuple[tuple[int, str], ...]
    sections: tuple[Section, ...]
    footer: str


@dataclass(frozen=True, slots=True)
class _Strip:
    height: int
    draw: Callable[[Any, int], None]  # on an image, at a height


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows that stand under the same labels; the labels are repeated where a page breaks between the rows."""

    head: tuple[_Strip, ...]
    rows: tuple[_Strip, ...]


def draw_pages(sheet: Sheet, cell: int, megapixels: float) -> Iterator[Any]:
    """The pages as Pillow images, one after the other. Raises UsageError where not one row fits a page."""
    yield from _pages(_Drawing(sheet, _cell_size([sheet], cell), Limits(cell, megapixels)))


def _pages(drawing: _Drawing) -> Iterator[Any]:
    pages = drawing.pages()
    for number, strips in enumerate(pages, 1):
        yield drawing.page(strips, f"page {number} of {len(pages)}" if len(pages) > 1 else "")


def draw_frames(sheets: Sequence[Sheet], cell: int, megapixels: float) -> list[Any]:
    """One page for each sheet, all of one size. Raises UsageError when a sheet does not fit one page."""
    frames: list[Any] = []
    size = _cell_size(sheets, cell)  # of all frames, as the title below: they must not jump
    limits = Limits(cell, megapixels, len(sheets))
    drawings = [_Drawing(sheet, size, limits) for sheet in sheets]
    titles = max(drawing.title.height for drawing in drawings)
    for drawing in drawings:
        drawing.title = replace(drawing.title, height=titles)
        pages = list(_pages(drawing))
        if len(pages) > 1:
            raise limits.too_many()
        frames += pages
    whole = (max(frame.width for frame in frames), max(frame.height for frame in frames))
    return [_padded(frame, whole) for frame in frames]


def _cell_size(sheets: Sequence[Sheet], longest: int) -> tuple[int, int]:
    """Read off the first cells of each section: a sweep's pictures are of one size, or that size is an axis."""
    cells = (cell for sheet in sheets for section in sheet.sections for cell in list(section.cells.values())[:_SAMPLED])
    return cell_size(cells, max(len(label) for sheet in sheets for _, label in sheet.across), longest)


def _padded(image: Any, size: tuple[int, int]) -> Any:
    from PIL import Image  # noqa: PLC0415 - drawing only

    whole = Image.new("RGB", size, _GROUND)
    whole.paste(image, (0, 0))
    return whole


class _Drawing:
    def __init__(self, sheet: Sheet, cell: tuple[int, int], limits: Limits) -> None:
        self.sheet = sheet
        self.limits = limits
        words = [label for _, label in (*sheet.across, *sheet.down)] + [section.title for section in sheet.sections]
        words += [cell.word for section in sheet.sections for cell in section.cells.values()]
        self.letters = Lettering([sheet.title, sheet.now, sheet.x, sheet.y, sheet.footer, f"{_ARROWS}…", *words])
        self.cell = cell
        self.labels = self._side()
        self.columns = self._columns(limits.pixels)
        self.width = self._wide(self.columns)
        self.room = min(LONGEST, int(limits.pixels // self.width))
        self.title = self._title()

    def _wide(self, columns: int) -> int:
        return max(_NARROWEST_PAGE, 2 * _MARGIN + self.labels + columns * (self.cell[0] + _GAP))

    def _side(self) -> int:
        longest = max((self.letters.width(label, LABEL) for _, label in self.sheet.down), default=0)
        names = [self.letters.width(name, _SMALL) for name in self._names()]
        return min(_LABELS, max(longest, *names)) + 2 * _GAP if self.sheet.y else 0

    def _names(self) -> list[str]:
        """The axes, and which way they go."""
        return [f"{name} {arrow}" for name, arrow in zip((self.sheet.x, self.sheet.y), _ARROWS, strict=True) if name]

    def _columns(self, pixels: float) -> int:
        """As many columns as leave room for at least two rows on a page, and at least one."""
        step = self.cell[0] + _GAP
        widest = min(LONGEST, int(pixels // (2 * self.cell[1] + 300)))
        return max(1, min(len(self.sheet.across), (widest - 2 * _MARGIN - self.labels) // step))

    # --- pages

    def pages(self) -> list[list[_Strip]]:
        title, footer = self.title, self._footer("")
        free = self.room - 2 * _MARGIN - title.height - footer.height
        pages: list[list[_Strip]] = []
        used = free + 1
        for block in self._blocks():
            head = sum(strip.height for strip in block.head)
            fresh = True  # the block's head is still to be drawn
            for row in block.rows:
                need = row.height + (head if fresh else 0)
                if used + need > free:
                    if head + row.height > free:
                        raise self._too_little(title, block, row)
                    pages.append([title])
                    used, fresh = 0, True
                if fresh:
                    pages[-1] += block.head
                    used += head
                    fresh = False
                pages[-1].append(row)
                used += row.height
        return pages

    def _too_little(self, title: _Strip, block: _Block, row: _Strip) -> UsageError:
        """What takes most of the height of the first row of a block, for which a page has no room."""
        *above, labels = block.head
        words = row.height - _GAP - self.cell[1]  # more than the picture: the label beside it, or the reason for none
        parts = [
            (self.cell[1], ""),
            (title.height, "the title with the value of --animate" if self.sheet.now else "the title"),
            (sum(strip.height for strip in above), "the title of a section, the values of the other axes,"),
            (labels.height, f"a label of '{self.sheet.x}'" if self.sheet.x else ""),
            (row.height if words > 0 else 0, f"a label of '{self.sheet.y}'" if self.sheet.y else NO_PICTURE),
        ]
        high = title.height + labels.height + sum(strip.height for strip in above) + row.height
        high += 2 * _MARGIN + self._footer("").height
        return self.limits.too_little(max(parts), (self.room, high), self._wide(len(self.sheet.across)))

    def page(self, strips: Sequence[_Strip], number: str) -> Any:
        from PIL import Image  # noqa: PLC0415 - as above

        strips = [*strips, self._footer(number)]
        image = Image.new("RGB", (self.width, sum(strip.height for strip in strips) + 2 * _MARGIN), _GROUND)
        top = _MARGIN
        for strip in strips:
            strip.draw(image, top)
            top += strip.height
        return image

    def _blocks(self) -> Iterator[_Block]:
        across = self.sheet.across
        for section in self.sheet.sections:
            title = [self._words(section.title, _HEADING, _INK, above=_GAP, below=_GAP)] if section.title else []
            for start in range(0, len(across), self.columns):
                part = across[start : start + self.columns]
                yield _Block((*title, self._head(part)), tuple(self._rows(section, part)))

    # --- strips

    def _title(self) -> _Strip:
        text = " · ".join(part for part in (self.sheet.title, self.sheet.now) if part)
        return self._words(text, _TITLE, _INK, below=_MARGIN // 2)

    def _footer(self, number: str) -> _Strip:
        return self._words(" · ".join(part for part in (self.sheet.footer, number) if part), _SMALL, _DIM, above=_GAP)

    def _words(self, text: str, size: int, colour: str, *, above: int = 0, below: int = 0) -> _Strip:
        lines = self.letters.wrap(text, size, self.width - 2 * _MARGIN)

        def draw(image: Any, top: int) -> None:
            self._write(image, lines, (_MARGIN, top + above), size, colour)

        return _Strip(above + len(lines) * self.letters.height(size) + below, draw)

    def _head(self, across: Sequence[tuple[int, str]]) -> _Strip:
        wrapped = [self.letters.wrap(label, LABEL, self.cell[0]) if self.sheet.x else [] for _, label in across]
        # Beside the labels where there is a column for it, else above them.
        room = self.labels - 2 * _GAP if self.labels else self.width - 2 * _MARGIN
        names = [line for name in self._names() for line in self.letters.wrap(name, _SMALL, room)]
        named, labelled = len(names) * self.letters.height(_SMALL), max(map(len, wrapped)) * self.letters.height(LABEL)
        height = max(named, labelled) if self.labels else named + labelled

        def draw(image: Any, top: int) -> None:
            self._write(image, names, (_MARGIN, top), _SMALL, _DIM)
            for place, lines in enumerate(wrapped):
                left = _MARGIN + self.labels + place * (self.cell[0] + _GAP)
                at = top + height - len(lines) * self.letters.height(LABEL)
                self._write(image, lines, (left, at), LABEL, _INK, centred=self.cell[0])

        return _Strip(height + _GAP, draw)

    def _rows(self, section: Section, across: Sequence[tuple[int, str]]) -> Iterator[_Strip]:
        for down, label in self.sheet.down:
            cells = [section.cells.get((down, place)) for place, _ in across]
            if any(cell is not None for cell in cells) or self.sheet.now:  # frames must not jump
                yield self._row(label, cells)

    def _row(self, label: str, cells: Sequence[Cell | None]) -> _Strip:
        lines = self.letters.wrap(label, LABEL, self.labels - 2 * _GAP) if self.labels else []
        words = len(lines) * self.letters.height(LABEL)
        high = max([self.cell[1], *(self._told(cell) for cell in cells if cell is not None)])
        height = max(high, words)

        def draw(image: Any, top: int) -> None:
            self._write(image, lines, (_MARGIN, top + (height - words) // 2), LABEL, _INK)
            for place, cell in enumerate(cells):
                self._cell(image, cell, (_MARGIN + self.labels + place * (self.cell[0] + _GAP), top), high)

        return _Strip(height + _GAP, draw)

    def _told(self, cell: Cell) -> int:
        """The height that a reason asks for: all of it, up to some lines. A frame keeps the height of the others."""
        if cell.paths or self.sheet.now:
            return 0
        lines = self.letters.wrap(cell.word, _SMALL, self.cell[0] - 2 * _GAP)
        return min(len(lines), _REASON) * self.letters.height(_SMALL) + 2 * _GAP

    # --- pixels

    def _cell(self, image: Any, cell: Cell | None, at: tuple[int, int], height: int) -> None:
        if cell is None:
            self._no_trial(image, at, height)
            return
        if not cell.paths:
            self._reason(image, cell.word, at, (self.cell[0], height))
            return
        across, down = tiles(len(cell.paths))
        box = ((self.cell[0] + TIGHT) // across - TIGHT, (self.cell[1] + TIGHT) // down - TIGHT)
        for number, path in enumerate(cell.paths):
            left = at[0] + number % across * (box[0] + TIGHT)
            top = at[1] + number // across * (box[1] + TIGHT)
            small = small_picture(path, box)
            if small is None:
                self._reason(image, f"{path.name} cannot be read as a picture", (left, top), box)
            else:
                place = (left + (box[0] - small.width) // 2, top + (box[1] - small.height) // 2)
                image.paste(small, place, small)

    def _no_trial(self, image: Any, at: tuple[int, int], height: int) -> None:
        """A dash, as in a table: left out of the sweep, and no picture that failed to be drawn."""
        from PIL import ImageDraw  # noqa: PLC0415 - as above

        long = max(_DASH, self.cell[0] // 10)
        left, top = at[0] + (self.cell[0] - long) // 2, at[1] + height // 2
        ImageDraw.Draw(image).rectangle((left, top, left + long - 1, top + 1), fill=_ABSENT)

    def _reason(self, image: Any, word: str, at: tuple[int, int], box: tuple[int, int]) -> None:
        """Why there is no picture, as much of it as the box holds."""
        from PIL import ImageDraw  # noqa: PLC0415 - as above

        failed = word.startswith("failed")
        corners = (at[0], at[1], at[0] + box[0] - 1, at[1] + box[1] - 1)
        ImageDraw.Draw(image).rectangle(corners, fill=_FAILED if failed else _EMPTY)
        lines = self.letters.wrap(word, _SMALL, box[0] - 2 * _GAP)
        room = max(1, (box[1] - 2 * _GAP) // self.letters.height(_SMALL))
        shown = lines if len(lines) <= room else [*lines[: room - 1], "…"]
        self._write(image, shown, (at[0] + _GAP, at[1] + _GAP), _SMALL, _BAD if failed else _DIM)

    def _write(
        self, image: Any, lines: Sequence[str], at: tuple[int, int], size: int, colour: str, *, centred: int = 0
    ) -> None:
        for number, line in enumerate(lines):
            left = at[0] + max(0, (centred - self.letters.width(line, size)) // 2) if centred else at[0]
            self.letters.draw(image, (left, at[1] + number * self.letters.height(size)), line, size, colour)
