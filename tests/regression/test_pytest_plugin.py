"""The pytest plugin in a project, in a separate process where the test needs one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.store import Store
from tests.few_classes import pick_classes
from tests.regression.plugin_runs import ROOT, run_pytest, start_pytest


def test_each_case_is_an_item_that_fails_if_its_picture_changed(shop):
    Path("pytest.ini").write_text("[pytest]\nsweeper_experiments = shop.yaml\n")
    new = run_pytest(shop.folder)
    assert new.returncode == 1
    assert "no picture was accepted" in new.stdout
    accepted = run_pytest(shop.folder, "--sweeper-accept-new")
    assert accepted.returncode == 0, accepted.stdout
    shop.rewire(cfg=2.0)
    failed = run_pytest(shop.folder)
    assert failed.returncode == 1
    assert "2 failed" in failed.stdout
    assert "pixels differ" in failed.stdout
    assert run_pytest(shop.folder, "--sweeper-accept").returncode == 0
    passed = run_pytest(shop.folder, "--sweeper", "shop.yaml", "-v")
    assert passed.returncode == 0, passed.stdout
    assert "shop.yaml::steps=3 seed=1 [9] PASSED" in passed.stdout


def test_invalid_experiment_is_a_collection_error(shop):
    shop.file.write_text("template: nowhere.json\n")
    outcome = run_pytest(shop.folder, "--sweeper", "shop.yaml")
    assert outcome.returncode == 2
    assert "nowhere.json" in outcome.stdout


def test_project_without_experiments_loads_nothing_heavy(tmp_path):
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\ndef test_nothing():\n"
        "    assert not {'numpy', 'pandas', 'PIL', 'httpx', 'sweeper.regression', 'sqlite3'} & set(sys.modules)\n"
    )
    outcome = start_pytest(tmp_path)
    assert outcome.returncode == 0, outcome.stdout


def test_image_regression_compares_with_the_accepted_picture(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import os, urllib.request\nfrom PIL import Image\n\n"
        "def test_red(image_regression, sweeper_server):\n"
        "    assert sweeper_server.url.startswith('http://127.0.0.1:')\n"
        "    level = int(os.environ['LEVEL'])\n"
        "    image_regression(Image.new('RGB', (8, 8), (level, 0, 0)), mae='<= 1')\n"
    )
    os.environ["LEVEL"] = "200"
    try:
        assert "no picture was accepted" in run_pytest(tmp_path).stdout
        assert run_pytest(tmp_path, "--sweeper-accept-new").returncode == 0
        os.environ["LEVEL"] = "202"
        assert run_pytest(tmp_path).returncode == 0
        os.environ["LEVEL"] = "210"
        assert "not <= 1" in run_pytest(tmp_path).stdout
    finally:
        del os.environ["LEVEL"]


def count_runs(folder):
    with Store.open(folder / "results" / "shop-pytest", readonly=True) as store:
        return len(store.runs()), len(list(store.jobs()))


@pytest.mark.timeout(300)  # it starts a pytest with two processes
def test_xdist_workers_share_one_run_and_one_acceptance(shop):
    pytest.importorskip("xdist", reason="runs tests in several processes")
    shop.write(steps=(2, 3))
    conftest = shop.folder / "conftest.py"  # this pytest counts as a worker of an earlier session
    conftest.write_text("def pytest_configure(config):\n    config.workerinput = {'testrunuid': 'earlier'}\n")
    accepted = run_pytest(shop.folder, "--sweeper", "shop.yaml", "--sweeper-accept-new")
    assert "2 passed" in accepted.stdout, accepted.stdout
    assert count_runs(shop.folder) == (1, 2)
    conftest.unlink()
    shop.write(steps=(2, 3, 4, 5))
    shop.rewire(cfg=2.0)
    (shop.folder / "test_mine.py").write_text(
        "import pytest\nfrom PIL import Image\n\n@pytest.mark.parametrize('level', range(6))\n"
        "def test_grey(level, image_regression):\n    image_regression(Image.new('L', (9, 9), level * 40))\n"
    )
    arguments = ("--sweeper", "shop.yaml", "test_mine.py", "-n", "2", "-v", "--sweeper-accept-new")
    changed = run_pytest(shop.folder, *arguments)
    assert "2 failed, 8 passed" in changed.stdout, changed.stdout
    assert changed.stdout.count("pixels differ") >= 2
    assert {"[gw0]", "[gw1]"} <= set(changed.stdout.split())
    assert count_runs(shop.folder) == (2, 6)
    assert len(list(Path("baselines/shop").glob("*.png"))) == 4


CLIENT = """
import pytest
import sweeper

def test_a_template_with_its_slots(sweeper_client, sweeper_server, image_regression):
    (picture,) = sweeper_client.run("shop.json", steps=3, seed=1)
    (again,) = sweeper_client.run("shop.json", steps=3, seed=2)
    assert picture.read_bytes() != again.read_bytes()
    assert TARGET in (None, sweeper_client.target)
    image_regression(picture)

def test_a_graph(sweeper_client):
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": 0}},
             "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
    assert len(sweeper_client.run(graph, timeout=60)) == 2
    with pytest.raises(sweeper.SweeperError, match="Nothing"):
        sweeper_client.run({"1": {"class_type": "Nothing", "inputs": {}}})

def test_a_job_that_fails(sweeper_client):
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
             "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
    with pytest.raises(sweeper.SweeperError, match="gone.png"):
        sweeper_client.run(graph)
"""


def test_client_runs_workflows_on_the_embedded_server_or_a_target(shop):
    (shop.folder / "test_mine.py").write_text(CLIENT.replace("TARGET", "None"))
    assert "3 passed" in run_pytest(shop.folder, "test_mine.py", "--sweeper-accept-new").stdout
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        (shop.folder / "test_mine.py").write_text(CLIENT.replace("TARGET", repr(server.url)))
        outcome = run_pytest(shop.folder, "test_mine.py", "--sweeper-target", server.url)
        assert "3 passed" in outcome.stdout, outcome.stdout
        assert server.seen.submits >= 3


WRONG = """
def test_a_slot_that_is_none(sweeper_client):
    sweeper_client.run("shop.json", stepz=4, seed=1)

def test_a_job_that_fails(sweeper_client):
    sweeper_client.run({"1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
                        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}})
"""


def test_client_error_shows_the_calling_line_without_our_stack(shop):
    (shop.folder / "test_mine.py").write_text(WRONG)
    outcome = run_pytest(shop.folder, "test_mine.py").stdout
    assert "2 failed" in outcome
    assert 'sweeper_client.run("shop.json", stepz=4, seed=1)' in outcome
    assert "did you mean 'steps'?" in outcome
    assert "gone.png" in outcome
    assert str(ROOT / "sweeper") not in outcome, outcome
    assert "\nsweeper/" not in outcome, outcome
