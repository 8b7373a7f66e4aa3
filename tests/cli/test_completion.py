"""`sweeper completion`: what the shells get, by click's protocol, and in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.platforms import needs_scripts

PLAIN = "template: t.json\nsweep: {grid: {seed: [1, 2]}}\nparams: {prompt: a}\nmetrics: [brightness]\n"


@pytest.fixture
def complete(sweeper, monkeypatch):
    """Complete the last word of a command line as bash would: the completions, in order."""

    def ask(line):
        words = line.split(" ")
        monkeypatch.setenv("_SWEEPER_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        outcome = sweeper()
        monkeypatch.delenv("_SWEEPER_COMPLETE")
        assert (outcome.code, outcome.err) == (0, "")
        return [text.partition(",")[2] for text in outcome.out.splitlines()]

    return ask


def test_commands_and_options_are_completed(complete):
    assert complete("sweeper re") == ["results", "report"]
    assert complete("sweeper run --ret") == ["--retries", "--retry-failed", "--retry-unknown"]
    assert complete("sweeper template s") == ["show", "slots"]


def test_targets_are_completed_from_the_targets_file(complete, tmp_path, monkeypatch):
    (tmp_path / "targets.yaml").write_text("studio: http://127.0.0.1:9\n")
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
    assert complete("sweeper run my.yaml --target ") == ["embedded", "cloud", "studio"]
    assert complete("sweeper run my.yaml --target st") == ["studio"]
    (tmp_path / "targets.yaml").write_text("studio: [")
    assert complete("sweeper run my.yaml --target ") == ["embedded", "cloud"]


def test_runs_and_columns_are_completed_from_the_results(complete, sweeper, write):
    assert "".join(complete("sweeper results shop.yaml --by ")) == ""  # at most: complete a file name
    assert sweeper("run", write(PLAIN), "--target", "embedded").code == 0
    assert sweeper("run", "shop.yaml").code == 0
    assert complete("sweeper results shop.yaml --run ") == ["2", "1"]
    assert complete("sweeper results shop.yaml --by se") == ["seed"]
    assert complete("sweeper results shop.yaml --pivot seed,pr") == ["seed,prompt"]
    assert complete("sweeper report results/shop --x b") == ["brightness"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(sweeper, shell):
    outcome = sweeper("completion", shell)
    assert outcome.code == 0
    assert f"_SWEEPER_COMPLETE={shell}_complete" in outcome.out


def test_an_unknown_shell_is_refused(sweeper):
    assert sweeper("completion", "tcsh").code == 2


def test_help_loads_nothing_that_only_completion_needs():
    code = (
        "import sys; from sweeper.cli import main; main(['init', '--help']); assert 'sweeper.store' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT, stdout=subprocess.DEVNULL)


@needs_scripts
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_printed_script(sweeper, tmp_path):
    Path("sweeper.bash").write_text(sweeper("completion", "bash").out)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sweeper").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m sweeper "$@"\n')
    (tmp_path / "bin/sweeper").chmod(0o755)
    script = (
        "source sweeper.bash; COMP_WORDS=(sweeper val); COMP_CWORD=1; "
        '_sweeper_completion sweeper; echo "${COMPREPLY[@]}"'
    )
    environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60, env=environ)
    assert done.stdout.split() == ["validate"], done.stderr
