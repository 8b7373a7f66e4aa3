"""An open job of a run that died long ago, on a server restarted since, is lost and not overdue."""

from __future__ import annotations

import time

import sweeper
from sweeper.store import Store
from sweeper.store.records import JobRecord, TableLayout


def test_an_old_job_unknown_to_the_server_is_sent_again(server, target, experiment, tmp_path):
    sweep = experiment(seed=[1], run={"timeout": 1.0, "retries": 1})
    (trial,) = sweeper.plan(sweep)
    out = tmp_path / "out"
    then = time.time() - 86_400.0
    with Store.open(out) as store:
        with store.transaction():
            run = store.create_run(
                TableLayout("probe", ("seed",), ("text", "seed")), file="", targets=["probe-server"], now=then
            )
            store.add_trials(run, [(0, trial.digest, dict(trial.params), dict(trial.columns))])
        old = "00000000-0000-4000-8000-000000000001"
        store.record_intent(JobRecord(old, run, "probe-server", trial.digest, "0" * 64, 1, None, "intent", then))
        store.record_submitted(old, old, then)

    ended = sweeper.run(sweep, target, out)

    assert (ended.submitted, ended.succeeded, server.seen.accepted) == (1, 1, 1)
    assert list(sweeper.results(out)["attempts"]) == [2]
