"""The values of axes in the tables of `sweeper results`: each as itself, in its place."""

from __future__ import annotations

from pathlib import Path

from sweeper.store import Store
from sweeper.store.records import Artifact, Job, Layout

CFG = (0.1234567, 0.1234568, 1234567.25)


def stored(layout, trials):
    """A results folder without a server, each of its trials with a brightness of its own."""
    out = Path("results/shop")
    with Store.open(out) as store:
        with store.transaction():
            run = store.begin(layout, file="shop.yaml", targets=["embedded"], now=1.0)
            store.add_trials(run, trials)
        for place, (_, digest, _, _) in enumerate(trials):
            store.intend(Job(f"job{place}", run, "embedded", digest, "s" * 64, 1, f"p{place}", "intent", 1.0))
            sha256 = f"{place:064}"
            files = [Artifact("9", "images", 0, f"artifacts/{place}.png", sha256, 10, "a.png")]
            store.finish(f"job{place}", "succeeded", artifacts=files)
            store.cache_metrics([(sha256, "brightness", 100.1234567)])
    return out


def cells(outcome):
    assert (outcome.code, outcome.err) == (0, "")
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in outcome.out.splitlines()]


def test_a_value_of_an_axis_is_whole_and_a_metric_rounded(sweeper):
    trials = [(n, str(n) * 64, {"cfg": cfg}, {"cfg": cfg, "seed": 1}) for n, cfg in enumerate(CFG)]
    out = stored(Layout("shop", ("cfg", "seed"), ("cfg",), ("brightness",)), trials)
    whole = ["0.1234567", "0.1234568", "1234567.25"]

    assert cells(sweeper("results", out, "--columns", "cfg,brightness"))[1:] == [[cfg, "100.123"] for cfg in whole]
    assert [row[0] for row in cells(sweeper("results", out, "--by", "cfg"))[1:]] == whole
    assert cells(sweeper("results", out, "--pivot", "cfg,seed,brightness"))[1] == ["seed \\ cfg", *whole]
