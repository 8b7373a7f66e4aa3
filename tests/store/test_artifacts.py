from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sweeper.errors import ResultsError
from sweeper.store.artifacts import ArtifactFolder, UnfinishedJob, guess_extension

JOB = "0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)


def save(folder, content, name, index=0):
    with folder.open_incoming(JOB, index) as file:
        file.write(content)
        return folder.save(file, name)


def test_saving_never_replaces_a_file(tmp_path):
    folder = ArtifactFolder(tmp_path)
    assert [save(folder, text, "a.png") for text in (b"1", b"2", b"3")] == [
        "artifacts/a.png",
        "artifacts/a-2.png",
        "artifacts/a-3.png",
    ]
    assert (tmp_path / "artifacts" / "a.png").read_bytes() == b"1"


def test_received_file_that_a_virus_scanner_has_open_is_saved(tmp_path, monkeypatch):
    def refuse(self, *, missing_ok=False):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    folder = ArtifactFolder(tmp_path)
    with monkeypatch.context() as scanner:
        scanner.setattr(Path, "unlink", refuse)  # as Windows refuses it
        assert save(folder, b"1", "a.png") == "artifacts/a.png"
    folder.remove_leftovers(recorded=["artifacts/a.png"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "artifacts").iterdir()} == {"a.png": b"1"}


def test_received_file_replaces_a_link_in_its_place(tmp_path):
    folder = ArtifactFolder(tmp_path / "results")
    other = tmp_path / "other.png"
    other.write_bytes(b"mine")
    with folder.open_incoming(JOB, 0) as file:
        file.path.symlink_to(other)
        file.write(PNG)
        assert (tmp_path / "results" / folder.save(file, "a.png")).read_bytes() == PNG
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("size", [4, 5 * 2**20])
def test_interrupted_transfer_leaves_no_file(tmp_path, size):
    folder = ArtifactFolder(tmp_path)
    with pytest.raises(RuntimeError), folder.open_incoming(JOB, 0) as file:  # noqa: PT012 (the block is what fails)
        file.write(bytes(size))
        raise RuntimeError
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_large_file_is_received_on_disk_and_can_restart(tmp_path):
    folder = ArtifactFolder(tmp_path)
    with folder.open_incoming(JOB, 0) as file:
        for _ in range(6):
            file.write(bytes(2**20))
        assert file.path.stat().st_size >= 4 * 2**20
        file.restart()
        file.write(PNG)
        assert file.read_head(4) == PNG[:4]
        assert (tmp_path / folder.save(file, "a.png")).read_bytes() == PNG
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["a.png"]


def test_partial_files_of_a_killed_run_are_removed(tmp_path):
    folder = ArtifactFolder(tmp_path)
    save(folder, b"whole", "a.png")
    (tmp_path / "artifacts" / f".{JOB}-1.part").write_bytes(b"half")
    folder.remove_leftovers()
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["a.png"]


def test_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "artifacts").write_text("in the way")
    with (
        pytest.raises(ResultsError, match="everything stored so far is safe"),
        ArtifactFolder(tmp_path).open_incoming(JOB, 0),
    ):
        pass


@pytest.mark.parametrize(
    ("label", "content_type", "head", "expected"),
    [
        ("x.PNG", "", b"", "png"),
        ("x.jpeg", "image/png", b"", "jpg"),
        ("x.exe", "image/webp; charset=x", b"", "webp"),
        ("x.html", "text/html", b"<script>", "bin"),
        ("x", "", PNG, "png"),
        ("..\\..\\evil.sh", "", b"RIFF1234WEBP", "webp"),
        ("clip", "", b"\0\0\0\x18ftypmp42", "mp4"),
        ("", "", b"", "bin"),
    ],
)
def test_extension_comes_from_label_type_or_first_bytes(label, content_type, head, expected):
    assert guess_extension(label, content_type, head) == expected


def test_an_identical_file_counts_as_saved(tmp_path):
    folder = ArtifactFolder(tmp_path)
    with folder.open_incoming(JOB, 0) as first, folder.open_incoming(JOB, 1) as second:
        first.write(PNG)
        second.write(PNG)
        assert [folder.save(file, "a.png") for file in (first, second)] == ["artifacts/a.png"] * 2
        assert [first.is_new, second.is_new] == [True, False]
    assert [path.name for path in folder.path.iterdir()] == ["a.png"]


def test_only_files_of_unrecorded_jobs_are_removed(tmp_path):
    folder = ArtifactFolder(tmp_path)
    now = time.time()
    unfinished = [UnfinishedJob("1" * 32, now, "0003_steps-8")]
    kept = [
        "0003_steps-80.png",  # another trial with the same number in an earlier plan
        "0003_steps-8_edited.png",  # the user's
        "0003_steps-8-2.png",  # recorded
        "0003_steps-8-3.png",  # older than the job
    ]
    left = ["0003_steps-8.png", "0003_steps-8_node-9_2.png", "0003_steps-8-4.webp", "0003_11111111.png"]
    for name in [*kept, *left, f".{'1' * 32}-0.part"]:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(PNG)
    os.utime(folder.path / "0003_steps-8-3.png", (now - 60, now - 60))
    folder.remove_leftovers(unfinished, {"artifacts/0003_steps-8-2.png"})
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(kept)
