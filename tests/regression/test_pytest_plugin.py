"""The plugin as a project meets it; in a process of its own where that is what is tested."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.store import Store
from tests.regression.plugin_runs import ROOT, run_pytest, start_pytest


def test_each_case_is_an_item_that_fails_when_its_picture_changed(shop):
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


def test_a_wrong_experiment_is_a_collection_error_that_names_the_line(shop):
    shop.file.write_text("template: nowhere.json\n")
    told = run_pytest(shop.folder, "--sweeper", "shop.yaml")
    assert told.returncode == 2
    assert "nowhere.json" in told.stdout


def test_a_project_without_experiments_pays_nothing(tmp_path):
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\ndef test_nothing():\n"
        "    assert not {'numpy', 'pandas', 'PIL', 'httpx', 'sweeper.regression', 'sqlite3'} & set(sys.modules)\n"
    )
    told = start_pytest(tmp_path)
    assert told.returncode == 0, told.stdout


def test_image_regression_holds_a_picture_and_the_server_serves(tmp_path):
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


def runs_of(folder):
    with Store.open(folder / "results" / "shop-pytest", readonly=True) as store:
        return len(store.runs()), len(list(store.jobs()))


def test_workers_of_xdist_share_one_run_and_one_acceptance(shop):
    pytest.importorskip("xdist", reason="runs tests in several processes")
    shop.write(steps=(2, 3, 4, 5))
    (shop.folder / "test_mine.py").write_text(
        "import pytest\nfrom PIL import Image\n\n@pytest.mark.parametrize('level', range(6))\n"
        "def test_grey(level, image_regression):\n    image_regression(Image.new('L', (9, 9), level * 40))\n"
    )
    arguments = ("--sweeper", "shop.yaml", "test_mine.py", "-n", "2", "-v")
    accepted = run_pytest(shop.folder, *arguments, "--sweeper-accept-new")
    assert "10 passed" in accepted.stdout, accepted.stdout
    assert {"[gw0]", "[gw1]"} <= set(accepted.stdout.split())
    assert runs_of(shop.folder) == (1, 4)
    shop.rewire(cfg=2.0)
    changed = run_pytest(shop.folder, *arguments)
    assert "4 failed, 6 passed" in changed.stdout, changed.stdout
    assert changed.stdout.count("pixels differ") >= 4
    assert "10 passed" in run_pytest(shop.folder, *arguments, "--sweeper-accept").stdout
    assert runs_of(shop.folder) == (3, 12)


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


def test_a_client_runs_workflows_on_the_embedded_server_or_on_the_target(shop):
    (shop.folder / "test_mine.py").write_text(CLIENT.replace("TARGET", "None"))
    assert "3 passed" in run_pytest(shop.folder, "test_mine.py", "--sweeper-accept-new").stdout
    with EmbeddedServer(dialect="comfyui") as server:
        (shop.folder / "test_mine.py").write_text(CLIENT.replace("TARGET", repr(server.url)))
        told = run_pytest(shop.folder, "test_mine.py", "--sweeper-target", server.url)
        assert "3 passed" in told.stdout, told.stdout
        assert server.seen.submits >= 3


WRONG = """
def test_a_slot_that_is_none(sweeper_client):
    sweeper_client.run("shop.json", stepz=4, seed=1)

def test_a_job_that_fails(sweeper_client):
    sweeper_client.run({"1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
                        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}})
"""


def test_what_a_client_is_given_wrong_is_told_below_the_line_that_gave_it_and_no_page_of_ours(shop):
    (shop.folder / "test_mine.py").write_text(WRONG)
    told = run_pytest(shop.folder, "test_mine.py").stdout
    assert "2 failed" in told
    assert 'sweeper_client.run("shop.json", stepz=4, seed=1)' in told
    assert "did you mean 'steps'?" in told
    assert "gone.png" in told
    assert str(ROOT / "sweeper") not in told, told
    assert "\nsweeper/" not in told, told
