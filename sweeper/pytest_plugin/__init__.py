"""The pytest plugin: each case of an experiment is a test item that compares with its baseline, plus three fixtures.

pytest imports this module in every project where sweeper is installed. It loads nothing heavy and does nothing until an
experiment is named, in the ini option `sweeper_experiments` or by `--sweeper FILE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sweeper.embedded import EmbeddedServer
    from sweeper.pytest_plugin.items import ImageRegression, WorkflowClient

_EXPERIMENTS = pytest.StashKey[list[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sweeper", "regression tests for pictures")
    group.addoption("--sweeper", action="append", default=[], metavar="FILE", help="an experiment; may be repeated")
    group.addoption("--sweeper-target", action="append", default=[], metavar="TARGET", help="where to run it")
    group.addoption("--sweeper-accept", action="store_true", help="accept today's pictures as the baseline")
    group.addoption("--sweeper-accept-new", action="store_true", help="accept the pictures of cases that have none")
    parser.addini("sweeper_experiments", "experiments whose cases are tests", type="paths", default=[])


def pytest_configure(config: pytest.Config) -> None:
    from_options = [(config.invocation_params.dir / name).resolve() for name in config.getoption("sweeper")]
    from_ini = [path.resolve() for path in config.getini("sweeper_experiments")]
    experiments = list(dict.fromkeys((*from_options, *from_ini)))
    config.stash[_EXPERIMENTS] = experiments
    # If the user names test files, the experiments of the ini file are not wanted.
    names_files = config.args_source is pytest.Config.ArgsSource.ARGS
    wanted = from_options if names_files else experiments
    present = {(config.invocation_params.dir / arg).resolve() for arg in config.args if "::" not in arg}
    config.args += [str(path) for path in wanted if path not in present]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.resolve() not in parent.config.stash[_EXPERIMENTS]:
        return None
    from sweeper.pytest_plugin.items import ExperimentFile

    return ExperimentFile.from_parent(parent, path=file_path)


@pytest.fixture(scope="session")
def sweeper_server() -> Iterator[EmbeddedServer]:
    """A running embedded server with the API of Comfy Cloud, at `sweeper_server.url`."""
    from sweeper.embedded import EmbeddedServer

    with EmbeddedServer() as server:
        yield server


@pytest.fixture(scope="session")
def sweeper_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WorkflowClient:
    """Runs workflows and returns their files: `sweeper_client.run("template.json", steps=4)`.

    It uses the first `--sweeper-target`, or `sweeper_server` if there is none.
    """
    from sweeper.pytest_plugin.items import WorkflowClient

    targets = request.config.getoption("sweeper_target")
    target = targets[0] if targets else request.getfixturevalue("sweeper_server").url
    return WorkflowClient(target, tmp_path_factory.mktemp("sweeper"))


@pytest.fixture
def image_regression(request: pytest.FixtureRequest, tmp_path: Path) -> ImageRegression:
    """Compares a picture with an accepted file: `image_regression(image, ssim=">= 0.95")`.

    Without thresholds the pixels must be identical.
    """
    from sweeper.pytest_plugin.items import ImageRegression

    return ImageRegression(request, tmp_path)
