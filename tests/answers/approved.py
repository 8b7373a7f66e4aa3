"""Answers in their approved words: `approved/NAME.txt` holds what a terminal, JSON, Markdown and HTML show of one.

`APPROVE_ANSWERS=1 pytest tests/answers` writes the files again; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from sweeper.answers.parts import Answer
from sweeper.answers.render import render_html, render_markdown, render_text, to_json

_FOLDER = Path(__file__).parent / "approved"


def check_approved(name: str, answer: Answer) -> None:
    """Compare all four forms of an answer with the approved file."""
    parts = tuple(answer.parts())
    forms = {
        "text": "\n".join(render_text(parts)),
        "markdown": render_markdown(parts),
        "html": render_html(parts).replace("<tr>", "\n<tr>"),
        "json": json.dumps(to_json(answer), ensure_ascii=False, indent=1, allow_nan=False),
    }
    found = "".join(f"=== {form}\n{text.rstrip()}\n\n" for form, text in forms.items())
    file = _FOLDER / f"{name}.txt"
    if os.environ.get("APPROVE_ANSWERS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")
