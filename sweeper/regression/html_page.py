"""Write a check as a static HTML page: the accepted file, today's and their difference, the greatest difference first.

The page opens from disk, loads nothing from the network, and shows texts only as text. Its style and its script are in
`web/`. The page of a whole sweep is in `sweeper.reporting`.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import html
import re
import shutil
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from sweeper.errors import ImageError, ResultsError
from sweeper.images.compare import iter_frames
from sweeper.images.decoding import Pixels
from sweeper.images.file_types import FILM_TYPES, PICTURE_TYPES, SOUND_TYPES, TEXT_TYPES
from sweeper.images.pixel_distance import absolute_difference
from sweeper.regression.comparison import SAME, Comparison, Comparisons
from sweeper.regression.match_files import map_parallel
from sweeper.store.containment import refuse_links

_FILES_FOLDER: Final = "files"
_WEB_FOLDER: Final = Path(__file__).with_name("web")
_GAIN: Final = 8  # differences are shown this many times as bright, so that 1 of 255 is visible
_OUR_FILES: Final = re.compile(r"\d+-(base|now|difference)(\.\w+)?")
_MAX_LINES: Final = 400  # of the difference of two texts
_MODES: Final = (("side", "Side by side", "s"), ("blink", "Blink", "b"), ("slider", "Slider", "l"),
                 ("difference", "Difference", "d"))  # fmt: skip


def write_page(comparisons: Comparisons, out: Path) -> Path:
    """Write `index.html` and its files into a folder, which is created, and return the path of the page.

    Raises ResultsError if the folder cannot be written.
    """
    refuse_links(out / _FILES_FOLDER, out / "index.html")
    try:
        (out / _FILES_FOLDER).mkdir(parents=True, exist_ok=True)
        for old in (out / _FILES_FOLDER).iterdir():  # remove only what an earlier check wrote
            if _OUR_FILES.fullmatch(old.name):
                old.unlink()
        shown = [comparison for comparison in comparisons if comparison.state != SAME]
        shown.sort(key=lambda comparison: -comparison.severity)
        sections = map_parallel(lambda pair: _render_section(pair[1], pair[0], out), enumerate(shown))
        page = out / "index.html"
        page.write_text(_render_page(comparisons, "".join(sections)), encoding="utf-8", newline="\n")
    except OSError as error:
        raise ResultsError(f"{out}: the page cannot be written: {error.strerror or error}") from error
    return page


def _render_page(comparisons: Comparisons, sections: str) -> str:
    style, script = ((_WEB_FOLDER / name).read_text("utf-8") for name in ("check.css", "check.js"))
    policy = (
        "default-src 'none'; img-src 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'"
    )
    counts = ", ".join(f"{count} {state}" for state, count in comparisons.counts.items() if count) or "no cases"
    lines = [f"{counts}.", *(f"{servers} ({count} cases)." for servers, count in comparisons.servers.items())]
    lines += ["There is no baseline: nothing was compared."] if not comparisons.has_baseline else []
    lines += [f"The run ended early: {comparisons.stopped_by}."] if comparisons.stopped_by else []
    verdict = "everything is as accepted" if comparisons.ok else "review needed"
    title = html.escape(f"{comparisons.experiment}: {verdict}")
    buttons = "".join(
        f'<button type="button" data-look="{name}" aria-pressed="{str(name == "side").lower()}">{words}</button>'
        for name, words, _ in _MODES
    )
    keys = " ".join(f"<kbd>{key}</kbd> {words.lower()}" for _, words, key in _MODES)
    accept = html.escape(f"{comparisons.accept_command} --cases accepted.txt")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<title>{title}</title><style>{style}</style></head><body data-mode="side" data-key="{_page_key(comparisons)}">
<div class="top"><h1>{title}</h1>{"".join(f"<p>{html.escape(line)}</p>" for line in lines)}</div>
<div class="bar"><div class="modes">{buttons}</div>
<span><kbd>j</kbd> <kbd>k</kbd> next, back; {keys}; <kbd>a</kbd> accept</span></div>
<main>
{sections}</main>
<div class="accepted"><h2><span id="count">0</span> accepted here</h2>
<p>Nothing is written yet. Save this list and run: <code>{accept}</code></p>
<textarea aria-label="accepted cases" readonly></textarea>
<button type="button" id="save">Save the list</button> <button type="button" id="all">Accept all, or none</button></div>
<script>{script}</script></body></html>
"""


def _page_key(comparisons: Comparisons) -> str:
    """A key for the browser's storage, different for each check, so that a click on an old page does not count here."""
    content = "\n".join(
        f"{comparison.case.key} {comparison.digest} {comparison.state} {dict(comparison.metrics)}"
        for comparison in comparisons
    )
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _csp_hash(text: str) -> str:
    """A hash for the Content-Security-Policy, which allows exactly this script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _render_section(comparison: Comparison, index: int, out: Path) -> str:
    paths = {"base": comparison.accepted, "now": comparison.now}
    elements = {
        caption: _copy_and_render(path, f"{index}-{caption}", out)
        for caption, path in paths.items()
        if path is not None and path.is_file()
    }
    difference = _render_difference(comparison, index, out) if len(elements) == 2 else ""
    figures = [_render_figure(caption, element) for caption, element in elements.items()]
    figures += [_render_figure("difference", difference)] if difference else []
    stacked = difference.startswith("<img")
    if stacked:
        layers = "".join(text.replace("<img", f'<img class="{caption}"', 1) for caption, text in elements.items())
        slider = '<input type="range" min="0" max="100" value="50" aria-label="slider: base left, now right">'
        figures.append(f'<div class="stack"><div class="pile">{layers}</div>{slider}</div>')
    name = html.escape(comparison.case.name, quote=True)
    measures = ", ".join(f"{name} {value:.4g}" for name, value in comparison.metrics.items())
    lines = [("", comparison.reason), ("verdict", comparison.verdict), ("", measures)]
    paragraphs = "".join(f'<p class="{kind}">{html.escape(line)}</p>' for kind, line in lines if line)
    checkbox = '<label class="take"><input type="checkbox"> accept</label>' if "now" in elements else ""
    state = comparison.state if comparison.state.isalpha() else ""
    return (
        f'<section data-case="{name}" tabindex="-1"><div class="head"><h2>{name}</h2>'
        f'<span class="state {state}">{html.escape(comparison.state)}</span>{checkbox}</div>{paragraphs}'
        f'<div class="views{" both" if stacked else ""}">{"".join(figures)}</div></section>\n'
    )


def _render_figure(caption: str, text: str) -> str:
    kind = f"{caption} text" if text.startswith("<pre") else caption
    return f'<figure class="{kind}">{text}<figcaption>{caption}</figcaption></figure>'


def _copy_and_render(path: Path, name: str, out: Path) -> str:
    """Copy a file into the page's folder, and return the HTML element that shows it."""
    name += path.suffix
    shutil.copyfile(path, out / _FILES_FOLDER / name)
    address, file_type = f"{_FILES_FOLDER}/{html.escape(name, quote=True)}", path.suffix[1:].lower()
    if file_type in PICTURE_TYPES:
        return f'<img src="{address}" alt="{html.escape(name)}" loading="lazy">'
    if file_type in FILM_TYPES:
        return f'<video src="{address}" controls loop muted preload="metadata"></video>'
    if file_type in SOUND_TYPES:
        return f'<audio src="{address}" controls preload="metadata"></audio>'
    return f'<a href="{address}">{html.escape(name)}</a>'


def _render_difference(comparison: Comparison, index: int, out: Path) -> str:
    """An HTML element that shows how two files differ: a brightened picture, or the lines of two texts.

    Empty for other types, and for two pictures that cannot be compared.
    """
    assert comparison.accepted is not None
    assert comparison.now is not None
    file_type = comparison.now.suffix[1:].lower()
    if file_type in TEXT_TYPES:
        base, now = (path.read_text("utf-8", "replace").splitlines() for path in (comparison.accepted, comparison.now))
        lines = list(difflib.unified_diff(base, now, "base", "now", lineterm=""))[:_MAX_LINES]
        return f"<pre>{html.escape(chr(10).join(lines))}</pre>"
    if not comparison.metrics or file_type not in PICTURE_TYPES:
        return ""
    try:
        image = _difference_image(comparison.accepted, comparison.now)
    except ImageError:
        return ""
    name = f"{index}-difference.png"
    image.save(out / _FILES_FOLDER / name)
    return f'<img src="{_FILES_FOLDER}/{name}" alt="difference" title="{_GAIN} times as bright" loading="lazy">'


def _difference_image(accepted: Path, now: Path) -> Image.Image:
    """The difference of the first frames that differ, brightened, as an RGB image. Raises ImageError."""
    distance: Pixels = np.zeros((1, 1, 3))
    for old, new in zip(iter_frames(accepted), iter_frames(now), strict=False):
        distance = absolute_difference(old, new)
        if distance.any():
            break
    colour, alpha = (distance, None) if distance.shape[2] in (1, 3) else (distance[:, :, :-1], distance[:, :, -1:])
    wide = np.repeat(colour, 3 // colour.shape[2], axis=2).astype(np.float64)
    brightest = wide if alpha is None else np.maximum(wide, alpha)
    return Image.fromarray(np.clip(np.rint(brightest * _GAIN), 0, 255).astype(np.uint8))
