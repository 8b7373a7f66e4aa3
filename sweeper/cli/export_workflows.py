"""`sweeper plan --workflows DIR`: write every distinct workflow of a plan as a file that ComfyUI accepts.

A run does not use these files: it sends workflows with the server's names of the uploaded input files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.trial import Trial
from sweeper.model.workflow import compute_digest, encode_workflow, make_file_marker
from sweeper.planning.plan import Plan

_FILE_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}\.json")


class WorkflowFolder:
    """Writes workflows to a folder as `<index>-<first 8 digits of the digest>.json`, one file for each digest.

    `index` is that of the first trial with the digest. Input files keep their names from the experiment, so upload
    them before a server runs the workflow.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Raises OSError if the folder cannot be made or read."""
        self._plan = plan
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._existing_names = {path.name for path in folder.iterdir()}
        self._digests: set[int] = set()
        self.written_count = 0
        self.unchanged_count = 0

    def add(self, trial: Trial) -> None:
        """Write the trial's workflow, unless a trial with the same digest was added before.

        Raises UsageError if another file has its name.
        """
        short = int(trial.digest[:24], 16)  # 96 bits tell a million trials apart, in a third of the memory
        if short in self._digests:
            return
        self._digests.add(short)
        path = self._folder / f"{trial.index}-{trial.digest[:8]}.json"
        content = encode_workflow(self._plan.workflow(trial))
        if path.name in self._existing_names:
            self._existing_names.discard(path.name)
            if not self._is_workflow_of(path, trial):
                raise UsageError(f"{path}: exists, and is not this trial's workflow; give another folder")
            if path.read_bytes() == content:
                self.unchanged_count += 1
                return
        with atomic_write(path) as file:
            file.write(content)
        self.written_count += 1

    @property
    def unrelated_count(self) -> int:
        """How many workflow files in the folder do not belong to this plan, but to an earlier one."""
        return sum(1 for name in self._existing_names if _FILE_NAME.fullmatch(name))

    def _is_workflow_of(self, path: Path, trial: Trial) -> bool:
        """Whether the file's workflow has the trial's digest, which ignores layout, titles and names of input files."""
        try:
            graph = json.loads(path.read_text("utf-8"))
            for file in self._plan.files(trial):
                graph[file.node]["inputs"][file.input] = make_file_marker(file.sha256)
            return compute_digest(graph) == trial.digest
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return False  # another JSON file
