"""The files that the page edits: saved as a whole, undone, redone; what another program saves is never overwritten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sweeper
from sweeper.editing import document as document_module
from sweeper.editing.document import Document, StaleVersionError
from sweeper.errors import UsageError
from sweeper.loading.suggest_slots import Suggestion
from tests.experiment_files import small, write

TEXT = "name: e\ntemplate: t.json  # mine\nsweep:\n  grid:\n    steps: [8, 20]  # few\n"
SLOTS = "slots:\n  steps: {at: 1.steps}\n"
CFG = Suggestion("cfg", "1.cfg", "Text", "Words", "number", 7.0, {"type": "number"})
SET_STEPS = {"set": "axis", "name": "steps", "value": [9]}


@pytest.fixture
def file(tmp_path):
    return write(tmp_path, TEXT, small()[0], None, {"t.slots.yaml": SLOTS})


def test_a_change_is_on_disk_at_once_and_can_be_undone(file):
    document = Document(file)
    document.apply(document.version, [SET_STEPS])
    changed = TEXT.replace("[8, 20]", "[9]")
    assert (file.read_text(), document.text, document.can_step(-1), document.can_step(1)) == (
        changed,
        changed,
        True,
        False,
    )
    assert document.diff()[-2:] == [("-", "    steps: [8, 20]  # few"), ("+", "    steps: [9]  # few")]
    document.step(document.version, -1)
    assert (file.read_text(), document.can_step(-1), document.can_step(1), document.diff()) == (TEXT, False, True, [])
    document.step(document.version, 1)
    assert file.read_text() == changed
    assert not list(file.parent.glob(".*"))
    with pytest.raises(UsageError, match="nothing left to undo or redo"):
        document.step(document.version, 1)


def test_a_refused_change_leaves_everything(file):
    document = Document(file)
    version = document.version
    with pytest.raises(UsageError):
        document.apply(version, [SET_STEPS, {"set": "unzip", "name": "none"}])
    assert (file.read_text(), document.version, document.can_step(-1)) == (TEXT, version, False)
    with pytest.raises(UsageError, match="cannot be saved"):
        document.replace_text(version, "a: \ud800")
    assert file.read_text() == TEXT


def test_a_new_slot_is_saved_with_its_axis_and_stays_after_undo(file):
    document = Document(file)
    document.apply(document.version, [{"set": "axis", "address": "1.cfg", "value": [4, 7]}], [CFG])
    assert [len(axis.options) for block in sweeper.load(file).blocks for (axis,) in block.dimensions] == [2, 2]
    document.step(document.version, -1)
    assert file.read_text() == TEXT
    assert set(sweeper.load(file).template.slots) == {"steps", "cfg"}
    document.step(document.version, 1)
    assert len(sweeper.load(file).blocks[0].dimensions) == 2


def test_a_template_without_a_slots_file_gets_one(tmp_path):
    graph = small()[0]
    graph["1"]["inputs"]["steps"] = "{{ steps }}"
    file = write(tmp_path, TEXT, graph)
    document = Document(file)
    document.apply(document.version, [{"set": "axis", "address": "1.cfg", "value": [4, 7]}], [CFG])
    assert set(sweeper.load(file).template.slots) == {"steps", "cfg"}


def test_a_change_on_disk_wins_and_the_page_can_redo_its_own(file):
    document = Document(file)
    file.write_text(TEXT + "# theirs\n")
    with pytest.raises(StaleVersionError, match=r"e\.yaml or its slots file was changed by another program"):
        document.apply(document.version, [SET_STEPS])
    assert file.read_text() == document.text == TEXT + "# theirs\n"
    document.step(document.version, 1)
    assert file.read_text() == TEXT.replace("[8, 20]", "[9]")
    document.step(document.version, -1)
    assert file.read_text() == TEXT + "# theirs\n"
    document.step(document.version, -1)
    assert file.read_text() == TEXT


def test_a_text_for_an_older_version_waits_behind_redo(file):
    document = Document(file)
    version = document.version
    file.write_text(TEXT + "# theirs\n")
    assert document.reload()
    for _ in range(2):
        with pytest.raises(StaleVersionError, match="has changed since"):
            document.replace_text(version, TEXT + "# typed\n")
    assert file.read_text() == TEXT + "# theirs\n"
    document.step(document.version, 1)
    assert (file.read_text(), document.can_step(1)) == (TEXT + "# typed\n", False)


def test_a_change_between_check_and_save_wins_too(file, monkeypatch):
    document = Document(file)

    def copy_mode(*_):
        file.write_text("name: theirs\n")

    monkeypatch.setattr(document_module.shutil, "copymode", copy_mode)
    with pytest.raises(StaleVersionError):
        document.apply(document.version, [SET_STEPS])
    assert file.read_text() == document.text == "name: theirs\n"
    assert not list(file.parent.glob(".*"))


def test_a_change_of_the_slots_file_is_seen(file):
    document = Document(file)
    version = document.version
    (file.parent / "t.slots.yaml").write_text(SLOTS + "# theirs\n")
    assert document.reload()
    assert not document.reload()
    assert (document.version != version, document.slots_text) == (True, SLOTS + "# theirs\n")
    with pytest.raises(StaleVersionError):
        document.apply(version, [SET_STEPS])
    (file.parent / "t.slots.yaml").write_text(SLOTS)
    with pytest.raises(StaleVersionError):  # though the change is one of the experiment
        document.apply(document.version, [SET_STEPS])
    assert (file.read_text(), document.slots_text) == (TEXT, SLOTS)


def test_a_text_of_the_page_keeps_the_line_ends_and_the_mode_of_the_file(file):
    file.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    document = Document(file)
    document.replace_text(document.version, document.text.replace("\r\n", "\n") + "# more\n")
    assert file.read_bytes() == b"\xef\xbb\xbf" + (TEXT + "# more\n").replace("\n", "\r\n").encode()
    assert file.stat().st_mode & 0o777 == 0o640 or os.name == "nt"
    document.replace_text(document.version, "")
    assert file.read_bytes() == b""
    document.replace_text(document.version, "a: [")
    assert (file.read_bytes(), document.slots_file) == (b"a: [", None)


def test_what_cannot_be_read_is_refused_with_the_reason(file):
    file.write_bytes(b"name: \xff\n")
    with pytest.raises(UsageError, match=r"is not UTF-8 text \(byte 6\)"):
        Document(file)
    file.write_text(TEXT)
    document = Document(file)
    file.unlink()
    with pytest.raises(UsageError, match="No such file"):
        document.apply(document.version, [SET_STEPS])
    with pytest.raises(UsageError, match="No such file"):
        document.reload()
    assert not file.exists()
    assert document.text == TEXT


def test_a_link_stays_a_link_and_its_target_changes(file):
    (file.parent / "link.yaml").symlink_to("e.yaml")
    document = Document(file.parent / "link.yaml")
    document.apply(document.version, [SET_STEPS])
    assert (file.parent / "link.yaml").is_symlink()
    assert file.read_text() == TEXT.replace("[8, 20]", "[9]")


def test_files_of_another_project_are_neither_read_nor_written(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, "secret: 1\n", small()[0], None, {"t.slots.yaml": SLOTS})
    mine = tmp_path / "mine"
    file = write(mine, TEXT.replace("t.json", "../elsewhere/t.json"))
    document = Document(file)
    assert (document.slots_file, document.slots_text) == (None, None)
    with pytest.raises(UsageError, match="template cannot be read"):
        document.apply(document.version, [{"set": "axis", "address": "1.cfg", "value": [4]}], [CFG])
    (mine / "link.yaml").symlink_to(elsewhere / "e.yaml")
    with pytest.raises(UsageError, match="outside of the project"):
        Document(mine / "link.yaml")
    (mine / "t.slots.yaml").unlink()
    (mine / "t.slots.yaml").symlink_to(elsewhere / "t.slots.yaml")
    file.write_text(TEXT)
    assert Document(file).slots_text is None


def test_steps_are_bounded(file, monkeypatch):
    monkeypatch.setattr(document_module, "_MAX_STEPS", 3)
    document = Document(file)
    for number in range(6):
        document.apply(document.version, [{**SET_STEPS, "value": [number]}])
    for _ in range(3):
        document.step(document.version, -1)
    assert (document.can_step(-1), "steps: [2]" in document.text) == (False, True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("step", range(7))
def test_a_kill_at_any_step_leaves_both_files_whole(file, step):
    """The process dies in the system call `step` of those that write, which are those of both files."""
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from sweeper.editing.document import Document
        from tests.editing.test_document import CFG
        document = Document(Path({str(file)!r}))
        calls = 0
        def hook(event, arguments):
            global calls
            is_write = event in ("os.rename", "os.chmod") or (event == "open" and "x" in str(arguments[1]))
            calls += is_write
            if is_write and calls == {step}:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        document.apply(document.version, [{{"set": "axis", "address": "1.cfg", "value": [4, 7]}}], [CFG])
    """)
    result = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), timeout=60, check=False)
    assert result.returncode == (-signal.SIGKILL if step else 0)
    experiment = sweeper.load(file)
    assert len(experiment.blocks[0].dimensions) == (2 if "cfg" in file.read_text() else 1)
