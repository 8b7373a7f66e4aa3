"""The plugin as a project meets it: pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_pytest(folder, *arguments):
    installed = any(one.value == "sweeper.pytest_plugin" for one in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "sweeper.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_each_case_is_an_item_that_fails_when_its_picture_changed(shop):
    Path("pytest.ini").write_text("[pytest]\nsweeper_experiments = shop.yaml\n")
    new = run_pytest(shop.folder)
    assert new.returncode == 1
    assert "no picture was accepted" in new.stdout
    accepted = run_pytest(shop.folder, "--sweeper-accept-new")
    assert accepted.returncode == 0, accepted.stdout
    passed = run_pytest(shop.folder, "-v")
    assert passed.returncode == 0, passed.stdout
    assert "shop.yaml::steps=3 seed=1 [9] PASSED" in passed.stdout
    shop.rewire(cfg=2.0)
    failed = run_pytest(shop.folder)
    assert failed.returncode == 1
    assert "2 failed" in failed.stdout
    assert "pixels differ" in failed.stdout
    assert run_pytest(shop.folder, "--sweeper-accept").returncode == 0
    assert run_pytest(shop.folder, "--sweeper", "shop.yaml").returncode == 0


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
    told = run_pytest(tmp_path)
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
