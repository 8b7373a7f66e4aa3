"""A server with 9,000 LoRA files in 170 classes: seconds and memory of what asks it for node classes.

`python tests/benchmarks/large_server.py [FILES] [CLASSES]`. The rival is the obvious way, in the same run: download the
whole object_info and parse it by `json.loads`. Each line is a process of its own, with its start. Prints the wall time,
the processor's time, its ratio to the rival's, and the peak memory. Nothing is asserted, because a busy machine gives
large numbers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.running.large_server import large_server, write_experiment

_RIVAL = "import json, sys, urllib.request as u; json.loads(u.urlopen(sys.argv[1] + '/object_info').read())"


def measure(command: list[str], environ: dict[str, str]) -> tuple[float, float, float, int]:
    """(seconds, those of the processor, peak memory in MiB, exit code) of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    busy = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - began, busy, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def serve(files: int, loaders: int) -> None:
    with large_server(loaders, files) as (studio, server):
        print(server.url, studio.names[0], sep="\t", flush=True)
        sys.stdin.read()


def main(files: int, loaders: int) -> None:
    script = [sys.executable, __file__, "serve", str(files), str(loaders)]
    with (
        subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        TemporaryDirectory() as folder,
    ):
        assert server.stdout is not None
        assert server.stdin is not None
        url, name = server.stdout.readline().strip().split("\t")
        root = Path(folder)
        for sub in ("right", "wrong"):
            (root / sub).mkdir()
        right = str(write_experiment(root / "right", url, [name]))
        wrong = str(write_experiment(root / "wrong", url, [name.replace("style", "stile")]))
        sweeper = [sys.executable, "-m", "sweeper"]
        lines = {
            "json.loads of the whole": [sys.executable, "-c", _RIVAL, url],
            "plan, first": [*sweeper, "plan", right],
            "plan, again": [*sweeper, "plan", right],
            "doctor EXPERIMENT": [*sweeper, "doctor", right],
            "plan of a missing model": [*sweeper, "plan", wrong],
            "run of a missing model": [*sweeper, "run", wrong],
            "init --target": [*sweeper, "init", str(root / "new"), "--from", str(root / "right/w.json"), "-t", url],
            "init --target, again": [*sweeper, "init", str(root / "next"), "--from", str(root / "right/w.json"), "-t",
                                     url],
        }  # fmt: skip
        environ = {**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
        print(f"{files:,} names in {loaders:,} classes")
        rival = 0.0
        for line, command in lines.items():
            seconds, busy, memory, code = measure(command, environ)
            rival = rival or busy
            text = f"{seconds:6.2f} s, {busy:5.2f} s of the processor, {busy / rival:5.2f} times"
            print(f"{line:<26} {text} {memory:6.0f} MiB  exit {code}", flush=True)
        server.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*[int(text) for text in sys.argv[1:3]] or [9_000, 170])
