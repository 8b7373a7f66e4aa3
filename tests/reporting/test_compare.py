"""Comparing trials in a real browser: the tray, several side by side, an axis that plays, films and sounds together."""

from __future__ import annotations

import pytest

from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, read_all
from tests.reporting.sounds import encode_sound
from tests.reporting.test_films import film

GRID = {"sampler": ["euler", "heun"], "steps": [1, 2, 4, 8, 16, 30]}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture
def grid(made):
    return made(Sweep(GRID))


def list_tray(page):
    return [text.partition("\n")[0] for text in page.locator(".tray .item").all_inner_texts()]


def collect(page, *trials):
    for trial in trials:
        page.locator(f'#view [data-trial="{trial}"]').click(modifiers=["Shift"])


def test_tray_survives_views_and_addresses_and_esc_empties_it(grid, opened):
    page = opened(grid, "#x=steps&y=sampler")
    collect(page, 0, 3)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert list_tray(page) == ["steps 1", "steps 8", "steps 16"]  # what they share is not said
    assert page.locator('#view [data-trial="3"] .stars').inner_text() == "☑"
    page.get_by_role("tab", name="Table").click()
    collect(page, 9)
    assert len(list_tray(page)) == 4
    collected, address = list_tray(page), f"#{page.url.partition('#')[2]}"
    change_address(page, "#x=steps&y=sampler")
    assert list_tray(page) == []
    change_address(page, address)
    assert list_tray(page) == collected
    page.get_by_role("button", name="Take out trial 0").click()
    assert list_tray(page) == ["sampler euler · steps 8", "sampler euler · steps 16", "sampler heun · steps 8"]
    page.keyboard.press("Escape")
    assert list_tray(page) == []
    assert "pick=" not in page.url
    change_address(page, "#pick=steps:99&pick=nonsense&pick=1&pick=1&pick=-1")
    assert page.locator(".tray .item").count() == 1


def test_tray_holds_nine_trials_that_share_their_zoom_but_no_mark(grid, opened):
    page = opened(grid, "#x=steps&y=sampler")
    collect(page, *range(10))
    assert len(list_tray(page)) == 9
    assert "at most 9 trials" in page.locator("#message").inner_text()
    page.get_by_role("button", name="Compare 9").click()
    assert page.locator("#zoom figure").count() == 9
    page.keyboard.press("Escape")
    assert len(list_tray(page)) == 9
    page.keyboard.press("Escape")
    collect(page, 0, 3, 7)
    page.get_by_role("button", name="Compare 3").click()
    figures = page.locator("#zoom figure")
    assert [text.split("\n")[0][:7] for text in figures.locator("figcaption").all_inner_texts()] == [
        "trial 0",
        "trial 3",
        "trial 7",
    ]
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    figures.nth(2).get_by_role("button", name="Reject").click()
    marks = page.evaluate("[0, 3, 7].map(row => sweeper.page.marks.get(row)).map(m => m.verdict || m.stars)")
    assert marks == ["keep", 4, "reject"]
    assert figures.nth(1).get_by_role("button", name="4 of 5").get_attribute("aria-pressed") == "true"
    figures.nth(1).get_by_role("button", name="4 of 5").click()  # again: not rated
    assert page.evaluate("sweeper.page.marks.get(3).stars") == 0
    figures.nth(2).locator("img").click()
    assert "trial=sampler:heun,steps:2" in page.url
    page.keyboard.press("+")
    transforms = figures.locator("img").evaluate_all("all => new Set(all.map(i => getComputedStyle(i).transform)).size")
    assert transforms == 1
    assert page.locator("#zoom .magnified").count() == 1


def test_compared_pictures_on_a_phone_use_its_width(grid, opened):
    page = opened(grid, **PHONE)
    for picks in (2, 5):
        change_address(page, "#" + "&".join(f"pick={trial}" for trial in range(picks)))
        page.get_by_role("button", name=f"Compare {picks}").click()
        assert page.locator("#zoom figure").count() == picks
        assert min(picture.bounding_box()["width"] for picture in page.locator("#zoom .lens").all()) > 330, picks
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), picks


def test_reference_stands_on_the_left_stays_after_esc_and_blinks(grid, opened):
    page = opened(grid, "#x=steps&y=sampler&trial=1")
    page.keyboard.press("s")  # no reference yet: the neighbour on the left
    assert page.locator("#zoom figcaption b").all_inner_texts() == ["Reference", "trial 1"]
    assert page.url.endswith("with=sampler:euler,steps:1&mode=side")
    page.keyboard.press("ArrowRight")
    assert page.locator("#zoom figcaption b").all_inner_texts() == ["Reference", "trial 2"]
    assert page.locator("#zoom .params thead").first.inner_text().split() == ["Reference", "This"]
    assert page.locator("#zoom .params tbody tr").first.locator("td").all_inner_texts() == ["1", "4"]
    page.keyboard.press("Escape")
    assert list_tray(page) == ["reference: sampler euler · steps 1"]
    change_address(page, "#trial=1&with=0&mode=blink")  # which pauses and flips by keys
    page.keyboard.press("p")
    shown = page.locator("#zoom .stage figcaption")
    before = shown.inner_text()
    page.keyboard.press("f")
    assert shown.inner_text() != before
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"


def test_an_axis_plays_in_all_cells_and_in_the_address(grid, opened):
    page = opened(grid, "#x=&y=sampler&xx=&yy=&time=steps&play=on&pin=steps:1")
    bar = page.get_by_role("group", name="Value of the axis that plays")
    page.wait_for_function("() => /pin=steps:(4|8)/.test(location.hash)")
    page.keyboard.press("Space")
    assert "play=" not in page.url
    assert page.locator(".caption, .pins select").count() == 0  # the bar says the value
    page.get_by_role("slider", name="Value of the axis that plays").focus()
    page.keyboard.press("End")
    assert bar.locator("output").inner_text() == "steps: 30"
    page.keyboard.press("ArrowLeft")
    assert bar.locator("output").inner_text() == "steps: 16"
    assert page.evaluate("sweeper.page.getState().pins.steps") == 4
    bar.get_by_role("button", name="One step on").click()
    bar.get_by_role("button", name="One step on").click()
    assert bar.locator("output").inner_text() == "steps: 1"  # it begins again
    bar.get_by_role("button", name="Do not play an axis").click()
    assert not bar.is_visible()
    assert "pin=" not in page.url


def test_menu_chooses_the_axis_that_plays(grid, opened):
    page = opened(grid, "#x=steps&y=sampler", reduced_motion="reduce")
    page.locator(".menu > button", has_text="View").click()
    page.get_by_label("Play along").select_option("steps")
    state = page.evaluate("(({ x, y, time, play, pins }) => [x, y, time, play, pins.steps])(sweeper.page.getState())")
    assert state == ["", "sampler", "steps", "", 0]  # nothing moves if the system asks for less motion
    assert page.locator("#view .cell[data-trial]").count() == 2


def test_films_play_together_and_step_by_frames(made, opened):
    colours = [(n * 20, 40, 90) for n in range(8)]
    folder = made(Sweep({"steps": [1, 2]}, suffix="webm", content=film("webm", "libvpx", colours)))
    page = opened(folder)
    page.keyboard.press("Space")
    times = "[...document.querySelectorAll('#view video')].map(film => film.currentTime)"
    page.wait_for_function(f"() => Math.min(...{times}) > 0.3")
    page.keyboard.press("Space")
    first, second = page.evaluate(times)
    assert abs(first - second) < 0.2
    page.goto(f"{page.url.partition('#')[0]}#trial=1&with=0&mode=side")
    page.wait_for_function("() => document.querySelector('#zoom output').innerText.endsWith('of 1.00 s')")
    assert page.get_by_role("button", name="Blink").count() == 0
    page.keyboard.press(".")
    page.keyboard.press(".")
    assert read_all(page, "#zoom video", "all => all.map(film => film.currentTime.toFixed(3))") == ["0.083"] * 2
    page.keyboard.press(",")
    assert page.locator("#zoom output").inner_text() == "0.04 of 1.00 s"
    page.keyboard.press("Space")
    found = "() => document.querySelector('#zoom .transport input').step === '0.125'"
    page.wait_for_function(found)  # eight in a second


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_sounds_show_their_waveform_and_one_is_heard(made, opened, kind):
    folder = made(Sweep({"steps": [1, 2]}, suffix=kind, content=encode_sound(kind)))
    page = opened(folder, "#trial=1&with=0&mode=side")
    assert "320" not in page.locator("#zoom .facts, #zoom .panel > .dim").first.inner_text()
    page.wait_for_function("() => [...document.querySelectorAll('#zoom .sound img')].every(i => i.naturalWidth > 0)")
    heard = "all => all.map(sound => !sound.muted)"
    assert read_all(page, "#zoom audio", heard) == [False, True]
    page.keyboard.press("m")
    assert read_all(page, "#zoom audio", heard) == [True, False]
    assert page.get_by_role("button", name="Blink").count() == 0
    page.keyboard.press("Escape")
    assert page.locator("#view .cell .moving img, #view .cell .moving .sprite").count() > 0
    page.keyboard.press("Space")  # in the grid, one hears the cell below the pointer
    page.locator("#view .cell").nth(1).hover()
    is_heard = "sound => !sound.paused && !sound.muted && sound.currentTime > 0.2"
    playing = f"[...document.querySelectorAll('#view audio')].map({is_heard})"
    page.wait_for_function(f"() => String({playing}) === 'false,true'")
    page.keyboard.press("Space")
    assert page.evaluate(playing) == [False, False]
