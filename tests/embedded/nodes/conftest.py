"""A `Context` for running nodes, with temporary folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from sweeper.embedded.nodes import NODE_CLASSES
from sweeper.embedded.nodes.base import Interrupted

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class FolderContext:
    base: Path
    prompt: dict[str, Any] = field(default_factory=lambda: {"9": {"class_type": "SaveImage", "inputs": {}}})
    extra_pnginfo: dict[str, Any] = field(default_factory=dict)
    save_metadata: bool = True
    stop_at: int | None = None
    seen: list[tuple[int, int, tuple[int, int] | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in (self.input_dir, self.output_dir, self.temp_dir):
            folder.mkdir(exist_ok=True)

    @property
    def input_dir(self) -> Path:
        return self.base / "input"

    @property
    def output_dir(self) -> Path:
        return self.base / "output"

    @property
    def temp_dir(self) -> Path:
        return self.base / "temp"

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
