"""Runs that `sweeper open` starts: the question about money, the report, Ctrl-C, and the runs of other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from sweeper.cli import main
from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.running.folder_lock import is_locked, lock_folder
from tests.editing.conftest import EXPERIMENT, Page
from tests.waiting import read_line, wait_until

TARGETS = 'box: {{url: "{url}", price: {{per_job: 2 USD}}}}\n'
SLOW = EXPERIMENT.replace("steps: [2, 4]", "seed: {seeds: 40}\n    steps: [3]")


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A server on which each job costs 2 USD, as the target `box` of the user."""
    with EmbeddedServer(dialect="comfyui") as server:
        targets = tmp_path / "targets.yaml"
        targets.write_text(TARGETS.format(url=server.url))
        monkeypatch.setenv("SWEEPER_TARGETS", str(targets))
        yield server


def has_ended(state):
    return state["run"] is not None and state["run"]["state"] == "ended"


def run(page, status=200, kind="run", **more):
    return page.post("run", status, version=page.state["version"], kind=kind, **more)


def ask(page, **more):
    """The question about money of a run, which ends with it."""
    run(page, **more)
    state = page.follow(has_ended)
    assert state["run"]["exit_code"] == 4, state["run"]
    return state["run"]["question"]


def test_a_run_is_the_command_and_turns_into_the_report(open_page, write):
    page = open_page(write())
    page.follow()
    state = run(page)["run"]
    assert (state["state"], state["kind"], state["command"]) == ("running", "run", "sweeper run mine/experiment.yaml")
    state = page.follow(has_ended)
    assert state["run"]["exit_code"] == 0, state["run"]
    assert len(state["run"]["messages"]) <= 20
    state = page.follow(lambda state: state["report"] and state["plan"] and state["plan"]["done"] == 2)
    base = state["report"].partition("#")[0]
    assert httpx.get(base + "data.json", trust_env=False).status_code == 401
    assert page.http.get(base + "data.json").status_code == 200  # by the cookie of the page
    assert state["plan"]["jobs"] == 0


def test_the_report_compares_with_the_baseline(open_page, write, monkeypatch):
    file = write()
    assert main(["run", str(file), "--quiet"]) == 0
    assert main(["accept", str(file)]) == 0
    page = open_page(file)
    # The page need not ask again, for which it would wait longer than its client here.
    monkeypatch.setattr("sweeper.editing.open_server._WAIT_SECONDS", 90.0)
    base = page.follow(lambda state: state["report"])["report"].partition("#")[0]
    data = page.http.get(base + "data.json").json()
    assert (data["check"]["columns"][0]["name"], data["live"]["can_accept"]) == ("check", True)


def test_a_rehearsal_keeps_its_results_apart(open_page, write):
    page = open_page(write())
    page.follow()
    run(page, kind="rehearse")
    state = page.follow(has_ended)
    assert state["run"]["command"] == "sweeper run mine/experiment.yaml --rehearse"
    assert state["run"]["exit_code"] == 0, state["run"]
    assert Path("mine/results/experiment/rehearsal/results.csv").exists()
    assert page.follow(lambda state: state["report"])["plan"]["done"] == 0


def test_money_is_asked_about_and_bounded(open_page, write, box):
    page = open_page(write(EXPERIMENT.replace("[2, 4]", "[2, 4, 6]").replace("embedded", "box")))
    page.follow()
    assert page.state["plan"]["cost"].startswith("6.00 USD")
    question = ask(page)
    assert question == "Submit 3 jobs to box for 6.00 USD?"
    assert ask(page, confirmed="guessed") == question

    page.edit({"set": "axis", "name": "steps", "value": [2, 4, 6, 8]})  # the yes was for less
    page.follow()
    dearer = ask(page, confirmed=question)
    assert dearer == "Submit 4 jobs to box for 8.00 USD?"
    run(page, confirmed=dearer)
    assert page.state["run"]["command"] == "sweeper run mine/experiment.yaml"
    state = page.follow(has_ended)
    assert (state["run"]["exit_code"], state["run"]["question"]) == (0, None), state["run"]
    assert "of a budget of 8.00 USD" in "".join(state["run"]["messages"])  # so it could not cost more


def test_a_run_without_a_question_costs_no_more_than_one_needs(open_page, write, box):
    page = open_page(write(EXPERIMENT.replace("embedded", "box")))
    page.follow()
    run(page)
    assert "of a budget of 5.00 USD" in "".join(page.follow(has_ended)["run"]["messages"])


def test_no_to_the_question_ends_it(open_page, write, box):
    page = open_page(write(EXPERIMENT.replace("[2, 4]", "[2, 4, 6]").replace("embedded", "box")))
    page.follow()
    assert ask(page)
    assert page.post("stop")["run"] is None
    page.post("stop", 422)
    assert not Path("mine/results").exists()


def test_a_budget_in_the_file_is_used(open_page, write, box):
    page = open_page(write(EXPERIMENT.replace("[2, 4]", "[2, 4, 6, 8]") + "run: {budget: 4 USD}\n"), target="box")
    page.follow()
    run(page)
    assert page.state["run"]["command"] == "sweeper run mine/experiment.yaml --target box"
    state = page.follow(has_ended)
    assert state["run"]["exit_code"] == 1
    assert "budget: 4.00 USD of 4.00 USD is spent" in "".join(state["run"]["messages"])


@pytest.fixture
def change_as_it_begins(monkeypatch):
    """A function that lets a file have another text between the press of *Run* and the start of the process."""

    def change(file, text):
        def start(*words, **options):
            file.write_text(text)
            return subprocess.Popen(*words, **options)

        monkeypatch.setattr(
            "sweeper.editing.run_process.subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start})
        )

    return change


def test_a_file_that_is_changed_as_the_run_begins_spends_nothing(open_page, write, box, change_as_it_begins):
    page = open_page(file := write())
    page.follow()
    change_as_it_begins(file, EXPERIMENT.replace("[2, 4]", "[2, 4, 6, 8]").replace("embedded", "box"))
    run(page)
    assert page.follow(has_ended)["run"]["question"] == "Submit 4 jobs to box for 8.00 USD?"
    assert not Path("mine/results").exists()


def test_a_yes_to_an_unknown_cost_is_one_to_these_jobs_only(open_page, write, monkeypatch, change_as_it_begins):
    monkeypatch.setenv("PARTNER_KEY", "secret")
    with EmbeddedServer(dialect="comfyui", api_key="other") as server:
        target = f"{{name: box, url: '{server.url}', partner_key_env: PARTNER_KEY}}"
        text = EXPERIMENT.replace("embedded", target).replace("steps: [2, 4]", "seed: {seeds: 101}\n    steps: [2]")
        page = open_page(file := write(text), trust=True)
        page.follow()
        question = ask(page)
        assert question == "Submit 101 jobs to box, at a cost that is not known?"
        change_as_it_begins(file, text.replace("101", "300"))
        run(page, confirmed=question)
        assert page.state["run"]["command"] == "sweeper run mine/experiment.yaml --trust"
        assert page.follow(has_ended)["run"]["question"] == "Submit 300 jobs to box, at a cost that is not known?"


@pytest.fixture
def slow(tmp_path, monkeypatch):
    with EmbeddedServer(dialect="comfyui", faults=Faults(scenario=Scenario(job_seconds=(0.5, 0.5)))) as server:
        yield server.url


def test_stop_is_ctrl_c_and_the_next_run_goes_on(open_page, write, slow):
    page = open_page(write(SLOW.replace("embedded", slow)))
    page.follow()
    run(page)
    assert "goes on" in run(page, 422)["problem"]
    page.follow(lambda state: any("under way" in line for line in state["run"]["messages"]))
    assert page.post("stop")["run"]["state"] == "stopping"
    state = page.follow(has_ended)
    assert state["run"]["exit_code"] == 130
    done = page.follow(lambda state: state["plan"] and state["plan"]["done"])["plan"]["done"]
    assert 0 < done < 40
    run(page)
    page.follow(lambda state: any("under way" in line for line in state["run"]["messages"]))
    page.post("stop")
    page.post("stop")
    assert page.follow(has_ended)["run"]["exit_code"] == 130


def test_the_run_of_another_process_is_shown(open_page, write):
    page = open_page(write())
    page.follow()
    with lock_folder(Path("mine/results/experiment"), now=1.0):
        state = page.follow(lambda state: state["run"])
        assert (state["run"]["state"], state["run"]["command"]) == ("running", None)
        assert "goes on" in run(page, 422)["problem"]
        assert "no run of this page" in page.post("stop", 422)["problem"]
    page.follow(lambda state: state["run"] is None)


def open_process(file):
    command = [sys.executable, "-P", "-m", "sweeper", "open", "--no-open", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, Page(read_line(process.stdout).strip())


def test_ctrl_c_of_the_server_ends_its_run_and_kill_does_not(write, slow):
    file = write(SLOW.replace("embedded", slow))
    folder = Path("mine/results/experiment")
    process, page = open_process(file)
    run(page)
    page.follow(lambda state: any("under way" in line for line in state["run"]["messages"]))
    page.http.close()
    process.kill()
    process.communicate()
    assert is_locked(folder)  # the run goes on, and the next server shows it

    process, page = open_process(file)
    assert page.follow(lambda state: state["run"])["run"]["command"] is None
    owner = int((folder / ".lock").read_text().partition('"pid": ')[2].partition(",")[0])
    os.kill(owner, signal.SIGINT)
    wait_until(lambda: not is_locked(folder))
    page.follow(lambda state: state["run"] is None)
    run(page)
    page.follow(lambda state: any("under way" in line for line in state["run"]["messages"]))
    page.http.close()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "waiting for the jobs that run" in errors) == (0, True)
    assert not is_locked(folder)
