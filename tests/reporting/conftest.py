"""Reports of made-up sweeps, and their pages in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_sweeps import Sweep


@pytest.fixture
def made(tmp_path):
    """Write a Sweep and its report; returns the report's folder."""

    def make(sweep: Sweep, name: str = "results") -> Path:
        return write_report(sweep.write(tmp_path / name)).page.parent

    return make


WIDE = {"viewport": {"width": 1400, "height": 900}}


@pytest.fixture
def opened(lend_pages) -> Iterator[Any]:
    """Open a report's page; whatever it writes to the console, throws or asks of a network fails the test.

    Its options are those of `lend_pages`.
    """
    trouble: list[str] = []
    hear = {
        "console": lambda message: trouble.append(f"console: {message.text}"),
        "pageerror": lambda error: trouble.append(f"error: {error}"),
        "dialog": lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        "request": lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else trouble.append(r.url),
    }
    with lend_pages(hear) as lend:

        def visit(folder: Path, address: str = "", **options: Any) -> Any:
            page = lend(**{**WIDE, **options})
            file = f"{folder.as_uri()}/index.html"
            if page.url.partition("#")[0] == file:
                page.goto("about:blank")  # to change what is behind the `#` would not open the page again
            page.goto(f"{file}{address}")
            page.wait_for_function("() => document.querySelector('#view > *')")
            return page

        yield visit
    assert trouble == []


@pytest.fixture
def project(tmp_path):
    """A folder with a template that the embedded nodes run, and `experiment(more)`, which writes one over it."""
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    slots = {
        "width": {"at": "1.width"},
        "height": {"at": "1.height"},
        "color": {"at": "1.color"},
    }
    (tmp_path / "t.slots.yaml").write_text(json.dumps({"slots": slots}))

    def experiment(**more):
        file = tmp_path / "e.yaml"
        value = {"name": "e", "template": "t.json", "sweep": {"grid": {"width": [8, 16]}}, **more}
        value = {key: one for key, one in value.items() if one is not None}
        file.write_text(yaml.safe_dump(value))
        return file

    return experiment
