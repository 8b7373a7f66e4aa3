"""The page in a real browser, opened from disk: grid, axes, address, keyboard, marks, hostile texts."""

from __future__ import annotations

import itertools
import re

import pytest

from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import (
    change_address,
    choose_axis,
    list_heads,
    open_menu,
    press_in_menu,
    read_all,
    read_axes,
)
from tests.reporting.page_modules import evaluate

AXES = {"subject": ["a red fox", "a lighthouse above the sea"], "steps": [2, 6, 20], "seed": [2**64 - 1, 5]}
ENDS = {
    1: ("failed", ("ExecutionError", "node 3: out of memory")),
    2: ("cancelled", None),
    3: ("pending", None),
}


def choose(page, label, value):
    page.get_by_label(label, exact=True).select_option(value)


def box(page, trial):
    return page.locator(f'#view [data-trial="{trial}"]').bounding_box()


def test_first_view_shows_all_trials_and_a_filter_its_matches(made, opened):
    page = opened(made(Sweep(AXES)))
    trials = read_all(page, "#view .cell", "cells => cells.map(cell => Number(cell.dataset.trial))")
    assert sorted(trials) == list(range(12))
    assert page.title() == "made-up · sweeper"
    assert "rehearsal" in page.locator(".counts").inner_text()  # the target is the embedded server
    assert read_axes(page)[:2] == ["steps", "subject"]  # long labels go down the side
    pictures = "() => [...document.querySelectorAll('.cell img')].every(i => i.complete && i.naturalWidth > 0)"
    page.wait_for_function(pictures)
    page.get_by_label("Filter").fill("steps > 2 and seed == 18446744073709551615")
    page.wait_for_function("() => document.querySelectorAll('.cell:not(.none)').length === 4")
    page.get_by_label("Filter").fill("stps > 2")
    page.wait_for_selector("text=there is no column stps")
    page.get_by_label("Filter").fill("lighthouse")
    page.wait_for_function("() => document.querySelectorAll('.cell:not(.none)').length === 6")


def test_header_does_not_call_results_of_the_cloud_a_rehearsal(made, opened):
    page = opened(made(Sweep({"steps": [4]}, target="cloud")))
    assert "rehearsal" not in page.locator(".counts").inner_text()


@pytest.mark.parametrize("width", [1280, 420])
def test_long_seed_has_a_letter_and_its_number_on_hover(made, opened, width):
    folder = made(Sweep({"seed": [4065829240, 1078519398], "steps": [4, 8]}))
    page = opened(folder, viewport={"width": width, "height": 800})
    sides = read_all(
        page, ".side", "all => all.map(one => [one.textContent, one.title, one.firstChild.clientHeight < 1.9 * 14])"
    )
    assert sides == [["seed A", "4065829240", True], ["seed B", "1078519398", True]]


def test_axes_swap_and_their_values_are_hidden_and_moved(made, opened):
    page = opened(made(Sweep({"sampler": ["euler", "heun"], "steps": [4, 8, 16]})))
    before = read_axes(page)[:2]
    choose_axis(page, "X axis", before[1])  # an axis taken from another direction swaps with that
    assert read_axes(page)[:2] == before[::-1]
    press_in_menu(page, "View", "Axes and values…")
    page.get_by_role("button", name="Swap rows and columns").click()
    assert read_axes(page)[:2] == before
    page.get_by_role("button", name="Done").click()
    choose_axis(page, "X axis", "sampler")
    choose_axis(page, "Y axis", "steps")
    heads, sides = page.locator(".head"), page.locator(".side")
    assert heads.all_inner_texts() == ["sampler euler", "sampler heun"]
    assert sides.all_inner_texts() == ["steps 4", "steps 8", "steps 16"]
    for trial, (across, down) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]):
        cell = box(page, trial)
        assert cell["x"] == heads.nth(across).bounding_box()["x"]
        assert cell["y"] == sides.nth(down).bounding_box()["y"]
    choose_axis(page, "X axis", "steps")
    press_in_menu(page, "View", "Axes and values…")
    page.get_by_role("checkbox", name="8").uncheck()
    page.get_by_role("button", name="Move 16 up").click()
    page.get_by_role("button", name="Move 16 up").click()
    page.get_by_role("button", name="Done").click()
    assert list_heads(page) == ["16", "4"]


def test_back_undoes_a_change_and_the_address_restores_it(made, opened):
    page = opened(made(Sweep(AXES)))
    choose_axis(page, "X axis", "seed")
    page.get_by_role("tab", name="Table").click()
    address = re.sub(r"^[^#]*", "", page.url)
    page.go_back()
    page.wait_for_selector(".cell")
    assert read_axes(page)[0] == "seed"
    page.go_back()
    page.wait_for_function(
        "() => document.querySelector('[aria-colindex=\"2\"].head').title !== '18446744073709551615'"
    )
    assert read_axes(page)[0] == "steps"
    change_address(page, address)
    assert page.get_by_role("columnheader").nth(1).inner_text() == "▲ trial"


TEXTS = ["a fox, far: away", "a fox", "7", 7, 7.5, True, "true", None, "", 2**64 - 1, {"a": [1, ","]}, 'say "x"',
         "é" * 90, "null", -3, "line one\nline two", "é" * 91]  # fmt: skip


def test_address_keeps_its_meaning_when_the_sweep_grows(made, opened):
    page = opened(made(Sweep({"text": TEXTS[1:], "steps": [4, 8, 16]})), "#x=steps&y=text")
    hidden = [0, 2, 4, 5, 7, 9, 10, 11]
    evaluate(
        page,
        """places => {
            const { dataset, update } = sweeper.page;
            const axis = dataset.axes[0];
            const order = [7, 3, ...axis.order.filter(place => place !== 7 && place !== 3)];
            update({hidden: ViewState.withEntry({}, "text", places.map(place => axis.order[place])),
                    order: ViewState.withEntry({}, "text", order),
                    pins: ViewState.withEntry({}, "steps", 1), y: "text", x: ""}); }""",
        hidden,
    )
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 8")
    page.locator("#view .cell").nth(2).click()
    page.keyboard.press("s")
    address = "#" + page.url.partition("#")[2]
    assert address.endswith("&pin=steps:8")
    told = """() => { const { getState, dataset } = sweeper.page;
        return [getState().trial, getState().with].map(trial => dataset.title(dataset.row(Number(trial)))); }"""
    sides = "sweeper.page.getArrangement().rows.map(row => sweeper.page.dataset.axes[0].labelOf(row.inner))"
    larger = opened(made(Sweep({"text": TEXTS, "steps": [2, 4, 8, 16], "new": [1, 2]}), "larger"), address)
    assert larger.evaluate("Object.values(sweeper.page.getState().pins)") == [2]
    assert [side for side in larger.evaluate(sides) if side != TEXTS[0]] == page.evaluate(sides)
    assert larger.evaluate(told) == [f"{title} · new: 1" for title in page.evaluate(told)]
    page.keyboard.press("Escape")
    kept = """() => { const { getState, dataset } = sweeper.page, first = getState();
        const write = trial => ViewState.write({ ...first, trial: `${trial}` }, first, dataset);
        const read = trial => ViewState.read(write(trial), first, dataset).trial;
        return [...Array(48).keys()].filter(trial => read(trial) !== `${trial}`); }"""
    assert evaluate(page, kept) == []


def test_axis_that_an_address_places_leaves_its_usual_place(made, opened):
    page = opened(made(Sweep({"steps": [1, 2], "cfg": [3, 5]})), "#view=grid&xx=steps")
    placed = page.evaluate("(({x, y, xx, yy}) => [x, y, xx, yy])(sweeper.page.getState())")
    assert [name for name in placed if name] == sorted(filter(None, placed))
    assert placed[2] == "steps"


def test_address_is_short_and_separates_equal_trials(made, opened):
    page = opened(made(Sweep({"sampler": ["euler", "heun"], "steps": [4, 4, 8], "seed": [5]})))
    page.locator('[data-trial="5"]').click()
    assert page.url.partition("#")[2] == "trial=sampler:heun,steps:8,seed:5"
    page.evaluate("sweeper.page.open(1)")
    assert page.url.partition("#")[2] == "trial=sampler:euler,steps:4,seed:5,2"
    page.reload()
    page.wait_for_selector("dialog[open]")
    assert "trial 1" in page.locator("dialog .zoom-head").inner_text()
    page.goto(page.url.partition("#")[0] + "#trial=sampler:heun,seed:6")
    page.wait_for_selector("dialog:not([open])", state="attached")


def test_each_action_is_one_step_of_back(made, opened):
    page = opened(made(Sweep(AXES)), alone=True)
    page.clock.install()  # text typed without a pause is one step, and this test makes the pauses
    page.evaluate("sweeper.page.update({ size: 160, fit: '' }, { replace: true })")
    controls = [page.get_by_label(label, exact=True) for label in ("Filter", "Show", "Size")]

    def state():
        count = page.evaluate("sweeper.page.getArrangement().shown")
        return [read_axes(page)[0], *(control.input_value() for control in controls), count]

    steps = [state()]
    choose_axis(page, "X axis", "seed")
    steps.append(state())
    for word in ("fox", " in"):
        for key in word:
            page.get_by_label("Filter").press(key)
            page.clock.run_for(200)
        page.clock.run_for(2000)
        steps.append(state())
    open_menu(page, "Marks")
    choose(page, "Show", "status == 'failed'")
    steps.append(state())
    open_menu(page, "View")
    page.get_by_label("Size").press("ArrowRight")
    steps.append(state())
    assert [step[1:] for step in steps] == [
        ["", "", "160", 12], ["", "", "160", 12], ["fox", "", "160", 6], ["fox in", "", "160", 0],
        ["status == 'failed'", "status == 'failed'", "160", 0], ["status == 'failed'", "status == 'failed'", "176", 0],
    ]  # fmt: skip
    page.get_by_label("Filter").focus()  # the field follows the state while it has the focus, too
    for walk, places in ((page.go_back, range(4, -1, -1)), (page.go_forward, range(1, 6))):
        for place in places:
            before = page.url
            walk()
            page.wait_for_function("before => location.href !== before", arg=before)
            assert state() == steps[place]


def test_typed_filter_applies_before_the_next_action(made, opened):
    page = opened(made(Sweep(AXES)), alone=True)
    page.clock.install()
    page.get_by_label("Filter").press_sequentially("fox")
    page.get_by_role("tab", name="Table").click()
    page.go_back()
    page.wait_for_selector(".cell")
    assert page.evaluate("sweeper.page.getArrangement().shown") == 6


def test_cells_without_a_picture_say_why(made, opened):
    page = opened(made(Sweep({"steps": [1, 2, 3, 4], "cfg": [1.5, 2.5]}, ends=ENDS, skip=frozenset({7}))))
    for trial, word in ((1, "failed"), (2, "cancelled"), (3, "")):
        assert word in page.locator(f'[data-trial="{trial}"]').inner_text()
    assert "out of memory" in page.locator('[data-trial="1"]').get_attribute("aria-label")
    hole = page.locator(".cell.none")
    assert hole.count() == 1
    assert "Not in the plan" in hole.get_attribute("title")


def test_pictures_without_thumbnails_are_shown_after_changes(made, opened):
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"><rect width="9" height="9"/></svg>'
    page = opened(made(Sweep(AXES, suffix="svg", content=drawing)))
    shown = "() => { const all = [...document.querySelectorAll('.cell img')];"
    shown += " return all.length === 12 && all.every(i => i.complete && i.naturalWidth > 0); }"
    page.wait_for_function(shown)
    choose_axis(page, "X axis", "seed")
    page.wait_for_function(shown)


def test_missing_value_is_moved_hidden_and_chosen_as_any_other(made, opened):
    page = opened(made(Sweep({"flag": [True, None, False], "steps": [4, 8, 16, 32]})), "#x=steps&y=flag")

    def open_values():
        press_in_menu(page, "View", "Axes and values…")
        choose(page, "Axis", "flag")

    assert list_heads(page, ".side") == ["true", "(none)", "false"]
    open_values()
    assert "flag (3)" in page.get_by_label("Y axis", exact=True).locator("option").all_inner_texts()
    page.get_by_role("button", name="Move (none) down").click()
    page.get_by_role("button", name="Done").click()
    assert list_heads(page, ".side") == ["true", "false", "(none)"]
    page.reload()
    assert list_heads(page, ".side") == ["true", "false", "(none)"]
    open_values()
    for _ in range(2):
        page.get_by_role("button", name="Move (none) up").click()
    page.get_by_role("checkbox", name="true").uncheck()
    page.get_by_role("button", name="Done").click()
    assert list_heads(page, ".side") == ["(none)", "false"]
    address = "#" + page.url.partition("#")[2]
    for other in ("#x=steps&y=flag", address):
        change_address(page, other)
    assert list_heads(page, ".side") == ["(none)", "false"]
    open_values()
    page.get_by_role("checkbox", name="(none)").uncheck()
    page.get_by_role("button", name="Done").click()
    assert list_heads(page, ".side") == ["false"]
    choose_axis(page, "Y axis", "")
    page.get_by_label("flag", exact=True).select_option(label="(none)")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 4")
    trials = read_all(page, "#view .cell", "cells => cells.map(cell => Number(cell.dataset.trial))")
    assert sorted(trials) == [4, 5, 6, 7]


def test_axis_of_one_value_and_none_is_in_the_first_view(made, opened):
    page = opened(made(Sweep({"flag": [True, None], "steps": [4, 8, 16]})))
    assert sorted(read_axes(page)[:2]) == ["flag", "steps"]


def test_keyboard_moves_and_marks_in_the_grid(made, opened):
    page = opened(made(Sweep({"sampler": ["euler", "heun"], "steps": [4, 8, 16]})))
    choose_axis(page, "X axis", "steps")
    page.locator("[role=grid]").focus()
    for key in ("ArrowRight", "ArrowDown", "k", "4"):
        page.keyboard.press(key)
    cell = page.locator('[data-trial="4"]')
    assert "keep" in cell.get_attribute("class")
    assert "4 stars" in cell.get_attribute("aria-label")
    for _ in range(10):  # a browser may read storage for the new page before it has written it for the old one
        page.reload()
        page.wait_for_selector(".cell[data-trial]")
        if page.locator(".cell.keep").count():
            break
    assert page.locator(".cell.keep").get_attribute("data-trial") == "4"


@pytest.fixture
def zipped(tmp_path):
    """cfg and denoise advance together, and so do width and height, where two widths have one height."""
    axes = {"steps": [4, 8], "cfg": [5, 6, 7], "denoise": [0.5, 0.75, 1.0], "width": [32, 64, 96], "height": [48, 96]}
    points = list(itertools.product(*axes.values()))
    pairs = {(5, 0.5), (6, 0.75), (7, 1.0)}, {(32, 48), (64, 96), (96, 96)}
    skip = frozenset(n for n, p in enumerate(points) if p[1:3] not in pairs[0] or p[3:] not in pairs[1])
    return write_report(Sweep(axes, skip=skip).write(tmp_path / "zipped")).page.parent


def test_zip_partners_share_one_pin_menu(zipped, opened):
    page = opened(zipped, "#x=steps&y=&xx=&yy=")
    pins = page.locator(".pins")
    assert pins.locator("label").all_inner_texts() == ["cfg", "width", "height"]
    pins.get_by_label("width").select_option(label="64")
    assert pins.get_by_label("height").locator("option").all_inner_texts() == ["all", "96"]
    pins.get_by_label("height").select_option(label="96")
    pins.get_by_label("cfg").select_option(label="7")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 2")
    assert pins.get_by_label("width").locator("option").all_inner_texts() == ["all", "64", "96"]
    change_address(page, "#x=steps&y=&xx=&yy=&pin=denoise:1")  # written by hand; the user can still undo it
    assert pins.locator("label").all_inner_texts() == ["denoise", "width", "height"]


def test_empty_view_can_be_cleared(zipped, opened):
    page = opened(zipped, "#x=steps&y=&xx=&yy=")
    for address in (
        "where=steps%20%3E%209", "pin=cfg:7&pin=denoise:0.5", "hide=steps:4,8", "pin=cfg:7&where=cfg%20%3C%207"
    ):  # fmt: skip
        change_address(page, f"#x=steps&y=&xx=&yy=&{address}")
        assert page.locator("#view .empty").inner_text().startswith("No trial is left"), address
        assert page.locator(".corner").is_hidden(), address
        page.get_by_role("button", name="Clear filter").click()
        assert page.evaluate("sweeper.page.getArrangement().shown") == 18, address


def test_two_tabs_share_their_marks(made, opened):
    here = opened(made(Sweep({"sampler": ["euler", "heun"], "steps": [4, 8, 16]})))
    there = here.context.new_page()
    there.goto(here.url)
    there.wait_for_selector(".cell[data-trial]")
    kept = "trial => document.querySelector(`.cell.keep[data-trial='${trial}']`) !== null"
    here.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    there.wait_for_function(kept, arg=0)
    there.evaluate("sweeper.page.marks.set(1, {verdict: 'keep', comment: 'there'})")
    here.wait_for_function(kept, arg=1)
    there.evaluate("sweeper.page.marks.set(0, {verdict: ''})")
    here.wait_for_function("() => !document.querySelector('.cell.keep[data-trial=\"0\"]')")
    here.evaluate("sweeper.page.marks.set(2, {verdict: 'keep'})")
    there.wait_for_function(kept, arg=2)
    assert [tab.evaluate("sweeper.page.marks.count()") for tab in (here, there)] == [2, 2]
    # Both write at once: this tab does not know the other's mark yet when it writes its own.
    here.evaluate("""() => {
        const [key] = Object.keys(localStorage).filter((one) => one.includes(":began "));
        const all = {...JSON.parse(localStorage.getItem(key)), [sweeper.page.dataset.digest(4)]: {stars: 3}};
        localStorage.setItem(key, JSON.stringify(all));
        sweeper.page.marks.set(5, {verdict: 'reject'}); }""")
    marks = here.evaluate("[1, 2, 4, 5].map(row => Object.values(sweeper.page.marks.get(row)).filter(Boolean))")
    assert marks == [["keep", "there"], ["keep"], [3], ["reject"]]
    assert "3 stars" in here.locator('[data-trial="4"]').get_attribute("aria-label")


def test_menus_are_reachable_on_a_phone(made, opened):
    page = opened(made(Sweep(AXES)), viewport={"width": 390, "height": 800})
    page.get_by_role("button", name="Axes", exact=True).click()  # the corner of the grid
    choose(page, "X axis", "seed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


TALL = {"steps": list(range(60)), "cfg": [1, 2]}
SCROLLED = "() => document.querySelector('.scroller').scrollTop"
UNDER = """([x, y]) => document.elementFromPoint(x, y)?.closest('[data-trial]')?.dataset.trial"""
PLACE = (250, 600)


def scroll(page):
    """Scroll by the mouse wheel; returns the trial that is then at PLACE."""
    page.mouse.move(*PLACE)
    page.mouse.wheel(0, 700)
    page.wait_for_function(f"() => ({SCROLLED})() === 700 && !sweeper.page.isBusy()")
    return page.evaluate(UNDER, PLACE)


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.mark.parametrize(
    ("addresses", "options"), [(["#size=192", "#view=table"], {}), (["#size=112"], PHONE)], ids=["wide", "phone"]
)
def test_first_click_after_scrolling_opens_the_clicked_cell(made, opened, addresses, options):
    page = opened(made(Sweep(TALL)), addresses[0], **options)
    for address in addresses:
        change_address(page, address)
        trial = scroll(page)
        (page.touchscreen.tap if options else page.mouse.click)(*PLACE)
        page.wait_for_selector("dialog[open]")
        assert f"trial {trial}\n" in page.locator("dialog .zoom-head").inner_text() + "\n", address
        assert page.evaluate(SCROLLED) > 500, address
        page.keyboard.press("Escape")


@pytest.mark.parametrize("address", ["", "#view=table"], ids=["grid", "table"])
def test_keyboard_focus_selects_the_first_visible_cell(made, opened, address):
    page = opened(made(Sweep(TALL)), address)
    scroll(page)
    page.keyboard.press("Tab")  # the wheel moves no focus: it is on its way through the controls
    while page.evaluate("() => !document.activeElement.matches('.scroller')"):
        page.keyboard.press("Tab")
    assert page.evaluate(SCROLLED) == 700
    wholly = """() => {
        const of = (what) => document.querySelector(what).getBoundingClientRect();
        const [at, view, head] = [of('.current'), of('.scroller'), of('.heads, .thead')];
        return at.top >= head.bottom - 1 && at.bottom <= view.bottom; }"""
    assert page.evaluate(wholly)
    page.keyboard.press("ArrowDown")
    assert page.evaluate(wholly)
    assert page.evaluate(SCROLLED) > 500


EVIL = [
    "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", '"><svg onload=alert(3)>',
    "javascript:alert(4)",
    "{{ 7 * 7 }}", "__proto__", "$int", "a\u2028b\u202ec", "' or 1 == 1", "\ud83e",
]  # fmt: skip


def test_hostile_names_labels_and_errors_stay_text(made, opened):
    sweep = Sweep(
        {EVIL[0]: EVIL, "__proto__": ["constructor", EVIL[1]]}, name=EVIL[1], slots={EVIL[2]: EVIL[1]}, size=(8, 8),
        ends={0: ("failed", (EVIL[0], EVIL[1]))},
    )  # fmt: skip
    page = opened(made(sweep), "#trial=0&with=1&mode=side")
    for view in ("grid", "table", "plots"):
        change_address(page, f"#view={view}&trial=0&with=1&mode=side")
        page.wait_for_selector("dialog[open]")
        assert page.locator("script:not([src])").count() == 0, view
        assert page.locator("[onerror], [onload], img[src=x], #view svg[onload]").count() == 0, view
        assert EVIL[0] in page.locator("dialog[open]").inner_text(), view
        assert page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0"), view


@pytest.mark.parametrize(
    "address",
    [
        "#x=%00&size=1e9&view=__proto__&mode=x&hide=[1]&order=[%22__proto__%22,1]&pin={",
        "#trial=99&with=-1",
        "#fit=constructor&open=-1",
    ],
)
def test_invalid_address_shows_the_first_view(made, opened, address):
    page = opened(made(Sweep(AXES)), address)
    assert page.locator(".cell").count() == 12


def test_single_long_axis_wraps_with_values_as_captions(made, opened):
    page = opened(made(Sweep({"seed": list(range(500, 540))})))
    tops = read_all(page, ".cell[data-trial]", "cells => new Set(cells.map(c => c.getBoundingClientRect().y)).size")
    assert tops > 2
    assert page.evaluate("() => document.querySelector('.scroller').scrollWidth <= innerWidth")
    assert page.locator('[data-trial="17"] .caption').inner_text() == "seed 517"
    page.locator('[data-trial="17"]').click()
    page.keyboard.press("ArrowRight")
    assert "trial 18" in page.locator("dialog[open] .zoom-head").inner_text()


def test_filter_expressions_select_rows(made, opened):
    page = opened(made(Sweep({"steps": [1, 2, 3], "seed": [2**64 - 1, 5]}, ends={1: ("failed", ("E", "no"))})))
    cases = {
        "not steps == 1 and seed < 6": [3, 5],
        "steps + 1 > 2 or (seed == 5)": [1, 2, 3, 4, 5],
        "-steps * 2 <= -6": [4, 5],
        "steps in [1, 3] and seed != 5": [0, 4],
        "steps not in [1, 3]": [2, 3],
        "status == 'failed'": [1],
        "brightness == none": [1],
        "`steps` == 2 and seed == 18446744073709551615": [2],
        "seed == 18446744073709551614": [],
        "'ail' in status": [1],
        "steps > 'a'": [],
    }
    wrong = ("steps ==", "steps = 1", "(steps", "[1, 2", "nothing > 1", "steps > 1 2", "(" * 5000 + "1")
    rows = """texts => texts.map(text => { const test = Expression.compile(text, sweeper.page.dataset);
        return test.error || [0, 1, 2, 3, 4, 5].filter(test.holds); })"""
    found = dict(zip([*cases, *wrong], evaluate(page, rows, [*cases, *wrong]), strict=True))
    assert {text: found[text] for text in cases} == cases
    assert [text for text in wrong if not isinstance(found[text], str)] == []


def test_filter_without_comparison_is_a_search(made, opened):
    prompts = ["a fox (at dusk)", "a (vixen:1.3) that runs far away", "2 hens"]
    axes = {"prompt": prompts, "cfg": [3, 7.12], "upscale": [True, False], "seed": [150369102, 2**64 - 1]}
    page = opened(made(Sweep(axes, slots={"note": "3"})))
    everything = range(24)
    cases = {
        "(vixen:1.3)": [n for n in everything if 8 <= n < 16],
        "fox (": list(range(8)),
        "FOX (AT": list(range(8)),
        "'fox'": list(range(8)),
        "7.12": [n for n in everything if n % 8 >= 4],
        "18446744073709551615": [n for n in everything if n % 2],
        "0": [],
        "150369": [],
        "hens or fox": [],
        "upscale": [n for n in everything if n % 4 < 2],
        "not upscale": [n for n in everything if n % 4 >= 2],
        "prompt": [],
        "33.0": [23],  # the metric of the last trial
        "cfg > 3 and prompt": [n for n in everything if n % 8 >= 4],
    }
    found = """texts => texts.map(text => { const test = Expression.compile(text, sweeper.page.dataset);
        return [...Array(24).keys()].filter(test.holds); })"""
    assert dict(zip(cases, evaluate(page, found, [*cases]), strict=True)) == cases
    said = page.locator("#bar .filter-status")
    for text, told in {
        "fox (": "8 of 24 trials contain fox (",
        "cfg > 3": "12 of 24 trials",
        "CFG > 4": "12 of 24 trials",
        "cgf > 3": "The filter cannot be read: there is no column cgf; did you mean cfg? "
        "Still showing 12 of 24 trials of the filter before.",
    }.items():
        page.get_by_label("Filter").fill(text)
        page.wait_for_function("told => document.querySelector('#bar .filter-status').textContent === told", arg=told)
    page.get_by_label("Filter").fill("")
    page.wait_for_function("() => document.querySelector('#bar .filter-status').textContent === ''")
    assert said.is_hidden()


@pytest.mark.parametrize(
    "axes",
    [
        {"prompt": ["an old lighthouse keeper's lamp, \\ at dusk", "b"], "steps": [9, 4]},
        {"steps": [1, 2], "steps.label": ["few", "many"]},
        {"prompt": ["line one\nline two", "b"], "in": [1, 2]},
        {"seed": [2**64 - 1, 5], "style": [{"a": 1}, "x"]},
        {"in": [1, 2]},
    ],
)
def test_filter_example_finds_a_trial(made, opened, axes):
    page = opened(made(Sweep(axes, ends={0: ("failed", ("E", "no"))})))
    example = page.get_by_label("Filter").get_attribute("placeholder").removesuffix(", or a word")
    page.get_by_label("Filter").fill(example)
    status = "document.querySelector('#bar .filter-status').textContent"
    page.wait_for_function(f"() => {status}.includes(' trials')")
    assert page.locator(".cell[data-trial]").count() > 0


def test_command_is_copied_without_clipboard_permission(made, opened):
    page = opened(made(Sweep({"steps": [1, 2]})))
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    page.evaluate("() => document.addEventListener('copy', () => (window.copied = String(getSelection())))")
    press_in_menu(page, "Share", "Copy address")
    page.wait_for_selector("#message.shown")
    assert page.locator("#message").inner_text() == "address copied"


def test_long_captions_are_shortened_in_any_script(made, opened):
    words = ["iiiiiiiiii", "WWWWWWWWWW", "a fox that runs far away through snow", "لوحة زيتية لثعلب في الثلج البعيد",
             "…drawn in charcoal with soft…"]  # fmt: skip
    page = opened(made(Sweep({"prompt": words, "seed": [1, 2]})))
    shown = evaluate(
        page,
        """words => words.map(word => {
        const probe = document.createElement('span');
        document.querySelector('.cell').append(probe);
        probe.className = 'caption';
        const fitted = TextWidth.shorten(word, 86);
        probe.textContent = fitted ?? '';
        const box = document.createRange();
        box.selectNodeContents(probe);
        const { width } = box.getBoundingClientRect();
        probe.remove();
        return [fitted ?? null, width];
        })""",
        words,
    )
    (narrow, _), (wide, filled), (prose, used), (other, _), (label, _) = shown
    assert narrow == "iiiiiiiiii"
    assert re.fullmatch("W+…", wide)
    assert 60 < filled <= 86.5
    assert words[2].startswith(prose.removesuffix("…"))
    assert 70 < used <= 86.5
    assert other is None  # only a layout knows its width, so CSS cuts it off
    assert label.startswith("…charcoal")  # which tells it from the others
