"""The layout of the page in a real browser: nothing is cut off, squeezed or out of sight."""

from __future__ import annotations

import pytest

from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, choose_axis, list_heads, open_menu, read_all

GRID = {"sampler": ["euler", "heun"], "steps": [4, 8, 16]}
PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_first_table_column_stays_in_view(made, opened, options):
    slots = {f"slot_number_{n}": "a text that takes some room" for n in range(8)}
    folder = made(Sweep(GRID, slots=slots))
    every = '["trial","sampler","' + '","'.join(slots) + '"]'
    page = opened(folder, f"#view=table&columns={every}", **options)
    page.locator(".scroller").evaluate("s => s.scrollTo(900, 0)")
    for first in (".tbody .trow > :first-child", ".thead > :first-child"):
        at = page.locator(first).first
        assert at.bounding_box()["x"] == page.locator(".scroller").bounding_box()["x"]
        assert at.evaluate("one => { const b = one.getBoundingClientRect();"
                           " return one.contains(document.elementFromPoint(b.x + 20, b.y + 12)); }")  # fmt: skip


def test_wide_first_column_does_not_stay_on_a_phone(made, opened):
    page = opened(
        made(Sweep({"prompt": ["a fox " * 9, "b"], "steps": [1, 2]})),
        '#view=table&columns=["prompt","steps","status","error"]',
        **PHONE,
    )
    page.locator(".scroller").evaluate("s => s.scrollTo(200, 0)")
    first, second = (page.locator(f".tbody .trow > :nth-child({n})").first.bounding_box() for n in (1, 2))
    assert first["x"] == 0  # the picture stays
    assert second["x"] < 0


def test_column_names_fit_with_the_sort_arrow(made, opened):
    page = opened(made(Sweep({**GRID, "a_rather_long_name_of_an_axis": [1]})))
    for sort in ("trial", "brightness", "-comment", "-a_rather_long_name_of_an_axis"):
        change_address(page, f'#view=table&sort={sort}&columns=["brightness","{sort.strip("-")}"]')
        cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
        assert read_all(page, ".thead button", cut) == [], sort
        assert page.locator(".thead button", has_text="▼" if sort.startswith("-") else "▲").count() == 1, sort


def test_bar_is_aligned_and_views_have_a_focus_ring_or_say_they_are_empty(made, opened):
    page = opened(made(Sweep(GRID)))
    tops = "all => new Set(all.map(one => Math.round(one.getBoundingClientRect().top))).size"
    controls = page.locator("#bar :is(.tabs button:not([hidden]), .search-field input, .menus > * > button)")
    assert controls.evaluate_all(tops) == 1
    assert page.locator("#bar button", has_text="Axes and values").count() == 1
    ring = "() => getComputedStyle(document.querySelector('#view'), '::after').borderTopWidth"
    for view in ("grid", "table"):
        change_address(page, f"#view={view}")
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate(ring) == "0px", view
        page.locator("[role=grid]").focus()
        # Above the sticky elements, which would cover a ring of the scroller itself.
        assert page.evaluate(ring) == "2px", view
        change_address(page, f"#view={view}&where=steps > 99")
        words = page.locator("#view .empty")
        assert words.inner_text().startswith("No trial is left"), view
        assert words.bounding_box()["y"] - page.locator("#view").bounding_box()["y"] < 60, view


def test_blank_text_has_a_visible_label(made, opened):
    page = opened(made(Sweep({"prompt": ["a fox", "", " "], "seed": [1, 2, 3, 4]})), "#x=seed&y=prompt")
    assert list_heads(page, ".side") == ["a fox", "(empty)", '" "']
    change_address(page, "#x=seed&y=")
    page.get_by_label("prompt", exact=True).select_option(label="(empty)")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 4")


@pytest.mark.parametrize("size", [(700, 400), (844, 390), (667, 375)])
def test_low_window_shows_whole_cells_and_reachable_menus(made, opened, size):
    width, height = size
    page = opened(made(Sweep({"steps": [1, 2, 3, 4], "cfg": [1, 2]})), viewport={"width": width, "height": height})
    whole = "(cells, low) => cells.filter(cell => cell.getBoundingClientRect().bottom <= low).length"
    assert read_all(page, "#view .cell[data-trial]", whole, height) >= 4
    choose_axis(page, "X axis", "cfg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_reason_in_a_cell_ends_with_a_whole_line(made, opened):
    told = ("ExecutionError", "node 3: out of memory on a card that has too little of it. " * 6)
    page = opened(made(Sweep({"steps": [1, 2]}, ends={0: ("failed", told)})))
    for size in (96, 112, 144, 208):
        change_address(page, f"#size={size}")
        lines, inside = page.locator(".why").evaluate(
            """why => {
            const [box, cell] = [why.getBoundingClientRect(), why.closest('.frame').getBoundingClientRect()];
            return [box.height / parseFloat(getComputedStyle(why).lineHeight), box.bottom <= cell.bottom + 0.5]; }"""
        )
        assert lines >= 1, size
        assert abs(lines - round(lines)) < 0.01, size
        assert inside, size


def test_single_trial_has_no_values_button(made, opened):
    page = opened(made(Sweep({}, slots={"steps": 4})))
    assert page.locator(".cell").count() == 1
    assert page.locator("#bar button", has_text="Axes and values").count() == 0


def test_theme_button_shows_the_theme_after_a_reload(made, opened):
    page = opened(made(Sweep(GRID)))
    chosen = page.get_by_role("group", name="Theme").get_by_role("button", pressed=True)
    open_menu(page, "View")
    assert chosen.inner_text() == "Auto"
    page.get_by_role("button", name="Light").click()
    for _ in range(10):  # a browser may read storage for the new page before it has written it for the old one
        page.reload()
        page.wait_for_selector(".cell[data-trial]")
        if page.evaluate("document.documentElement.dataset.theme") == "light":
            break
    open_menu(page, "View")
    assert chosen.inner_text() == "Light"


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_long_value_scrolls_inside_its_table_cell(made, opened, options):
    long = "a portrait of an old sailor, " * 40
    page = opened(made(Sweep({"prompt": [long, "a fox"], "steps": [1, 2]})), "#trial=3&with=0&mode=side", **options)
    row = page.locator(".params tr", has_text="prompt")
    assert row.bounding_box()["height"] < 200
    assert row.locator("td").first.evaluate(
        "cell => cell.scrollHeight > cell.clientHeight"
    )  # all of it can be scrolled to
    edges = """rows => new Set(rows.map(row => [...row.querySelectorAll('td')].map(cell => {
        const { left, right } = cell.getBoundingClientRect();
        return `${Math.round(left)} ${Math.round(right)}`; }).join())).size"""
    assert page.locator(".params").first.locator("tbody tr").evaluate_all(edges) == 1
    widths = [row.locator("td").nth(n).bounding_box()["width"] for n in (0, 1)]
    assert abs(widths[0] - widths[1]) < 1


def test_captions_on_a_phone_show_what_differs(made, opened):
    axes = {"subject": ["a red fox in deep snow"], "style": ["oil painting", "photo"], "sampler": ["euler", "dpmpp_2m"],
            "scheduler": ["normal", "karras"], "cfg": [1.5, 7.25]}  # fmt: skip
    page = opened(made(Sweep(axes)), "#trial=0&with=15&mode=side", **PHONE)
    whole = read_all(page, "figcaption", "all => all.map(one => one.scrollHeight <= one.clientHeight)")
    assert whole == [True, True]


MANY = {
    "prompt": [f"{'a portrait of an old sailor, ' * 20}{end}" for end in ("at dawn", "at dusk")],
    "checkpoint": ["a-model-of-some-name-that-is-long.safetensors", "other"],
    "sampler": ["euler", "heun"],
    "steps": [4, 8],
    "cfg": [1.5, 7.25],
}
SEEN = """words => { const box = %s.getBoundingClientRect(), range = new Range();
    const walk = document.createTreeWalker(%s, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) { const at = walk.currentNode.data.indexOf(words);
        if (at < 0) continue;
        range.setStart(walk.currentNode, at); range.setEnd(walk.currentNode, at + words.length);
        const { bottom } = range.getBoundingClientRect(); return bottom <= box.bottom + 1; }
    return false; }"""


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_long_prompt_leaves_room_for_other_values(made, opened, options):
    page = opened(made(Sweep({**MANY, "style": ["oil", None]})), "#trial=0", **options)
    head = "document.querySelector('.zoom-head h2')"
    seen = [page.evaluate(SEEN % (head, head), words) for words in ("prompt: ", "steps: 4", "cfg: 1.5")]
    assert seen == [True, True, True]
    assert MANY["prompt"][0] in page.locator(".zoom-head h2").get_attribute("title")
    change_address(page, "#trial=9&with=0&mode=side")  # captions of two trials begin with what differs
    captions = page.locator("figcaption").all_inner_texts()
    assert captions[0].startswith("Reference sampler: euler · style: oil · ")
    assert captions[1].startswith("trial 9 sampler: heun · style: (none) · ")
    for place in (0, 1):
        one = f"document.querySelectorAll('figcaption')[{place}]"
        assert page.evaluate(SEEN % (one, one), "style: ")
        # A text without room ends in dots, and nothing scrolls invisibly.
        assert page.evaluate(f"getComputedStyle({one}).overflowY") == "hidden"
        assert page.evaluate(f"getComputedStyle({one}).webkitLineClamp") != "none"


def test_caption_names_the_axis_of_a_missing_value(made, opened):
    axes = {"steps": [1, 2, 3], "shape": [None, "", "wide"], "cfg": [1.5, 7]}
    page = opened(made(Sweep(axes, skip=frozenset([6, 7, 12, 13, 14, 15]))), "#x=steps&y=&xx=&yy=&size=200")
    page.wait_for_function("() => document.querySelectorAll('.cell[aria-label]').length === 3")
    cells = read_all(page, ".cell", "all => all.map(c => [c.innerText, c.title, c.ariaLabel])")
    captions = [text.split("\n")[-1] for text, _, _ in cells]
    assert captions == ["shape (none) · cfg 1.5", "shape (empty) · cfg 1.5", "shape wide · cfg 1.5"]
    wanted = [["cfg: 1.5", f"shape: {shape}"] for shape in ("(none)", "(empty)", "wide")]
    for (_, title, label), words in zip(cells, wanted, strict=True):
        assert [word in title for word in words] == [True, True]
        assert [word in label for word in words] == [True, True]
