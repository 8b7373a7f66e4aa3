"""Metrics of a run appear while it goes on, if somebody looks at its page. Pixels are hashed in any case."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.model.result import PIXEL_HASH
from sweeper.running.run_events import TrialDone
from sweeper.store import Store
from sweeper.store.live_folder import LiveFolder
from tests.running.conftest import NODES
from tests.waiting import SECONDS, wait_until


@pytest.mark.parametrize("metrics", [["brightness"], []], ids=["watched", "pixels"])
def test_files_are_measured_while_the_run_goes_on(experiment, tmp_path, metrics):
    out, go_on = tmp_path / "out", threading.Event()
    out.mkdir()
    paint = NODES["Paint"]

    def paint_second_later(context, text, seed):
        assert seed == 1 or go_on.wait(SECONDS)
        return paint.run(context, text=text, seed=seed)

    def count_measured():
        if metrics:
            LiveFolder(out).announce_viewer()
        with Store.open(out, readonly=True) as store:
            return len(store.load_cached_metrics(metrics[0] if metrics else PIXEL_HASH))

    with EmbeddedServer("comfyui", nodes=NODES | {"Paint": replace(paint, run=paint_second_later)}) as server:
        plan = experiment(seed=[1, 2], metrics=metrics)
        first_done = threading.Event()
        progress = {"progress": lambda event: first_done.set() if isinstance(event, TrialDone) else None}
        run = threading.Thread(target=sweeper.run, args=(plan, server.url, out), kwargs=progress)
        run.start()
        try:
            assert first_done.wait(SECONDS)
            assert wait_until(count_measured) == 1
        finally:
            go_on.set()
            run.join(SECONDS)
    assert count_measured() == 2
