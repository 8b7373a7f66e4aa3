"""Text on a contact sheet: a font that has the characters, and lines that are wrapped and never cut.

Pillow is imported where a font is opened. Where the text stands is the sheet's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

# Asked for by name, which Pillow looks up in the system's font folders; the last resort is the font inside Pillow.
_CANDIDATES: Final = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKjp-Regular.otf", "wqy-zenhei.ttc",
    "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "segoeui.ttf", "arial.ttf",
)  # fmt: skip
_NO_SUCH_CHARACTER: Final = "\uffff"  # no font has it, so its picture is the one for what is missing


class Lettering:
    """One font in several sizes (pixels), chosen so that as much of `texts` as possible can be written with it."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._characters = sorted(set("".join(map(plain, texts))) - {" "})
        self._name = self._best()
        self._sizes: dict[int, Any] = {}

    def font(self, size: int) -> Any:
        from PIL import ImageFont  # noqa: PLC0415 - see the module's docstring

        if size not in self._sizes:
            made = ImageFont.load_default(size) if self._name is None else ImageFont.truetype(self._name, size)
            self._sizes[size] = made
        return self._sizes[size]

    def height(self, size: int) -> int:
        """Pixels from one line to the next."""
        return round(size * 1.3)

    def width(self, text: str, size: int) -> int:
        """Pixels that a line takes."""
        return int(self.font(size).getlength(text)) + 1

    def wrap(self, text: str, size: int, width: int) -> list[str]:
        """The lines of `text` within `width` pixels: broken between words, inside one only where it has no room."""
        lines: list[str] = []
        for paragraph in text.splitlines() or [""]:
            line = ""
            for word in plain(paragraph).split():
                joined = f"{line} {word}".strip()
                if self.width(joined, size) <= width:
                    line = joined
                    continue
                if line:
                    lines.append(line)
                *full, line = self._pieces(word, size, width)
                lines += full
            lines.append(line)
        return lines

    def _pieces(self, word: str, size: int, width: int) -> Iterator[str]:
        piece = ""
        for character in word:
            if piece and self.width(piece + character, size) > width:
                yield piece
                piece = ""
            piece += character
        yield piece

    def _best(self) -> str | None:
        from PIL import ImageFont  # noqa: PLC0415 - as above

        found: list[tuple[int, str | None]] = []
        for name in (*_CANDIDATES, None):
            try:
                font = ImageFont.load_default(16) if name is None else ImageFont.truetype(name, 16)
            except OSError:
                continue
            nothing = bytes(font.getmask(_NO_SUCH_CHARACTER))
            missing = sum(bytes(font.getmask(character)) == nothing for character in self._characters)
            if missing == 0:
                return name
            found.append((missing, name))
        return min(found, key=lambda item: item[0])[1]


def plain(text: str) -> str:
    """Printable characters only: a control character has no shape to draw."""
    return "".join(character if character.isprintable() else " " for character in text)
