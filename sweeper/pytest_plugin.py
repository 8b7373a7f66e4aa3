"""The pytest plugin: each case of an experiment is a test item, held to its baseline; and three fixtures.

pytest imports this file in every project where sweeper is installed, so it imports nothing of weight and does nothing
until an experiment is named: `sweeper_experiments` in the ini, or `--sweeper FILE`. The experiment runs once, when its
first item does; of several workers of pytest-xdist the first one to need it runs it, and accepts, for all of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sweeper.embedded import EmbeddedServer
    from sweeper.regression.comparison import Comparison, Comparisons
    from sweeper.regression.pytest_client import WorkflowClient

_EXPERIMENTS = pytest.StashKey[list[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sweeper", "holding pictures to their baseline")
    group.addoption("--sweeper", action="append", default=[], metavar="FILE", help="an experiment; may be repeated")
    group.addoption("--sweeper-target", action="append", default=[], metavar="TARGET", help="where to run it")
    group.addoption("--sweeper-accept", action="store_true", help="accept today's pictures as the baseline")
    group.addoption("--sweeper-accept-new", action="store_true", help="accept the pictures of cases that have none")
    parser.addini("sweeper_experiments", "experiments whose cases are tests", type="paths", default=[])


def pytest_configure(config: pytest.Config) -> None:
    named = [config.invocation_params.dir / name for name in config.getoption("sweeper")]
    listed = list(dict.fromkeys(path.resolve() for path in (*named, *config.getini("sweeper_experiments"))))
    config.stash[_EXPERIMENTS] = listed
    # Somebody who asks for one test file does not ask for the ini's experiments.
    everything = config.args_source is not pytest.Config.ArgsSource.ARGS
    wanted = listed if everything else [path.resolve() for path in named]
    present = {(config.invocation_params.dir / arg).resolve() for arg in config.args if "::" not in arg}
    config.args += [str(path) for path in wanted if path not in present]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.resolve() in parent.config.stash[_EXPERIMENTS]:
        return ExperimentFile.from_parent(parent, path=file_path)
    return None


class ExperimentFile(pytest.File):
    """An experiment; its items are the cases of its baseline, and the trials for which nothing was accepted yet."""

    _comparisons: Comparisons | None = None
    _by_name: dict[
        str, list[Comparison]
    ]  # by case key and by point, which are never equal: one is a list, one a mapping

    def collect(self) -> Iterable[pytest.Item]:
        from sweeper.errors import SweeperError  # noqa: PLC0415 - only where an experiment is named
        from sweeper.loading.load import load  # noqa: PLC0415
        from sweeper.planning.plan import plan  # noqa: PLC0415
        from sweeper.regression.baseline import default_folder, read_baseline
        from sweeper.regression.cases import format_cells, identify_points

        try:
            experiment = load(self.path)
            known = read_baseline(default_folder(self.path, experiment.name), experiment.name)
            trials = identify_points(list(plan(experiment).written()))
        except SweeperError as error:
            raise self.CollectError(str(error)) from error
        for key, entry in known.entries.items():
            yield CaseItem.from_parent(self, name=entry.case.name, point=entry.case.point, key=key)
        held = {entry.case.point for entry in known.entries.values()}
        for cells, point in trials:
            if point not in held:
                yield CaseItem.from_parent(self, name=f"{format_cells(cells)} [new]".lstrip(), point=point, key=None)

    def get_comparisons(self) -> Comparisons:
        """Run the experiment, once, and hold it against its baseline; accept first where that was asked for."""
        if self._comparisons is None:
            self._comparisons = self._check_once()
            self._by_name = {}
            for one in self._comparisons:
                for name in (one.case.key, one.case.point):
                    self._by_name.setdefault(name, []).append(one)
        return self._comparisons

    def comparisons_for(self, name: str) -> list[Comparison]:
        """What was found of a case, by its key, or of a point of the sweep."""
        self.get_comparisons()
        return self._by_name.get(name, [])

    def _check_once(self) -> Comparisons:
        out = self.config.rootpath / "results" / f"{self.path.stem}-pytest"
        session = getattr(self.config, "workerinput", {}).get("testrunuid")
        if session is None:
            return self._run_check(out)
        from sweeper.regression.check import check

        mark = out / ".session" / f"{hashlib.sha256(session.encode()).hexdigest()[:16]}"
        with _wait_for_lock(mark.parent):
            if mark.is_file():
                return check(out, run=mark.read_text("ascii"), fresh=True)
            for old in mark.parent.glob("[0-9a-f]*"):
                old.unlink()
            found = self._run_check(out)
            mark.write_text(str(found.run), "ascii")
            return found

    def _run_check(self, out: Path) -> Comparisons:
        from sweeper.cli.targets_file import load_named_targets  # noqa: PLC0415 - as above
        from sweeper.regression.accept import accept
        from sweeper.regression.check import check

        target = self.config.getoption("sweeper_target") or None
        found = check(self.path, target=target, out=out, named=load_named_targets())
        if found.stopped_by == "interrupt":
            raise KeyboardInterrupt
        everything, new = self.config.getoption("sweeper_accept"), self.config.getoption("sweeper_accept_new")
        if everything or new:
            accept(out, new_only=not everything, yes=everything)
            found = check(out, run=found.run, fresh=True)
        return found


@contextmanager
def _wait_for_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, after whoever holds it now."""
    from sweeper.errors import ResultsError  # noqa: PLC0415 - as above
    from sweeper.running.folder_lock import LOCK_FILE_NAME, lock_folder  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK_FILE_NAME).touch()  # so that a folder that cannot be written is an error and not a wait
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(folder, now=time.time()))
                break
            except ResultsError:
                time.sleep(0.1)
        yield


class CaseItem(pytest.Item):
    """One case (`key`), or a trial for which nothing was accepted yet (`key` None)."""

    def __init__(self, *, point: str, key: str | None, **rest: Any) -> None:
        super().__init__(**rest)
        self._point, self._key = point, key

    def runtest(self) -> None:
        assert isinstance(self.parent, ExperimentFile)
        found = self.parent.get_comparisons()
        mine = self.parent.comparisons_for(self._point if self._key is None else self._key)
        accepted = self.config.getoption("sweeper_accept")
        if not mine and not accepted:  # what was accepted away has no case any more
            raise CaseFailedError(["not compared: the run told nothing of this case"])
        bad = [one for one in mine if found.is_blocking(one)]
        if bad:
            raise CaseFailedError([_describe(one) for one in bad])

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from sweeper.errors import SweeperError  # noqa: PLC0415 - as above

        if isinstance(excinfo.value, (CaseFailedError, SweeperError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class CaseFailedError(Exception):
    """A case is not as it was accepted."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n\n".join(messages))


def _describe(one: Comparison) -> str:
    from sweeper.regression.junit import describe_case

    return describe_case(one)


@pytest.fixture(scope="session")
def sweeper_server() -> Iterator[EmbeddedServer]:
    """A running embedded server that speaks Comfy Cloud's API; `sweeper_server.url` is its address."""
    from sweeper.embedded import EmbeddedServer

    with EmbeddedServer() as server:
        yield server


@pytest.fixture(scope="session")
def sweeper_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WorkflowClient:
    """Runs workflows and gives their files: `sweeper_client.run("template.json", steps=4)`.

    On the first `--sweeper-target`; without one, on `sweeper_server`.
    """
    from sweeper.cli.targets_file import load_named_targets  # noqa: PLC0415 - only for who asks for it
    from sweeper.regression.pytest_client import WorkflowClient

    targets = request.config.getoption("sweeper_target")
    target = targets[0] if targets else request.getfixturevalue("sweeper_server").url
    return WorkflowClient(target, tmp_path_factory.mktemp("sweeper"), named=load_named_targets())


@pytest.fixture
def image_regression(request: pytest.FixtureRequest, tmp_path: Path) -> ImageRegression:
    """Holds a picture to an accepted file: `image_regression(image, ssim=">= 0.95")`; without bounds to its pixels."""
    return ImageRegression(request, tmp_path)


class ImageRegression:
    """`baselines/<test file>/<test>.png` beside the test file is what a picture must be like."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self._config, self._tmp = request.config, tmp_path
        self._folder = request.path.parent / "baselines" / request.path.stem
        self._test = request.node.name

    def __call__(self, image: Any, name: str = "", **bounds: str) -> None:
        """Compare a picture (a path, a Pillow image or an array of 0-255) with the accepted one.

        `name` tells several pictures of one test apart; `bounds` are those of `checks`. Fails the test where nothing
        was accepted; `--sweeper-accept` and `--sweeper-accept-new` accept it.
        """
        import shutil  # noqa: PLC0415 - as above

        from sweeper.regression.cases import Case
        from sweeper.regression.match_files import match_files
        from sweeper.regression.thresholds import parse_threshold

        now = self._tmp / "image_regression.png"
        _save_png(image, now)
        words = {"test": self._test, **({"name": name} if name else {})}
        accepted = self._folder / Case(words, "image", 0).build_file_name("png")
        accepting = self._config.getoption("sweeper_accept")
        if accepting or (self._config.getoption("sweeper_accept_new") and not accepted.exists()):
            self._folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(now, accepted)
        if not accepted.exists():
            pytest.fail(f"no picture was accepted yet ({accepted}); pytest --sweeper-accept-new does it", pytrace=False)
        found = match_files(accepted, now, {metric: parse_threshold(text) for metric, text in bounds.items()})
        if not found.passes:
            pytest.fail(f"{found.reason}\naccepted: {accepted}\nnow: {now}", pytrace=False)


def _save_png(image: Any, path: Path) -> None:
    import numpy as np
    from PIL import Image

    if isinstance(image, (str, Path)):
        with Image.open(image) as opened:
            opened.save(path)
    elif isinstance(image, Image.Image):
        image.save(path)
    else:
        Image.fromarray(np.asarray(image).astype(np.uint8)).save(path)
