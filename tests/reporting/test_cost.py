"""What jobs cost, on the page: the line of what was spent, and `cost` as a column, in the filter and in a trial."""

from __future__ import annotations

import pytest

from sweeper.model.money import MEASURED, OF_JOB, PRICED, UNKNOWN_AMOUNT, Amount, Charge
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import read_all

PRICES = [0.25, 0.5, 0.125]  # the second trial failed


@pytest.fixture
def cost_folder(tmp_path):
    """The results folder of three trials that cost something."""
    out = Sweep({"steps": [4, 8, 16]}, ends={1: ("failed", ("E", "no"))}).write(tmp_path / "results")
    with Store.open(out) as store, store.transaction():
        for index, usd in enumerate(PRICES):
            store.charges.replace(f"job{index}", [Charge("7", "FluxProNode", Amount.between(0.0, usd), PRICED)])
    return out


def read_table(page):
    return read_all(page, ".tbody .trow", "rows => rows.map(row => [...row.children].slice(1).map(c => c.innerText))")


def test_cost_is_a_column_that_can_be_filtered_sorted_and_coloured(cost_folder, opened):
    page = opened(write_report(cost_folder).page.parent, "#view=table&sort=-cost&where=cost > 0.2")

    heads = [head.strip("▼ ") for head in page.locator("[role=columnheader]").all_inner_texts()]
    assert heads[-3:] == ["ran_s", "cost", "brightness"]
    assert [(row[0], row[heads.index("cost") - 1]) for row in read_table(page)] == [("1", "0.500"), ("0", "0.250")]
    assert "cost" in page.get_by_label("Colour by", exact=True).locator("option").all_text_contents()
    assert "kept 0.375 USD of 0.875 USD spent" in page.locator(".counts").inner_text()
    page.goto(f"{page.url.partition('#')[0]}#trial=0&with=2")
    page.wait_for_selector("dialog[open]")
    lines = read_all(
        page,
        ".params tbody tr",
        "rows => rows.map(row => [row.className, ...[...row.children].map(cell => cell.innerText)])",
    )
    assert ["", "cost", "0.125", "0.250"] in lines
    assert ["", "the cost is", "priced", "priced"] in lines


def test_line_says_if_a_cost_has_no_upper_bound(cost_folder, opened):
    with Store.open(cost_folder) as store, store.transaction():
        charges = [Charge("7", "X", UNKNOWN_AMOUNT, PRICED), Charge(OF_JOB, "", Amount.exactly(0.25), MEASURED)]
        store.charges.replace("job1", charges)

    page = opened(write_report(cost_folder).page.parent)

    assert "kept 0.375 USD of at least 0.625 USD spent" in page.locator(".counts").inner_text()


def test_page_without_prices_has_no_cost(made, opened):
    page = opened(made(Sweep({"steps": [4, 8]})), "#view=table")

    assert "spent" not in page.locator(".counts").inner_text()
    assert "cost" not in page.locator("[role=columnheader]").all_inner_texts()
