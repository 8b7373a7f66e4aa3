"""The fixture `sweeper_client` for users' own tests: it runs one workflow and returns its files.

Each call is a run of one trial in its own folder, so it has everything that a run has: waiting, retries, downloads.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import ExecutionError, SweeperError
from sweeper.model.result import SUCCEEDED
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.running.run import run
from sweeper.store import Store


class WorkflowClient:
    """Runs workflows on a target, with their files below `folder`. Raises what `sweeper.run` raises."""

    def __init__(self, target: TargetSpec, folder: Path, *, named: NamedTargets | None = None) -> None:
        self.target = target
        self._folder, self._named = folder, named
        self._count = itertools.count()

    def run(
        self, template: Mapping[str, Any] | str | os.PathLike[str], *, timeout: float | None = None, **params: Any
    ) -> tuple[Path, ...]:
        """Run a workflow, or a template with `params` for its slots, and return the files of its output nodes.

        `template` is a graph in API format, or its file. The job may run for `timeout` seconds. Each call runs a new
        job and reuses nothing. Raises ExecutionError if the job does not succeed.
        """
        folder = self._folder / f"call-{next(self._count)}"
        folder.mkdir(parents=True)
        if isinstance(template, Mapping):
            (folder / "workflow.json").write_text(json.dumps(template), encoding="utf-8")
            template = folder / "workflow.json"
        experiment = {"name": folder.name, "template": str(Path(template).resolve()), "params": params}
        file, out = folder / "experiment.yaml", folder / "results"
        file.write_text(json.dumps(experiment), encoding="utf-8")  # JSON is YAML
        options = {} if timeout is None else {"timeout": timeout}
        __tracebackhide__ = True  # so that pytest shows the calling line of the test, and our message
        try:
            ended = run(file, self.target, out, named=self._named, handle_signals=False, **options)
        except SweeperError as error:
            # The stack inside sweeper is pages long and would hide that line. The message says what is wrong and where.
            raise error.with_traceback(None) from None
        with Store.open(out, readonly=True) as store:
            (row,) = store.results(ended.run_id)
        if row.status != SUCCEEDED:
            message = row.error or ended.error or f"the job is {row.status}"
            raise ExecutionError(f"{row.error_type}: {message}" if row.error_type else message)
        return tuple(out / name for name in row.outputs)
