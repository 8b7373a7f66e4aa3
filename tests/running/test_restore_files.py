"""A deleted picture is noticed by the next run, and downloaded again where that costs nothing."""

from __future__ import annotations

import json

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.running.run_events import Notice, RunStarted
from tests.running.conftest import NODES


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def list_notices(events):
    return [event.message for event in events if isinstance(event, Notice)]


def pictures(out):
    return sorted((out / "artifacts").glob("*.png"))


def test_a_deleted_picture_is_downloaded_again_without_submitting(server, target, experiment, out):
    sweeper.run(experiment(seed=[1, 2]), target, out)
    path = pictures(out)[0]
    before = path.read_bytes()
    path.unlink()
    events = []

    run = sweeper.run(experiment(seed=[1, 2]), target, out, progress=events.append)

    assert path.read_bytes() == before
    assert (run.submitted, run.succeeded, run.reused) == (0, 2, 2)
    assert server.seen.submits == 2
    assert list_notices(events) == ["1 file missing from artifacts/ was downloaded again from probe-server, at no cost"]


LOST = {
    "file": "the server does not serve the file",
    "other": "the server has another file of that name now",
    "server": "no response",
}


# All dialects ask for a file in their own way; what they then get is compared in one place.
@pytest.mark.parametrize(
    ("dialect", "loss"),
    [("comfyui", "file"), ("cloud", "file"), ("v2", "file"), ("comfyui", "other"), ("cloud", "server")],
    indirect=["dialect"],
)
def test_files_lost_on_the_server_too_are_remade_on_request_only(target, server, experiment, out, loss):
    sweeper.run(experiment(seed=[1, 2]), target, out)
    pictures(out)[0].unlink()
    for path in server.folders.output_dir.rglob("*.png") if loss != "server" else ():
        path.unlink() if loss == "file" else path.write_bytes(b"other")
    if loss == "server":
        server.stop()
    events = []

    run = sweeper.run(experiment(seed=[1, 2]), target, out, progress=events.append)

    assert (run.submitted, run.succeeded, len(pictures(out))) == (0, 2, 1)
    assert list(sweeper.results(out)["status"]) == ["succeeded", "succeeded"]
    assert "1 file is missing and could not be downloaded again from probe-server" in list_notices(events)[0]
    assert LOST[loss] in list_notices(events)[0]
    assert "`--remake` submits their trials again" in list_notices(events)[0]
    assert not list((out / "artifacts").glob(".*"))

    with EmbeddedServer(dialect=target["dialect"], nodes=NODES) as other:
        again = sweeper.run(experiment(seed=[1, 2]), {**target, "url": other.url}, out, remake=True)
        assert (again.submitted, again.succeeded, other.seen.submits) == (1, 2, 1)
    listed = [path for outputs in sweeper.results(out)["outputs"] for path in outputs]
    assert len(listed) == 2
    assert all((out / path).is_file() for path in listed)


def test_the_embedded_server_reruns_trials_with_missing_files(tmp_path, out):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": "{{ color }}"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    (tmp_path / "e.yaml").write_text("template: t.json\nsweep: {grid: {color: [1, 2]}}\n")
    sweeper.run(tmp_path / "e.yaml", "embedded", out)
    pictures(out)[0].unlink()

    events = []
    run = sweeper.run(tmp_path / "e.yaml", "embedded", out, progress=events.append)

    assert (run.submitted, run.succeeded, len(pictures(out))) == (1, 2, 2)
    assert list_notices(events) == ["files of 1 trial are missing; the embedded server generates them again"]
    (started,) = [event for event in events if isinstance(event, RunStarted)]
    assert (started.todo, started.reused) == (1, 1)
