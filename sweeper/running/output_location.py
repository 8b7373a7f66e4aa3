"""Where a run writes: the results folder with the store and the table, and the pictures in it or at a URL."""

from __future__ import annotations

import os
from pathlib import Path

from sweeper.model.experiment import Experiment
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.remote_artifacts import RemoteFolder, check_url, is_url
from sweeper.tables.results_folder import default_results_folder


def resolve_output(out: str | os.PathLike[str] | None, experiment: Experiment) -> tuple[Path, str | None]:
    """Return the results folder, and the URL that pictures go to instead (None: they go to the folder).

    `out` may be a folder or a URL. Raises UsageError for a URL that cannot be used.
    """
    is_remote = isinstance(out, str) and is_url(out)
    url = str(out) if is_remote else experiment.run.out
    if url is not None:
        check_url(url)
    if out is None or is_remote:
        return default_results_folder(experiment.file, experiment.name), url
    return Path(out), url


def open_artifact_folder(out: Path, url: str | None) -> ArtifactFolder:
    """The folder that a run's pictures go to: in the results folder `out`, or at `url` if there is one."""
    return ArtifactFolder(out) if url is None else RemoteFolder(out, url)
