"""The size limits of a contact sheet, and the messages when it does not fit. Pure numbers and text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from sweeper.errors import UsageError

MIN_CELL_SIDE: Final = 32  # pixels of a cell's longer side
NO_PICTURE_REASON: Final = "the reason why a trial has no picture"
MAX_MEGAPIXELS: Final = 178  # megapixels of a page; Pillow takes a larger picture for a decompression bomb
MAX_SIDE: Final = 16_383  # pixels of a WebP's side, by its file format; a longer side is not useful in a PNG either


@dataclass(frozen=True, slots=True)
class SheetLimits:
    """The requested longer side of a cell, and the megapixels of a page, or of all `frames` together."""

    cell: int
    megapixels: float
    frames: int = 1

    @property
    def page_pixels(self) -> float:
        """The pixels of one page or frame."""
        return self.megapixels * 1e6 / self.frames

    def make_overflow_error(self) -> UsageError:
        """The error that a frame would need a second page."""
        advice = _join_advice("make --cell smaller" if self.cell > MIN_CELL_SIDE else "", "raise --megapixels")
        return UsageError(f"--animate: {self.frames} frames do not fit {self.megapixels:g} megapixels; {advice}")

    def make_no_room_error(self, tallest: tuple[int, str], heights: tuple[int, int], width: int) -> UsageError:
        """The error that not a single row fits a page.

        `tallest`: pixels and name of the tallest part (no name: the pictures); `heights`: what a page has and needs;
        `width`: of a page with all columns. All in pixels.
        """
        (height, part), (available, needed) = tallest, heights
        enough = math.ceil(needed * width * self.frames / 1e6)
        more = f"raise --megapixels to {enough}" if enough <= MAX_MEGAPIXELS and needed <= MAX_SIDE else ""
        if not part:
            advice = _join_advice("make it smaller" if self.cell > MIN_CELL_SIDE else "", more)
            return UsageError(
                f"--cell {self.cell}: not one row of pictures fits the {available} pixels of a page; {advice}"
            )
        advice = "" if part == NO_PICTURE_REASON else "give the values short labels ({label: ..., value: ...})"
        return UsageError(
            f"--megapixels {self.megapixels:g}: not one row fits the {available} pixels of a page, as {part} takes"
            f" {height}; {_join_advice(more, advice)}"
        )


def _join_advice(*options: str) -> str:
    return ", or ".join(option for option in options if option) or "there is no larger page"
