"""Rerunning trials from the page: one by a command, the kept ones by an experiment."""

from __future__ import annotations

import json
import shlex

import pytest

import sweeper
from sweeper.cli import main
from sweeper.cli.options import parse_settings
from sweeper.embedded import EmbeddedServer
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from tests.few_classes import pick_classes
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import read_all
from tests.reporting.page_modules import evaluate


@pytest.fixture
def embedded_comfyui():
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        yield server


def make_command(page, row):
    return evaluate(page, f"Workflow.makeCommand(sweeper.page.dataset, {row})")


def test_rerun_command_repeats_the_options_of_the_run(project, embedded_comfyui, tmp_path, opened):
    out = tmp_path / "results"
    asked = ["--target", embedded_comfyui.url, "--set", "color=255", "--set", "height=16"]
    assert main(["run", str(project()), "--out", str(out), *asked]) == 0
    page = opened(write_report(out).page.parent, "#trial=1")
    assert page.locator(".actions").get_by_role("button", name="Copy workflow").count() == 1
    words = shlex.split(make_command(page, 1))
    assert main(words[1:]) == 0
    with Store.open(out, readonly=True) as store:
        first, second = (list(store.results(run)) for run in (1, 2))
        assert [row.digest for row in first] == [row.digest for row in second]
        assert [job.run for job in store.jobs([first[1].digest])] == [1, 2]
        assert {job.target for job in store.jobs()} == {embedded_comfyui.url}


def test_page_explains_missing_rerun_command(project, tmp_path, opened):
    out = tmp_path / "results"
    assert sweeper.run(project(), "embedded", out).succeeded == 2
    file = project(params={"color": 9})  # now the experiment would run something else
    page = opened(write_report(out, tmp_path / "changed").page.parent, "#trial=1")
    assert "no rerun command: the experiment has changed since this run" in page.locator(".actions").inner_text()
    assert page.get_by_role("button", name="Copy rerun").count() == 0
    assert make_command(page, 1) is None
    file.unlink()
    page = opened(write_report(out, tmp_path / "gone").page.parent, "#trial=1")
    assert "the experiment can no longer be read" in page.locator(".actions").inner_text()


def test_indistinguishable_trial_has_no_rerun_command(made, opened):
    """Two lists, which the page cannot write as distinct Jinja2 literals."""
    page = opened(made(Sweep({"note": [[1], [2]]})))
    page.evaluate("sweeper.page.dataset.raw.workflow = {base: {}, changes: [], known: [1, 1]}")
    reason = evaluate(page, "Workflow.explainNoCommand(sweeper.page.dataset, 1)")
    assert reason == "no --where condition separates it from trial 0"


def test_kept_trials_use_the_targets_and_metrics_of_the_run(project, tmp_path, opened):
    out = tmp_path / "results"
    server = {"dialect": "comfyui", "api_key_env": "BOX_KEY", "concurrency": 2}
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as there:
        server["url"] = there.url
        as_run = {"target": "box", "metrics": ["brightness"], "run": {"retries": 0, "timeout": 9}}
        file = project(targets={"box": server}, **as_run)
        assert sweeper.run(file, out=out, environ={"BOX_KEY": "k"}).succeeded == 2
    spare = {"url": "http://127.0.0.1:9", "api_key_env": "sk_secret"}  # apparently not the name of a variable
    project(targets={"box": server, "spare": spare}, **as_run)
    page = opened(write_report(out).page.parent)
    page.evaluate("sweeper.page.marks.set(1, {verdict: 'keep'})")
    text = evaluate(page, "MarkExport.toYaml(sweeper.page.dataset, sweeper.page.marks)")
    assert "secret" not in text + (out / "report/data.js").read_text()
    (tmp_path / "kept.yaml").write_text(text)
    kept = sweeper.load(tmp_path / "kept.yaml")
    named = {"box": server, "spare": {"url": "http://127.0.0.1:9"}}
    assert (kept.targets, kept.named_targets, kept.metrics) == (("box",), named, ("brightness",))
    assert (kept.run.retries, kept.run.timeout, kept.params["width"]) == (0, 9, 16)
    assert "--target" not in make_command(page, 1)  # the experiment has the target, with its key


def test_kept_trials_go_to_the_target_given_to_the_run(project, embedded_comfyui, tmp_path, opened):
    out = tmp_path / "results"
    assert sweeper.run(project(), embedded_comfyui.url, out).succeeded == 2
    page = opened(write_report(out).page.parent)
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    (tmp_path / "kept.yaml").write_text(evaluate(page, "MarkExport.toYaml(sweeper.page.dataset, sweeper.page.marks)"))
    assert sweeper.load(tmp_path / "kept.yaml").targets == (embedded_comfyui.url,)


# What YAML takes for a line end, what it forbids, and what it reads differently at the start of a text.
ODD = "".join(map(chr, [*range(0x7F, 0xA1), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1F98A]))


def test_exported_yaml_preserves_any_characters(project, tmp_path, opened):
    texts = [f"\ufeffone{odd}two {odd}# three{odd}" for odd in ("\x85", "\u2028", ODD)]
    file = project(sweep={"grid": {"prefix": [*texts, "plain"]}}, name="odd")
    (tmp_path / "t.slots.yaml").write_text(json.dumps({"slots": {"prefix": {"at": "2.filename_prefix"}}}))
    out = tmp_path / "results"
    sweeper.run(file, out=out)
    page = opened(write_report(out).page.parent)
    page.evaluate(
        "text => [0, 1, 2].forEach(row => sweeper.page.marks.set(row, {verdict: 'keep', comment: text}))", ODD
    )
    (tmp_path / "kept.yaml").write_text(evaluate(page, "MarkExport.toYaml(sweeper.page.dataset, sweeper.page.marks)"))
    kept = sweeper.plan(sweeper.load(tmp_path / "kept.yaml"))
    assert [trial.params["prefix"] for trial in kept.written()] == texts


def list_marked(page):
    return read_all(page, ".cell.keep", "cells => cells.map(cell => cell.getAttribute('aria-label'))")


def test_marks_survive_a_larger_sweep_and_a_moved_folder(project, tmp_path, opened):
    """A key with the first trial's digest would lose all marks when a value is put in front."""
    out, again = tmp_path / "results", tmp_path / "moved"
    assert sweeper.run(project(), "embedded", out).succeeded == 2
    page = opened(write_report(out).page.parent)
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    assert sweeper.run(project(sweep={"grid": {"width": [4, 8, 16]}}), "embedded", out).succeeded == 3
    write_report(out)
    page.reload()
    page.wait_for_selector(".cell.keep")
    assert [text.split(",")[0:2] for text in list_marked(page)] == [["trial 1", " width: 8"]]
    out.rename(again)
    page.goto(f"{(again / 'report/index.html').as_uri()}")
    page.wait_for_selector(".cell.keep")
    other = tmp_path / "other"
    assert sweeper.run(project(), "embedded", other).succeeded == 2
    page.goto(f"{write_report(other).page.as_uri()}")
    page.wait_for_selector(".cell")
    assert list_marked(page) == []
    assert page.locator('#bar button[data-keep="Marks"]').text_content() == "Marks ▾"


@pytest.mark.parametrize("given", ["1e-05", 1e-05, 2**64 - 1, "yes", "", None, "a\nb: é", [1, 2], "\ud83d"])
def test_rerun_command_repeats_set_values_exactly(project, given, tmp_path, opened):
    """The command contains any override as `--set` reads it."""
    file = project(derive={"height": "{{ 16 if note is none else 8 }}"})
    out = tmp_path / "results"
    assert sweeper.run(sweeper.load(file, overrides={"note": given}), "embedded", out).succeeded == (
        4 if given == [1, 2] else 2
    )
    folder = write_report(out).page.parent
    options = json.loads((folder / "data.json").read_text())["asked"]["options"]
    if given == "\ud83d":
        assert options is None
        why = evaluate(opened(folder), "Workflow.explainNoCommand(sweeper.page.dataset, 0)")
        assert "--set gave this run cannot be written" in why
    else:
        assert parse_settings((options[1],)) == {"note": given}
