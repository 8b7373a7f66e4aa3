"""Cases whose server no longer offers what they need: `check` says so, and compares the others."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from pathlib import Path

import pytest

import sweeper
from sweeper.comfy.target import Target
from sweeper.embedded import EmbeddedServer, node_classes
from sweeper.errors import ExperimentError
from sweeper.model.node_classes import NodeInfo
from sweeper.model.target_spec import CLOUD_URL
from sweeper.running.preflight import find_gone

GRAPH = {
    "1": {"class_type": "PaidPicture", "inputs": {"model": "{{ model }}", "text": "a fox"}},
    "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["1", 0]}},
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PARTNER", "partner-key")
    monkeypatch.chdir(tmp_path)


@contextmanager
def studio(*models, api_node=True):
    """A ComfyUI whose partner node offers these models."""
    inputs = {"model": [[*models], {}], "text": ["STRING", {"default": ""}]}
    paid = {"input": {"required": inputs}, "output": ["IMAGE"], "name": "PaidPicture", "api_node": api_node}
    info = {"SaveImage": node_classes()["SaveImage"], "PaidPicture": paid}
    with EmbeddedServer(dialect="comfyui", object_info=info) as server:
        yield {"url": server.url, "dialect": "comfyui", "name": "studio", "partner_key_env": "PARTNER"}


def write(*models):
    Path("t.json").write_text(json.dumps(GRAPH))
    file = Path("shop.yaml")
    file.write_text(json.dumps({"template": "t.json", "sweep": {"grid": {"model": list(models)}}}))
    return file


def accept(file, target):
    sweeper.run(file, target, out="accepted")
    sweeper.accept("accepted", yes=True)


@pytest.fixture
def gone():
    """The check of an accepted sweep over three models, of which the server has lost one."""
    file = write("a", "b", "c")
    with studio("a", "b", "c") as target:
        accept(file, target)
    with studio("a", "b", "d") as target:
        yield sweeper.check(file, target=target, out="checked")


def test_a_case_whose_partner_model_was_removed_is_gone_with_the_reason(gone):
    assert {state: count for state, count in gone.counts.items() if count} == {"same": 2, "gone": 1}
    (case,) = (case for case in gone if case.state == "gone")
    assert case.reason == "studio no longer offers model 'c' of PaidPicture; it has a, b, d"
    assert gone.ok, "nothing that can be made has changed"


def test_every_report_shows_a_gone_case_apart_from_a_failed_one(gone, capsys):
    from sweeper.regression.comparison import to_junit_xml

    suite = ET.fromstring(to_junit_xml({"shop": gone}))[0]
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("0", "0", "1")
    assert "gone: studio no longer offers model 'c'" in suite.find(".//skipped").get("message")
    from sweeper.cli import main

    assert main(["check", "checked", "--summary", "summary.md", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["counts"]["gone"], found["counts"]["failed"]) == (True, 1, 0)
    summary = Path("summary.md").read_text()
    assert "no longer offers model 'c'" in summary
    assert "1 case gone: remove the values from the sweep" in summary


def test_accept_keeps_a_gone_case_until_its_value_is_removed(gone):
    plan = sweeper.accept("checked", yes=True)
    assert [change.reason for change in plan.changes if change.kind == "kept"] == [
        "studio no longer offers model 'c' of PaidPicture; it has a, b, d"
    ]
    with studio("a", "b", "d") as target:
        sweeper.check(write("a", "b"), target=target, out="checked")
    assert [change.kind for change in sweeper.accept("checked", yes=True).changes].count("removed") == 1


def test_a_check_of_gone_cases_alone_does_not_pass():
    file = write("c")
    with studio("c") as target:
        accept(file, target)
    with studio("a") as target:
        found = sweeper.check(file, target=target, out="checked")
    assert (found.counts["gone"], found.ok) == (1, False)


@pytest.mark.parametrize(
    ("models", "api_node", "accepted"),
    [
        pytest.param(("a", "typo"), True, ("a",), id="never accepted"),
        pytest.param(("a", "b"), False, ("a", "b"), id="no partner's node"),
    ],
)
def test_what_is_a_mistake_stays_one(models, api_node, accepted):
    with studio("a", "b", "typo") as target:
        accept(write(*accepted), target)
    with (
        studio("a", api_node=api_node) as target,
        pytest.raises(ExperimentError, match=r"found .(typo|b)"),
    ):
        sweeper.check(write(*models), target=target, out="checked")


@pytest.mark.parametrize(
    ("url", "found"),
    [(CLOUD_URL, {0: "cloud no longer offers the class PaidPicture"}), ("http://127.0.0.1:8188", {})],
)
def test_a_removed_class_is_gone_on_comfy_cloud_where_nobody_can_install_it(url, found):
    plan = sweeper.plan(sweeper.load(write("a")))
    classes = NodeInfo.from_object_info({"SaveImage": node_classes()["SaveImage"]})
    problems = plan.fit(classes).problems
    assert find_gone(plan, classes, problems, {0}, Target(name="cloud", url=url)) == found
    assert find_gone(plan, classes, problems, (), Target(name="cloud", url=url)) == {}


def test_a_run_refuses_a_removed_model_as_before():
    file = write("a", "c")
    with studio("a", "c") as target:
        accept(file, target)
    with studio("a") as target, pytest.raises(ExperimentError, match="found 'c'"):
        sweeper.run(file, target, out="again")
