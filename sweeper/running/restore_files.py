"""Finds artifacts that are missing from the results folder, for example because they were deleted, and restores them.

A paid job is not submitted again for that: its server is asked for the file once more. If the server no longer has it,
that is reported, and `remake` resubmits the trial. The embedded server ends with its run and costs nothing, so its
trials are simply executed again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput
from sweeper.errors import JobError, TargetError, TransientError
from sweeper.model.target_spec import EMBEDDED
from sweeper.running.run_events import Notice
from sweeper.running.settings import EffectiveSettings
from sweeper.store import Store, records
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.records import Artifact, ArtifactRef, JobRecord
from sweeper.store.remote_artifacts import folder_for, make_missing_finder
from sweeper.wording import count_things

_MAX_FAILURES_IN_A_ROW: Final = 3  # downloads from a target that does not respond, before the others are not tried


class MissingFiles:
    """Finds the jobs that succeeded but whose files are not all present.

    `jobs`: those to restore, with their missing artifacts. `redo_count`: how many the embedded server executes again.
    """

    def __init__(self, store: Store | None, out: Path, settings: EffectiveSettings) -> None:
        self._store = store
        self._remake = settings.remake
        self._keep_temp = settings.keep_temp
        self._find_missing = make_missing_finder(out, asks_storages=True)
        self._files: dict[str, tuple[ArtifactRef, ...]] | None = None  # by job; read once for all jobs
        self.out = out
        self.jobs: list[tuple[JobRecord, tuple[Artifact, ...]]] = []
        self.redo_count = 0

    def __call__(self, job: JobRecord) -> bool:
        """Whether to execute the job's trial again. If its files can perhaps be restored, adds it to `jobs` instead."""
        if job.state != records.SUCCEEDED or self._store is None:
            return False
        if self._files is None:
            self._files = self._store.load_job_files()
        paths = [file.path for file in self._files.get(job.id, ())]
        if not paths and self._keep_temp:  # it ran without keep_temp, and only another run surely gives previews
            return self._remake or job.target == EMBEDDED
        missing = self._find_missing(paths)
        if not missing:
            return False
        if self._remake:
            return True
        if job.target == EMBEDDED:
            self.redo_count += 1
            return True
        artifacts = (artifact for artifact in self._store.artifacts(job.id) if artifact.path in missing)
        self.jobs.append((job, tuple(artifacts)))
        return False


def describe_empty_trials(count: int, settings: EffectiveSettings) -> str:
    """Describe `count` trials that succeeded without a file, and say what to do about it."""
    message = f"{count_things(count, 'trial')} succeeded but saved no file"
    if not settings.keep_temp:
        return f"{message}: add a node that saves, such as SaveImage, or keep previews with `--keep-temp --remake`"
    if settings.remake:
        return message
    return f"{message}; if they ran without `--keep-temp`, run them again with `--remake`"


async def restore(missing: MissingFiles, clients: Sequence[ComfyClient], report: Callable[[Notice], None]) -> None:
    """Download the missing files again, each to its old path, and report the outcome.

    Raises ResultsError if a file cannot be written, or if another file is at its path.
    """
    by_name = {client.target.name: client for client in clients}
    restored: Counter[tuple[str, str]] = Counter()
    failed: dict[tuple[str, str], list[str]] = {}
    failures_in_a_row: Counter[str] = Counter()
    for job, artifacts in missing.jobs:
        for artifact in artifacts:
            client = by_name.get(job.target)
            folder = folder_for(missing.out, artifact.path)
            try:
                reason = "no response" if client is None else await _restore_artifact(client, job, artifact, folder)
                failures_in_a_row[job.target] = 0
            except (TargetError, TransientError) as error:
                reason = str(error)
                failures_in_a_row[job.target] += 1
                if failures_in_a_row[job.target] >= _MAX_FAILURES_IN_A_ROW:
                    by_name.pop(job.target, None)
            if reason is None:
                restored[job.target, artifact.path.rpartition("/")[0]] += 1
            else:
                failed.setdefault((job.target, reason), []).append(artifact.path)
    for (target, path), count in restored.items():
        files, were = ("1 file", "was") if count == 1 else (f"{count} files", "were")
        report(Notice(f"{files} missing from {path}/ {were} downloaded again from {target}, at no cost"))
    for (target, reason), paths in failed.items():
        files, are = ("1 file", "is") if len(paths) == 1 else (f"{len(paths)} files", "are")
        more = ", ..." if len(paths) > 1 else ""
        report(
            Notice(
                f"{files} {are} missing and could not be downloaded again from {target} ({reason}): {paths[0]}{more}; "
                "the rows stay, and `--remake` submits their trials again"
            )
        )


async def _restore_artifact(
    client: ComfyClient, job: JobRecord, artifact: Artifact, folder: ArtifactFolder
) -> str | None:
    """Download one artifact to its old path. Returns why the server does not have it, as a message, or None.

    Requests the file by the server's name for it and not through the job, because a restarted ComfyUI has forgotten its
    jobs but kept the files. The hash shows whether it is still the same file. Raises TransientError and TargetError.
    """
    subfolder, _, filename = artifact.label.rpartition("/")
    reason = ""
    for category in ("output", "temp"):  # the store does not record which of them it was
        output = JobOutput(artifact.node, artifact.kind, artifact.position, filename, subfolder, category)
        try:
            with folder.open_incoming(job.id, artifact.position) as file:
                fetched = await download(client, output, file)
                if fetched.sha256 != artifact.sha256:
                    reason = reason or "the server has another file of that name now"
                    continue
                await asyncio.to_thread(folder.save, file, PurePosixPath(artifact.path).name)
                return None
        except JobError as error:
            reason = reason or str(error)
    return reason
