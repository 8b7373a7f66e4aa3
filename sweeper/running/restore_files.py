"""Artifacts that are gone from the results folder, as when somebody deleted a picture: noticed, and fetched again.

A job that was paid for is not sent again for it: its server is asked for the file once more. What it does not have any
more is told, and `remake` submits those trials again. The embedded server ends with its run and costs nothing, so its
trials are simply done anew.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput
from sweeper.errors import JobError, TargetError, TransientError
from sweeper.model.target_spec import EMBEDDED
from sweeper.running.run_events import Notice
from sweeper.store import records
from sweeper.store.remote_artifacts import folder_for, is_url, list_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweeper.comfy.client import ComfyClient
    from sweeper.running.settings import EffectiveSettings
    from sweeper.store import Store
    from sweeper.store.artifacts import ArtifactFolder
    from sweeper.store.records import Artifact, JobRecord


class MissingFiles:
    """Finds the jobs that succeeded and whose files are not all there. `jobs` are those to be restored, `again` the
    number of those that the embedded server does anew because of that.
    """

    def __init__(self, store: Store | None, out: Path, settings: EffectiveSettings) -> None:
        self._store = store
        self._remake = settings.remake
        self._keep_temp = settings.keep_temp
        self._names_by_folder: dict[str, frozenset[str]] = {}  # names by folder or URL
        self.out = out
        self.jobs: list[tuple[JobRecord, tuple[Artifact, ...]]] = []
        self.redo_count = 0

    def __call__(self, job: JobRecord) -> bool:
        """Whether the job's work is to be done anew. One whose files can perhaps be had again is noted instead."""
        if job.state != records.SUCCEEDED or self._store is None:
            return False
        kept = self._store.artifacts(job.id)
        if not kept and self._keep_temp:  # previews were not asked for then; only a job made anew has them for sure
            return self._remake or job.target == EMBEDDED
        gone = [one for one in kept if not self._is_present(one.path)]
        if not gone:
            return False
        if self._remake:
            return True
        if job.target == EMBEDDED:
            self.redo_count += 1
            return True
        self.jobs.append((job, tuple(gone)))
        return False

    def _is_present(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names_by_folder:
            self._names_by_folder[folder] = list_names(folder) if is_url(folder) else _list_names(self.out / folder)
        return name in self._names_by_folder[folder]


def describe_regenerated(count: int) -> str:
    """What to say of so many trials of the embedded server whose files are gone."""
    return f"files of {count} trial{'s' if count > 1 else ''} are gone; the embedded server makes them again"


def describe_empty_trials(count: int, settings: EffectiveSettings) -> str:
    """What to say of so many trials that succeeded without a file, and what to do about it."""
    said = f"{count} trial{'s' if count > 1 else ''} succeeded and left no file to keep"
    if not settings.keep_temp:
        return f"{said}: add a node that saves, such as SaveImage, or keep previews with `--keep-temp --remake`"
    return (
        said if settings.remake else f"{said}; `--remake` does them again, should they have been done without previews"
    )


def _list_names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except FileNotFoundError:
        return frozenset()


async def restore(missing: MissingFiles, clients: Sequence[ComfyClient], report: Callable[[Notice], None]) -> None:
    """Fetch what is gone from the targets that answer to where it was, and tell what came of it. Raises ResultsError
    for our disk, or what is in its place.
    """
    by_name = {client.target.name: client for client in clients}
    fetched: Counter[tuple[str, str]] = Counter()
    failed: dict[tuple[str, str], list[str]] = {}
    for job, gone in missing.jobs:
        client = by_name.get(job.target)
        for artifact in gone:
            folder = folder_for(missing.out, artifact.path)
            reason = "it does not answer" if client is None else await _restore_artifact(client, job, artifact, folder)
            if reason is None:
                fetched[job.target, artifact.path.rpartition("/")[0]] += 1
            else:
                failed.setdefault((job.target, reason), []).append(artifact.path)
    for (target, place), count in fetched.items():
        report(Notice(f"{_describe_count(count)} gone from {place}/ and fetched again from {target}, at no cost"))
    for (target, reason), paths in failed.items():
        report(
            Notice(
                f"{_describe_count(len(paths))} gone and could not be fetched again from {target} ({reason}): "
                f"{paths[0]}"
                f"{', ...' if len(paths) > 1 else ''}; the rows stay, and `--remake` submits their trials again"
            )
        )


def _describe_count(count: int) -> str:
    return f"{count} file{'s were' if count > 1 else ' was'}"


async def _restore_artifact(
    client: ComfyClient, job: JobRecord, artifact: Artifact, folder: ArtifactFolder
) -> str | None:
    """Put one artifact back to its place; why not, for people, or None.

    By the server's own name for the file and not by the job: a restarted ComfyUI has forgotten its jobs and kept the
    files. The hash tells whether it is still the same one.
    """
    subfolder, _, filename = artifact.label.rpartition("/")
    reason = ""
    for category in ("output", "temp"):  # which of them it was is not on record
        output = JobOutput(artifact.node, artifact.kind, artifact.position, filename, subfolder, category)
        try:
            with folder.open_incoming(job.id, artifact.position) as file:
                found = await download(client, output, file)
                if found.sha256 != artifact.sha256:
                    reason = reason or "it has another file under that name now"
                    continue
                await asyncio.to_thread(folder.save, file, PurePosixPath(artifact.path).name)
                return None
        except (JobError, TargetError, TransientError) as error:
            reason = reason or str(error)
    return reason
