"""Text on a contact sheet: fonts that have the characters, and lines that are wrapped and never cut.

One font seldom has Latin, Chinese and emoji; each character is drawn with the first font that has it. Pillow is
imported where a font is opened. Where the text stands is the sheet's business.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

# Asked for by name, which Pillow looks up in the system's font folders; the last resort is the font inside Pillow.
_CANDIDATES: Final = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "segoeui.ttf", "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf", "wqy-zenhei.ttc", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "malgun.ttf",
    "NotoColorEmoji.ttf", "Apple Color Emoji.ttc", "seguiemj.ttf", "NotoEmoji-Regular.ttf",
)  # fmt: skip
_BITMAP_SIZES: Final = {"NotoColorEmoji.ttf": 109, "Apple Color Emoji.ttc": 160}  # pictures of one size, not outlines
_NONCHARACTER: Final = "\uffff"  # no font has it, so its picture is the one for what is missing
_JOINER: Final = "\u200d"  # makes one emoji of two
_CLOSING: Final = ("Pe", "Pf", "Po")  # brackets, quotes and marks that never begin a line where a word is broken


class _FontFace:
    """One font file; `None` is the font inside Pillow."""

    def __init__(self, name: str | None) -> None:
        """Raises OSError where the system does not have it."""
        self._name = name
        self.bitmap_size = _BITMAP_SIZES.get(name or "")
        self._sizes: dict[int, Any] = {}
        self._missing_glyph = self._render_glyph(_NONCHARACTER)

    def load(self, size: int) -> Any:
        size = self.bitmap_size or size
        if size not in self._sizes:
            made = ImageFont.load_default(size) if self._name is None else ImageFont.truetype(self._name, size)
            self._sizes[size] = made
        return self._sizes[size]

    def has_glyph(self, character: str) -> bool:
        return self._render_glyph(character) != self._missing_glyph

    def measure_width(self, text: str, size: int) -> float:
        length = float(self.load(size).getlength(text))
        return length * size / self.bitmap_size if self.bitmap_size else length

    def _render_glyph(self, character: str) -> bytes:
        if self.bitmap_size is None:
            return bytes(self.load(16).getmask(character))
        drawn = Image.new("RGBA", (self.bitmap_size, self.bitmap_size), (0, 0, 0, 0))
        ImageDraw.Draw(drawn).text((0, 0), character, font=self.load(16), embedded_color=True)
        return drawn.tobytes()


class TextRenderer:
    """Fonts for these texts, in several sizes (pixels)."""

    def __init__(self, texts: Iterable[str]) -> None:
        wanted = set("".join(map(make_printable, texts))) - {" ", _JOINER}
        self._faces: list[_FontFace] = []
        self._face_by_character: dict[str, _FontFace] = {}
        for name in (*_CANDIDATES, None):
            try:
                face = _FontFace(name)
            except OSError:
                continue
            found = {character for character in wanted if face.has_glyph(character)}
            if found or not self._faces:
                self._faces.append(face)
                self._face_by_character.update(dict.fromkeys(found, face))
            wanted -= found
            if not wanted:
                break

    def get_line_height(self, size: int) -> int:
        """Pixels from one line to the next."""
        return round(size * 1.3)

    def measure_width(self, text: str, size: int) -> int:
        """Pixels that a text takes where nothing but its own line breaks breaks it: those of its widest line."""
        return max(self._measure_line(line, size) for line in _split_lines(text))

    def _measure_line(self, line: str, size: int) -> int:
        return int(sum(face.measure_width(run, size) for face, run in self._split_runs(line))) + 1

    def draw(self, image: Any, origin: tuple[int, int], line: str, size: int, colour: str) -> None:
        """Write a line on a Pillow image, its top left corner at `at`."""
        left = float(origin[0])
        baseline = origin[1] + int(self._faces[0].load(size).getmetrics()[0])  # one for all fonts: their ascents differ
        for face, run in self._split_runs(line):
            if face.bitmap_size:
                self._draw_emoji(image, (int(left), baseline), face, run, size)
            else:
                ImageDraw.Draw(image).text((left, baseline), run, fill=colour, font=face.load(size), anchor="ls")
            left += face.measure_width(run, size)

    def _draw_emoji(self, image: Any, origin: tuple[int, int], face: _FontFace, run: str, size: int) -> None:
        """Emoji that a font has as pictures of one size: drawn at that size, made smaller, set on the baseline `at`."""
        assert face.bitmap_size is not None
        font = face.load(size)
        box = font.getbbox(run)
        large = Image.new("RGBA", (max(1, round(box[2])), max(1, round(box[3]))), (0, 0, 0, 0))
        ImageDraw.Draw(large).text((0, 0), run, font=font, embedded_color=True)
        scale = size / face.bitmap_size
        small = large.resize((max(1, round(large.width * scale)), max(1, round(large.height * scale))))
        below = round(size * 0.2)  # a little below the baseline, as a descender
        image.paste(small, (origin[0], max(0, origin[1] + below - small.height)), small)

    def _split_runs(self, line: str) -> Iterator[tuple[_FontFace, str]]:
        """The line in pieces of one font each; what joins to a character stays with it, so that it can."""
        placed: list[tuple[_FontFace, str]] = []
        for character in line:
            # A space stays in its run: right-to-left words keep their order. In an emoji font it would be too wide.
            joins = placed and (
                (character == " " and not placed[-1][0].bitmap_size) or _is_joined(placed[-1][1][-1], character)
            )
            placed.append(
                (placed[-1][0] if joins else self._face_by_character.get(character, self._faces[0]), character)
            )
        for face, members in groupby(placed, key=lambda item: item[0]):
            yield face, "".join(character for _, character in members)

    def wrap(self, text: str, size: int, width: int) -> list[str]:
        """The lines of `text` within `width` pixels: broken between words, inside one only where it has no room."""
        lines: list[str] = []
        for paragraph in _split_lines(text):
            line = ""
            for word in paragraph.split():
                joined = f"{line} {word}".strip()
                if self._measure_line(joined, size) <= width:
                    line = joined
                    continue
                if line:
                    lines.append(line)
                *full, line = self._break_word(word, size, width)
                lines += full
            lines.append(line)
        return lines

    def _break_word(self, word: str, size: int, width: int) -> Iterator[str]:
        piece: list[str] = []
        for cluster in _split_clusters(word):
            if piece and self._measure_line("".join([*piece, cluster]), size) > width:
                carried = [piece.pop()] if unicodedata.category(cluster[0]) in _CLOSING and len(piece) > 1 else []
                yield "".join(piece)
                piece = carried
            piece.append(cluster)
        yield "".join(piece)


def make_printable(text: str) -> str:
    """Printable characters only: a control character has no shape to draw, and could turn the text around."""
    return "".join(character if character.isprintable() or character == _JOINER else " " for character in text)


def _split_lines(text: str) -> list[str]:
    """A text as it is drawn where there is room: its own lines, cleaned. Raqm refuses a line that holds a break."""
    return [" ".join(make_printable(line).split()) for line in text.splitlines()] or [""]


def _is_joined(previous: str, character: str) -> bool:
    """Whether a character makes one shape with the one before it: accents, emoji of several parts and their colours."""
    if character == _JOINER or "\U0001f3fb" <= character <= "\U0001f3ff":
        return True
    if previous == _JOINER:
        return unicodedata.category(character) == "So"
    return unicodedata.combining(character) != 0 or unicodedata.category(character) in ("Mn", "Me")


def _split_clusters(word: str) -> list[str]:
    found: list[str] = []
    for character in word:
        if found and _is_joined(found[-1][-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found
