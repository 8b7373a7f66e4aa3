"""No call that Comfy Cloud deprecated, or that a current ComfyUI has a better one for, leaves in a whole run."""

from __future__ import annotations

import re
import signal

import pytest

import sweeper
from sweeper.running.run_events import JobSubmitted
from sweeper.running.stop_control import StopControl
from tests.running.servers import SLOW, Served

# By the OpenAPI document of ComfyUI's repository; `offset` is deprecated in Cloud's list of jobs only.
DEPRECATED = {
    "cloud": re.compile(r"\S+ /api/(job/|history|queue|interrupt|jobs\?.*\boffset=)"),
    "v2": re.compile(r"\S+ (/api)?/(jobs?/|jobs\?|history|queue|interrupt|prompt)"),
    "comfyui": re.compile(r"\S+ (/api)?/(history|queue|interrupt)\b"),
}
NEEDED = (r"GET /api/(v2/)?jobs/[^/]+\?$", r"GET /api/(v2/)?jobs\?.+", r"POST /api/(v2/)?jobs/[^/]+/cancel\?$")


@pytest.fixture
def recording_server(dialect, tmp_path):
    """A server behind a proxy; afterwards, every request that the proxy saw must be a current one."""
    requests = []

    def record(asked, when):
        if when == "before":
            requests.append(f"{asked.method} {asked.path}?{asked.query}")

    with Served(dialect, tmp_path / "data") as server:
        if not server.has_job_calls:
            pytest.skip("this server has no current calls")
        server.record = server.proxy.on_step = record
        yield server
    assert not [line for line in requests if DEPRECATED[dialect].match(line)]
    for needed in NEEDED:  # otherwise the runs did not do what this test is about
        assert any(re.match(needed, line) for line in requests), needed


def test_no_run_makes_a_deprecated_call(runners, recording_server, coloured, tmp_path):
    proxy, target = recording_server.proxy, recording_server.target(concurrency=2)
    plan = coloured(2)
    assert sweeper.run(plan, target, tmp_path / "plain").succeeded == 2

    lost = []
    # The response to the first submission is lost, so the job is searched for.
    proxy.decide = lambda asked: lost.append(asked) or "swallow" if asked.submits and not lost else None
    assert sweeper.run(plan, target, tmp_path / "lost-response", fresh=True).succeeded == 2
    assert lost

    recording_server.slow_down()
    plan = coloured(2, template=SLOW)
    assert sweeper.run(plan, target, tmp_path / "timeout", timeout=0.3).failed == 2

    control = StopControl()

    def interrupt(event):
        if isinstance(event, JobSubmitted):
            control.stop()
            control.stop()

    run = sweeper.run(plan, target, tmp_path / "cancelled", control=control, progress=interrupt)
    assert run.stopped_by == "interrupt"
    recording_server.slow_down(0.0)

    plan = coloured(2)
    accepted = len(proxy.accepted)
    runner = runners.start(plan, target, tmp_path / "killed")

    def kill(asked, when):
        recording_server.record(asked, when)
        if asked.submits and when == "after":
            runner.send(signal.SIGKILL)

    proxy.on_step = kill
    assert runner.wait().killed
    proxy.on_step = recording_server.record
    assert sweeper.run(plan, target, tmp_path / "killed").succeeded == 2
    assert len(proxy.accepted) == accepted + 2  # the killed run's job was found
