"""What `sweeper lock` says keeps its approved words."""

from __future__ import annotations

from dataclasses import replace

from sweeper.running.lock import Drift, LockCheck, NewLock, TargetDrift
from tests.answers.approved import check_approved

NEW = NewLock(
    "fox/comfy-build.yaml", "studio", "v0.33.0", ({"filename": "a.safetensors", "type": "loras"},),
    ({"name": "Face-Fix"},), ("no version is known of Face-Fix",), "schema: comfy-build/1\n",
)  # fmt: skip
DRIFTS = (
    Drift("ComfyUI", "baseComfyVersion", "0.33.0", "0.34.0"),
    Drift("model", "loras/a.safetensors", "491,824 bytes, epoch 3", "491,824 bytes, epoch 7"),
    Drift("node pack", "Face-Fix", "1.2.3", "missing"),
)


def test_lock():
    check_approved("lock", NEW)
    check_approved("lock_unchanged", replace(NEW, base_version=None, models=(), packs=(), notes=(), written=False))


def test_lock_check():
    studio = TargetDrift("studio", DRIFTS, ("pipDependencies: no server tells it",))
    lab = TargetDrift("lab", (), ())
    check_approved("lock_check", LockCheck("fox/comfy-build.yaml", ok=False, targets=(studio, lab)))
    check_approved("lock_check_ok", LockCheck("fox/comfy-build.yaml", ok=True, targets=(lab,)))
