"""One point of a sweep, and the local files that it reads. Values only; `planner` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the sweep.

    `index` is its 0-based place in written order, `params` every slot with its value, `axes` every axis with its
    value or label, `digest` the identity of the work (64 hex digits), `columns` the axis cells of the table in order.
    """

    index: int
    params: Mapping[str, Any]
    axes: Mapping[str, Any]
    digest: str
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A local file that a trial's workflow reads: its address, the value that stands there, and the file.

    `mask` is the picture that masks it, at the same address.
    """

    node: str
    input: str
    value: str
    path: Path
    sha256: str
    mask: InputFile | None = None

    @property
    def content_key(self) -> str:
        """What a server is to have in its place: see `content_of`."""
        return make_content_key(self.sha256, self.mask.sha256 if self.mask is not None else None)


def make_content_key(sha256: str, mask: str | None) -> str:
    """The name under which it is known what a server has of a file, alone or with a mask; both by their SHA-256."""
    return sha256 if mask is None else f"{sha256} {mask}"
