"""Which values `--dask` and a worker's target may have, and the messages for others. Without a cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sweeper.cluster import bind_session
from sweeper.cluster.address import resolve_address, resolve_for_workers, resolve_on_worker
from sweeper.errors import UsageError


def test_address_forms_are_resolved(tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text("{}")
    environ = {"DASK_SCHEDULER_ADDRESS": "tcp://lab:8786"}
    assert resolve_address("local:4", {}) == "local:4"
    assert resolve_address("tcp://scheduler:8786", {}) == "tcp://scheduler:8786"
    assert resolve_address(str(file), {}) == f"file:{file}"
    assert resolve_address("auto", environ) == "tcp://lab:8786"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("auto", "DASK_SCHEDULER_ADDRESS is not set"),
        ("local", "how many workers? local:4 starts four"),
        ("local:0", "how many workers?"),
        ("local:some", "how many workers?"),
        ("scheduler:8786", "neither an address nor a scheduler file that exists; give local:N"),
    ],
)
def test_invalid_address_is_rejected_with_the_allowed_forms(text, message):
    with pytest.raises(UsageError, match="--dask") as caught:
        resolve_address(text, {})
    assert message in str(caught.value)


def test_worker_target_is_completed_on_the_worker():
    written = {"worker": "http://127.0.0.1:${PORT}", "api_key_env": "KEY", "concurrency": 3}
    target = resolve_for_workers(written, None)
    assert (target.name, target.key, target.concurrency) == ("worker http://127.0.0.1:${PORT}", None, 3)
    completed = resolve_on_worker(target, {"PORT": "8189", "KEY": "secret-of-the-worker"})
    assert (completed.url, completed.name, completed.concurrency) == ("http://127.0.0.1:8189", target.name, 3)
    assert completed.key == "secret-of-the-worker"
    with pytest.raises(UsageError, match="PORT is not set in this worker's environment"):
        resolve_on_worker(target, {"KEY": "x"})
    with pytest.raises(UsageError, match="KEY, which is not set"):
        resolve_on_worker(target, {"PORT": "8189"})


def test_worker_inserts_only_variables_that_it_allows_into_a_url():
    environ = {
        "PORT": "8189",
        "GPU_PORT": "9",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "SWEEPER_WORKER_VARIABLES": "GPU_PORT, X",
    }
    target = resolve_for_workers({"worker": "http://stranger.invalid/${AWS_SECRET_ACCESS_KEY}"}, None)
    with pytest.raises(
        UsageError, match=r"does not insert the variable AWS_SECRET_ACCESS_KEY .*PORT, GPU_PORT, X"
    ) as caught:
        resolve_on_worker(target, environ)
    assert "s3cr3t" not in str(caught.value)
    assert resolve_on_worker(resolve_for_workers({"worker": "http://h:$GPU_PORT"}, None), environ).url == "http://h:9"
    with pytest.raises(UsageError, match="does not insert the variable GPU_PORT"):
        resolve_on_worker(resolve_for_workers({"worker": "http://h:$GPU_PORT"}, None), {"GPU_PORT": "9"})


def test_named_target_may_be_a_worker_target():
    named = {"lab": {"worker": "http://127.0.0.1:8188"}, "cloud-like": "https://comfy.example"}
    assert resolve_for_workers("lab", named).name == "lab"
    assert resolve_for_workers("cloud-like", named).url == "https://comfy.example"
    assert resolve_for_workers("embedded", None).embedded


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("http://localhost:8188", 'write target: {worker: "http://localhost:8188"}'),
        (["embedded", "cloud"], "has one target"),
        ({"worker": "http://a:1", "url": "http://b:2"}, "in place of `url`"),
        ({"worker": 8188}, "give the URL of the server as each worker sees it"),
        ({"worker": "http://a:1", "dialekt": "cloud"}, "did you mean 'dialect'?"),
    ],
)
def test_target_that_a_cluster_cannot_use_is_rejected(spec, message):
    with pytest.raises(UsageError) as caught:
        resolve_for_workers(spec, None)
    assert message in str(caught.value)


def test_worker_target_needs_a_cluster(tmp_path):
    import sweeper

    (tmp_path / "t.json").write_text('{"1": {"class_type": "Paint", "inputs": {"seed": "{{ seed }}"}}}')
    (tmp_path / "e.yaml").write_text("template: t.json\ntarget: {worker: 'http://127.0.0.1:8188'}\nparams: {seed: 1}\n")
    with pytest.raises(UsageError, match="use it with --dask"):
        sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_worker_resources_reach_the_session():
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    session = bind_session("local:2", {"GPU": 1})
    assert (session.address, session.worker_resources) == ("local:2", {"GPU": 1})


def test_missing_extra_is_reported():
    code = (
        "import sys; sys.modules['distributed'] = None; from sweeper.cluster import bind_session as f; f('local:1', {})"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = f"UsageError: --dask needs the package `distributed`: {sys.executable} -m pip install distributed"
    assert message in failed.stderr
