"""The fault suite with launched servers: one row per trial, whole files, and no job twice."""

from __future__ import annotations

from collections import Counter

import pytest

import sweeper
from sweeper.launching.launch_comfyui import read_start_time as is_alive
from tests.launching.test_launch import comfyui, plan
from tests.running.invariants import broken_promises
from tests.running.servers import colour
from tests.waiting import wait_until

__all__ = ["comfyui", "plan"]  # fixtures

# Two faults at once, of which one strikes submissions or polls, and the other what comes later. A start takes longer.
FAULTS = {
    "lost submissions": {"drop_before_accept": 2, "missing_download_times": 1},
    "lost answers": {"drop_after_accept": 2, "truncate_download_times": 3},
    "lost jobs": {"error_500_times": 5, "lose_times": 1},
    "lost polls": {"garbage_times": 4, "drop_status_times": 6},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_launched_server_with_faults_loses_and_repeats_nothing(comfyui, plan, faults):
    comfyui.behave(faults={**faults, "retry_after": 0.0})
    run = sweeper.run(plan(4), comfyui.target(), patience=5.0)
    assert (run.succeeded, run.failed, len(comfyui.pids)) == (4, 0, 1)
    assert broken_promises(run.out, 4, []) == []
    assert Counter(comfyui.colours).total() <= 4 + ("lose_times" in faults)


def test_same_command_recovers_from_a_kill_at_any_disk_step(comfyui, plan, runners, tmp_path):
    experiment = plan(2)
    steps = runners.run(experiment, comfyui.target(), tmp_path / "steps", steps=True).steps
    broken = []
    for index in range(4):
        step = 1 + (7 + index * len(steps) // 4) % len(steps)
        out = tmp_path / f"out-{step}"
        runners.run(experiment, comfyui.target(), out, die_at=step)
        runners.run(experiment, comfyui.target(), out)
        broken += [f"step {step} ({steps[step - 1]}): {line}" for line in broken_promises(out, 2, [])]
    assert not broken, "\n".join(broken)
    assert set(comfyui.colours) == {colour(0), colour(1)}
    wait_until(lambda: not any(map(is_alive, comfyui.pids)))
