"""What a run writes for a viewer in another process, and that it writes nothing without one."""

from __future__ import annotations

import os

import pytest

from sweeper.running import run_events
from sweeper.store.live_folder import LiveFolder, TrialProgress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return LiveFolder(tmp_path)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def showing(folder, clock, heard):
    return run_events.LiveFeed(folder, heard.append, clock=clock)


def make_submitted(trial):
    return run_events.JobSubmitted("t", trial, f"p{trial}", 1)


def preview(trial, image):
    return run_events.JobPreview("t", trial, f"p{trial}", "3", image)


def test_every_event_is_forwarded(showing, heard):
    events = [make_submitted(1), preview(1, b"x"), run_events.TrialDone(1, "succeeded", "t"), run_events.Notice("x")]
    for event in events:
        showing(event)
    assert heard == events


def test_without_a_viewer_nothing_is_written(showing, clock, tmp_path):
    for event in (make_submitted(1), preview(1, b"x"), run_events.JobProgress("t", 1, "p1", "3", 1, 2)):
        clock.now += 10
        showing(event)
    assert list(tmp_path.iterdir()) == []


def test_a_viewer_sees_the_step_and_last_preview_of_trials_in_flight(showing, folder, clock):
    folder.announce_viewer()
    showing(make_submitted(1))
    showing(preview(1, b"first"))
    clock.now += 1
    showing(preview(1, b"second"))
    clock.now += 1
    showing(run_events.JobProgress("t", 1, "p1", "3", 4, 9))
    assert folder.read_progress() == {1: TrialProgress("3", 4.0, 9.0, 2)}
    assert folder.read_preview(1) == b"second"
    clock.now += 1
    showing(run_events.TrialDone(1, "succeeded", "t"))
    assert folder.read_progress() == {}
    assert folder.read_preview(1) is None


def test_previews_that_follow_too_fast_are_not_written(showing, folder, clock):
    folder.announce_viewer()
    for number in range(50):
        showing(preview(1, b"%d" % number))
        clock.now += 0.01
    assert 0 < folder.read_progress()[1].preview <= 3


def test_a_viewer_that_was_killed_is_forgotten(showing, folder, clock, tmp_path):
    folder.announce_viewer()
    os.utime(tmp_path / "live/watched", (1.0, 1.0))
    showing(preview(1, b"x"))
    assert folder.read_preview(1) is None


def test_a_new_run_removes_the_files_of_a_killed_one(showing, folder, tmp_path):
    folder.announce_viewer()
    folder.write_preview(7, b"old")
    folder.write_progress({7: TrialProgress("3", 1, 2, 1)})
    showing(run_events.RunStarted(1, tmp_path, 1, 1, 0, ("t",)))
    assert folder.read_preview(7) is None
    assert folder.read_progress() == {}
    folder.remove_viewer()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[", "[]", '{"a": [1]}', '{"1": ["3", "x", 1, 1]}', '{"1": 5}'])
def test_invalid_progress_files_are_ignored(folder, tmp_path, text):
    folder.announce_viewer()
    (tmp_path / "live/progress.json").write_text(text)
    assert folder.read_progress() == {}


def test_an_unusable_live_folder_does_no_harm(tmp_path, clock):
    (tmp_path / "live").write_text("a file at its path")
    folder = LiveFolder(tmp_path)
    folder.announce_viewer()
    folder.write_progress({1: TrialProgress("3", 1, 2)})
    folder.write_preview(1, b"x")
    folder.clear()
    folder.remove_viewer()
    assert folder.read_progress() == {}
    assert not folder.has_viewer(0.0)
