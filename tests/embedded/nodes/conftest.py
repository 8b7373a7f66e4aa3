"""A `Context` for running nodes, with temporary folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.nodes import NODE_CLASSES, Interrupted

if TYPE_CHECKING:
    from pathlib import Path


class FolderContext(ServerFolders):
    __setattr__ = object.__setattr__  # a test may change what a frozen context holds

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.prepare()
        self.prompt: dict[str, Any] = {"9": {"class_type": "SaveImage", "inputs": {}}}
        self.extra_pnginfo: dict[str, Any] = {}
        self.stop_at: int | None = None
        self.seen: list[tuple[int, int, tuple[int, int] | None]] = []

    def check(self) -> None:
        if self.stop_at is not None and len(self.seen) >= self.stop_at:
            raise Interrupted

    def progress(self, value: int, maximum: int, preview: Any = None) -> None:
        self.seen.append((value, maximum, preview.size if preview is not None else None))
        self.check()

    def run(self, kind: str, **inputs: Any) -> Any:
        """Run a node. Returns its values, or the value itself if there is only one."""
        values = NODE_CLASSES[kind].run(self, **inputs).values
        return values[0] if len(values) == 1 else values

    def ui(self, kind: str, **inputs: Any) -> list[dict[str, str]]:
        return NODE_CLASSES[kind].run(self, **inputs).ui["images"]


@pytest.fixture
def context(tmp_path: Path) -> FolderContext:
    return FolderContext(tmp_path)
