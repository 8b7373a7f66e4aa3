"""How fast a table is written, against pandas' own writer on the same rows: `python tests/benchmarks/export.py`.

The frame has the columns of a real run: four axes, prompts with commas, seeds beyond 63 bits, digests, lists, seconds,
metrics, and a tenth of the rows failed. Prints the best of some rounds, taken in turn, and the ratio. Nothing is
asserted: a number from a busy machine is no failure.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from sweeper.model.result import Result
from sweeper.store.records import TableLayout
from sweeper.store.row_queries import batch_results
from sweeper.tables import dataframe, export

LAYOUT = TableLayout(
    "shop", ("subject", "sampler", "steps", "seed"), ("prompt", "cfg", "width"), ("brightness", "entropy")
)
SUBJECTS = [f"a {colour} fox, in the {place}" for colour in ("red", "blue", "old") for place in ("snow", "rain")]
SAMPLERS = ["euler", "heun", "dpmpp_2m", "ddim"]


def rows(count: int) -> Iterator[Result]:
    chance = random.Random(7)
    for trial in range(count):
        subject, sampler = SUBJECTS[trial % 6], SAMPLERS[trial // 6 % 4]
        axes = {"subject": subject, "sampler": sampler, "steps": trial % 50, "seed": chance.getrandbits(64)}
        params = {**axes, "prompt": f"{subject}, oil painting, highly detailed", "cfg": 7.5, "width": 1024}
        digest = f"{chance.getrandbits(256):064x}"
        if trial % 10 == 9:
            error = 'node 3 (KSampler): "out of memory", 2.5 GiB were asked for'
            yield Result(trial, axes, params, digest, "failed", target="http://127.0.0.1:8188", prompt_id=digest[:36],
                         attempts=3, error_type="ExecutionError", error=error)  # fmt: skip
            continue
        yield Result(
            trial, axes, params, digest, "succeeded", (f"artifacts/{digest[:40]}.9-0.png",), (digest[::-1],),
            "http://127.0.0.1:8188", digest[:36], 1, round(chance.random(), 6), round(chance.random() * 20, 6),
            metrics={"brightness": chance.random() * 255, "entropy": chance.random() * 8},
        )  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    kept = list(rows(asked.rows))
    frame = dataframe.build_frame(batch_results(kept), LAYOUT)
    with TemporaryDirectory() as folder:
        place = Path(folder)

        def write(name: str, kind: str = "csv", *, safe: bool = False) -> None:
            export.export_batches(batch_results(kept), LAYOUT, place / name, kind, safe=safe)

        ways: dict[str, Callable[[], object]] = {
            "pandas to_csv": lambda: frame.to_csv(place / "pandas.csv", index=False),
            "sweeper export": lambda: write("sweeper.csv"),
            "sweeper export --safe-csv": lambda: write("safe.csv", safe=True),
            "sweeper export, parquet": lambda: write("sweeper.parquet", "parquet"),
        }
        taken = dict.fromkeys(ways, float("inf"))
        for _ in range(asked.rounds):
            taken = {name: min(taken[name], seconds(work)) for name, work in ways.items()}
        same = pd.read_csv(io.BytesIO((place / "sweeper.csv").read_bytes()), nrows=1000)
        print(f"{asked.rows:,} rows of {len(frame.columns)} columns; pandas {pd.__version__}")
        for name, spent in taken.items():
            size = (place / {"pandas to_csv": "pandas.csv"}.get(name, "sweeper.csv")).stat().st_size
            ratio = taken["pandas to_csv"] / spent
            print(f"{name:<28} {spent:7.2f} s {size / spent / 1e6:7.0f} MB/s {ratio:6.2f} times pandas' speed")
        print("read back alike:", same.equals(pd.read_csv(place / "pandas.csv", nrows=1000)))


if __name__ == "__main__":
    main()
