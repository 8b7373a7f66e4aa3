"""The report's folder as files: what it contains, and what later reports keep and remove."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sweeper.reporting.dataset import build_dataset, encode_values, iter_script, tabulate, transpose_files
from sweeper.reporting.write_report import write_report
from sweeper.store.records import TableLayout
from tests.reporting.made_up_sweeps import Sweep, picture

EMPTY = build_dataset(tabulate([], TableLayout("empty", (), (), ()))) | {"files": {}}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def read(folder):
    return json.loads((folder / "data.json").read_text("utf-8"))


def test_report_works_without_the_results(made, tmp_path):
    folder = made(Sweep({"steps": [1, 2]}))
    moved = tmp_path / "mailed"
    shutil.copytree(folder, moved)
    shutil.rmtree(tmp_path / "results")
    for file in read(moved)["files"]:
        assert (moved / file["path"]).stat().st_size == file["bytes"]
        assert (moved / file["thumb"]).is_file()
    page = (moved / "index.html").read_text("utf-8")
    for source in ("data.js", "page.css", "page.js"):
        assert source in page
        assert (moved / source).is_file()


def test_page_has_one_script_and_one_style_sheet(made):
    folder = made(Sweep({"steps": [1]}))
    page = (folder / "index.html").read_text("utf-8")
    assert sorted(re.findall(r'(?:src|href)="(\w+\.\w+)"', page)) == ["data.js", "page.css", "page.js"]
    assert not re.search(
        r"^(import|export|@import) ", (folder / "page.js").read_text() + (folder / "page.css").read_text(), re.MULTILINE
    )


def test_second_report_reuses_thumbnails(made, tmp_path):
    folder = made(Sweep({"steps": [1, 2, 3]}))
    thumbs = {path: path.stat().st_mtime_ns for path in folder.glob("thumbs/*.webp")}
    assert len(thumbs) == 3 + 1  # one for each, and a sheet of sprites
    write_report(tmp_path / "results")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("thumbs/*.webp")} == thumbs


@pytest.mark.parametrize(("size", "ends"), [(60, ""), (100, " -80"), (200, " -160 -80"), (400, " -160 -80")])
def test_smaller_thumbnails_exist_only_of_larger_pictures(made, size, ends):
    folder = made(Sweep({"steps": [1]}, size=(size // 2, size)))
    (file,) = read(folder)["files"]
    names = {f"{file['sha256']}{end}.webp" for end in ends.split(" ")}
    assert {path.name for path in folder.glob("thumbs/*.webp")} >= names
    assert len(list(folder.glob("thumbs/*.webp"))) == len(names) + 1  # and a sheet of sprites


@pytest.mark.parametrize("index", [[], {"SHA": {"width": 1}}, {"SHA": [float("inf"), 1, 1, "", True]}, {"SHA": ["x"]}])
def test_index_of_another_shape_is_made_again(made, tmp_path, index):
    index_file = made(Sweep({"steps": [1]})) / "thumbs/index.json"
    before = index_file.read_text()
    (sha,) = json.loads(before)
    index_file.write_text(json.dumps(index).replace("SHA", sha))
    write_report(tmp_path / "results")
    assert index_file.read_text() == before


def test_equal_pictures_share_one_thumbnail(made):
    folder = made(Sweep({"steps": [1, 2, 3, 4]}, distinct=2))
    assert len(list(folder.glob(f"thumbs/{'?' * 64}.webp"))) == 2


def test_artifacts_are_hard_linked(made, tmp_path):
    folder = made(Sweep({"steps": [1]}))
    source = tmp_path / "results/artifacts/picture-0.png"
    if source.stat().st_nlink < 2 and not hasattr(os, "link"):
        pytest.skip("this file system has no hard links")
    assert (folder / "files/picture-0.png").samefile(source)


@pytest.fixture
def reported_again(tmp_path):
    """Report three pictures, let `before` happen to the folder, and report a run of the same results with the first
    of them only. Returns what is in the folder's folders of pictures, as a set of relative paths.
    """

    def again(before=lambda folder: None):
        out, folder = tmp_path / "results", tmp_path / "given"
        write_report(Sweep({"steps": [1, 2, 3]}).write(out), folder)
        before(folder)
        write_report(Sweep({"steps": [1]}).write(out), folder)
        found = (path for name in ("files", "thumbs", "accepted") for path in folder.glob(f"{name}/*"))
        return {path.relative_to(folder).as_posix() for path in found}

    return again


def list_shown(folder):
    data = read(folder)
    (file,) = data["files"]
    return {file["path"], *data["sprites"]["sheets"], file["thumb"]}


def test_second_report_removes_pictures_that_left_the_sweep(reported_again, tmp_path):
    assert reported_again() == {*list_shown(tmp_path / "given"), "thumbs/index.json"}
    assert len(json.loads((tmp_path / "given/thumbs/index.json").read_text())) == 1


def test_second_report_removes_files_of_an_interrupted_one(reported_again, tmp_path):
    def remove_indexes(folder):
        (folder / "data.json").unlink()
        (folder / "thumbs/index.json").unlink()

    assert reported_again(remove_indexes) == {*list_shown(tmp_path / "given"), "thumbs/index.json"}


def test_second_report_keeps_foreign_files(reported_again, tmp_path):
    own = ("files/mine.png", "thumbs/mine.webp", "thumbs/sprites-mine.webp", "accepted/mine.png")

    def add_files(folder):
        (folder / "accepted").mkdir()
        for name in own:
            (folder / name).write_bytes(b"mine")

    assert reported_again(add_files) == {*own, *list_shown(tmp_path / "given"), "thumbs/index.json"}


def test_second_report_removes_nothing_behind_a_link(reported_again, tmp_path):
    def link_files(folder):
        shutil.rmtree(folder / "files")
        try:
            (folder / "files").symlink_to(tmp_path / "results/artifacts", target_is_directory=True)
        except OSError:
            pytest.skip("this system makes no links")

    reported_again(link_files)
    assert {path.name for path in (tmp_path / "results/artifacts").iterdir()} == {f"picture-{n}.png" for n in range(3)}


def test_foreign_data_file_does_no_harm(reported_again, tmp_path):
    (tmp_path / "outside.png").touch()

    def replace_index(folder):
        (folder / "data.json").write_text(json.dumps({"files": [{"path": "../outside.png"}, 3], "sprites": []}))

    reported_again(replace_index)
    assert (tmp_path / "outside.png").is_file()


def test_missing_artifact_is_counted_and_marked(tmp_path):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "results")
    (out / "artifacts/picture-1.png").unlink()
    report = write_report(out)
    assert report.missing_count == 1
    assert [file["kind"] for file in read(report.page.parent)["files"]] == ["image", "missing"]


def test_page_has_no_thumbnail_of_an_artifact_that_was_deleted_since(tmp_path):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "out")
    write_report(out)
    next((out / "artifacts").iterdir()).unlink()
    page = write_report(out).page.parent
    files = read(page)["files"]
    assert sorted(file["kind"] for file in files) == ["image", "missing"]
    assert all((page / file["thumb"]).is_file() for file in files if "thumb" in file)


def test_broken_picture_and_video_get_no_thumbnail(tmp_path):
    broken = write_report(Sweep({"steps": [1]}, content=picture(1)[:60]).write(tmp_path / "a"))
    video = write_report(Sweep({"steps": [1]}, content=b"\0\0\0\x18ftypmp42", suffix="mp4").write(tmp_path / "b"))
    for report, kind in ((broken, "image"), (video, "video")):
        (file,) = read(report.page.parent)["files"]
        assert file["kind"] == kind
        assert "thumb" not in file


def test_large_seed_is_written_exactly(made):
    (column,) = [c for c in read(made(Sweep({"seed": [2**64 - 1, 7]})))["columns"] if c["name"] == "seed"]
    assert column["values"] == [{"$int": "18446744073709551615"}, 7]
    assert column["of"] == [0, 1]


@given(st.lists(JSON_VALUES))
def test_encoding_distinguishes_values_by_json_text(cells):
    values, of = encode_values(cells)
    assert [place < 0 for place in of] == [cell is None for cell in cells]
    first = {}
    for cell, place in zip(cells, of, strict=True):
        if cell is not None:
            assert first.setdefault(json.dumps(cell, sort_keys=True), place) == place
    assert sorted(set(of) - {-1}) == list(range(len(values)))


def test_script_has_no_long_string():
    """Chromium's time for a string grows with the square of its length: 38 MB in one took two seconds."""
    script = "".join(iter_script(EMPTY | {"text": "'\\\"" * 300_000}))
    assert max(map(len, script.splitlines())) < 500_000
    assert read_literal(script)["text"] == "'\\\"" * 300_000


@given(st.text())
def test_script_contains_exactly_the_json(text):
    script = "".join(iter_script(EMPTY | {"text": text}))
    assert script.isascii()
    assert read_literal(script)["text"] == text


def read_literal(script):
    literals = script[script.index("JSON.parse(") + len("JSON.parse(") : script.rindex(".join(''));")]
    return json.loads("".join(ast.literal_eval(literals)))


def read_files(files):
    return read_literal("".join(iter_script(EMPTY | {"files": transpose_files(files)})))["files"]


HASH = "0123456789abcdef" * 4
FILES = st.dictionaries(
    st.sampled_from(["sha256", "was", "path", "thumb", "width", "workflow"]),
    st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from(["ab", "cd", "x/ab.webp", "x/cd.webp", "*ab"])),
)


def name_file(file):
    return {**file, "sha256": str(file.get("sha256", "ab")), "was": f"x/{file.get('was', 'ab.webp')}"}


@given(
    st.lists(FILES.map(name_file) | FILES.map(lambda file: {**file, "sha256": HASH, "was": "y/ab.webp"}), max_size=4)
)
def test_files_in_columns_equal_the_original_files(files):
    told = read_files(files)

    def value(name, place):
        column = told["columns"][name]
        if isinstance(column, list):
            return column[place]
        if "joined" in column:
            return column["joined"][place * 64 : (place + 1) * 64]
        if "from" in column:
            return column["from"] + place
        if "below" in column:
            return column["below"] + value("was", place).rpartition("/")[2]
        return column["made"].replace("*", value("sha256", place)) if "made" in column else column["each"]

    back = [{name: value(name, place) for name in told["columns"]} for place in range(told["count"])]
    assert [{name: item for name, item in file.items() if item is not None} for file in back] == files
    assert all(
        type(item) is type(files[n][name])
        for n, file in enumerate(back)
        for name, item in file.items()
        if item is not None
    )


def test_shared_file_values_are_stored_once():
    files = [
        {
            "sha256": f"{n:064x}",
            "kind": "image",
            "thumb": f"thumbs/{n:064x}.webp",
            "was": f"a/{n}.png",
            "path": f"files/{n}.png",
        }
        for n in range(10_000)
    ]
    columns = read_files(files)["columns"]
    assert columns["kind"] == {"each": "image", "count": 10_000}
    assert columns["path"] == {"below": "files/"}
    assert len(columns["sha256"]["joined"]) == 64 * len(files)
    assert columns["thumb"] == {"made": "thumbs/*.webp"}


def test_equal_and_consecutive_numbers_are_stored_in_short(made):
    data = read_literal((made(Sweep({"seed": [5, 6, 7]}, slots={"steps": 4})) / "data.js").read_text())
    assert data["trials"] == {"from": 0, "count": 3}
    assert [column["of"] for column in data["columns"]] == [{"from": 0, "count": 3}, {"each": 0, "count": 3}]
    assert data["job_numbers"]["cost"] == {"each": None, "count": 3}
    assert data["files"]["columns"]["sprite"] == {"from": 0, "count": 3}


def test_every_picture_has_a_sprite_and_old_sheets_go(tmp_path):
    sweep = Sweep({"seed": list(range(50))}, size=(64, 48))
    out = sweep.write(tmp_path / "results")
    write_report(out, tmp_path / "report")
    data = json.loads((tmp_path / "report/data.json").read_text())
    (sheet,) = data["sprites"]["sheets"]
    assert data["sprites"]["count"] == 50
    with Image.open(tmp_path / "report" / sheet) as image:
        side = image.width // data["sprites"]["across"]
        for file in data["files"]:
            row, column = divmod(file["sprite"], data["sprites"]["across"])
            box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
            shown = image.convert("RGB").crop(box).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
            mean = [int(file["colour"][n : n + 2], 16) for n in (1, 3, 5)]
            assert all(abs(a - b) < 12 for a, b in zip(shown, mean, strict=True))
    more = Sweep({"seed": list(range(60))}, size=(64, 48)).write(tmp_path / "more")
    write_report(more, tmp_path / "report")
    data = json.loads((tmp_path / "report/data.json").read_text())
    left = [f"thumbs/{path.name}" for path in (tmp_path / "report/thumbs").glob("sprites-*")]
    assert left == data["sprites"]["sheets"]
