"""Values that a notebook shows as HTML. `sweeper.reporting.notebook` makes the HTML, because it reads pictures."""

from __future__ import annotations

import importlib


class HtmlDisplay:
    """Base of the values that Jupyter and marimo show as HTML."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        # By name, because the values lie below everything that reads files, and few programs need it.
        text: str = importlib.import_module("sweeper.reporting.notebook.value_html").to_html(self)
        return text
