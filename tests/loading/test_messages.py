"""Bad input gives exactly these messages with file and line, all at once and in the order of the file.

The cases are in `messages/*.txt`: `=== name`, then each file that differs from the usual ones under `--- file`, then
the expected messages under `--- says`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import sweeper
from sweeper.errors import ExperimentError, TemplateError
from tests.experiment_files import small, write

USUAL = "name: e\ntemplate: t.json\n"
BESIDE = {
    "empty.txt": "\n  \n",
    "words.txt": "a\n",
    "latin.txt": "café\n".encode("latin-1"),
    "table.csv": "text,n\na fox,4\n",
    "broken.csv": 'text\n"a fox\n',
}


def cases():
    for file in sorted((Path(__file__).parent / "messages").glob("*.txt")):
        for chunk in ("\n" + file.read_text("utf-8")).split("\n=== ")[1:]:
            name, *sections = chunk.split("\n--- ")
            files = dict(section.split("\n", 1) for section in sections)
            expected = files.pop("says").rstrip("\n").split("\n")
            yield pytest.param(files, expected, id=name)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_out(folder, files):
    """Write the usual files with those of the case. If the case has its own workflow, the usual slots are left out."""
    graph, slots = small()
    usual = {} if "t.json" in files or "t.slots.yaml" in files else slots
    write(folder, USUAL, graph, usual, BESIDE | {name: text + "\n" for name, text in files.items()})


@pytest.mark.parametrize(("files", "expected"), list(cases()))
def test_messages(here, files, expected):
    lay_out(here, files)
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(ExperimentError) as caught:
        sweeper.plan(sweeper.load("e.yaml"))
    assert expected == str(caught.value).split("\n")
    assert len(caught.value.problems) == len(expected)
    assert before == sorted(path.name for path in here.iterdir())


def test_a_missing_experiment_gives_the_nearest_file(here):
    lay_out(here, {})
    with pytest.raises(ExperimentError) as caught:
        sweeper.load("ee.yaml")
    assert str(caught.value) == "ee.yaml: there is no such file; did you mean 'e.yaml'?"


def test_a_file_in_another_folder_is_named_as_the_user_wrote_it(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    lay_out(tmp_path, {"e.yaml": "name: e\ntemplate: t.json\nx: 1"})
    with pytest.raises(ExperimentError) as caught:
        sweeper.load(tmp_path / "e.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'e.yaml'}:3: x: unknown key 'x'")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"name: caf\xe9\n", "e.yaml: is not UTF-8 text (byte 9)"),
        ("name: e\n".encode("utf-16"), "e.yaml: is not UTF-8 text (byte 0)"),
        (b"name: e\x00\n", "e.yaml: is not YAML: unacceptable character #x0000: control characters are not allowed"),
        (b"a: " + b"[" * 500, "e.yaml:1: is nested more than 64 levels deep"),
        (
            b"a: " * 100_000,
            "e.yaml:1: is not YAML: a text with a colon and a space in it needs quotes, such as prompt: 'a fox: red'",
        ),
        (b"a: " + b"9" * 5000 + b"\n", "e.yaml:1: a: a number of more than 4300 digits"),
    ],
)
def test_a_file_that_is_not_text_is_refused(here, data, expected):
    (here / "e.yaml").write_bytes(data)
    with pytest.raises(ExperimentError) as caught:
        sweeper.load("e.yaml")
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"1": "\xff"}', "t.json: is not UTF-8 text (byte 7)"),
        (b"[" * 100_000, "t.json:1: is nested more than 64 levels deep"),
        (b"[\n" * 900 + b"]" * 900, "t.json:66: is nested more than 64 levels deep"),
        (
            b'{"1": {"inputs": {"x": [2.5,\n -1e999]}}}',
            "t.json:2: 1.inputs.x[1]: -1e999 is too large for a number; a finite number is needed",
        ),
        (b"", "t.json:1: is not JSON: the text is empty, column 1"),
    ],
)
def test_a_template_that_is_not_text_is_refused(here, data, expected):
    (here / "t.json").write_bytes(data)
    with pytest.raises(TemplateError) as caught:
        sweeper.load_template("t.json")
    assert expected == str(caught.value)


def test_a_hundred_thousand_brackets_are_refused(here):
    (here / "e.yaml").write_bytes(b"a: " + b"[" * 100_000)  # newer versions of libyaml have their own limit and message
    with pytest.raises(ExperimentError, match="nest"):
        sweeper.load("e.yaml")


def test_an_integer_with_too_many_digits_in_a_template_is_refused(here):
    (here / "t.json").write_text('{"1": ' + "9" * 5000 + "}")
    with pytest.raises(TemplateError, match=r"^t\.json: is not JSON: a number of more than 4300 digits"):
        sweeper.load_template("t.json")


def test_a_file_that_is_too_large_is_not_read(here):
    with (here / "e.yaml").open("wb") as file:
        file.truncate(65 * 1024 * 1024)  # a sparse file
    with pytest.raises(ExperimentError, match=r"^e\.yaml: has more than 67,108,864 bytes$"):
        sweeper.load("e.yaml")


def test_a_template_alone_has_the_same_problems(here):
    lay_out(here, {"t.slots.yaml": "slots:\n  steps: {at: 1.stps}\n  cfg: {at: 3.cfg}\n"})
    with pytest.raises(TemplateError) as alone:
        sweeper.load_template("t.json")
    with pytest.raises(ExperimentError) as within:
        sweeper.load("e.yaml")
    assert alone.value.problems == within.value.problems
    assert [problem.line for problem in alone.value.problems] == [2, 3]


def test_crlf_bom_and_comments_do_not_change_line_numbers(here):
    text = "\ufeff# first\r\nname: e\r\ntemplate: t.json\r\n\r\nparams: {stpes: 4}  # wrong\r\n"
    lay_out(here, {"e.yaml": text.removesuffix("\n")})
    with pytest.raises(ExperimentError, match=r"^e\.yaml:5: params\.stpes: "):
        sweeper.load("e.yaml")
