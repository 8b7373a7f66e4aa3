"""Help, version, exit codes, and errors without tracebacks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sweeper import __version__, errors
from sweeper.cli.assistant.cli_process import run_command
from sweeper.cli.assistant.workspace import Workspace
from sweeper.cli.command_table import COMMANDS
from sweeper.cli.main_group import make_group, report_failure
from sweeper.wording import join_names
from tests import ROOT


def run_python(code):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(sweeper, arguments):
    outcome = sweeper(*arguments)

    assert outcome.code == 0
    assert outcome.err == ""
    for name, (_, line) in COMMANDS.items():
        assert any(row.split() == [name, *line.split()] for row in outcome.out.splitlines())


def test_version_prints_one_line_on_stdout(sweeper):
    outcome = sweeper("--version")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"sweeper {__version__}\n"


@pytest.mark.parametrize("arguments", ["[]", "['--help']", "['--version']"])
def test_help_and_version_import_nothing_heavy(arguments):
    heavy = "{'click', 'rich', 'yaml', 'jinja2', 'jsonschema', 'numpy', 'pandas', 'PIL', 'httpx', 'asyncio', 'sqlite3'}"
    code = f"import sys; from sweeper.cli import main; main({arguments}); print(sorted({heavy} & set(sys.modules)))"

    done = run_python(code)

    assert done.stdout.splitlines()[-1] == "[]"


def test_plan_of_the_embedded_server_imports_no_pictures_and_no_http():
    heavy = "{'numpy', 'pandas', 'PIL', 'httpx', 'importlib.metadata', 'rich', 'starlette', 'sweeper.running.session'}"
    command = ["plan", str(ROOT / "experiments/quickstart.yaml")]
    code = f"import sys; from sweeper.cli import main; main({command}); print(sorted({heavy} & set(sys.modules)))"

    assert run_python(code).stdout.splitlines()[-1] == "[]"


def test_run_imports_what_pictures_need_after_its_first_job():
    heavy = "{'numpy', 'pandas', 'PIL', 'rich', 'pygments', 'starlette'}"
    modules = "sweeper.cli, sweeper.cli.commands.run, sweeper.running.session, httpx"
    code = f"""import sys, {modules}
from sweeper.images.metrics.registry import PIXEL_HASH, load_metrics
from sweeper.running.ask_judges import check_judges
check_judges({{}}, None)
load_metrics(["brightness", PIXEL_HASH])
print(sorted({heavy} & set(sys.modules)))"""

    assert run_python(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(sweeper, name):
    outcome = sweeper(name, "--help")

    assert (outcome.code, outcome.err) == (0, "")
    groups = {"template": ("slots", "new", "show"), "comfyui-extension": ("install", "uninstall")}
    for words in [[name, part] for part in groups.get(name, ())] or [[name]]:
        assert f"sweeper {' '.join(words)}" in sweeper(*words, "--help").out.split("Example:")[1]


def test_template_without_a_subcommand_prints_its_help(sweeper):
    assert sweeper("template") == sweeper("template", "--help")


def test_error_messages_cannot_control_the_terminal(capsys):
    report_failure(errors.UnreachableError("answered \x1b[2J\x07\x9b31m"))

    assert capsys.readouterr().err == "error: answered  [2J  31m\n"


def test_click_group_has_the_commands_of_the_table():
    assert make_group().list_commands(click.Context(make_group())) == list(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "error: no such command 'rnu'; did you mean 'run'?"),
        (["xyzzy"], f"error: no such command 'xyzzy'; allowed: {join_names(COMMANDS, 'xyzzy')}"),
        (["runs"], "error: Missing argument 'RESULTS'."),
        (["run", "x.yaml", "--concurency", "2"], "error: No such option '--concurency'. Did you mean '--concurrency'?"),
        (["run", "x.yaml", "--retries", "-1"], "error: Invalid value for '--retries': -1 is not in the range x>=0."),
        (
            ["run", "x.yaml", "--max-failures", "ten"],
            "error: Invalid value for '--max-failures': 'ten' is neither a count such as 3 nor a share such as 10%",
        ),
        (
            ["run", "x.yaml", "--max-failures", "110%"],
            "error: Invalid value for '--max-failures': '110%' is out of range: give at least 0, or 0% to 100%",
        ),
        (
            ["run", "x.yaml", "--fail-fast", "--max-failures", "1"],
            "error: --fail-fast and --max-failures both say when to stop; give one",
        ),
        (
            ["serve", "--dialect", "clod"],
            "error: Invalid value for '--dialect': 'clod' is not one of 'cloud', 'comfyui', 'v2'.",
        ),
        (["template", "nwe"], "error: no such command 'nwe'; did you mean 'new'?"),
    ],
)
def test_wrong_command_line_prints_one_line_and_exits_2(sweeper, arguments, message):
    outcome = sweeper(*arguments)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[0].startswith(message)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ExperimentError("x"), 2),
        (errors.TemplateError("x"), 2),
        (errors.UsageError("x"), 2),
        (errors.ResultsError("x"), 2),
        (errors.ImageError("x"), 2),
        (errors.UnreachableError("x"), 3),
        (errors.RefusedError("x"), 3),
        (errors.TransientError("x"), 3),
        (errors.RejectedError("x"), 1),
        (errors.LostError("x"), 1),
        (errors.SweeperError("x"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (PermissionError(13, "Permission denied", "x.csv"), 2),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_every_exception_has_an_exit_code_and_no_traceback(capsys, error, code):
    assert report_failure(error) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "Traceback" not in streams.err
    assert len(streams.err.splitlines()) == 1


def test_every_problem_is_printed_on_its_own_line(capsys):
    problems = [errors.Problem("b.yaml", 2, "run", "no"), errors.Problem("a.yaml", 1, "", "no")]

    report_failure(errors.ExperimentError(problems))

    assert capsys.readouterr().err == "error: a.yaml:1: no\nerror: b.yaml:2: run: no\n"


def test_unexpected_error_says_how_to_see_the_traceback(capsys, monkeypatch):
    report_failure(ZeroDivisionError("division by zero"))
    short = capsys.readouterr().err
    monkeypatch.setenv("SWEEPER_DEBUG", "1")
    report_failure(ZeroDivisionError("division by zero"))

    assert short == (
        "error: ZeroDivisionError: division by zero (a bug in sweeper; SWEEPER_DEBUG=1 shows the traceback)\n"
    )
    assert capsys.readouterr().err == f"ZeroDivisionError: division by zero\n{short}"


def test_closed_stdout_is_not_an_error():
    code = (
        "import subprocess as s, sys\n"
        "p = s.Popen([sys.executable, '-m', 'sweeper', '--help'], stdout=s.PIPE, stderr=s.PIPE)\n"
        "p.stdout.close(); print(p.wait(), p.stderr.read().decode())"
    )

    done = run_python(code)

    assert done.stdout.split() in (["141"], ["0"])  # 0: everything was written before the reader closed the pipe


def test_closed_stdout_on_windows_is_not_an_error():
    code = (
        "import errno, sys\n"
        "from sweeper.cli.main_group import report_failure\n"
        "sys.platform = 'win32'\n"
        "code = report_failure(OSError(errno.EINVAL, 'Invalid argument'))\n"
        "other = report_failure(OSError(errno.EINVAL, 'Invalid argument', 'a.png'))\n"
        "sys.stderr.write(f'{code} {other}')\n"
    )

    assert run_python(code).stderr == "error: a.png: Invalid argument\n141 2"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_an_old_encoding_of_the_console_spoils_no_output(process, encoding):
    options = {"env": {"PYTHONIOENCODING": encoding}, "program": sys.executable}
    shown = process("validate", "\u6771\u4eac.yaml", "--json", **options)
    assert json.loads(shown.out)[0]["file"] == "\u6771\u4eac.yaml"  # data is UTF-8 everywhere

    told = process("validate", "\u6771\u4eac.yaml", **options)
    assert (told.code, told.err) == (2, "error: \\u6771\\u4eac.yaml: there is no such file\n")


def test_a_command_of_an_assistant_speaks_utf_8_in_any_locale(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    with pytest.raises(errors.SweeperError, match="\u6771\u4eac\\.yaml: there is no such file"):
        asyncio.run(run_command(["validate", "\u6771\u4eac.yaml"], Workspace(Path.cwd())))
