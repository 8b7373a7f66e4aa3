"""Where a run's results go: the folder with the store and the table, and the pictures there or at a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.remote_artifacts import RemoteFolder, check_url, is_url

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment


def resolve_output(out: str | os.PathLike[str] | None, experiment: Experiment) -> tuple[Path, str | None]:
    """The results folder, and the URL where pictures go instead, if they do; `out` may be either. Raises UsageError
    for a URL that cannot be used.
    """
    elsewhere = isinstance(out, str) and is_url(out)
    url = str(out) if elsewhere else experiment.run.out
    if url is not None:
        check_url(url)
    return Path("results") / experiment.name if out is None or elsewhere else Path(out), url


def open_artifact_folder(out: Path, url: str | None) -> ArtifactFolder:
    """Where the pictures of a run go."""
    return ArtifactFolder(out) if url is None else RemoteFolder(out, url)
