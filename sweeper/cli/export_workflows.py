"""`sweeper plan --workflows DIR`: every distinct workflow of a plan as a file that ComfyUI accepts.

Files are written as their trials pass, one at a time. What a run sends to a server is not made here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli.read_workflow import encode_workflow
from sweeper.errors import UsageError
from sweeper.model.workflow import compute_digest, make_file_marker
from sweeper.tables.export import atomic_write

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan

_FILE_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}\.json")


class WorkflowFolder:
    """A folder of `<index>-<first 8 digits of the digest>.json`; trials of one digest have one file, the first's name.

    Input files stand in them under their names as the experiment gives them: on a server they must be uploaded first.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Raises OSError when the folder cannot be made or read."""
        self._plan = plan
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._existing_names = set(os.listdir(folder))  # noqa: PTH208 - names only
        self._digests: set[int] = set()
        self.written_count = 0
        self.unchanged_count = 0

    def add(self, trial: Trial) -> None:
        """Write the trial's workflow unless its like is written.

        Raises UsageError when a file bears its name that is no workflow of that digest.
        """
        short = int(trial.digest[:24], 16)  # as in `foresight`: 96 bits, in a third of the memory of the text
        if short in self._digests:
            return
        self._digests.add(short)
        path = self._folder / f"{trial.index}-{trial.digest[:8]}.json"
        content = encode_workflow(self._plan.workflow(trial))
        if path.name in self._existing_names:
            self._existing_names.discard(path.name)
            if not self._is_workflow_of(path, trial):
                raise UsageError(f"{path}: there already, and it is not this trial's workflow; give another folder")
            if path.read_bytes() == content:
                self.unchanged_count += 1
                return
        with atomic_write(path) as file:
            file.write(content)
        self.written_count += 1

    @property
    def unrelated_count(self) -> int:
        """How many files with such names the folder holds beside the plan's own: an earlier plan's."""
        return sum(1 for name in self._existing_names if _FILE_NAME.fullmatch(name))

    def _is_workflow_of(self, path: Path, trial: Trial) -> bool:
        """Whether the file holds the work of this trial, whatever its layout, titles and names of input files."""
        try:
            graph = json.loads(path.read_text("utf-8"))
            for file in self._plan.files(trial):
                graph[file.node]["inputs"][file.input] = make_file_marker(file.sha256)
            return _is_graph(graph) and compute_digest(graph) == trial.digest
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return False


def _is_graph(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(node, Mapping) for node in value.values())
