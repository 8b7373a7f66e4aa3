"""Values that a notebook shows as HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar


class HtmlDisplay:
    """Base of the values that Jupyter and marimo show as HTML. `sweeper/__init__.py` sets `to_html`."""

    __slots__ = ()
    to_html: ClassVar[Callable[[object], str]] = repr

    def _repr_html_(self) -> str:
        return HtmlDisplay.to_html(self)
