"""Reports of made-up sweeps, and their pages open in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_sweeps import Sweep

from sweeper.reporting.folder import write_report


@pytest.fixture
def made(tmp_path):
    """Write a Sweep and its report; returns the report's folder."""

    def make(sweep: Sweep, name: str = "results") -> Path:
        return write_report(sweep.write(tmp_path / name)).page.parent

    return make


@pytest.fixture
def opened(browser) -> Iterator[Any]:
    """Open a report's page; whatever it writes to the console, throws or asks of a network fails the test."""
    contexts = []
    trouble: list[str] = []

    def visit(folder: Path, address: str = "", **options: Any) -> Any:
        options = {"viewport": {"width": 1400, "height": 900}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "blob:", "data:")) else None
        )
        page.goto(f"{folder.as_uri()}/index.html{address}")
        page.wait_for_selector("#view > *")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert trouble == []
