"""Magnified pictures of an open trial: all that are shown move together, by wheel, drag, keys and two fingers."""

from __future__ import annotations

import pytest

from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address

TRANSFORMS = "() => [...document.querySelectorAll('#zoom .lens img')].map(one => getComputedStyle(one).transform)"


@pytest.fixture
def folder(made):
    return made(Sweep({"steps": [1, 2, 3]}, size=(320, 240)))


def read_transforms(page):
    """The [scale, x, y] of each picture."""
    matrices = [text.removeprefix("matrix(").removesuffix(")") for text in page.evaluate(TRANSFORMS)]
    return [[float(part) for part in (parts[0], parts[4], parts[5])] for parts in (one.split(",") for one in matrices)]


def test_wheel_and_drag_move_all_pictures_together_in_each_mode(folder, opened):
    page = opened(folder)
    for mode in ("side", "blink", "slider", "difference"):
        change_address(page, f"#trial=0&with=1&mode={mode}")
        box = page.locator(".lens").first.bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)
        for _ in range(4):
            page.mouse.wheel(0, -100)
        page.wait_for_function("() => document.querySelector('.magnified')")
        first, *others = read_transforms(page)
        assert first[0] == pytest.approx(1.25**4, rel=1e-4), mode
        assert all(one == first for one in others), mode
        page.mouse.down()
        page.mouse.move(middle[0] + 40, middle[1] - 30)
        page.mouse.up()
        moved, *others = read_transforms(page)
        assert moved == pytest.approx([first[0], first[1] + 40, first[2] - 30], abs=1), mode
        assert all(one == moved for one in others), mode
        for _ in range(5):
            page.mouse.wheel(0, 100)
        page.wait_for_function("() => !document.querySelector('.magnified')")
        assert read_transforms(page)[0] == [1, 0, 0], mode


def test_z_shows_pixels_and_stays_for_the_next_trial(folder, opened):
    page = opened(folder, "#trial=0")
    page.wait_for_function("() => document.querySelector('#zoom .lens img')?.naturalWidth === 320")
    page.keyboard.press("z")
    [[scale, _, _]] = read_transforms(page)
    picture = page.locator("#zoom .lens img")
    sizes = picture.evaluate("one => [one.clientWidth, one.clientHeight, one.naturalWidth, one.naturalHeight]")
    pixels = scale * min(sizes[0] / sizes[2], sizes[1] / sizes[3])
    assert pixels == pytest.approx(round(pixels))  # each pixel of the picture is a square of whole pixels
    assert picture.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    page.keyboard.press("ArrowRight")
    assert read_transforms(page)[0][0] == pytest.approx(scale)
    page.keyboard.press("Escape")
    page.evaluate("sweeper.page.open(0)")
    assert read_transforms(page) == [[1, 0, 0]]


def test_two_fingers_magnify_and_one_moves(folder, opened):
    page = opened(folder, "#trial=0", viewport={"width": 390, "height": 844}, has_touch=True)
    box = page.locator(".lens").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        told = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})

    touch("touchStart", (x - 20, y), (x + 20, y))
    for spread in (30, 40, 60):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    page.wait_for_function("() => document.querySelector('.magnified')")
    [[scale, before, _]] = read_transforms(page)
    assert scale == pytest.approx(3, rel=0.1)
    touch("touchStart", (x, y))
    touch("touchMove", (x + 30, y))
    touch("touchMove", (x + 60, y))
    touch("touchEnd")
    [[_, after, _]] = read_transforms(page)
    assert after - before > 25
    assert "trial 0" in page.locator("#zoom .zoom-head").inner_text()  # no swipe to the next trial


def test_pictures_stand_one_above_the_other_on_an_upright_screen(folder, opened):
    page = opened(folder, "#trial=0&with=1&mode=side", viewport={"width": 820, "height": 1180})
    first, second = (figure.bounding_box() for figure in page.locator("#zoom figure").all())
    assert first["x"] == second["x"]
    assert second["y"] > first["y"]
    for figure in page.locator("#zoom figure").all():  # and each has its caption under it
        picture, caption = figure.locator(".lens").bounding_box(), figure.locator("figcaption").bounding_box()
        assert 0 <= caption["y"] - picture["y"] - picture["height"] < 12
