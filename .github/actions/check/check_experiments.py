"""Check each experiment, and write the results, pages and reports into one folder.

The exit code is the highest of the checks, so that a wrong experiment (2) is not hidden by a changed picture (1).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from action_inputs import find_outside, list_experiments, read_lines
from job_log import print_command, run_program

from sweeper.answers.render import escape_markdown
from sweeper.model.portable_names import make_portable

NAME = re.compile(r"\w[\w.-]*")  # of a ComfyUI, and of its folder


def main() -> int:
    experiments, baseline = list_experiments(), os.environ.get("BASELINE")
    if os.environ.get("PACK"):
        return (
            report_mistake("`experiments` and `pack` are two checks; use a step each") if experiments else check_pack()
        )
    if not experiments:
        return report_mistake("`experiments` is empty; write one path or pattern a line")
    if baseline and len(experiments) > 1:
        found = ", ".join(experiments)
        return report_mistake(
            f"`baseline` is the folder of one experiment, but there are several: {found}; use a step each"
        )
    if outside := find_outside(*experiments, *([baseline] if baseline else [])):
        return report_mistake(f"{outside}: is a link that leads out of the checkout; replace it by the file")
    options = [word for target in read_lines("TARGETS") for word in ("--target", target)]
    options += [word for version in read_lines("COMFYUI") for word in ("--comfyui", version)]
    options += ["--baseline", baseline] if baseline else []
    try:
        options += shlex.split(os.environ.get("OPTIONS", ""))
    except ValueError as error:
        return report_mistake(f"`options` cannot be split into words: {error}")
    folder = make_folder()
    return report(folder, [check(experiment, folder, options) for experiment in experiments])


def check_pack() -> int:
    """Check the workflows of a node pack on each ComfyUI, with a link to the pack in a base directory of its own."""
    pack, baselines = Path(os.environ["PACK"]), Path(os.environ.get("BASELINE") or "baselines")
    workflows = Path(os.environ.get("WORKFLOWS") or pack / "example_workflows")
    versions = [line.partition("=") for line in read_lines("COMFYUI")]
    if not versions or not all(NAME.fullmatch(name) and place for name, _, place in versions):
        return report_mistake(
            "`comfyui` needs a line NAME=DIR for each ComfyUI; a name has letters, digits, `.`, `-`, `_`"
        )
    if os.environ.get("API_KEY") or read_lines("TARGETS"):
        return report_mistake("`pack` runs the code of the checkout, so it takes neither `api-key` nor `target`")
    if outside := find_outside(pack, workflows, baselines):
        return report_mistake(f"{outside}: is a link that leads out of the checkout; replace it by the folder")
    folder = make_folder()
    checked: list[tuple[int, str]] = []
    for name, _, place in versions:
        base = make_base(Path(os.environ["RUNNER_TEMP"]) / "comfyui" / name, pack, Path(place))
        settings = {"launch": str(Path(place).resolve()), "name": name, "gpus": "cpu", "keep": True,
                    "args": ["--base-directory", str(base)]}  # fmt: skip
        checked += check_version(name, json.dumps(settings), workflows, baselines, folder)
    return report(folder, checked)


def make_base(base: Path, pack: Path, comfyui: Path) -> Path:
    """A base directory for ComfyUI, whose only custom nodes are a link to the pack, and whose models are its own."""
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    for link, place in ((base / "custom_nodes" / pack.resolve().name, pack), (base / "models", comfyui / "models")):
        if not link.is_symlink():
            link.symlink_to(place.resolve(), target_is_directory=True)
    return base


def check_version(name: str, target: str, workflows: Path, baselines: Path, folder: Path) -> Iterator[tuple[int, str]]:
    """Check each workflow on one ComfyUI. Yields exit codes and summaries in Markdown."""
    made = folder / name / "experiments"
    written = folder / name / "init.json"
    print_command("group", f"the workflows in {workflows} on ComfyUI {name}")
    command = [sys.executable, "-P", "-m", "sweeper", "init", str(made), "--each", str(workflows), "--target", target]
    code = run_program([*command, "--json"], output=written)
    print_command("endgroup", "")
    title = f"## ComfyUI {escape_markdown(name)}\n"
    if code:
        print_command("error", f"the workflows in {workflows} cannot be checked on ComfyUI {name}; the log says why")
        yield code, f"{title}\nNo workflow was run (exit code {code}); the log says why.\n"
        return
    told = json.loads(written.read_text("utf-8"))
    left_out = [f"- {escape_markdown(item['workflow'])}: left out: {escape_markdown(item['reason'])}"
                for item in told["left_out"]]  # fmt: skip
    if not told["experiments"]:
        print_command("error", f"every workflow in {workflows} is left out on ComfyUI {name}")
    yield 0 if told["experiments"] else 2, "\n".join([title, *left_out, ""])
    options = ["--target", target, *shlex.split(os.environ.get("OPTIONS", ""))]
    for experiment in told["experiments"]:
        workflow = Path(experiment).parent.name
        yield check(experiment, folder / name, [*options, "--baseline", str(baselines / workflow)], workflow)


def make_folder() -> Path:
    folder = Path(os.environ["RUNNER_TEMP"]) / os.environ["NAME"]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def report(folder: Path, checked: Sequence[tuple[int, str]]) -> int:
    """Write the summaries where the job and the comment need them. Returns the highest exit code."""
    text = "\n".join(text for _, text in checked)
    (folder / "summary.md").write_text(text, encoding="utf-8", errors="backslashreplace")
    append_to(os.environ["GITHUB_STEP_SUMMARY"], text)
    worst = max(code for code, _ in checked)
    append_to(os.environ["GITHUB_OUTPUT"], f"exit-code={worst}\nfolder={folder}\n")
    return worst


def check(experiment: str, folder: Path, options: list[str], name: str = "") -> tuple[int, str]:
    """Check one experiment; returns the exit code and the summary in Markdown. `name`: of its folder."""
    # The whole path, because `sweeper init` names every experiment experiment.yaml.
    name = name or re.sub(r"[^\w.-]+", "-", re.sub(r"\.\w+$", "", experiment)).strip("-.")
    results = folder / (make_portable(name[:100], "sweep") or "sweep")
    summary = results / "check.md"
    outputs = ["--out", results, "--html", results / "report", "--junit", results / "check.xml", "--summary", summary]
    environment = dict(os.environ)
    if key := environment.pop("API_KEY", ""):
        environment["COMFY_CLOUD_API_KEY"] = key
    print_command("group", f"sweeper check {experiment}")
    # -P: a folder named sweeper in the repository is not the package. --: the name of an experiment is no option.
    command = [sys.executable, "-P", "-m", "sweeper", "check", *map(str, outputs), *options, "--", experiment]
    code = run_program(command, env=environment)
    print_command("endgroup", "")
    if code:
        print_command("error", f"sweeper check {experiment} ended with exit code {code}")
    if summary.exists():
        return code, summary.read_text("utf-8")
    heading = f"### ❌ sweeper check: {escape_markdown(experiment)}"
    return code, f"{heading}\n\nNothing was compared (exit code {code}); the log says why.\n"


def report_mistake(text: str) -> int:
    """Show a mistake in the inputs; returns sweeper's exit code for those."""
    print_command("error", text)
    return 2


def append_to(file: str, text: str) -> None:
    """Append to a file that other steps of the job write too."""
    with Path(file).open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)


if __name__ == "__main__":
    sys.exit(main())
