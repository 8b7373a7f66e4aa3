"""Run the steps of a composite action as a runner of GitHub does; actions of others are only recorded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# The Python of a job. pip starts but installs nothing, which would take the network and a minute. What is neither pip
# nor isolated is forked from a process that has imported sweeper, if `forks` is such a program.
_PYTHON = """#!/bin/sh
case "$*" in
  "-I -c "*) printf %%s "$0" ;;  # so that the action finds no pip which installs
  *"-m pip install"*) words="$*"; echo "$words" >> "$RUNNER_TEMP/installed"
    exec %(start)s ${words%%%%-m pip*} -m pip --version > /dev/null ;;
  *"-m pip cache dir") exec %(start)s "$@" ;;
  "-I "*) exec %(python)s "$@" ;;
  *) exec %(forks)s "$@" ;;
esac
"""


@dataclass
class Steps:
    """What became of the steps: the exit code of the first that failed, the log, the outputs, and the other actions."""

    code: int = 0
    log: str = ""
    values: dict[str, str] = field(default_factory=dict)  # such as `steps.check.outputs.exit-code`
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # other actions, with their inputs
    summary: str = ""
    installed: str = ""

    @property
    def commands(self) -> list[str]:
        """The lines of the log that a runner obeys; see ActionCommand.cs in actions/runner."""
        found: list[str] = []
        token = None
        for line in re.split(r"\r\n|\r|\n", self.log):
            text = line.lstrip()
            if token is not None:
                token = None if text == f"::{token}::" else token
            elif text.startswith("::stop-commands::"):
                token = text.removeprefix("::stop-commands::")
            elif re.match("::[a-z-]+[^:]*::", text) or "##[" in text:
                found.append(text)
        assert token is None, "no command after this is obeyed"
        return found

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs of the action."""
        return {
            name.removeprefix("outputs."): text for name, text in self.values.items() if name.startswith("outputs.")
        }


def run_action(
    folder: Path,
    cwd: Path,
    inputs: Mapping[str, str],
    github: Mapping[str, str],
    *,
    starts_pip: bool = False,
    forks: str | None = None,
    **variables: str,
) -> Steps:
    """Run the composite action in `folder`. `github` has the values of that context, such as `event_name`.

    Without `starts_pip`, its commands of pip are recorded and do nothing; pip takes half of the time of an action.
    `forks`: see `tests.cli.forked_commands`.
    """
    action = yaml.safe_load((folder / "action.yml").read_text("utf-8"))
    unknown = inputs.keys() - action["inputs"].keys()
    assert not unknown, unknown
    done = Steps()
    done.values |= {
        f"inputs.{name}": inputs.get(name, one.get("default", "")) for name, one in action["inputs"].items()
    }
    done.values |= {f"github.{name}": text for name, text in github.items()}
    temporary = cwd.parent / "runner"
    (temporary / "bin").mkdir(parents=True, exist_ok=True)
    programs = {
        "python": sys.executable, "start": sys.executable if starts_pip else "true", "forks": forks or sys.executable,
    }  # fmt: skip
    (temporary / "bin/python").write_text(_PYTHON % programs)
    (temporary / "bin/python").chmod(0o755)
    for number, step in enumerate(action["runs"]["steps"]):
        runs_after_failure = "!cancelled()" in step.get("if", "")
        if (done.code and not runs_after_failure) or not _evaluate(step.get("if", "true"), done.values):
            continue
        if "uses" in step:
            given = {key: _fill(str(text), done.values) for key, text in step["with"].items()}
            done.used.append((step["uses"], given))
            if "upload-artifact" in step["uses"]:
                done.values[f"steps.{step['id']}.outputs.artifact-url"] = "https://github.example/artifact/1"
            continue
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "values go through the environment, where they cannot be commands"
        files = {name: temporary / f"{name}-{number}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        environment = {
            **os.environ,
            **variables,
            **{name: str(file) for name, file in files.items()},
            "PATH": f"{temporary / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_ACTION_PATH": str(folder),
            "RUNNER_TEMP": str(temporary),
            "RUNNER_OS": "Linux",
            **({"TESTS_PYTHON": str(temporary / "bin/python")} if forks else {}),
            **{name: _fill(str(text), done.values) for name, text in step.get("env", {}).items()},
        }
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            errors="backslashreplace", timeout=100,
        )  # fmt: skip
        done.code = done.code or ran.returncode
        done.log += ran.stdout
        done.summary += files["GITHUB_STEP_SUMMARY"].read_text("utf-8")
        for line in files["GITHUB_OUTPUT"].read_text("utf-8").splitlines():
            name, _, text = line.partition("=")
            done.values[f"steps.{step['id']}.outputs.{name}"] = text
    done.values |= {f"outputs.{name}": _fill(one["value"], done.values) for name, one in action["outputs"].items()}
    if (temporary / "installed").exists():
        done.installed = (temporary / "installed").read_text("utf-8")
    return done


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda found: values.get(found[1], ""), text)


def _evaluate(condition: str, values: Mapping[str, str]) -> Any:
    """The value of an `if` that has only names, texts, `==`, `!=`, `&&` and `!cancelled()`."""
    text = re.sub(r"^\$\{\{(.*)\}\}$", r"\1", condition.strip(), flags=re.DOTALL).replace("!cancelled()", "true")
    tokens = re.findall(r"'[^']*'|[=!]=|&&|[\w.-]+|\S", text)
    words = {"&&": "and", "==": "==", "!=": "!=", "true": "True"}
    known = [words.get(one) or (one if one.startswith("'") else repr(values.get(one, ""))) for one in tokens]
    return eval(" ".join(known), {"__builtins__": {}})
