"""Amounts as text, and the prices of targets."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import UsageError
from sweeper.model.money import (
    NOTHING,
    UNKNOWN_AMOUNT,
    Amount,
    TargetPrice,
    floor_micros,
    format_usd,
    from_usd,
    parse_target_price,
    parse_usd,
    to_fraction,
    to_micros,
    to_usd,
)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount.exactly(14.4), "14.40 USD"),
        (Amount.exactly(0.03), "0.03 USD"),
        (Amount.exactly(0.0375), "0.0375 USD"),
        (Amount.exactly(0.0000123), "0.000013 USD"),
        (Amount.exactly(0), "0.00 USD"),
        (Amount.between(4.3, 6.1), "4.30-6.10 USD"),
        (Amount.between(0.05, None), "at least 0.05 USD"),
        (UNKNOWN_AMOUNT, "unknown"),
    ],
)
def test_an_amount_is_written_with_the_digits_that_matter(amount, text):
    assert str(amount) == text


def test_amounts_add_and_scale_as_ranges():
    assert Amount.between(1, 2) + Amount.exactly(3) == Amount.between(4, 5)
    assert Amount.between(1, 2).scale(2, 3) == Amount.between(2, 6)
    assert Amount.between(1, None).scale(0) == Amount.between(0, 0)
    assert Amount.exactly(1).scale(Fraction(1, 3)) == Amount(333_334, 333_334)
    assert Amount.between(1, 2).join(UNKNOWN_AMOUNT) == UNKNOWN_AMOUNT


AMOUNTS = st.builds(
    lambda low, more: Amount(low, None if more is None else low + more),
    st.integers(0, 10**15),
    st.none() | st.integers(0, 10**15),
)


@given(st.lists(AMOUNTS, max_size=8), st.randoms())
def test_a_sum_is_exact_whatever_its_order(amounts, random):
    shuffled = random.sample(amounts, len(amounts))
    total = sum(amounts, NOTHING)
    assert total == sum(shuffled, NOTHING)
    assert total.at_most >= total.low == sum(amount.low for amount in amounts) >= 0


@given(st.integers(0, 10**15))
def test_micro_dollars_survive_json_with_at_most_six_decimals(micros):
    written = json.dumps(to_usd(micros))
    assert from_usd(json.loads(written)) == micros
    assert len(f"{Decimal(written):f}".partition(".")[2]) <= 6
    assert float(format_usd(micros)) == pytest.approx(to_usd(micros), abs=0.005)


@given(st.decimals(0, 1000, places=9), st.floats(0, 1e5))
def test_rounding_errs_upward_by_less_than_a_micro_dollar(usd, seconds):
    exact = Fraction(usd) * 10**6
    assert exact <= to_micros(usd) < exact + 1
    assert to_micros(usd) - 1 <= floor_micros(usd) <= exact
    time = TargetPrice(exact).price_jobs(1, (seconds, seconds))
    assert exact * to_fraction(seconds) <= time.low == time.high < exact * to_fraction(seconds) + 1


def test_noise_of_floats_costs_nothing():
    assert Amount.exactly(0.1 + 0.2) == Amount(300_000, 300_000)
    assert floor_micros(parse_usd(7 * 0.01)) == 70_000
    assert floor_micros(parse_usd(1e-5)) == 10


def test_a_target_states_what_a_node_class_costs():
    parsed = parse_target_price({"nodes": {"Paid": "0.05 USD", "Other": "2.11 credits"}, "credits_per_usd": 211})

    assert (parsed.nodes, parsed.has_rate) == ({"Paid": 50_000, "Other": 10_000}, False)


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ({"per_second": "0.0013 USD"}, TargetPrice(Fraction(1300))),
        ({"per_hour": "3.60 USD", "per_job": "0.5USD"}, TargetPrice(Fraction(1000), 500_000)),
        (
            {"per_second": "2 credits", "credits_per_usd": 200},
            TargetPrice(Fraction(10_000), credits_per_usd=Fraction(200)),
        ),
        (
            {"per_job": "1 USD", "credits_per_usd": 200},
            TargetPrice(Fraction(0), 1_000_000, credits_per_usd=Fraction(200)),
        ),
    ],
)
def test_the_price_of_a_target_is_converted_to_dollars(written, price):
    assert parse_target_price(written) == price


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
