"""The server of `runner.py`, in a process of its own: `python runner_server.py DIALECT SLOTS JOB_SECONDS`.

The first line on stdout is its URL. When stdin ends, the second is a JSON object: how many requests it got, its own CPU
seconds, and when each job started and ended, in seconds since 1970. What a client made of that is `runner.py`'s to say.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from itertools import count

import httpx

from sweeper.embedded import EmbeddedServer, Faults, Scenario

PAGE = 1000  # jobs a page that the listings allow


def times(server: EmbeddedServer, dialect: str) -> list[tuple[float, float]]:
    """(start, end) of every job, in order of starting."""
    found: list[tuple[float, float]] = []
    with httpx.Client(base_url=server.url, timeout=60) as http:
        if dialect == "comfyui":
            for entry in http.get("/history").json().values():
                said = [data["timestamp"] for _, data in entry["status"]["messages"]]
                found.append((said[0], said[-1]))
        for page in count() if dialect == "cloud" else ():
            rows = http.get("/api/jobs", params={"limit": PAGE, "offset": page * PAGE}).json()["jobs"]
            found += [(row["execution_start_time"], row["execution_end_time"]) for row in rows]
            if len(rows) < PAGE:
                break
    return sorted((began / 1000, ended / 1000) for began, ended in found)


def main() -> None:
    dialect, slots, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    faults = Faults(scenario=Scenario(job_seconds=(seconds, seconds)))
    server = EmbeddedServer(dialect=dialect, workers=slots, faults=faults)
    # The comfyui dialect has one worker, as ComfyUI has; here it may have as many as the benchmark asks for.
    server.settings = replace(server.settings, workers=slots)
    with server:
        print(server.url, flush=True)
        before = time.process_time()
        sys.stdin.read()
        seen, cpu = server.seen, time.process_time() - before
        requests = len(seen.requests) + len(seen.storage_requests)
        print(json.dumps({"requests": requests, "cpu": cpu, "jobs": times(server, dialect)}))


if __name__ == "__main__":
    main()
