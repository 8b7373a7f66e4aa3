"""A cluster's run compares model files as a local run does, through its first worker."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from tests.cluster.result_rows import run_on
from tests.running.studio import FOURTH, Studio, draw_by_hand, read_pixels


def test_changed_lora_is_made_again_from_the_new_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        studio = Studio(tmp_path, stack)
        server = studio.serve("studio")
        target = {"worker": server.url, "name": "studio"}
        assert run_on("e.yaml", "local:1", target=target, progress=False).submitted == 4
        studio.place(server, FOURTH)
        run = run_on("e.yaml", "local:1", target=target, progress=False)
        assert (run.submitted, run.reused) == (2, 2)
        for row in studio.rows()[:2]:
            assert read_pixels(Path(row["picture"])) == read_pixels(draw_by_hand(server, row["seed"]))
