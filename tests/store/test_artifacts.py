from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import ResultsError
from sweeper.store.artifacts import ArtifactFolder, build_file_name, build_stem, guess_extension

JOB = "0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)


def save(folder, content, name, index=0):
    with folder.open_incoming(JOB, index) as file:
        file.write(content)
        return folder.save(file, name)


def test_file_name_contains_the_axis_values_and_the_job(tmp_path):
    name = build_file_name(
        build_stem({"style": "Öl auf Leinwand", "steps": 8, "fast": True, "cfg": 7.5}, JOB), "9", 0, "png"
    )
    assert name == "Ol-auf-Leinwand-8-true-7.5-01234567.9-0.png"
    assert save(ArtifactFolder(tmp_path), b"picture", name) == f"artifacts/{name}"
    assert (tmp_path / "artifacts" / name).read_bytes() == b"picture"


def test_empty_cells_are_left_out_of_a_file_name():
    assert build_stem({"weather": "rain", "style": None, "ink": "blue"}, JOB) == "rain-blue-01234567"
    assert build_stem({"style": None}, JOB) == "trial-01234567"


def test_saving_never_replaces_a_file(tmp_path):
    folder = ArtifactFolder(tmp_path)
    assert [save(folder, text, "a.png") for text in (b"1", b"2", b"3")] == [
        "artifacts/a.png",
        "artifacts/a-2.png",
        "artifacts/a-3.png",
    ]
    assert (tmp_path / "artifacts" / "a.png").read_bytes() == b"1"


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


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=300) | st.integers() | st.floats() | st.none(), max_size=5),
    st.text(max_size=60),
    st.text(max_size=60),
)
def test_file_names_are_safe_for_any_input(columns, node, label):
    name = build_file_name(build_stem(columns, JOB), node, 0, guess_extension(label, "", b""))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*\.[a-z0-9]+", name)
    assert len(name) <= 160
    assert ".." not in name
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name)


def test_only_files_of_unrecorded_jobs_are_removed(tmp_path):
    folder = ArtifactFolder(tmp_path)
    saved = [
        save(folder, PNG, build_file_name(build_stem({"seed": 1}, job), "9", 0, "png")) for job in ("0" * 32, "1" * 32)
    ]
    second_copy = save(folder, PNG, build_file_name(build_stem({"seed": 1}, "1" * 32), "9", 0, "png"))
    (folder.path / "notes-11111111.txt").write_text("a file of the user")
    (folder.path / f".{'1' * 32}-0.part").write_bytes(b"half")
    folder.remove_leftovers(["1" * 32])
    remaining = {f"artifacts/{path.name}" for path in folder.path.iterdir()}
    assert second_copy != saved[1]
    assert remaining == {saved[0], "artifacts/notes-11111111.txt"}
