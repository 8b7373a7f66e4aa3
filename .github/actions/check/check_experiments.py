"""Check each experiment, and write the results, pages and reports into one folder.

The exit code is the highest of the checks, so that a wrong experiment (2) is not hidden by a changed picture (1).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from action_inputs import find_outside, list_experiments, read_lines
from job_log import print_command, run_program

from sweeper.answers.render import escape_markdown
from sweeper.files import make_portable


def main() -> int:
    experiments, baseline = list_experiments(), os.environ.get("BASELINE")
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
    versions = [word for version in read_lines("COMFYUI") for word in ("--comfyui", version)]
    options += [*versions, "--launch", "{gpus: cpu}"] if versions else []
    options += ["--baseline", baseline] if baseline else []
    try:
        options += shlex.split(os.environ.get("OPTIONS", ""))
    except ValueError as error:
        return report_mistake(f"`options` cannot be split into words: {error}")
    folder = make_folder()
    return report(folder, [check(experiment, folder, options) for experiment in experiments])


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
    name = name or re.sub(r"[^\w.-]+", "-", re.sub(r"\.\w+$", "", experiment)).strip("-.")[:100]
    results = folder / (make_portable(name, "sweep") or "sweep")
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
