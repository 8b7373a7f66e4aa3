"""Text on a contact sheet: finds fonts for all characters, and wraps lines without cutting them.

One font rarely has Latin, Chinese and emoji, so each character is drawn with the first font that has it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

# Pillow looks these names up in the system's font folders. The last resort is the font inside Pillow.
_CANDIDATES: Final = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "segoeui.ttf", "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf", "wqy-zenhei.ttc", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "malgun.ttf",
    "NotoColorEmoji.ttf", "Apple Color Emoji.ttc", "seguiemj.ttf", "NotoEmoji-Regular.ttf",
)  # fmt: skip
_BITMAP_SIZES: Final = {
    "NotoColorEmoji.ttf": 109,
    "Apple Color Emoji.ttc": 160,
}  # fonts of pictures in one size (pixels), not outlines
_NONCHARACTER: Final = "\uffff"  # no font has it, so it is drawn as a missing character
_JOINER: Final = "\u200d"  # joins two emoji to one
_CLOSING: Final = ("Pe", "Pf", "Po")  # Unicode categories of marks that never begin a line


class _FontFace:
    """One font file; `None` stands for the font inside Pillow."""

    def __init__(self, name: str | None) -> None:
        """Raises OSError if the system does not have the font."""
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
    """Measures, wraps and draws texts, with fonts for the characters of `texts`. Sizes are in pixels."""

    def __init__(self, texts: Iterable[str]) -> None:
        wanted = set("".join(map(make_printable, texts))) - {" ", _JOINER}
        self._faces: list[_FontFace] = []
        self._face_by_character: dict[str, _FontFace] = {}
        for name in (*_CANDIDATES, None):
            try:
                face = _FontFace(name)
            except OSError:
                continue
            available = {character for character in wanted if face.has_glyph(character)}
            if available or not self._faces:
                self._faces.append(face)
                self._face_by_character.update(dict.fromkeys(available, face))
            wanted -= available
            if not wanted:
                break

    def get_line_height(self, size: int) -> int:
        """The distance from one line to the next."""
        return round(size * 1.3)

    def measure_width(self, text: str, size: int) -> int:
        """The width of a text that is broken only at its own line breaks."""
        return max(self._measure_line(line, size) for line in _split_lines(text))

    def _measure_line(self, line: str, size: int) -> int:
        return int(sum(face.measure_width(run, size) for face, run in self._split_runs(line))) + 1

    def draw(self, image: Any, origin: tuple[int, int], line: str, size: int, colour: str) -> None:
        """Draw a line on a Pillow image with its top left corner at `origin`."""
        left = float(origin[0])
        baseline = origin[1] + int(
            self._faces[0].load(size).getmetrics()[0]
        )  # the same for all fonts, whose ascents differ
        for face, run in self._split_runs(line):
            if face.bitmap_size:
                self._draw_emoji(image, (int(left), baseline), face, run, size)
            else:
                ImageDraw.Draw(image).text((left, baseline), run, fill=colour, font=face.load(size), anchor="ls")
            left += face.measure_width(run, size)

    def _draw_emoji(self, image: Any, origin: tuple[int, int], face: _FontFace, run: str, size: int) -> None:
        """Draw emoji of a bitmap font at its own size, scale them down, and set them on the baseline `origin`."""
        assert face.bitmap_size is not None
        font = face.load(size)
        box = font.getbbox(run)
        large = Image.new("RGBA", (max(1, round(box[2])), max(1, round(box[3]))), (0, 0, 0, 0))
        ImageDraw.Draw(large).text((0, 0), run, font=font, embedded_color=True)
        scale = size / face.bitmap_size
        small = large.resize((max(1, round(large.width * scale)), max(1, round(large.height * scale))))
        below = round(size * 0.2)  # slightly below the baseline, like a descender
        image.paste(small, (origin[0], max(0, origin[1] + below - small.height)), small)

    def _split_runs(self, line: str) -> Iterator[tuple[_FontFace, str]]:
        """Split a line into runs of one font; a combining character stays with the one before it."""
        placed: list[tuple[_FontFace, str]] = []
        for character in line:
            # A space stays in its run, so that right-to-left words keep their order; in emoji fonts it is too wide.
            joins = placed and (
                (character == " " and not placed[-1][0].bitmap_size) or _is_joined(placed[-1][1][-1], character)
            )
            placed.append(
                (placed[-1][0] if joins else self._face_by_character.get(character, self._faces[0]), character)
            )
        for face, members in groupby(placed, key=lambda item: item[0]):
            yield face, "".join(character for _, character in members)

    def wrap(self, text: str, size: int, width: int) -> list[str]:
        """Wrap `text` to lines of `width` pixels, between words, or inside a word that is too long."""
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
    """Replace unprintable characters by spaces; some would reverse the direction of the text."""
    return "".join(character if character.isprintable() or character == _JOINER else " " for character in text)


def _split_lines(text: str) -> list[str]:
    """Split a text at its own line breaks, which Raqm refuses, and normalize its spaces."""
    return [" ".join(make_printable(line).split()) for line in text.splitlines()] or [""]


def _is_joined(previous: str, character: str) -> bool:
    """Whether a character forms one shape with the one before it: accents, parts and colours of emoji."""
    if character == _JOINER or "\U0001f3fb" <= character <= "\U0001f3ff":
        return True
    if previous == _JOINER:
        return unicodedata.category(character) == "So"
    return unicodedata.combining(character) != 0 or unicodedata.category(character) in ("Mn", "Me")


def _split_clusters(word: str) -> list[str]:
    clusters: list[str] = []
    for character in word:
        if clusters and _is_joined(clusters[-1][-1], character):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters
