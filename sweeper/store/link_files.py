"""Put files into a folder as hard links, which need no space, or as copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def link_files(sources: Mapping[Path, str], folder: Path) -> None:
    """Link or copy files into a folder under these names.

    A file of the same size is kept, because neither artifacts nor files named by their content ever change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in sources.items():
        path = folder / name
        if path.is_symlink():  # not ours; a copy would go through it
            path.unlink()
        if path.exists():
            if path.samefile(source) or path.stat().st_size == source.stat().st_size:
                continue
            path.unlink()
        try:
            os.link(source, path)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, path)
