"""One point of a sweep, and the local files that its workflow reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the sweep.

    `index` is the 0-based position in written order. `params` has the value of every slot, `axes` the value or label of
    every axis, `columns` the axis cells of the table in order. `digest` (64 hex digits) identifies the workflow with
    the content of its input files: trials with the same digest give the same pictures.
    """

    index: int
    params: Mapping[str, Any]
    axes: Mapping[str, Any]
    digest: str
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A local file that the workflow of a trial reads at the input `input` of the node `node`.

    `value` is the file name in the workflow, `path` the file, `mask` the picture that masks it at the same input.
    """

    node: str
    input: str
    value: str
    path: Path
    sha256: str
    mask: InputFile | None = None

    @property
    def content_key(self) -> str:
        """The key of the uploaded content: see `make_content_key`."""
        return make_content_key(self.sha256, self.mask.sha256 if self.mask is not None else None)


def make_content_key(sha256: str, mask: str | None) -> str:
    """Return the key under which uploads are remembered: the SHA-256 of a file, and that of its mask if it has one."""
    return sha256 if mask is None else f"{sha256} {mask}"
