"""The test items and helpers of the plugin. Imported only where an experiment is named or a fixture is used.

An experiment runs once, when its first item does. With pytest-xdist the first worker that needs it runs and accepts it
for all workers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweeper.errors import ExecutionError, ResultsError, SweeperError
from sweeper.loading.load import load
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.picture_size import PICTURE_FORMATS
from sweeper.model.result import SUCCEEDED
from sweeper.planning.plan import Plan
from sweeper.regression.accept import accept
from sweeper.regression.baseline import default_folder, read_baseline
from sweeper.regression.cases import Case, format_cells, identify_points
from sweeper.regression.check import check, check_results
from sweeper.regression.comparison import Comparison, Comparisons, describe_case
from sweeper.regression.match_files import match_files, parse_threshold
from sweeper.running.folder_lock import LOCK_FILE_NAME, lock_folder
from sweeper.running.prepare import complete_experiment
from sweeper.running.run import run
from sweeper.store import Store
from sweeper.store.containment import refuse_links


class ExperimentFile(pytest.File):
    """An experiment. Its items are the cases of its baseline, and the trials that have no accepted picture yet."""

    def collect(self) -> Iterable[pytest.Item]:
        try:
            experiment = complete_experiment(load(self.path))
            baseline = read_baseline(default_folder(self.path, experiment.name), experiment.name)
            trials = identify_points(list(Plan(experiment).written()))
        except SweeperError as error:
            raise self.CollectError(str(error)) from error
        for key, entry in baseline.entries.items():
            yield CaseItem.from_parent(self, name=entry.case.name, point=entry.case.point, key=key)
        accepted = {entry.case.point for entry in baseline.entries.values()}
        for cells, point in trials:
            if point not in accepted:
                yield CaseItem.from_parent(self, name=f"{format_cells(cells)} [new]".lstrip(), point=point, key=None)

    @cached_property
    def by_name(self) -> dict[str, list[Comparison]]:
        """The comparisons by case key and by point, which differ: the first is a list, the other a mapping."""
        by_name: dict[str, list[Comparison]] = {}
        for comparison in self.comparisons:
            for name in (comparison.case.key, comparison.case.point):
                by_name.setdefault(name, []).append(comparison)
        return by_name

    @cached_property
    def comparisons(self) -> Comparisons:
        """The run of the experiment compared with its baseline. With an accept option, it is accepted first.

        With pytest-xdist, the first worker runs the experiment; the others compare its results.
        """
        out = self.path.parent / "results" / f"{self.path.stem}-pytest"
        session = getattr(self.config, "workerinput", {}).get("testrunuid")
        if session is None:
            return self._run_check(out)
        run_file = out / ".session" / f"{hashlib.sha256(session.encode()).hexdigest()[:16]}"
        with _wait_for_lock(run_file.parent):
            if run_file.is_file():
                return check_results(out, run=run_file.read_text("ascii"), fresh=True)
            for old in run_file.parent.glob("[0-9a-f]*"):
                old.unlink()
            comparisons = self._run_check(out)
            run_file.write_text(str(comparisons.run), "ascii")
            return comparisons

    def _run_check(self, out: Path) -> Comparisons:
        target = self.config.getoption("sweeper_target") or None
        comparisons = check(self.path, target=target, out=out, named=load_named_targets())
        if comparisons.stopped_by == "interrupt":
            raise KeyboardInterrupt
        accept_all, accept_new = self.config.getoption("sweeper_accept"), self.config.getoption("sweeper_accept_new")
        if accept_all or accept_new:
            accept(out, new_only=not accept_all, yes=accept_all)
            comparisons = check_results(out, run=comparisons.run, fresh=True)
        return comparisons


@contextmanager
def _wait_for_lock(folder: Path) -> Iterator[None]:
    """Lock a folder, after waiting until no other process has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder / LOCK_FILE_NAME)
    (folder / LOCK_FILE_NAME).touch()  # raise now if the folder cannot be written, instead of waiting for ever
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(folder, now=time.time()))
                break
            except ResultsError:
                time.sleep(0.1)
        yield


class CaseItem(pytest.Item):
    """One case (`key`), or a trial that has no accepted picture yet (`key` None)."""

    def __init__(self, *, point: str, key: str | None, **rest: Any) -> None:
        super().__init__(**rest)
        self._point, self._key = point, key

    def runtest(self) -> None:
        assert isinstance(self.parent, ExperimentFile)
        own = self.parent.by_name.get(self._point if self._key is None else self._key, [])
        if not own and not self.config.getoption("sweeper_accept"):  # accepting may have removed the case
            raise CaseFailedError(["not compared: the run has no result for this case"])
        failures = [comparison for comparison in own if self.parent.comparisons.is_blocking(comparison)]
        if failures:
            raise CaseFailedError(map(describe_case, failures))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, (CaseFailedError, SweeperError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class CaseFailedError(Exception):
    """A case differs from what was accepted."""

    def __init__(self, messages: Iterable[str]) -> None:
        super().__init__("\n\n".join(messages))


class WorkflowClient:
    """The value of the fixture `sweeper_client`. Each call is a run of one trial in its own folder below `folder`.

    So it has everything that a run has: waiting, retries, downloads. It can use the names in the user's targets file.
    """

    def __init__(self, target: str, folder: Path) -> None:
        self.target = target
        self._folder, self._named = folder, load_named_targets()
        self._count = itertools.count()

    def run(
        self, template: Mapping[str, Any] | str | os.PathLike[str], *, timeout: float | None = None, **params: Any
    ) -> tuple[Path, ...]:
        """Run a workflow, or a template with `params` for its slots, and return the files of its output nodes.

        `template` is a graph in API format, or its file. The job may run for `timeout` seconds. Each call runs a new
        job and reuses nothing. Raises ExecutionError if the job does not succeed, and what `sweeper.run` raises.
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


class ImageRegression:
    """The value of the fixture `image_regression`. The accepted files are in `baselines/` beside the test file."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self._config, self._tmp = request.config, tmp_path
        self._folder = request.path.parent / "baselines" / request.path.stem
        self._test = request.node.name

    def __call__(self, image: Any, name: str = "", **thresholds: str) -> None:
        """Compare a picture (a path, a Pillow image or an array of 0-255) with the accepted one.

        `name` distinguishes several pictures of one test, and `thresholds` are as in `checks`. Without an accepted
        picture the test fails; `--sweeper-accept` and `--sweeper-accept-new` accept it.
        """
        now = self._tmp / "image_regression.png"
        _save_png(image, now)
        cells = {"test": self._test, **({"name": name} if name else {})}
        accepted = self._folder / Case(cells, "image", 0).build_file_name("png")
        accept_all, accept_new = self._config.getoption("sweeper_accept"), self._config.getoption("sweeper_accept_new")
        if accept_all or (accept_new and not accepted.exists()):
            self._folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(now, accepted)
        if not accepted.exists():
            message = f"no picture was accepted yet ({accepted}); accept it with pytest --sweeper-accept-new"
            pytest.fail(message, pytrace=False)
        match = match_files(accepted, now, {measure: parse_threshold(text) for measure, text in thresholds.items()})
        if not match.passes:
            pytest.fail(f"{match.reason}\naccepted: {accepted}\nnow: {now}", pytrace=False)


def _save_png(image: Any, path: Path) -> None:
    if isinstance(image, (str, Path)):
        with Image.open(image, formats=PICTURE_FORMATS) as opened:
            opened.save(path)
    elif isinstance(image, Image.Image):
        image.save(path)
    else:
        Image.fromarray(np.asarray(image).astype(np.uint8)).save(path)
