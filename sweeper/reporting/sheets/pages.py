"""Draws contact sheets and divides them into pages with a limited number of pixels.

A sheet is a stack of strips: the title of a section, the column labels, a row of pictures. Pages are filled strip by
strip; every page begins with the title and repeats the labels. Nothing is scaled to make it fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image, ImageDraw

from sweeper.errors import UsageError
from sweeper.reporting.sheets.cells import (
    LABEL_SIZE,
    TILE_GAP,
    Cell,
    arrange_tiles,
    compute_cell_size,
    load_small_picture,
)
from sweeper.reporting.sheets.limits import MAX_SIDE, NO_PICTURE_REASON, SheetLimits
from sweeper.reporting.sheets.text_layout import TextRenderer

_MARGIN: Final = 24  # pixels, as all below
_GAP: Final = 6
_TITLE_SIZE, _HEADING_SIZE, _SMALL_SIZE = 28, 18, 13
_SAMPLED_CELLS: Final = 12  # cells of a section whose pictures decide the size of a cell
_MIN_PAGE_WIDTH: Final = 480  # room for a few words of the title in a line
_MAX_REASON_LINES: Final = 8  # lines of an error; the table has the full text
_ARROWS: Final = "→↓"
_MAX_LABELS_WIDTH: Final = 240  # pixels for the row labels
_BACKGROUND, _TEXT_COLOUR, _DIM_COLOUR, _EMPTY_BACKGROUND, _ERROR_BACKGROUND, _ERROR_COLOUR = (
    "#ffffff",
    "#1d1e20",
    "#6a6e73",
    "#f0f0ee",
    "#fbe9e7",
    "#b3261e",
)
_DASH_COLOUR: Final = "#c4c6c8"
_MIN_DASH_WIDTH: Final = 8  # the shortest


@dataclass(frozen=True, slots=True)
class Section:
    """One combination of the axes that are neither across nor down; cells by (index down, index across)."""

    title: str
    cells: Mapping[tuple[int, int], Cell]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The content of a sheet. `across` and `down` are (index of the value, label) in the order of drawing."""

    title: str
    frame_label: str
    x: str
    y: str
    across: tuple[tuple[int, str], ...]
    down: tuple[tuple[int, str], ...]
    sections: tuple[Section, ...]
    footer: str


@dataclass(frozen=True, slots=True)
class _Strip:
    height: int
    draw: Callable[[Any, int], None]  # on an image, with its top at a height


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """Rows with the same column labels, which a page break between the rows repeats."""

    header: tuple[_Strip, ...]
    rows: tuple[_Strip, ...]


def draw_pages(sheet: Sheet, cell: int, megapixels: float) -> Iterator[Any]:
    """Yield the pages as Pillow images. Raises UsageError if not a single row fits a page."""
    yield from _render_pages(_SheetRenderer(sheet, _sample_cell_size([sheet], cell), SheetLimits(cell, megapixels)))


def _render_pages(renderer: _SheetRenderer) -> Iterator[Any]:
    pages = renderer.split_pages()
    for number, strips in enumerate(pages, 1):
        yield renderer.render_page(strips, f"page {number} of {len(pages)}" if len(pages) > 1 else "")


def draw_frames(sheets: Sequence[Sheet], cell: int, megapixels: float) -> list[Any]:
    """Draw one page for each sheet, all of the same size. Raises UsageError if a sheet does not fit one page."""
    frames: list[Any] = []
    size = _sample_cell_size(sheets, cell)  # the same in all frames, like the title, so that nothing moves
    limits = SheetLimits(cell, megapixels, len(sheets))
    drawings = [_SheetRenderer(sheet, size, limits) for sheet in sheets]
    titles = max(drawing.title.height for drawing in drawings)
    for drawing in drawings:
        drawing.title = replace(drawing.title, height=titles)
        pages = list(_render_pages(drawing))
        if len(pages) > 1:
            raise limits.make_overflow_error()
        frames += pages
    whole = (max(frame.width for frame in frames), max(frame.height for frame in frames))
    return [_pad_image(frame, whole) for frame in frames]


def _sample_cell_size(sheets: Sequence[Sheet], max_side: int) -> tuple[int, int]:
    """Sample the first cells of each section: pictures have one size, unless the size is an axis."""
    cells = (
        cell for sheet in sheets for section in sheet.sections for cell in list(section.cells.values())[:_SAMPLED_CELLS]
    )
    return compute_cell_size(cells, max(len(label) for sheet in sheets for _, label in sheet.across), max_side)


def _pad_image(image: Any, size: tuple[int, int]) -> Any:
    whole = Image.new("RGB", size, _BACKGROUND)
    whole.paste(image, (0, 0))
    return whole


class _SheetRenderer:
    def __init__(self, sheet: Sheet, cell: tuple[int, int], limits: SheetLimits) -> None:
        self.sheet = sheet
        self.limits = limits
        words = [label for _, label in (*sheet.across, *sheet.down)] + [section.title for section in sheet.sections]
        words += [cell.reason for section in sheet.sections for cell in section.cells.values()]
        self.text = TextRenderer(
            [sheet.title, sheet.frame_label, sheet.x, sheet.y, sheet.footer, f"{_ARROWS}…", *words]
        )
        self.cell_size = cell
        self.labels_width = self._compute_labels_width()
        self.columns_per_page = self._count_columns(limits.page_pixels)
        self.width = self._compute_width(self.columns_per_page)
        self.max_height = min(MAX_SIDE, int(limits.page_pixels // self.width))
        self.title = self._make_title()

    def _compute_width(self, columns: int) -> int:
        return max(_MIN_PAGE_WIDTH, 2 * _MARGIN + self.labels_width + columns * (self.cell_size[0] + _GAP))

    def _compute_labels_width(self) -> int:
        longest = max((self.text.measure_width(label, LABEL_SIZE) for _, label in self.sheet.down), default=0)
        names = [self.text.measure_width(name, _SMALL_SIZE) for name in self._list_axis_names()]
        return min(_MAX_LABELS_WIDTH, max(longest, *names)) + 2 * _GAP if self.sheet.y else 0

    def _list_axis_names(self) -> list[str]:
        """The names of the axes with an arrow for their direction."""
        return [f"{name} {arrow}" for name, arrow in zip((self.sheet.x, self.sheet.y), _ARROWS, strict=True) if name]

    def _count_columns(self, pixels: float) -> int:
        """Count the columns that leave room for at least two rows on a page; at least one."""
        step = self.cell_size[0] + _GAP
        widest = min(MAX_SIDE, int(pixels // (2 * self.cell_size[1] + 300)))
        return max(1, min(len(self.sheet.across), (widest - 2 * _MARGIN - self.labels_width) // step))

    # --- pages

    def split_pages(self) -> list[list[_Strip]]:
        title, footer = self.title, self._make_footer("")
        free = self.max_height - 2 * _MARGIN - title.height - footer.height
        pages: list[list[_Strip]] = []
        used = free + 1
        for block in self._iter_row_groups():
            head = sum(strip.height for strip in block.header)
            fresh = True  # the group's header is still to be drawn
            for row in block.rows:
                need = row.height + (head if fresh else 0)
                if used + need > free:
                    if head + row.height > free:
                        raise self._make_no_room_error(title, block, row)
                    pages.append([title])
                    used, fresh = 0, True
                if fresh:
                    pages[-1] += block.header
                    used += head
                    fresh = False
                pages[-1].append(row)
                used += row.height
        return pages

    def _make_no_room_error(self, title: _Strip, group: _RowGroup, row: _Strip) -> UsageError:
        """Name the tallest part of the first row of a group, for which a page has no room."""
        *above, labels = group.header
        words = row.height - _GAP - self.cell_size[1]  # higher than the picture, because of the label or the reason
        parts = [
            (self.cell_size[1], ""),
            (title.height, "the title with the value of --animate" if self.sheet.frame_label else "the title"),
            (sum(strip.height for strip in above), "the title of a section, the values of the other axes,"),
            (labels.height, f"a label of '{self.sheet.x}'" if self.sheet.x else ""),
            (row.height if words > 0 else 0, f"a label of '{self.sheet.y}'" if self.sheet.y else NO_PICTURE_REASON),
        ]
        high = title.height + labels.height + sum(strip.height for strip in above) + row.height
        high += 2 * _MARGIN + self._make_footer("").height
        return self.limits.make_no_room_error(
            max(parts), (self.max_height, high), self._compute_width(len(self.sheet.across))
        )

    def render_page(self, strips: Sequence[_Strip], page_label: str) -> Any:
        strips = [*strips, self._make_footer(page_label)]
        image = Image.new("RGB", (self.width, sum(strip.height for strip in strips) + 2 * _MARGIN), _BACKGROUND)
        top = _MARGIN
        for strip in strips:
            strip.draw(image, top)
            top += strip.height
        return image

    def _iter_row_groups(self) -> Iterator[_RowGroup]:
        across = self.sheet.across
        for section in self.sheet.sections:
            title = (
                [self._make_text_strip(section.title, _HEADING_SIZE, _TEXT_COLOUR, above=_GAP, below=_GAP)]
                if section.title
                else []
            )
            for start in range(0, len(across), self.columns_per_page):
                part = across[start : start + self.columns_per_page]
                yield _RowGroup((*title, self._make_header(part)), tuple(self._iter_rows(section, part)))

    # --- strips

    def _make_title(self) -> _Strip:
        text = " · ".join(part for part in (self.sheet.title, self.sheet.frame_label) if part)
        return self._make_text_strip(text, _TITLE_SIZE, _TEXT_COLOUR, below=_MARGIN // 2)

    def _make_footer(self, page_label: str) -> _Strip:
        return self._make_text_strip(
            " · ".join(part for part in (self.sheet.footer, page_label) if part), _SMALL_SIZE, _DIM_COLOUR, above=_GAP
        )

    def _make_text_strip(self, text: str, size: int, colour: str, *, above: int = 0, below: int = 0) -> _Strip:
        lines = self.text.wrap(text, size, self.width - 2 * _MARGIN)

        def draw(image: Any, top: int) -> None:
            self._draw_lines(image, lines, (_MARGIN, top + above), size, colour)

        return _Strip(above + len(lines) * self.text.get_line_height(size) + below, draw)

    def _make_header(self, across: Sequence[tuple[int, str]]) -> _Strip:
        wrapped = [self.text.wrap(label, LABEL_SIZE, self.cell_size[0]) if self.sheet.x else [] for _, label in across]
        # In the column of row labels if there is one, otherwise above the column labels.
        room = self.labels_width - 2 * _GAP if self.labels_width else self.width - 2 * _MARGIN
        names = [line for name in self._list_axis_names() for line in self.text.wrap(name, _SMALL_SIZE, room)]
        named, labelled = (
            len(names) * self.text.get_line_height(_SMALL_SIZE),
            max(map(len, wrapped)) * self.text.get_line_height(LABEL_SIZE),
        )
        height = max(named, labelled) if self.labels_width else named + labelled

        def draw(image: Any, top: int) -> None:
            self._draw_lines(image, names, (_MARGIN, top), _SMALL_SIZE, _DIM_COLOUR)
            for column, lines in enumerate(wrapped):
                left = _MARGIN + self.labels_width + column * (self.cell_size[0] + _GAP)
                label_top = top + height - len(lines) * self.text.get_line_height(LABEL_SIZE)
                self._draw_lines(
                    image, lines, (left, label_top), LABEL_SIZE, _TEXT_COLOUR, centred_width=self.cell_size[0]
                )

        return _Strip(height + _GAP, draw)

    def _iter_rows(self, section: Section, across: Sequence[tuple[int, str]]) -> Iterator[_Strip]:
        for down, label in self.sheet.down:
            cells = [section.cells.get((down, index)) for index, _ in across]
            if any(cell is not None for cell in cells) or self.sheet.frame_label:  # frames must not differ in height
                yield self._make_row(label, cells)

    def _make_row(self, label: str, cells: Sequence[Cell | None]) -> _Strip:
        lines = self.text.wrap(label, LABEL_SIZE, self.labels_width - 2 * _GAP) if self.labels_width else []
        words = len(lines) * self.text.get_line_height(LABEL_SIZE)
        high = max([self.cell_size[1], *(self._measure_reason(cell) for cell in cells if cell is not None)])
        height = max(high, words)

        def draw(image: Any, top: int) -> None:
            self._draw_lines(image, lines, (_MARGIN, top + (height - words) // 2), LABEL_SIZE, _TEXT_COLOUR)
            for column, cell in enumerate(cells):
                self._draw_cell(
                    image, cell, (_MARGIN + self.labels_width + column * (self.cell_size[0] + _GAP), top), high
                )

        return _Strip(height + _GAP, draw)

    def _measure_reason(self, cell: Cell) -> int:
        """The height of a reason, up to some lines. Frames get none, because all must have the same height."""
        if cell.paths or self.sheet.frame_label:
            return 0
        lines = self.text.wrap(cell.reason, _SMALL_SIZE, self.cell_size[0] - 2 * _GAP)
        return min(len(lines), _MAX_REASON_LINES) * self.text.get_line_height(_SMALL_SIZE) + 2 * _GAP

    # --- pixels

    def _draw_cell(self, image: Any, cell: Cell | None, origin: tuple[int, int], height: int) -> None:
        if cell is None:
            self._draw_dash(image, origin, height)
            return
        if not cell.paths:
            self._draw_reason(image, cell.reason, origin, (self.cell_size[0], height))
            return
        across, down = arrange_tiles(len(cell.paths))
        box = ((self.cell_size[0] + TILE_GAP) // across - TILE_GAP, (self.cell_size[1] + TILE_GAP) // down - TILE_GAP)
        for number, path in enumerate(cell.paths):
            left = origin[0] + number % across * (box[0] + TILE_GAP)
            top = origin[1] + number // across * (box[1] + TILE_GAP)
            small = load_small_picture(path, box)
            if small is None:
                self._draw_reason(image, f"{path.name} cannot be read as a picture", (left, top), box)
            else:
                corner = (left + (box[0] - small.width) // 2, top + (box[1] - small.height) // 2)
                image.paste(small, corner, small)

    def _draw_dash(self, image: Any, origin: tuple[int, int], height: int) -> None:
        """Draw a dash, as in a table, for a combination that the sweep does not have."""
        long = max(_MIN_DASH_WIDTH, self.cell_size[0] // 10)
        left, top = origin[0] + (self.cell_size[0] - long) // 2, origin[1] + height // 2
        ImageDraw.Draw(image).rectangle((left, top, left + long - 1, top + 1), fill=_DASH_COLOUR)

    def _draw_reason(self, image: Any, reason: str, origin: tuple[int, int], box: tuple[int, int]) -> None:
        """Write why there is no picture, as much as fits into the box."""
        failed = reason.startswith("failed")
        corners = (origin[0], origin[1], origin[0] + box[0] - 1, origin[1] + box[1] - 1)
        ImageDraw.Draw(image).rectangle(corners, fill=_ERROR_BACKGROUND if failed else _EMPTY_BACKGROUND)
        lines = self.text.wrap(reason, _SMALL_SIZE, box[0] - 2 * _GAP)
        room = max(1, (box[1] - 2 * _GAP) // self.text.get_line_height(_SMALL_SIZE))
        shown = lines if len(lines) <= room else [*lines[: room - 1], "…"]
        self._draw_lines(
            image, shown, (origin[0] + _GAP, origin[1] + _GAP), _SMALL_SIZE, _ERROR_COLOUR if failed else _DIM_COLOUR
        )

    def _draw_lines(
        self,
        image: Any,
        lines: Sequence[str],
        origin: tuple[int, int],
        size: int,
        colour: str,
        *,
        centred_width: int = 0,
    ) -> None:
        for number, line in enumerate(lines):
            left = (
                origin[0] + max(0, (centred_width - self.text.measure_width(line, size)) // 2)
                if centred_width
                else origin[0]
            )
            self.text.draw(image, (left, origin[1] + number * self.text.get_line_height(size)), line, size, colour)
