"""Jobs and files after a restart, a SIGTERM and a SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import httpx
import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.errors import UsageError
from tests import ROOT
from tests.embedded.clients import Cloud, Comfy
from tests.embedded.probes import Gate, chain, probe_nodes, waiting
from tests.waiting import read_line, wait_until

SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.embedded.probes import probe_nodes
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.embedded import EmbeddedServer
with catch_stop_signals() as wait, EmbeddedServer(sys.argv[2], data=sys.argv[3], nodes=probe_nodes()) as server:
    print(server.url, flush=True)
    wait()
print("bye", flush=True)
"""


class Process:
    """A server in its own process."""

    def __init__(self, dialect, data):
        command = [sys.executable, "-W", "error", "-c", SERVE, str(ROOT), dialect, str(data)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = read_line(self.process.stdout).strip()

    def end(self, number):
        """Send a signal. Returns (exit code, rest of stdout, stderr)."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextmanager
def process(dialect, data):
    served = Process(dialect, data)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.communicate(timeout=60)


@contextmanager
def client(kind, server):
    client_ = kind(server)
    with closing(client_.http):
        yield client_


def test_cloud_jobs_and_files_survive_a_stop(tmp_path):
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes()) as server, client(Cloud, server) as cloud:
        good, bad = cloud.run(chain(text="é")), cloud.run(chain(fail=True))
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes()) as server, client(Cloud, server) as cloud:
        assert cloud.wait_for_end(good["id"]) == good
        assert cloud.wait_for_end(bad["id"]) == bad
        assert [row["id"] for row in cloud.http.get("/api/jobs").json()["jobs"]] == [bad["id"], good["id"]]
        location = cloud.http.get("/api/view", params=good["outputs"]["9"]["images"][0]).headers["location"]
        assert httpx.get(location).text.endswith("é|0|4|7.0|euler")
        assert cloud.run(chain(seed=5))["outputs"]["9"]["images"][0]["filename"] == "probe_00002_.txt"


def test_stop_requeues_the_running_job_for_the_next_start(tmp_path):
    gate = Gate()
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes(gate)) as server, client(Cloud, server) as cloud:
        jobs = [cloud.submit(waiting(seed=seed, prefix=f"w{seed}")) for seed in range(3)]
        assert gate.entered.wait(60)
    gate.opened.set()
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes(gate)) as server, client(Cloud, server) as cloud:
        assert [cloud.wait_for_end(job)["status"] for job in jobs] == ["completed"] * 3
        jobs_ = cloud.http.get("/api/jobs").json()["jobs"]
        assert [row["id"] for row in jobs_] == jobs[::-1]
        assert sum(server.seen.executions.values()) == 3


def test_after_a_kill_the_running_job_is_lost_and_others_run(tmp_path):
    with process("cloud", tmp_path) as served, client(Cloud, served) as cloud:
        done = cloud.run(chain())["id"]
        running = cloud.submit(waiting())
        wait_until(lambda: cloud.status(running) == "executing")
        waits = cloud.submit(chain(seed=3))
        served.end(signal.SIGKILL)
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes()) as server, client(Cloud, server) as cloud:
        assert cloud.wait_for_end(done)["status"] == "completed"
        assert cloud.status(running) == "lost"
        lost = cloud.wait_for_end(running)
        assert lost["status"] == "failed"
        assert lost["execution_error"]["exception_type"] == "ServiceError"
        assert lost["workflow"]["prompt"] == waiting()
        assert cloud.wait_for_end(waits)["status"] == "completed"


@pytest.mark.parametrize(("dialect", "number"), [("cloud", signal.SIGTERM), ("comfyui", signal.SIGINT)])
def test_signals_end_the_server_cleanly_during_a_job(tmp_path, dialect, number):
    with process(dialect, tmp_path) as served:
        prefix = "/api" if dialect == "cloud" else ""
        answer = httpx.post(f"{served.url}{prefix}/prompt", json={"prompt": waiting()})
        assert answer.status_code == 200
        assert served.end(number) == (0, "bye\n", "")


def test_new_jobs_come_after_those_of_before_a_restart(tmp_path):
    jobs = []
    for graphs in ((waiting(), chain()), (chain(seed=1),)):
        gate = Gate()
        with (
            EmbeddedServer(data=tmp_path, nodes=probe_nodes(gate)) as server,
            client(Cloud, server) as cloud,
        ):
            for graph in graphs:
                jobs.append(cloud.submit(graph))
                assert gate.entered.wait(60)
            listed = cloud.http.get("/api/jobs").json()["jobs"]
    assert [(row["id"], row["status"]) for row in listed] == list(
        zip(jobs[::-1], ("pending", "pending", "in_progress"), strict=True)
    )


def test_comfyui_forgets_jobs_and_keeps_files(tmp_path):
    with EmbeddedServer("comfyui", data=tmp_path, nodes=probe_nodes()) as server, client(Comfy, server) as comfy:
        name = comfy.run(chain())["prompt"][1]
        (server.folders.temp_dir / "x.png").write_bytes(b"x")
    with EmbeddedServer("comfyui", data=tmp_path, nodes=probe_nodes()) as server, client(Comfy, server) as comfy:
        assert comfy.http.get(f"/history/{name}").json() == {}
        assert list(server.folders.temp_dir.iterdir()) == []
        entry = comfy.run(chain())
        assert entry["prompt"][0] == 0  # the counter begins again
        assert server.seen.nodes["ProbeLoader"] == 1  # so does the cache
        assert entry["outputs"]["9"]["images"][0]["filename"] == "probe_00002_.txt"  # the files do not


def test_two_servers_never_share_a_folder(tmp_path):
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes()) as first:
        with pytest.raises(UsageError, match=r"jobs\.sqlite.*another server"):
            EmbeddedServer(data=tmp_path, nodes=probe_nodes()).start()
        assert httpx.get(first.url + "/api/user").status_code == 200
    with EmbeddedServer(data=tmp_path, nodes=probe_nodes()):
        pass


def test_foreign_file_with_the_name_of_the_journal_is_refused(tmp_path):
    (tmp_path / "jobs.sqlite").write_text("this is no database, but it is long enough to look at" * 20)
    with pytest.raises(UsageError, match="cannot keep jobs here"):
        EmbeddedServer(data=tmp_path, nodes=probe_nodes()).start()


def test_assets_survive_a_stop(tmp_path):
    with EmbeddedServer("v2", data=tmp_path, nodes=probe_nodes()) as server, client(Cloud, server) as cloud:
        asset = cloud.http.post("/api/v2/assets", files={"file": ("a.bin", b"abc")}).json()
    with EmbeddedServer("v2", data=tmp_path, nodes=probe_nodes()) as server, client(Cloud, server) as cloud:
        kept = cloud.http.get(f"/api/v2/assets/{asset['id']}").json()
        assert {name: kept[name] for name in ("id", "hash", "size_bytes")} == {
            name: asset[name] for name in ("id", "hash", "size_bytes")
        }
        assert httpx.get(kept["url"]).content == b"abc"
