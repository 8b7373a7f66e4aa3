"""Prices from the badges of node classes: what the expressions receive, units, and badges that cannot be used."""

from __future__ import annotations

import pytest

from sweeper.model.money import UNKNOWN_AMOUNT, Amount
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.price_badge import PriceCalculator, normalise_widget, parse_price_badge


def compute(expr, values=None, links=None, **depends_on):
    badge = parse_price_badge({"engine": "jsonata", "expr": expr, "depends_on": depends_on})
    assert badge is not None
    return PriceCalculator().compute(badge, values or {}, links or {})


@pytest.mark.parametrize(
    ("value", "kind", "given"),
    [
        (5, "INT", 5),
        (" 5.5 ", "FLOAT", 5.5),
        ("auto", "INT", None),
        (True, "INT", None),
        ("True", "BOOLEAN", True),
        (1, "BOOLEAN", None),
        (" 1080P ", "COMBO", "1080p"),
        (5, "COMBO", 5),
        (5.0, "STRING", "5"),
        (True, "STRING", "true"),
        ("Flux.2 [Pro]", "COMFY_DYNAMICCOMBO_V3", "flux.2 [pro]"),
        (None, "COMBO", None),
    ],
)
def test_widgets_reach_the_expression_as_in_the_editor(value, kind, given):
    normalised = normalise_widget(value, kind)
    assert (type(normalised), normalised) == (type(given), given)


def test_links_and_groups_of_links_reach_the_expression():
    expr = '{"type": "usd", "usd": (inputs.image.connected ? 1 : 0) + 10 * $lookup(inputGroups, "model.images")}'
    links = {"image": ["4", 0], "model.images.image0": ["5", 0], "model.images.image1": ["6", 0], "other.a": ["7", 0]}

    def price(inputs):
        return compute(expr, {}, inputs, inputs=["image"], input_groups=["model.images"]).amount

    assert (price(links), price({"image": "a.png"})) == (Amount.exactly(21), Amount.exactly(0))


@pytest.mark.parametrize(
    ("result", "amount"),
    [
        ('{"type": "usd", "usd": 0.03}', Amount.exactly(0.03)),
        ('{"usd": 0.03}', Amount.exactly(0.03)),
        ('{"type": "range_usd", "min_usd": 0.1, "max_usd": 0.2}', Amount.between(0.1, 0.2)),
        ('{"type": "list_usd", "usd": [0.3, 0.1]}', Amount.between(0.1, 0.3)),
        ('{"type": "text", "text": "Free"}', Amount()),
    ],
)
def test_each_kind_of_result_gives_an_amount(result, amount):
    assert compute(result).amount == amount


@pytest.mark.parametrize(
    ("suffix", "values", "usd"),
    [
        ("/second", {"duration": 5}, 5),
        ("/sec", {"model.duration": "8s"}, 8),
        ("/s", {"length": 48, "fps": 24}, 2),
        ("/minute", {"duration_seconds": 30.0}, 0.5),
        ("/30 frames", {"num_frames": 60}, 2),
        ("/30 frames", {"duration": 3, "frame_rate": 10}, 1),
        ("/Image", {"n": 4}, 4),
        ("/Image (1K)", {}, 1),
        (" x images/Run", {"num_images": 2}, 2),
        ("/1K chars", {"text": "ä" * 500}, 0.5),
        ("/1K bytes", {"text": "ä" * 500}, 1),
        ("/Run", {"duration": 5}, 1),
    ],
)
def test_the_price_of_a_unit_is_multiplied_by_what_the_inputs_say(suffix, values, usd):
    price = compute(f'{{"type": "usd", "usd": 1, "format": {{"suffix": "{suffix}"}}}}', values)
    assert (price.amount, price.reason) == (Amount.exactly(usd), "")


def test_at_most_so_many_images_make_a_range():
    price = compute('{"type": "usd", "usd": 0.03, "format": {"suffix": " x images/Run"}}', {"max_images": 3})
    assert price.amount == Amount.between(0.03, 0.09)


@pytest.mark.parametrize(
    ("form", "values", "low"),
    [
        ('"suffix": "/second"', {"duration": "auto"}, 0.3),
        ('"suffix": "/minute"', {}, 0.005),
        ('"suffix": "/1K chars"', {}, 0),
        ('"suffix": " per 1K tokens"', {}, 0),
        ('"suffix": "/8MP"', {}, 0),
        ('"suffix": "/second", "note": "(input + output)"', {"duration": 2}, 0.6),
    ],
)
def test_a_price_whose_quantity_is_unknown_is_a_lower_bound(form, values, low):
    price = compute(f'{{"type": "usd", "usd": 0.3, "format": {{{form}}}}}', values)
    assert price.amount == Amount.between(low, None)
    assert "0.30 USD" in price.reason


@pytest.mark.parametrize(
    "badge",
    [
        "0.03 USD",
        {},
        {"engine": "javascript", "expr": "1"},
        {"engine": "jsonata", "expr": "{}", "depends_on": {"widgets": ["duration"]}},
        {"engine": "jsonata", "expr": "{}", "depends_on": []},
        {"engine": "jsonata", "expr": "((("},
        {"engine": "jsonata", "expr": "[1..9999999]"},
        {"engine": "jsonata", "expr": '{"type": "usd", "usd": "0.03"}'},
        {"engine": "jsonata", "expr": '{"type": "usd", "usd": -1}'},
        {"engine": "jsonata", "expr": '{"type": "text", "text": "Token-based"}'},
        {"engine": "jsonata", "expr": "1"},
    ],
)
def test_a_badge_that_cannot_be_used_makes_the_price_unknown(badge):
    classes = NodeInfo.from_object_info({"Paid": {"input": {}, "output": [], "price_badge": badge}})
    parsed = classes.classes["Paid"].price_badge
    assert parsed is not None

    price = PriceCalculator().compute(parsed, {}, {})

    assert price.amount == UNKNOWN_AMOUNT
    assert price.reason.startswith("its price")
