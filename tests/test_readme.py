"""The documentation is run, not trusted: the commands, Python, YAML, links and flags of README.md and of every page."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import sweeper
from sweeper.cli import main
from sweeper.cli.command_table import COMMANDS
from sweeper.embedded import Scenario
from sweeper.loading.targets_file import load_named_targets
from sweeper.schemas import find_schema_problems
from tests import ROOT

README = ROOT / "README.md"
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        ".github/*.md",
        "experiments/**/*.md",
        "templates/**/*.md",
        "sweeper/**/*.md",
        "tests/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
# Each starts something that does not end, needs another machine, or belongs to the reader.
ELSEWHERE = (
    "cloud",
    "http",
    "tcp:",
    "local:",
    "serve",
    "view",
    "--view",
    "my.yaml",
    "my-sweep",
    "broken.yaml",
    "DIR",
    "FILE",
)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.strip().splitlines()[0][:50]}"


def find_blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    fence = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [
        Block(page, language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for page in pages
        for indent, language, text in fence.findall(page.read_text("utf-8"))
        if language in languages
    ]


def find_commands(block: Block) -> Iterator[list[str]]:
    """The arguments of each `sweeper` command in a console block."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] == "sweeper":
                yield words[1:]


def name_of(value: object) -> str:
    return value.name if isinstance(value, Block) else str(value.relative_to(ROOT))  # type: ignore[attr-defined]


def click_command(words: list[str]) -> click.Command:
    command: click.Command = importlib.import_module(f"sweeper.cli.commands.{COMMANDS[words[0]][0]}").command
    if not isinstance(command, click.Group):
        return command
    return command.commands.get(words[1]) or command.commands["list"]  # `sweeper votes RESULTS`


def make_clone(tmp_path: Path) -> None:
    """Make what a reader has: the project's folders, a workflow of their own, and the experiment that README writes."""
    for folder in ("templates", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("baselines", "results"))
    shutil.copy(ROOT / "templates/txt2img.json", tmp_path / "my-workflow.json")
    (experiment,) = (block.text for block in find_blocks("yaml", pages=[README]) if "template:" in block.text)
    (tmp_path / "mine.yaml").write_text(experiment)
    (tmp_path / "experiments/drawbench.csv").write_text(
        'Prompts,Category\nA red colored car.,Colors\n"One car, on the street.",Counting\nTcennis.,Misspellings\n'
    )
    row = '{"prompt": "two cars", "atom_count": 2, "skills": ["count", "object"]}\n'
    for name in ("geneval2_data.jsonl", "prompts.jsonl"):
        (tmp_path / "experiments" / name).write_text(row)
    for name in ("quickstart", "lora-strengths"):  # soon made
        file = tmp_path / f"experiments/{name}.yaml"
        file.write_text(file.read_text("utf-8").replace("384", "32"), encoding="utf-8")
    search = tmp_path / "experiments/search.yaml"
    search.write_text(search.read_text("utf-8").replace("trials: 48", "trials: 16").replace("96", "32"), "utf-8")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_clone(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where README's first command was run, and a copy of that folder."""
    folder: Path = tmp_path_factory.mktemp("reader") / "clone"
    folder.mkdir()
    make_clone(folder)
    with contextlib.chdir(folder):
        assert main(["run", "experiments/quickstart.yaml"]) == 0
    return folder, Path(shutil.copytree(folder, folder.with_name("copy")))


@pytest.fixture
def finished_clone(kept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder after README's first command. It has one path for all tests, which the results name."""
    folder, copy = kept
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    monkeypatch.chdir(folder)
    return folder


def test_readme_has_two_set_up_commands_one_runs_one_tests():
    first, second = find_blocks("bash", pages=[README])
    assert "sweeper run" in first.text
    assert "pytest" in second.text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_short(page: Path):
    lines = page.read_text("utf-8").count("\n")
    assert lines <= (200 if page == README else 250)


def test_readme_links_every_page():
    text = README.read_text("utf-8")
    assert [name for page in PAGES if page != README and f"]({(name := name_of(page))})" not in text] == []


def heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in heading_anchors(target), link


def test_nothing_cites_a_document_outside_the_repository():
    names = re.compile(r"\b(CONTRACT|DESIGN|COMFY_API|COMFY_TODAY|COMFYUI_BEHAVIOUR|FIELD|STYLE|WRITING)(\.md)?\b")
    files = [*PAGES, *(ROOT / "sweeper").rglob("*.py"), *(ROOT / "experiments").glob("*.yaml")]
    cited = {path.relative_to(ROOT).as_posix(): names.findall(path.read_text("utf-8")) for path in files}
    assert {path for path, found in cited.items() if any(suffix or name.count("_") for name, suffix in found)} == set()


def test_readme_lists_every_command_and_no_other():
    listed = re.findall(r"^\| `sweeper ([\w-]+)", README.read_text("utf-8"), flags=re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("block", find_blocks("console"), ids=name_of)
def test_commands_and_their_flags_exist(block: Block):
    for words in find_commands(block):
        assert words[0] in COMMANDS, words
        options = {name for option in click_command(words).params for name in (*option.opts, *option.secondary_opts)}
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in options, f"{words[0]} has no {word}"


def test_every_flag_that_a_sentence_names_exists():
    known = {"--help", "--numprocesses", "--dist", "--editable", "--quiet", "--check", "--listen"}
    known |= {f"--cache-{kind}" for kind in ("classic", "lru", "none", "ram")}  # of ComfyUI
    known |= {"--high-ram", "--base-directory"}  # too
    for name in COMMANDS:
        command: Any = importlib.import_module(f"sweeper.cli.commands.{COMMANDS[name][0]}").command
        for one in (command, *getattr(command, "commands", {}).values()):
            known |= {opt for option in one.params for opt in (*option.opts, *option.secondary_opts)}
    plugin = (ROOT / "sweeper/pytest_plugin/__init__.py").read_text("utf-8")
    for page in PAGES:
        prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose)):
            assert flag in known or f'"{flag}"' in plugin, f"{name_of(page)}: {flag}"


def can_run_here(words: list[str]) -> bool:
    if words[0] == "vote" or any(word.startswith(ELSEWHERE) for word in words):
        return False
    paths = [word for word in words[1:] if "/" in word or word.endswith((".yaml", ".json"))]
    outputs = {
        words[at + 1]
        for at, word in enumerate(words[:-1])
        if word in ("-o", "--sheet", "--html", "--junit", "--summary")
    }
    return all(Path(path).exists() for path in paths if path not in outputs)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_run_in_its_order(page: Path, request: pytest.FixtureRequest, capsys: Any):
    request.getfixturevalue("finished_clone" if "experiments/quickstart.yaml" in page.read_text("utf-8") else "clone")
    for block in find_blocks("console", pages=[page]):
        for words in find_commands(block):
            if can_run_here(words):
                code = main(words)
                assert code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("block", find_blocks("python"), ids=name_of)
def test_python_runs_as_it_stands(block: Block, clone: Path):
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(clone)}
    command = [sys.executable, "-c", block.text]
    done = subprocess.run(command, capture_output=True, text=True, cwd=clone, check=False, timeout=100, env=environ)
    assert done.returncode == 0, done.stderr
    if block.page == README:
        assert done.stdout.startswith("12 trials\n")
        assert len(sweeper.results(clone / "experiments/quickstart.yaml")) == 12


@pytest.mark.parametrize("block", find_blocks("yaml"), ids=name_of)
def test_yaml_is_what_it_says(block: Block, clone: Path):
    value = yaml.safe_load(block.text)
    if value is None:  # a comment alone
        (schema,) = re.findall(r"\$schema=(\S+)", block.text)
        assert (block.page.parent / schema).exists()
    elif isinstance(value, list):  # steps of a GitHub workflow
        for step in value:
            assert shlex.split(step["run"])[0] in ("sweeper", "pip")
    elif {"jobs", "repos", "pictures"} & value.keys():
        pass  # workflows of GitHub, GitLab and pre-commit: tests/github runs them
    elif "template" in value:
        folder = clone / "experiments" if "../templates" in value["template"] else clone
        shutil.copy(clone / "templates/txt2img.json", clone / "templates/mine.json")
        shutil.copy(clone / "templates/txt2img.slots.yaml", clone / "templates/mine.slots.yaml")
        (folder / "written.yaml").write_text(block.text)
        listed = {"loras/mychar-*": ["mychar-step100.safetensors"]} if "models:" in block.text else {}
        experiment = sweeper.load(folder / "written.yaml", overrides=listed)
        if experiment.search is None:
            assert len(sweeper.plan(experiment)) > 0
        else:
            assert main(["search", str(folder / "written.yaml"), "--preview"]) == 0
    elif "slots" in value:
        assert find_schema_problems("slots", value) == []
    elif "checks" in value:
        quickstart = clone / "experiments/quickstart.yaml"
        quickstart.write_text(quickstart.read_text("utf-8") + block.text, encoding="utf-8")
        assert main(["validate", str(quickstart)]) == 0
    elif "seed" in value and "queue_bound" in value:
        assert Scenario.from_mapping(value).jobs_at_once == 3
    else:  # a targets file
        (clone / "targets.yaml").write_text(block.text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SWEEPER_TARGETS", str(clone / "targets.yaml"))
            assert list(load_named_targets()) == list(value)


def test_the_grammar_shows_the_written_order_and_all_forms():
    page = ROOT / "experiments/README.md"
    (text,) = [block.text for block in find_blocks("yaml", pages=[page]) if "sample:" in block.text]
    file = ROOT / "experiments/grammar-of-the-readme.yaml"
    try:
        file.write_text(text)
        plan = sweeper.plan(sweeper.load(file))
    finally:
        file.unlink()
    assert plan.axis_columns == ("subject", "style", "steps", "seed", "width", "height")
    assert len(plan) == 101
    table = page.read_text("utf-8").partition("| form | values |")[2]
    for form in ("from", "seeds", "lines", "csv", "jsonl", "files", "models", "choices", "label"):
        assert f"{form}:" in table


def test_every_dependency_has_its_reason():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    names = re.findall(
        r'^  "([a-z0-9-]+)[>=]', project[: project.index("[project.optional-dependencies]")], flags=re.MULTILINE
    )
    table = (ROOT / "sweeper/README.md").read_text("utf-8").partition("## Dependencies")[2]
    assert names
    for name in names:
        assert re.search(rf"\b{name}\b", table), name


# The first versions without known holes when the floors were last raised; CI asks pip-audit for newer ones.
FIRST_SAFE = {
    "aiohttp": "3.14.3", "click": "8.3.3", "h11": "0.16", "jinja2": "3.1.6", "pillow": "12.3",
    "python-multipart": "0.0.31", "starlette": "1.3.1", "distributed": "2026.1.1", "pyarrow": "23.0.1",
}  # fmt: skip


def test_no_allowed_dependency_has_a_known_hole():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    allowed = {item.name: item.specifier for item in map(Requirement, [*project["dependencies"], *extras])}
    for name, version in FIRST_SAFE.items():
        (floor,) = [part.version for part in allowed[name] if part.operator == ">="]
        assert Version(floor) >= Version(version), name


def test_ci_audits_the_oldest_and_the_newest_dependencies():
    audit = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]["audit"]
    assert audit["strategy"]["matrix"]["resolution"] == ["highest", "lowest-direct"]
    commands = " ".join(step.get("run", "") for step in audit["steps"])
    assert "pip-audit --strict" in commands
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert re.findall(r"--extra (\w+)", commands) == sorted(extras.keys() - {"test"})


def test_ci_runs_the_suite_on_every_system_and_hides_no_failure():
    text = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    systems = yaml.safe_load(text)["jobs"]["systems"]
    assert systems["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]
    (suite,) = (block.text for block in find_blocks("bash", pages=[README]) if "pytest" in block.text)
    command = suite.strip().splitlines()[-1].removeprefix(".venv/bin/")
    assert command in [step.get("run") for step in systems["steps"]]
    assert "continue-on-error" not in text
