"""Write a verdict as one HTML file: the words, the table, and the pairs that differ most, side by side.

The pictures are in the file, so that it can be attached to anything. It needs no script and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path
from typing import Final

from sweeper.errors import ImageError, ResultsError
from sweeper.images.metrics.judge_messages import make_data_url
from sweeper.model.result import Result
from sweeper.regression.cases import format_cells
from sweeper.regression.verdict import TrialPair, Verdict
from sweeper.regression.verdict_pairs import SideTrials
from sweeper.regression.verdict_text import MARGINS, describe_metric, describe_pair, describe_verdict, list_metric_rows
from sweeper.store.remote_artifacts import download_artifacts, is_url, local_path

_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem 1.25rem; font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin: 1.5rem 0 0.2rem; }
p { margin: 0.2rem 0; } .words { font-weight: 600; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; white-space: nowrap; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.pair { display: flex; flex-wrap: wrap; gap: 0.8rem; margin-top: 0.4rem; }
figure { margin: 0; flex: 0 1 calc(50% - 0.4rem); max-width: 32rem; } figcaption { font-size: 0.85rem; }
img { display: block; max-width: 100%; }
"""  # noqa: E501 - a rule of a style stands on one line


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
    title = html.escape(describe_verdict(verdict))
    words = (html.escape(describe_metric(one, verdict)) for one in verdict.metrics)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in (*verdict.notes, MARGINS))
    rows = list_metric_rows(verdict)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row.values())}</tr>" for row in rows)
    pairs = "".join(_render_pair(verdict, pair) for pair in verdict.pairs)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<title>{title}</title><style>{_STYLE}</style></head><body><main>
<h1>{title}</h1>{"".join(f'<p class="words">{line}</p>' for line in words)}
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}
{pairs}</main></body></html>
"""


def _render_pair(verdict: Verdict, pair: TrialPair) -> str:
    sides = (("old", verdict.matched.old_side, pair.old), ("new", verdict.matched.new_side, pair.new))
    figures = "".join(
        f'<figure><img src="{url}" alt="{word}"><figcaption>{word}: {html.escape(side.label)}</figcaption></figure>'
        for word, side, row in sides
        if (url := _read_picture(side, row))
    )
    name, numbers = html.escape(format_cells(pair.cells)), html.escape(describe_pair(pair))
    return f'<section><h2>{name or "the only pair"}</h2><p>{numbers}</p><div class="pair">{figures}</div></section>\n'


def _read_picture(side: SideTrials, row: Result) -> str:
    """The first file of a trial as a data URL; empty if it is gone or not a picture."""
    if not row.outputs:
        return ""
    output, sha256 = row.outputs[0], row.sha256[0]
    if is_url(output):
        download_artifacts(side.folder.resolve(), [(output, sha256)])
    try:
        return make_data_url(local_path(side.folder, output, sha256))
    except ImageError:
        return ""
