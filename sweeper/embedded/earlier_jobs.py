"""Ended jobs that an account seems to have from before, so that a client meets a long listing."""

from __future__ import annotations

import random
import uuid

from sweeper.embedded.jobs import SUCCESS, ServerJob, StoredGraph, now_ms

_SECONDS_APART = 1
_GRAPH = StoredGraph(
    {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "earlier"}},
    }
)


def make_earlier_jobs(count: int, seed: int) -> list[ServerJob]:
    """Make this many successful jobs of another client, oldest first. Their files are gone."""
    draw = random.Random(f"{seed} earlier jobs")
    began = now_ms() - count * _SECONDS_APART * 1000
    jobs = []
    for number in range(count):
        prompt_id = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        at = began + number * _SECONDS_APART * 1000
        file = {"filename": f"earlier_{number:05}_.png", "subfolder": "", "type": "output"}
        end = ("execution_success", {"prompt_id": prompt_id, "timestamp": at + 1})
        job = ServerJob(
            prompt_id, number, _GRAPH, {}, ("9",), SUCCESS, created=at, changed=at + 1, started=at, ended=at + 1,
            messages=[end], results={"9": {"images": [file]}},
        )  # fmt: skip
        jobs.append(job)
    return jobs
