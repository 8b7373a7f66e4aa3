"""Work that a server took is never sent again, whatever answers, clocks and lists say about it."""

from __future__ import annotations

import pytest

import sweeper
from tests.running.invariants import broken_promises
from tests.running.servers import DIALECTS, Served, trial_of
from tests.running.test_transient_failures import rows_of

# --- answers of a gateway to a submission that its server took


@pytest.mark.parametrize("dialect", DIALECTS)
def test_any_status_over_an_accepted_job_submits_nothing_again(dialect, coloured, tmp_path):
    """Each trial's submission reaches the server, and a gateway answers it with another status."""
    statuses = range(300, 600)
    answered = set()

    def decide(asked):
        if not asked.submits:
            return None
        trial = trial_of(asked.graph)
        fault = None if trial in answered else f"{statuses[trial]}_after"
        answered.add(trial)
        return fault

    with Served(dialect, tmp_path / "data", workers=2) as server:
        server.proxy.decide = decide
        run = sweeper.run(coloured(len(statuses)), server.target(concurrency=8), tmp_path / "out")
        assert len(server.proxy.struck) == len(statuses)
        assert (run.succeeded, run.stopped_by, run.error) == (len(statuses), None, None)
        assert len(server.proxy.accepted) == len(statuses)
        assert {row.attempts for row in rows_of(tmp_path / "out")} == {1}
        assert broken_promises(tmp_path / "out", len(statuses), [server]) == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["429", "404", "503"])
def test_an_id_that_a_gateway_answered_for_is_never_used_again(dialect, coloured, tmp_path, fault):
    waiting, ids = [fault], []

    def decide(asked):
        if not asked.submits:
            return None
        ids.append(asked.json.get("prompt_id") or asked.graph["2"]["inputs"]["filename_prefix"])
        return waiting.pop() if waiting else None

    with Served(dialect, tmp_path / "data") as server:
        server.proxy.decide = decide
        assert sweeper.run(coloured(1), server.target(), tmp_path / "out").succeeded == 1
        assert broken_promises(tmp_path / "out", 1, [server]) == []
    assert len(ids) == len(set(ids)) == 2
