"""A check as a small static page: base, now and their difference for every case that needs a look, the worst first.

It opens from disk, loads nothing from anywhere, and shows what files say as text only. How it looks and what its keys
do is in `web/`; pictures are compared elsewhere, and the page of a whole sweep is `sweeper.reporting`'s.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import html
import re
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from sweeper.errors import ImageError, ResultsError
from sweeper.images.compare import iter_frames
from sweeper.images.decoding import Pixels
from sweeper.images.media import FILM_TYPES, SOUND_TYPES
from sweeper.images.pixel_distance import absolute_difference
from sweeper.regression.comparison import Comparison, Comparisons
from sweeper.regression.match_files import PICTURE_TYPES, TEXT_TYPES, map_parallel

_FILES_FOLDER: Final = "files"
_WEB_FOLDER: Final = Path(__file__).with_name("web")
_GAIN: Final = 8  # differences are shown this many times as bright: one of 255 is visible then
_OUR_FILES: Final = re.compile(r"\d+-(base|now|difference)(\.\w+)?")
_MAX_LINES: Final = 400  # of the difference of two texts
_MODES: Final = (("side", "Side by side", "s"), ("blink", "Blink", "b"), ("slider", "Slider", "l"),
                 ("difference", "Difference", "d"))  # fmt: skip


def write_page(found: Comparisons, out: Path) -> Path:
    """Write `index.html` and its pictures into a folder, which is made; returns the page.

    Raises ResultsError when the folder cannot be written.
    """
    try:
        (out / _FILES_FOLDER).mkdir(parents=True, exist_ok=True)
        for old in (out / _FILES_FOLDER).iterdir():  # what an earlier check left there, and nothing else
            if _OUR_FILES.fullmatch(old.name):
                old.unlink()
        shown = [one for one in found if found.is_blocking(one) or one.state != "same"]
        shown.sort(key=lambda one: -one.severity)
        sections = map_parallel(lambda pair: _render_section(pair[1], pair[0], out), enumerate(shown))
        page = out / "index.html"
        page.write_text(_render_page(found, "".join(sections)), encoding="utf-8", newline="\n")
    except OSError as error:
        raise ResultsError(f"{out}: the page cannot be written: {error.strerror or error}") from error
    return page


def _render_page(found: Comparisons, sections: str) -> str:
    style, script = ((_WEB_FOLDER / name).read_text("utf-8") for name in ("check.css", "check.js"))
    policy = (
        "default-src 'none'; img-src 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'"
    )
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count) or "no cases"
    told = [f"{counts}.", *(f"{one} ({count} cases)." for one, count in found.servers.items())]
    told += ["There is no baseline: nothing was compared."] if not found.has_baseline else []
    told += [f"The run ended early: {found.stopped_by}."] if found.stopped_by else []
    verdict = "all is as accepted" if found.ok else "needs a look"
    title = html.escape(f"{found.experiment}: {verdict}")
    looks = "".join(
        f'<button type="button" data-look="{name}" aria-pressed="{str(name == "side").lower()}">{words}</button>'
        for name, words, _ in _MODES
    )
    keys = " ".join(f"<kbd>{key}</kbd> {words.lower()}" for _, words, key in _MODES)
    accept = html.escape(f"{found.accept_command} --cases accepted.txt")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<title>{title}</title><style>{style}</style></head><body data-mode="side" data-key="{_page_key(found)}">
<div class="top"><h1>{title}</h1>{"".join(f"<p>{html.escape(line)}</p>" for line in told)}</div>
<div class="bar"><div class="modes">{looks}</div>
<span><kbd>j</kbd> <kbd>k</kbd> next, back; {keys}; <kbd>a</kbd> accept</span></div>
<main>
{sections}</main>
<div class="accepted"><h2><span id="count">0</span> accepted here</h2>
<p>Nothing is written yet. Save this list and run: <code>{accept}</code></p>
<textarea aria-label="accepted cases" readonly></textarea>
<button type="button" id="save">Save the list</button> <button type="button" id="all">Accept all, or none</button></div>
<script>{script}</script></body></html>
"""


def _page_key(found: Comparisons) -> str:
    """Another for each check: what was accepted of one is not taken for the next."""
    known = "\n".join(f"{one.case.key} {one.digest} {one.state} {dict(one.metrics)}" for one in found)
    return hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _csp_hash(text: str) -> str:
    """A hash source of a Content-Security-Policy: only this very script and style count."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _render_section(one: Comparison, index: int, out: Path) -> str:
    files = {"base": one.accepted, "now": one.now}
    found = {caption: path for caption, path in files.items() if path is not None and path.is_file()}
    shown = {caption: _copy_and_render(path, f"{index}-{caption}", out) for caption, path in found.items()}
    difference = _render_difference(one, index, out) if len(found) == 2 else ""
    figures = [_render_figure(caption, text) for caption, text in (*shown.items(), ("difference", difference)) if text]
    pile = bool(difference) and difference.startswith("<img")
    if pile:
        layers = "".join(text.replace("<img", f'<img class="{caption}"', 1) for caption, text in shown.items())
        slider = '<input type="range" min="0" max="100" value="50" aria-label="slider: base left, now right">'
        figures.append(f'<div class="stack"><div class="pile">{layers}</div>{slider}</div>')
    name = html.escape(one.case.name, quote=True)
    measures = ", ".join(f"{name} {value:.4g}" for name, value in one.metrics.items())
    lines = [("", one.reason), ("verdict", one.verdict), ("", measures)]
    told = "".join(f'<p class="{kind}">{html.escape(line)}</p>' for kind, line in lines if line)
    take = '<label class="take"><input type="checkbox"> accept</label>' if "now" in shown else ""
    state = one.state if one.state.isalpha() else ""
    return (
        f'<section data-case="{name}" tabindex="-1"><div class="head"><h2>{name}</h2>'
        f'<span class="state {state}">{html.escape(one.state)}</span>{take}</div>{told}'
        f'<div class="views{" both" if pile else ""}">{"".join(figures)}</div></section>\n'
    )


def _render_figure(caption: str, text: str) -> str:
    kind = f"{caption} text" if text.startswith("<pre") else caption
    return f'<figure class="{kind}">{text}<figcaption>{caption}</figcaption></figure>'


def _copy_and_render(path: Path, name: str, out: Path) -> str:
    """A copy of the file in the page's folder, and the element that shows it."""
    name += path.suffix
    shutil.copyfile(path, out / _FILES_FOLDER / name)
    address, kind = f"{_FILES_FOLDER}/{html.escape(name, quote=True)}", path.suffix[1:].lower()
    if kind in PICTURE_TYPES:
        return f'<img src="{address}" alt="{html.escape(name)}" loading="lazy">'
    if kind in FILM_TYPES:
        return f'<video src="{address}" controls loop muted preload="metadata"></video>'
    if kind in SOUND_TYPES:
        return f'<audio src="{address}" controls preload="metadata"></audio>'
    return f'<a href="{address}">{html.escape(name)}</a>'


def _render_difference(one: Comparison, index: int, out: Path) -> str:
    """Where and how much two files differ: a brightened picture, the lines of two texts; empty for other kinds, and
    where two pictures cannot be laid together.
    """
    assert one.accepted is not None
    assert one.now is not None
    kind = one.now.suffix[1:].lower()
    if kind in TEXT_TYPES:
        base, now = (path.read_text("utf-8", "replace").splitlines() for path in (one.accepted, one.now))
        lines = list(difflib.unified_diff(base, now, "base", "now", lineterm=""))[:_MAX_LINES]
        return f"<pre>{html.escape(chr(10).join(lines))}</pre>"
    if not one.metrics or kind not in PICTURE_TYPES:
        return ""
    try:
        levels = _difference_image(one.accepted, one.now)
    except ImageError:
        return ""
    name = f"{index}-difference.png"
    levels.save(out / _FILES_FOLDER / name)
    return f'<img src="{_FILES_FOLDER}/{name}" alt="difference" title="{_GAIN} times as bright" loading="lazy">'


def _difference_image(accepted: Path, now: Path) -> Any:
    """The difference of the first frame that has any, as an RGB image. Raises ImageError."""
    distance: Pixels = np.zeros((1, 1, 3))
    for one, other in zip(iter_frames(accepted), iter_frames(now), strict=False):
        distance = absolute_difference(one, other)
        if distance.any():
            break
    colour, alpha = (distance, None) if distance.shape[2] in (1, 3) else (distance[:, :, :-1], distance[:, :, -1:])
    wide = np.repeat(colour, 3 // colour.shape[2], axis=2).astype(np.float64)
    brightest = wide if alpha is None else np.maximum(wide, alpha)
    return Image.fromarray(np.clip(np.rint(brightest * _GAIN), 0, 255).astype(np.uint8))
