"""A client for people's own tests: a workflow in, its files out, without a word of asyncio.

It is a run of one trial in a folder of its own, so that whatever a run does (waiting, looking for lost jobs, fetching
and hashing) is done here too.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import ExecutionError, SweeperError

if TYPE_CHECKING:
    from sweeper.model.target_spec import NamedTargets, TargetSpec


class WorkflowClient:
    """Runs workflows on a target; what they give is put below `folder`. Raises what `sweeper.run` raises."""

    def __init__(self, target: TargetSpec, folder: Path, *, named: NamedTargets | None = None) -> None:
        self.target = target
        self._folder, self._named = folder, named
        self._count = itertools.count()

    def run(
        self, template: Mapping[str, Any] | str | os.PathLike[str], *, timeout: float | None = None, **params: Any
    ) -> tuple[Path, ...]:
        """Run a workflow, or a template with `params` for its slots, and wait; the files of its output nodes.

        `template`: a graph in API format, or the file of one. `timeout`: seconds that the job may run. Nothing is
        reused: each call is a job of its own. Raises ExecutionError when the job does not succeed.
        """
        from sweeper.model.result import SUCCEEDED  # noqa: PLC0415 - the network and pandas' kin, only where they are used
        from sweeper.running.run import run  # noqa: PLC0415
        from sweeper.store import Store  # noqa: PLC0415

        place = self._folder / f"call-{next(self._count)}"
        place.mkdir(parents=True)
        if isinstance(template, Mapping):
            (place / "workflow.json").write_text(json.dumps(template), encoding="utf-8")
            template = place / "workflow.json"
        experiment = {"name": place.name, "template": str(Path(template).resolve()), "params": params}
        (place / "experiment.yaml").write_text(json.dumps(experiment), encoding="utf-8")  # JSON is YAML
        limits = {} if timeout is None else {"timeout": timeout}
        out = place / "results"
        __tracebackhide__ = True  # pytest shows the line of the test that called, and the message
        try:
            ended = run(place / "experiment.yaml", self.target, out, named=self._named, handle_signals=False, **limits)
        except SweeperError as error:
            # The way through sweeper, pages of it, would hide that line; the message tells what is wrong and where.
            raise error.with_traceback(None) from None
        with Store.open(out, readonly=True) as store:
            (row,) = store.results(ended.run_id)
        if row.status != SUCCEEDED:
            said = row.error or ended.error or f"the job is {row.status}"
            raise ExecutionError(f"{row.error_type}: {said}" if row.error_type else said)
        return tuple(out / name for name in row.outputs)
