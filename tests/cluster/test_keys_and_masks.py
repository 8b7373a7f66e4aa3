"""What must reach a worker's server beside the workflow: partner keys of its own, pictures with their masks."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from sweeper.cluster import run as run_on
from sweeper.errors import SweeperError
from tests.cluster.probes import BesideServers
from tests.cluster.result_rows import raw_rows, rows_of
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


@pytest.fixture
def beside_a_paid_server(monkeypatch):
    """A cluster of one worker with keys in its environment that this process does not have, and its server."""
    with tattling(KEY, "nowhere") as (server, _):
        with monkeypatch.context() as there:
            there.setenv("WORKERS_KEY", KEY)
            there.setenv("WORKERS_PARTNER_KEY", PARTNER)
            cluster = BesideServers([server.url], silence_logs=50)
            cluster.scale(1)
            cluster.wait_for_workers(1)
        with cluster:
            yield cluster.scheduler_address, server


def test_the_partner_key_is_the_workers_and_goes_to_its_server_only(beside_a_paid_server, paid, tmp_path):
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
def test_partner_nodes_without_a_key_on_the_worker_are_told_and_nothing_is_sent(
    beside_a_paid_server, paid, tmp_path, named
):
    address, server = beside_a_paid_server
    target = {"worker": "${SERVER_URL}", "dialect": "cloud", "api_key_env": "WORKERS_KEY", **named}
    try:
        said = str(run_on(paid, address, target=target, out=tmp_path / "out").error)
    except SweeperError as error:
        said = str(error)
    assert "paid partner" in said
    assert (named.get("partner_key_env") or "partner_key_env") in said
    assert not [sent for sent in server.journal if b"POST /api/prompt" in sent]


def test_masks_go_with_their_pictures_and_mask_there(cluster, tmp_path):
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


def test_a_deleted_picture_is_told_and_made_again_on_request(cluster, experiment, executions, tmp_path):
    plan = experiment(seed=[1, 2, 3])
    run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    before = rows_of(tmp_path / "out")
    gone = tmp_path / "out" / raw_rows(tmp_path / "out")[1].outputs[0]
    gone.unlink()
    events = []

    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", progress=events.append)

    told = [event.message for event in events if hasattr(event, "message")]
    assert any(gone.name in message and "`--remake` submits their trials again" in message for message in told)
    assert (again.submitted, again.succeeded) == (0, 3)
    assert len(executions()) == 3
    remade = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", remake=True)
    assert (remade.submitted, remade.succeeded, len(executions())) == (1, 3, 4)
    now = rows_of(tmp_path / "out")
    assert [row["sha256"] for row in now] == [row["sha256"] for row in before]
