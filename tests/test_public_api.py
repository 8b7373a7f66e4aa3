"""The public names are few, resolved lazily, and none is the name of a module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import sweeper

MODULES = {path.stem for path in Path(sweeper.__file__).parent.iterdir()}


def test_the_public_names_are_few_and_sorted():
    assert list(sweeper.__all__) == sorted(sweeper.__all__)
    assert len(sweeper.__all__) <= 20


def test_every_public_name_resolves():
    for name in sweeper.__all__:
        assert getattr(sweeper, name).__name__ == name


def test_no_public_name_is_a_module():
    assert not set(sweeper.__all__) & MODULES


def test_an_unknown_name_raises_attribute_error():
    assert not hasattr(sweeper, "sweep_everything")


def test_importing_sweeper_imports_nothing_heavy():
    heavy = ["pandas", "numpy", "PIL", "httpx", "jinja2", "jsonschema", "sqlite3", "click", "rich", "starlette"]
    code = f"import sys, sweeper; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_loading_and_planning_need_no_pandas_and_no_network():
    heavy = ["pandas", "numpy", "PIL", "httpx", "sqlite3", "asyncio"]
    modules = "sweeper.loading.load, sweeper.planning.plan"
    code = f"import sys; import {modules}; print([n for n in {heavy!r} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
