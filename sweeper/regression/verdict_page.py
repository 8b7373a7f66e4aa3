"""Write a verdict as one HTML file: the words, the table, and the pairs that differ most, side by side.

The pictures are in the file, so that it can be attached to anything. It needs no script and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Final

from sweeper.answers.parts import Line
from sweeper.answers.render import render_html
from sweeper.errors import ResultsError
from sweeper.regression.verdict import MARGINS, Verdict

_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem 1.25rem; font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.2rem; } h2, h3 { font-size: 1rem; margin: 1.5rem 0 0.2rem; }
main div { margin: 0.2rem 0; } .words { font-weight: 600; }
table { display: block; overflow-x: auto; margin: 0.8rem 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; white-space: nowrap; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
section div:last-child { display: flex; flex-wrap: wrap; gap: 0.8rem; margin-top: 0.4rem; }
figure { margin: 0; flex: 0 1 calc(50% - 0.4rem); max-width: 32rem; } figcaption { font-size: 0.85rem; }
img { display: block; max-width: 100%; }
"""  # noqa: E501 - a rule of a style stands on one line
_STYLE_ATTRIBUTE: Final = re.compile(
    ' style="[^"]*"'
)  # the policy forbids them; a text has no quote that is not escaped


def write_verdict_page(verdict: Verdict, file: Path) -> None:
    """Write the page. Raises ResultsError if that fails, or if a storage does not give a picture."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_render_page(verdict), encoding="utf-8", newline="\n")
    except OSError as error:
        raise ResultsError(f"{file}: the page cannot be written: {error.strerror or error}") from error


def _render_page(verdict: Verdict) -> str:
    style_hash = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-{style_hash}'"
    title = html.escape(verdict.describe())
    notes = map(Line, (*verdict.notes, MARGINS))
    pairs = "".join(f"<section>{render_html(pair.parts())}</section>\n" for pair in verdict.largest)
    body = f"""<div class="words">{render_html(verdict.list_items())}</div>
{render_html([verdict.tabulate(), *notes])}
{f"<h2>The pairs that differ most</h2>{pairs}" if pairs else ""}"""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<title>{title}</title><style>{_STYLE}</style></head><body><main>
<h1>{title}</h1>{_STYLE_ATTRIBUTE.sub("", body)}</main></body></html>
"""
