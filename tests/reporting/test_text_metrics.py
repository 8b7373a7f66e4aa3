"""A metric may return texts, such as a hash: the page shows it as a column and never as a number."""

from __future__ import annotations

from sweeper.model.result import Result
from sweeper.reporting.dataset import build_dataset, tabulate
from sweeper.store.records import TableLayout, TrialOutcome
from sweeper.store.row_queries import batch_outcomes


def test_metric_of_texts_becomes_a_column():
    found = [
        Result(0, {}, {}, "a" * 64, "succeeded", metrics={"brightness": 7.5, "perceptual_hash": "ff"}),
        Result(1, {}, {}, "b" * 64, "failed"),
    ]
    layout = TableLayout("shop", (), (), ("brightness", "perceptual_hash"))
    made = build_dataset(tabulate(batch_outcomes(TrialOutcome(row, None, ()) for row in found), layout))

    assert made["metrics"] == [{"name": "brightness", "of": [7.5, None]}]
    assert made["outcome"][-1] == {"name": "perceptual_hash", "role": "metric", "values": ["ff"], "of": [0, -1]}
