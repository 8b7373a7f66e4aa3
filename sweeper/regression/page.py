"""A check as a small static page: base, now and their difference for every case that needs a look, the worst first.

It opens from disk, loads nothing from anywhere, and shows what files say as text only. The page of a whole sweep is
`sweeper.reporting`'s.
"""

from __future__ import annotations

import base64
import hashlib
import html
import shutil
from pathlib import Path
from typing import Final

from sweeper.errors import ResultsError
from sweeper.regression.comparison import Comparison, Comparisons

_FILES: Final = "files"
_GAIN: Final = 8  # differences are shown this many times as bright: one of 255 is visible then
_SUFFIXES: Final = frozenset(("png", "jpg", "jpeg", "webp", "gif", "bmp", "avif", "apng"))

_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem;background:#16181c;color:#e8e8e8}
h1{font-size:1.3rem} h2{font-size:1rem;margin:0 0 .3rem} p{margin:.2rem 0;color:#b9bec7}
section{border-top:1px solid #3a3f47;padding:1rem 0} section.chosen{outline:2px solid #6cf;outline-offset:.4rem}
.row{display:flex;gap:1rem;flex-wrap:wrap} figure{margin:0} figcaption{color:#b9bec7}
img{max-width:28vw;min-width:96px;image-rendering:pixelated;display:block}
.blink figure+figure+figure,.blink figure.hidden{display:none}
textarea{width:100%;height:6rem;background:#0e1013;color:#e8e8e8} button{font:inherit}
"""
_SCRIPT: Final = """
const sections=[...document.querySelectorAll('section')],list=document.querySelector('textarea'),taken=new Set();
let at=-1,timer=0;
function go(step){if(!sections.length)return;if(at>=0)sections[at].classList.remove('chosen');
at=Math.min(Math.max(at+step,0),sections.length-1);sections[at].classList.add('chosen');
sections[at].scrollIntoView({block:'nearest'})}
function take(){if(at<0)return;const name=sections[at].dataset.case;
taken.has(name)?taken.delete(name):taken.add(name);list.value=[...taken].join('\\n')}
function blink(){const on=document.body.classList.toggle('blink');clearInterval(timer);let turn=0;
const show=()=>{turn=1-turn;for(const s of sections){const f=s.querySelectorAll('figure');
if(f.length>1)f.forEach((x,i)=>x.classList.toggle('hidden',on&&i<2&&i!==turn))}};
if(on)timer=setInterval(show,600);else document.querySelectorAll('.hidden').forEach(x=>x.classList.remove('hidden'))}
document.addEventListener('keydown',e=>{if(e.target===list||e.ctrlKey||e.metaKey)return;
({j:()=>go(1),k:()=>go(-1),a:take,b:blink}[e.key]||(()=>{}))()});
document.querySelector('button').addEventListener('click',blink);
"""


def write_page(found: Comparisons, out: Path) -> Path:
    """Write `index.html` and its pictures into a folder, which is made; returns the page.

    Raises ResultsError when the folder cannot be written.
    """
    try:
        (out / _FILES).mkdir(parents=True, exist_ok=True)
        shown = [one for one in found if found.bad(one) or one.state != "same"]
        shown.sort(key=lambda one: -one.worst)
        sections = "".join(_section(one, place, out) for place, one in enumerate(shown))
        page = out / "index.html"
        page.write_text(_page(found, sections), encoding="utf-8", newline="\n")
    except OSError as error:
        raise ResultsError(f"{out}: the page cannot be written: {error.strerror or error}") from error
    return page


def _page(found: Comparisons, sections: str) -> str:
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src '{_source(_STYLE)}'; script-src '{_source(_SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count) or "no cases"
    servers = "".join(f"<p>{html.escape(told)} ({count} cases)</p>\n" for told, count in found.servers.items())
    verdict = "all is as accepted" if found.ok else "needs a look"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<title>{html.escape(found.experiment)}: check</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(found.experiment)}: {verdict}</h1>
<p>{counts}. Keys: j next, k back, b blink, a accept. <button type="button">blink</button></p>
{servers}{sections}
<h2>Accepted here</h2>
<p>Keep these names in a file and run: sweeper accept {html.escape(str(found.results))} --cases FILE</p>
<textarea aria-label="accepted cases" readonly></textarea>
<script>{_SCRIPT}</script></body></html>
"""


def _source(text: str) -> str:
    """A hash source of a Content-Security-Policy: only this very script and style count."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _section(one: Comparison, place: int, out: Path) -> str:
    figures = []
    for caption, path in (("base", one.accepted), ("now", one.now), ("difference", _difference(one, place, out))):
        if path is None or not path.is_file():
            continue
        name = f"{place}-{caption}{path.suffix}"
        if caption != "difference":
            shutil.copyfile(path, out / _FILES / name)
        what = (
            f'<img src="{_FILES}/{name}" alt="{caption}" loading="lazy">'
            if path.suffix[1:].lower() in _SUFFIXES
            else f'<a href="{_FILES}/{name}">{html.escape(name)}</a>'
        )
        figures.append(f"<figure>{what}<figcaption>{caption}</figcaption></figure>")
    told = [f"{one.state}: {one.reason}" if one.reason else one.state, one.verdict]
    told.append(", ".join(f"{name} {value:.4g}" for name, value in one.metrics.items()))
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in told if line)
    name = html.escape(one.case.name, quote=True)
    return f'<section data-case="{name}"><h2>{name}</h2>{lines}<div class="row">{"".join(figures)}</div></section>\n'


def _difference(one: Comparison, place: int, out: Path) -> Path | None:
    """Where and how much two pictures of one size differ, brightened; None where they cannot be laid together."""
    from PIL import Image, ImageChops  # noqa: PLC0415 - only where a page is written

    if one.accepted is None or one.now is None or not one.metrics:
        return None
    path = out / _FILES / f"{place}-difference.png"
    try:
        with Image.open(one.accepted) as base, Image.open(one.now) as now:
            difference = ImageChops.difference(base.convert("RGB"), now.convert("RGB"))
    except (OSError, ValueError):
        return None
    difference.point(lambda level: min(255, level * _GAIN)).save(path)
    return path
