"""Files that never end, that never answer, and patterns that would look at a whole disk."""

from __future__ import annotations

import os
import sys

import pytest

import sweeper
from sweeper.errors import ExperimentError
from sweeper.loading import bounded_files
from tests.experiment_files import make_plan, node, small, write

FILE_SLOT = {"picture": {"at": "1.image", "kind": "file"}}
NOT_REGULAR = "is not a regular file; copy its content into one"
IN_DEV = "is in /dev, where sweeper reads nothing; copy its content into a file of your own"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices and FIFOs of POSIX")


@pytest.mark.parametrize("file", ["/dev/zero", "fifo", "link"])
@pytest.mark.parametrize("form", ["lines", "csv"])
def test_values_come_from_regular_files_only(tmp_path, form, file):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    axis = {form: file, **({"column": "a"} if form == "csv" else {})}
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, {"sweep": {"grid": {"prompt": axis}}})
    reason = NOT_REGULAR if file == "fifo" else IN_DEV
    assert str(caught.value).endswith(f"e.yaml:1: sweep.grid.prompt: '{file}' {reason}")


@pytest.mark.parametrize("file", ["/dev/zero", "fifo"])
def test_file_slot_takes_regular_files_only(tmp_path, file):
    os.mkfifo(tmp_path / "fifo")
    graph = {"1": node("LoadImage", image="x.png")}
    reason = NOT_REGULAR if file == "fifo" else IN_DEV
    with pytest.raises(ExperimentError, match=f"params.picture: '{file}' {reason}"):
        make_plan(tmp_path, {"params": {"picture": file}}, graph, FILE_SLOT)


@pytest.mark.parametrize("name", ["t.json", "t.slots.yaml"])
def test_template_and_its_slots_are_regular_files(tmp_path, name):
    experiment = write(tmp_path, {"name": "e", "template": "t.json"}, *small())
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ExperimentError, match=f"{name}: {NOT_REGULAR}"):
        sweeper.load(experiment)


def test_experiment_may_come_through_a_pipe_but_must_end(tmp_path):
    with pytest.raises(ExperimentError, match="has more than 67,108,864 bytes"):
        sweeper.load("/dev/zero")


def test_pattern_looks_at_a_bounded_number_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_files, "MAX_ENTRIES", 50)
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(ExperimentError, match=r"'\*\*/\*.png' looks at more than 50 files and folders"):
        make_plan(tmp_path, {"sweep": {"grid": {"prompt": {"files": "**/*.png"}}}})


@pytest.mark.parametrize(
    "pattern",
    [
        "*.txt",
        "**/*.txt",
        "**",
        "**/**/*.txt",
        "a/*",
        "a/../*.txt",
        "*/b/?.txt",
        "[ab]/*.txt",
        "a/b/1.txt",
        "./a/*",
        ".*",
    ],
)
def test_pattern_matches_as_in_pathlib(tmp_path, pattern):
    for name in ("1.txt", "a/2.txt", "a/b/1.txt", "b/.c/3.txt", ".d/4.txt", ".e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    expected = {path for path in tmp_path.glob(pattern) if path.is_file()}
    if sys.version_info < (3, 13) or not pattern.endswith("**"):  # since then, ** at the end matches files too
        assert bounded_files.find_matching_files(tmp_path, pattern, lambda _: None) == expected
