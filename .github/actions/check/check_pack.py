"""Check the workflows of a node pack on each ComfyUI, as experiments of one trial.

The code of the checkout runs in these ComfyUIs, so this step has no key, and `update_comment` is a step of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from action_inputs import find_outside, list_experiments, read_lines
from check_experiments import check, make_folder, report, report_mistake
from job_log import print_command, run_program

from sweeper.answers.render import escape_markdown
from sweeper.comfy.target import resolve_targets
from sweeper.errors import SweeperError
from sweeper.running.health import LaunchedServers

NAME = re.compile(r"\w[\w.-]*")  # of a ComfyUI, and of its folder
PATIENCE = 300.0  # seconds without an answer, or at the start without a new line in the log


@dataclass(frozen=True)
class Pack:
    """The folders of a node pack, of its workflows and of their baselines; and more options of `sweeper check`."""

    folder: Path
    workflows: Path
    baselines: Path
    options: list[str]


def main() -> int:
    pack, baselines = Path(os.environ["PACK"]), Path(os.environ.get("BASELINE") or "baselines")
    workflows = Path(os.environ.get("WORKFLOWS") or pack / "example_workflows")
    versions = [(name, Path(place)) for name, _, place in (line.partition("=") for line in read_lines("COMFYUI"))]
    if not versions or not all(NAME.fullmatch(name) and place != Path() for name, place in versions):
        return report_mistake("`comfyui` needs a line NAME=DIR for each ComfyUI, such as v0.33.0=.comfyui")
    if len({name.casefold() for name, _ in versions}) < len(versions):
        return report_mistake("two lines of `comfyui` have the same name; give each ComfyUI its own")
    if list_experiments():
        return report_mistake("`experiments` and `pack` are two checks; use a step each")
    if os.environ.get("API_KEY") or read_lines("TARGETS"):
        return report_mistake("`pack` runs the code of the checkout, so it takes neither `api-key` nor `target`")
    if outside := find_outside(pack, workflows, baselines):
        return report_mistake(f"{outside}: is a link that leads out of the checkout; replace it by the folder")
    try:
        options = shlex.split(os.environ.get("OPTIONS", ""))
    except ValueError as error:
        return report_mistake(f"`options` cannot be split into words: {error}")
    checks = Pack(pack.resolve(), workflows, baselines, options)
    checked: list[tuple[int, str]] = []
    for name, comfyui in versions:
        title = f"## ComfyUI {escape_markdown(name)}\n"
        try:
            found = asyncio.run(check_version(name, comfyui.resolve(), checks))
        except SweeperError as error:
            print_command("error", str(error))
            found = [(2, "It did not start; the log says why.\n")]
        checked += [(0, title), *found]
    return report(make_folder(), checked)


async def check_version(name: str, comfyui: Path, pack: Pack) -> list[tuple[int, str]]:
    """Check each workflow on one ComfyUI, which is started for that. Raises SweeperError if it does not start."""
    folder = make_folder() / name
    base = make_base(Path(tempfile.mkdtemp(prefix="comfyui-", dir=os.environ["RUNNER_TEMP"])), pack.folder, comfyui)
    # What runs in it should not write into the files by which a step speaks with its job.
    hidden = {word: "" for word in os.environ if word.startswith(("GITHUB_", "ACTIONS_", "RUNNER_"))}
    arguments = ["--base-directory", str(base)]
    settings = {"launch": str(comfyui), "name": name, "gpus": "cpu", "env": hidden, "args": arguments}
    (target,) = resolve_targets(settings, environ={})
    servers = LaunchedServers(folder, PATIENCE, lambda _: None)
    try:
        servers.start(target)
        await servers[name].wait_until_up()
        return await asyncio.to_thread(check_workflows, pack, servers[name].url, name, folder)
    finally:
        await servers.aclose()


def make_base(base: Path, pack: Path, comfyui: Path) -> Path:
    """Make a base directory for ComfyUI in an empty folder, with the pack as its only custom nodes, and its own models.

    An earlier step may have checked another pack, or another ComfyUI of the same name.
    """
    for name in ("custom_nodes", "input"):
        (base / name).mkdir()
    (base / "custom_nodes" / pack.name).symlink_to(pack, target_is_directory=True)
    (base / "models").symlink_to(comfyui / "models", target_is_directory=True)
    return base


def check_workflows(pack: Pack, url: str, name: str, folder: Path) -> list[tuple[int, str]]:
    """Check each workflow on the ComfyUI at a URL. Returns exit codes and summaries in Markdown."""
    written = folder / "init.json"
    print_command("group", f"the workflows in {pack.workflows} on ComfyUI {name}")
    # -P: a folder named sweeper in the repository is not the package.
    command = [sys.executable, "-P", "-m", "sweeper", "init", str(folder / "experiments"), "--json"]
    code = run_program([*command, "--each", str(pack.workflows), "--target", url], output=written)
    print_command("endgroup", "")
    if code:
        print_command(
            "error",
            f"the workflows in {pack.workflows} cannot be read; this log and {name}/logs in the artifact say why",
        )
        return [(code, f"No workflow was run (exit code {code}); the log says why.\n")]
    told = json.loads(written.read_text("utf-8"))
    left_out = [f"- {escape_markdown(item['workflow'])}: left out: {escape_markdown(item['reason'])}\n"
                for item in told["left_out"]]  # fmt: skip
    if not told["experiments"]:
        print_command("error", f"no workflow in {pack.workflows} can run on ComfyUI {name}: all are left out")
    checked = [(0 if told["experiments"] else 2, "".join(left_out))]
    target = json.dumps({"url": url, "name": f"ComfyUI {name}"})
    for experiment in told["experiments"]:
        workflow = Path(experiment).parent.name
        own = ["--target", target, "--baseline", str(pack.baselines / workflow)]
        checked.append(check(experiment, folder, [*own, *pack.options], workflow))
    return checked


if __name__ == "__main__":
    sys.exit(main())
