"""Amounts as text, and the prices of targets."""

from __future__ import annotations

import math

import pytest

from sweeper.errors import UsageError
from sweeper.model.money import UNKNOWN_AMOUNT, Amount, TargetPrice, parse_target_price


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount.exactly(14.4), "14.40 USD"),
        (Amount.exactly(0.03), "0.03 USD"),
        (Amount.exactly(0.0375), "0.0375 USD"),
        (Amount.exactly(0.0000123), "0.000012 USD"),
        (Amount.exactly(0), "0.00 USD"),
        (Amount(4.3, 6.1), "4.30-6.10 USD"),
        (Amount(0.05, math.inf), "at least 0.05 USD"),
        (UNKNOWN_AMOUNT, "unknown"),
    ],
)
def test_an_amount_is_written_with_the_digits_that_matter(amount, text):
    assert str(amount) == text


def test_amounts_add_and_scale_as_ranges():
    assert Amount(1, 2) + Amount.exactly(3) == Amount(4, 5)
    assert Amount(1, 2).scale(2, 3) == Amount(2, 6)
    assert Amount(1, math.inf).scale(0) == Amount(0, 0)
    assert Amount(0, 0).scale(1, math.inf) == Amount(0, 0)
    assert Amount(1, 2).join(UNKNOWN_AMOUNT) == UNKNOWN_AMOUNT


def test_a_target_states_what_a_node_class_costs():
    parsed = parse_target_price({"nodes": {"Paid": "0.05 USD", "Other": "2.11 credits"}, "credits_per_usd": 211})

    assert (parsed.nodes, parsed.has_rate) == ({"Paid": 0.05, "Other": pytest.approx(0.01)}, False)


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ({"per_second": "0.0013 USD"}, TargetPrice(0.0013)),
        ({"per_hour": "3.60 USD", "per_job": "0.5USD"}, TargetPrice(0.001, 0.5)),
        ({"per_second": "2 credits", "credits_per_usd": 200}, TargetPrice(0.01, credits_per_usd=200)),
        ({"per_job": "1 USD", "credits_per_usd": 200}, TargetPrice(0, 1, credits_per_usd=200)),
    ],
)
def test_the_price_of_a_target_is_converted_to_dollars(written, price):
    parsed = parse_target_price(written)

    for name in ("per_second", "per_job", "credits_per_usd"):
        assert getattr(parsed, name) == pytest.approx(getattr(price, name))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("3 USD", "not a mapping such as {per_second: 0.0013 USD}"),
        ({}, "give at least one of `per_second`, `per_hour`, `per_job`"),
        ({"per_secnd": "1 USD"}, "did you mean 'per_second'"),
        ({"per_second": "1 USD", "per_hour": "1 USD"}, "`per_second` or `per_hour`, not both"),
        ({"per_second": 0.0013}, "a price is needed, such as `0.0013 USD`"),
        ({"per_second": "-1 USD"}, "a price is needed"),
        ({"per_second": "1 EUR"}, "a price is needed"),
        ({"per_job": "1 credits"}, "`credits_per_usd` is missing; write how many credits one dollar buys"),
        ({"per_job": "1 credits", "credits_per_usd": 0}, "`credits_per_usd` is 0"),
        ({"nodes": "0.05 USD"}, "`nodes` is '0.05 USD', not a mapping of node classes such as {Name: 0.05 USD}"),
        ({"nodes": {"Paid": 0.05}}, "`nodes.Paid` is 0.05, but a price is needed"),
        ({"per_job": "1 USD", "credits_per_usd": "many"}, "`credits_per_usd` is 'many'; write how many"),
    ],
)
def test_a_mistake_in_the_price_of_a_target_says_what_to_write(written, message):
    with pytest.raises(UsageError) as caught:
        parse_target_price(written)
    assert message in str(caught.value)
