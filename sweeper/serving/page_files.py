"""The files of a page: its HTML, one script and one style sheet, joined from ES modules and imported sheets.

A page must also open from a disk, where browsers load no modules (an address with `file:` has no origin). So its
modules are joined into one classic script when it is written; in the source, editors and TypeScript know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

SHARED_PAGE: Final = Path(__file__).parent / "page"  # files that several pages use
_IMPORT: Final = re.compile(r'^import (?:\* as (\w+)|(\{[^}]*\})) from "([^"]+)";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_SHEET: Final = re.compile(r'^@import "([^"]+)";\n', re.MULTILINE)


def read_page(folder: Path) -> dict[str, str]:
    """Return the texts of `index.html` in a folder, its style sheet and its script, by file name."""
    return {
        "index.html": read_html(folder / "index.html"),
        "page.css": join_styles(folder / "css" / "main.css"),
        "page.js": join_script(folder / "js" / "main.js"),
    }


def read_html(path: Path) -> str:
    """The text of a page, with the icon of all pages in the place of none."""
    icon = quote((SHARED_PAGE / "icon.svg").read_text("utf-8"))
    return path.read_text("utf-8").replace('href="data:,"', f'href="data:image/svg+xml,{icon}"')


def join_styles(sheet: Path) -> str:
    """A style sheet with those that it imports in their places."""
    return _SHEET.sub(lambda found: join_styles(sheet.parent / found[1]), sheet.read_text("utf-8"))


@cache  # to join the script of a report takes longer than to write a small one
def join_script(main: Path) -> str:
    """A module and all that it imports as one classic script: each becomes a function that returns its exports.

    Raises RecursionError if modules import each other in a circle.
    """
    names: dict[Path, str] = {}
    return '"use strict";\n(() => {\n' + "".join(_iter_modules(main.resolve(), names)) + "})();\n"


def _iter_modules(path: Path, names: dict[Path, str]) -> Iterator[str]:
    """The parts of the script, imported modules first. `names`: the constants of the modules that stand before."""
    text = path.read_text("utf-8")
    imported = []
    for found in _IMPORT.finditer(text):
        target = (path.parent / found[3]).resolve()
        if target not in names:
            yield from _iter_modules(target, names)
        imported.append(f"const {found[1] or found[2]} = {names[target]};\n")
    names[path] = f"module{len(names)}"
    body = _EXPORT.sub("", _IMPORT.sub("", text))
    exports = ", ".join(found[1] for found in _EXPORT.finditer(text))
    yield f"// --- {path.name}\nconst {names[path]} = (() => {{\n"
    yield f"{''.join(imported)}{body}return {{ {exports} }};\n}})();\n"
