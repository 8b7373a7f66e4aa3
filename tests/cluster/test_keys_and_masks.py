"""What reaches a worker's server besides the workflow: the worker's partner key, and pictures with their masks."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from sweeper.errors import SweeperError
from tests.cluster.probes import BesideServers
from tests.cluster.result_rows import raw_rows, rows_of, run_on
from tests.running.echo_server import tattling

KEY, PARTNER = "key-of-the-worker-1f", "partner-key-of-the-worker-2e"
PAID = {
    "1": {"class_type": "Paint", "inputs": {"text": "{{ text }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def paid(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(PAID))
    file = tmp_path / "e.yaml"
    file.write_text("template: t.json\nparams: {text: a}\nrun: {retries: 0}\n")
    return file


@pytest.fixture(scope="module")
def beside_a_paid_server():
    """A cluster with one worker and its server. Only the worker has the keys in its environment."""
    with tattling(KEY, "nowhere") as (server, _):
        keys = {"WORKERS_KEY": KEY, "WORKERS_PARTNER_KEY": PARTNER}
        with BesideServers([server.url], env=keys, silence_logs=50) as cluster:
            cluster.scale(1)
            cluster.wait_for_workers(1)
            yield cluster.scheduler_address, server


def test_partner_key_of_the_worker_goes_to_its_server_only(beside_a_paid_server, paid, tmp_path):
    address, server = beside_a_paid_server
    target = {
        "worker": "${SERVER_URL}", "dialect": "cloud", "api_key_env": "WORKERS_KEY",
        "partner_key_env": "WORKERS_PARTNER_KEY",
    }  # fmt: skip
    run_on(paid, address, target=target, out=tmp_path / "out")
    posts = [sent for sent in server.journal if b"POST /api/prompt" in sent]
    assert len(posts) == 1
    assert json.dumps({"api_key_comfy_org": PARTNER})[1:-1].encode() in posts[0]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not {KEY, PARTNER} & {k for k in (KEY, PARTNER) if k.encode() in path.read_bytes()}


@pytest.mark.parametrize("named", [{}, {"partner_key_env": "NOT_SET_THERE"}])
def test_missing_partner_key_on_the_worker_stops_the_run(beside_a_paid_server, paid, tmp_path, named):
    address, server = beside_a_paid_server
    before = len(server.journal)
    target = {"worker": "${SERVER_URL}", "dialect": "cloud", "api_key_env": "WORKERS_KEY", **named}
    try:
        message = str(run_on(paid, address, target=target, out=tmp_path / "out").error)
    except SweeperError as error:
        message = str(error)
    assert "paid partner" in message
    assert (named.get("partner_key_env") or "partner_key_env") in message
    assert not [sent for sent in server.journal[before:] if b"POST /api/prompt" in sent]


def test_masks_are_sent_and_applied_on_the_worker(cluster, tmp_path):
    import numpy as np
    from PIL import Image

    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "mask"}},
    }
    slots = {"photo": {"at": "1.image", "kind": "file"}, "mask": {"kind": "mask", "of": "photo"}}
    (tmp_path / "t.json").write_text(json.dumps(graph))
    (tmp_path / "t.slots.yaml").write_text(json.dumps({"slots": slots}))
    grid = {"photo": ["photo.png"], "mask": ["left.png", "right.png"]}
    (tmp_path / "e.yaml").write_text(
        json.dumps({"name": "masks", "template": "t.json", "target": "embedded", "sweep": {"grid": grid}})
    )
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "photo.png")
    left = Image.new("L", (16, 16), 0)
    left.paste(255, (0, 0, 8, 16))
    left.save(tmp_path / "left.png")
    left.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "right.png")

    run = run_on(tmp_path / "e.yaml", cluster.scheduler_address, out=tmp_path / "far")

    assert run.succeeded == 2, run.error
    corners = [
        np.asarray(Image.open(tmp_path / "far" / row.outputs[0]).convert("L"))[0, [0, -1]].tolist()
        for row in raw_rows(tmp_path / "far")
    ]
    assert corners == [[255, 0], [0, 255]]


def test_deleted_picture_is_reported_and_remade_with_remake(cluster, experiment, executions, tmp_path):
    plan = experiment(seed=[1, 2, 3])
    run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    before = rows_of(tmp_path / "out")
    gone = tmp_path / "out" / raw_rows(tmp_path / "out")[1].outputs[0]
    gone.unlink()
    events = []

    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", progress=events.append)

    messages = [event.message for event in events if hasattr(event, "message")]
    assert any(gone.name in message and "Use `--remake`" in message for message in messages)
    assert (again.submitted, again.succeeded) == (0, 3)
    assert len(executions()) == 3
    remade = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", remake=True)
    assert (remade.submitted, remade.succeeded, len(executions())) == (1, 3, 4)
    now = rows_of(tmp_path / "out")
    assert [row["sha256"] for row in now] == [row["sha256"] for row in before]
