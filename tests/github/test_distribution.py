"""The sdist, the wheel, the container and the release: built from the tracked files, with other files among them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests import ROOT
from tests.conftest import ISSUERS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
BUILD = "python -m build --outdir dist ."
# What runs, tests and editors leave in a checkout, and no distribution may have.
LEFT_BEHIND = (
    "sweeper/__pycache__/cli.cpython-311.pyc",
    "sweeper/model/results/a.py",
    "experiments/results/quickstart/results.csv",
    ".venv/lib/sweeper.py",
    "dist/old.whl",
)


class Distributions(NamedTuple):
    """The files of a clone, and those of the sdist and the wheel that were built from it."""

    tracked: set[str]
    sdist: set[str]
    wheel: set[str]
    wheel_file: Path


def copy_tracked_files(folder: Path) -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone, to know which files belong to the project")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return tracked


def run_python(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    clone = tmp_path_factory.mktemp("clone")
    tracked = copy_tracked_files(clone)
    for name in LEFT_BEHIND:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("left behind")
    _, *words = shlex.split(BUILD)
    run_python(*words, "--no-isolation", cwd=clone)
    (sdist,) = clone.glob("dist/*.tar.gz")
    (wheel,) = clone.glob("dist/comfy_sweeper*.whl")
    with tarfile.open(sdist) as tar:
        in_sdist = {name.partition("/")[2] for name in tar.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        return Distributions(tracked, in_sdist, set(archive.namelist()), wheel)


def test_the_sdist_has_every_file_of_the_project_and_no_other(built: Distributions):
    assert built.sdist == built.tracked | {"PKG-INFO"}
    assert {"LICENSE", "templates/txt2img.json", "experiments/quickstart.yaml", ".github/CHANGELOG.md"} <= built.sdist


def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Distributions):
    info = f"comfy_sweeper-{PROJECT['version']}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert built.wheel == {name for name in built.tracked if name.startswith("sweeper/")} | about
    kinds = {name.rpartition(".")[2] for name in built.wheel}
    assert kinds >= {"py", "typed", "html", "css", "js", "json", "md"}


def test_the_wheel_works_and_says_its_version(built: Distributions, tmp_path: Path):
    with zipfile.ZipFile(built.wheel_file) as archive:
        archive.extractall(tmp_path)
        (metadata,) = [archive.read(name).decode() for name in built.wheel if name.endswith("/METADATA")]
    headers = Parser().parsestr(metadata)
    assert (headers["Name"], headers["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert set(headers.get_all("Provides-Extra") or ()) == PROJECT["optional-dependencies"].keys()
    # `-m` finds the package in the folder where it starts.
    assert run_python("-m", "sweeper", "--version", cwd=tmp_path) == f"sweeper {PROJECT['version']}\n"
    assert run_python("-m", "sweeper", "schema", "experiment", cwd=tmp_path).startswith(str(tmp_path))


def read_containerfile() -> list[tuple[str, str]]:
    """The instructions, as pairs of word and text."""
    text = (ROOT / ".github/Containerfile").read_text("utf-8").replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]  # type: ignore[misc]


def test_the_container_copies_all_that_the_build_needs(tmp_path: Path):
    tracked = copy_tracked_files(tmp_path / "clone")
    context = tmp_path / "context"
    for word, text in read_containerfile():
        if word == "COPY" and "--from" not in text:
            *sources, target = text.split()
            for source in sources:
                names = [name for name in tracked if name == source or name.startswith(f"{source}/")]
                assert names, source
                for name in names:
                    copied = context / (target if source == name else f"{target}{name.removeprefix(source)}")
                    copied = copied / name if target.endswith("/") else copied
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(tmp_path / "clone" / name, copied)
    run_python("-m", "hatchling", "build", "--target", "wheel", cwd=context)
    (wheel,) = context.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("sweeper/")}
    assert packed == {name for name in tracked if name.startswith("sweeper/")}


def test_the_container_runs_sweeper_as_an_ordinary_user():
    instructions = read_containerfile()
    last_stage = instructions[max(index for index, (word, _) in enumerate(instructions) if word == "FROM") :]
    words = dict(last_stage)
    assert yaml.safe_load(words["ENTRYPOINT"]) == list(PROJECT["scripts"])
    assert words["USER"] == "sweeper"
    assert "useradd" in words["RUN"]
    assert words["RUN"].split("&&")[0].split()[-1] == words["USER"]
    (extras,) = [text.partition("=")[2].split(",") for word, text in instructions if word == "ARG"]
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
    images = {text.split()[0] for word, text in instructions if word == "FROM"}
    assert images == {"python:3.13-slim"}


def list_commands(job: dict[str, Any]) -> list[str]:
    return [line for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_the_release_builds_as_this_test_does_and_tries_the_wheel():
    commands = list_commands(RELEASE["jobs"]["build"])
    assert BUILD in commands
    assert commands.index("python -m twine check --strict dist/*") > commands.index(BUILD)
    assert any("release_notes.py" in command for command in commands[: commands.index(BUILD)])
    assert "empty/bin/sweeper run experiments/quickstart.yaml" in commands


def test_jobs_of_the_release_have_only_the_permissions_they_need():
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert RELEASE["permissions"] == {}
    jobs = RELEASE["jobs"]
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "test": {"contents": "read"},
        "build": {"contents": "read", "id-token": "write", "attestations": "write"},
        "publish": {"id-token": "write"},
        "announce": {"contents": "write"},
    }
    assert (jobs["publish"]["needs"], jobs["publish"]["environment"]) == (["test", "build"], "pypi")
    assert list_commands(jobs["publish"]) == []  # no command of ours can publish something else
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    called = yaml.safe_load((ROOT / jobs["test"]["uses"]).read_text("utf-8"))
    assert "workflow_call" in called[True]


@pytest.fixture
def notes(tmp_path: Path):
    """Run release_notes.py for a tag, with another changelog; returns its exit code, its output and its error."""
    (tmp_path / ".github").mkdir()
    shutil.copy(ROOT / ".github/release_notes.py", tmp_path / ".github")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')

    def run(tag: str, changes: str) -> tuple[int, str, str]:
        (tmp_path / ".github/CHANGELOG.md").write_text(changes)
        command = [sys.executable, str(tmp_path / ".github/release_notes.py"), tag]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return run


def test_release_notes_are_the_section_of_the_version(notes):
    changes = "# Changes\n\n## [1.2.0] - 2030-01-02\n\n### Added\n\n- a thing\n\n## [1.1.9] - 2029-01-02\n\n- old\n"
    assert notes("v1.2.0", changes) == (0, "### Added\n\n- a thing\n", "")


def test_release_notes_refuse_a_wrong_tag_and_an_unfinished_section(notes):
    for tag, changes, message in (
        ("v1.3.0", "", "the tag is v1.3.0, but pyproject.toml has version 1.2.0"),
        ("v1.2.0", "## [1.1.0] - 2030-01-02\n\n- a\n", "no section of version 1.2.0"),
        ("v1.2.0", "## [1.2.0] - unreleased\n\n- a\n", "version 1.2.0 is dated unreleased"),
        ("v1.2.0", "## [1.2.0] - 2030-01-02\n\n## [1.1.0] - 2029-01-02\n\n- a\n", "version 1.2.0 is empty"),
    ):
        code, out, error = notes(tag, changes)
        assert (code, out) == (1, "")
        assert message in error


def test_the_changelog_has_a_section_of_the_current_version():
    changes = (ROOT / ".github/CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(.+)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert versions[0] == PROJECT["version"]
    assert len(versions) == len(re.findall(r"^## ", changes, re.MULTILINE))


@pytest.mark.parametrize("command", ["uvx --from {} sweeper --help", "pipx run --spec {} sweeper --help"])
def test_a_checkout_runs_without_being_installed(command, tmp_path):
    tool, *arguments = command.split()
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed; the job `places` of CI runs this")
    words = [tool, *(argument.format(ROOT) for argument in arguments)]
    registry = {name: text for name, text in os.environ.items() if name != "SSL_CERT_FILE"}
    if ISSUERS:
        registry["SSL_CERT_FILE"] = ISSUERS
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=registry, timeout=110, check=False)
    assert (done.returncode, "sweeper COMMAND [OPTIONS]" in done.stdout) == (0, True), done.stderr
