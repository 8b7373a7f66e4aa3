"""What one sees and learns before one changes anything: the bar, the labels, the keys, the filter's help."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from sweeper.cli import main
from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, choose_axis, open_menu, read_all, read_axes
from tests.reporting.page_modules import evaluate

GRID = {"prompt": ["a fox", "a boat"], "seed": [11, 12, 13], "cfg": [5, 7]}
OOM = ("torch.OutOfMemoryError", "node 3 (KSampler): CUDA out of memory")


@pytest.fixture
def zipped_report(project, tmp_path, capsys):
    """A report of a sweep whose width and color vary together."""
    file = project(sweep={"grid": {"height": [8, 16]}, "zip": [{"width": [8, 16, 24], "color": [1, 2, 3]}]})
    assert main(["run", str(file), "--out", str(tmp_path / "out"), "--target", "embedded"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    return tmp_path / "out" / "report"


def test_heads_show_the_partners_of_a_zip(zipped_report, opened):
    page = opened(zipped_report, "#x=width&y=height")
    assert page.locator(".head").all_inner_texts() == ["8 · 1", "16 · 2", "24 · 3"]
    assert "width · color" in page.locator(".corner").inner_text()
    choose_axis(page, "Y axis", "color")  # it has a head of its own then
    assert page.locator(".head").all_inner_texts() == ["width 8", "width 16", "width 24"]
    change_address(page, "#view=plots&x=width&y=height")
    assert page.locator(".heat [scope=col]").all_inner_texts() == ["8 · 1", "16 · 2", "24 · 3"]


def test_sizes_of_one_width_lie_beside_each_other(made, opened):
    grid = {"color": [100, 200], "width": [64, 96, 48], "height": [64, 96, 48]}
    page = opened(made(Sweep(grid)))
    page.evaluate("sweeper.page.dataset.raw.together = [['width', 'height']]")
    first = evaluate(page, "(({ x, y, xx, yy }) => [x, y, xx, yy])(ViewState.makeInitial(sweeper.page.dataset))")
    assert first == ["width", "color", "height", ""]


def test_bar_is_one_line_whose_filter_suggests_names_and_values(made, opened):
    page = opened(made(Sweep(GRID)), viewport={"width": 1440, "height": 900})
    assert read_axes(page)[:2] == ["cfg", "prompt"]  # prompts come before seeds
    assert page.locator("#bar").bounding_box()["height"] < 50
    for name in ("View", "Marks"):
        open_menu(page, name)
        assert page.locator(".menu-panel:visible").count() == 1  # another press closes it
    page.keyboard.press("Escape")
    assert page.locator(".menu-panel:visible").count() == 0
    page.evaluate("() => sweeper.page.update({ colour: 'brightness' })")
    assert page.locator("#bar").bounding_box()["height"] < 50  # the legend needs no line of its own
    field = page.get_by_label("Filter")

    def suggest(text):
        field.fill(text)
        return read_all(page, "#filter-options option", "all => all.map(one => one.value)")

    assert suggest("cfg > 5 and pr") == ["cfg > 5 and prompt"]
    assert suggest("PROMPT == 'a b") == ["PROMPT == 'a boat'"]
    assert suggest("prompt in 'a b") == []  # this is a text
    assert suggest("cfg ==") == ["cfg == 5", "cfg == 7"]


@pytest.mark.parametrize(
    ("options", "most"),
    [({"viewport": {"width": 1440, "height": 900}}, 110),
     ({"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}, 170)],
    ids=["wide", "phone"],
)  # fmt: skip
@pytest.mark.parametrize(
    "address", ["", "#x=steps&y=cfg&xx=sampler&yy=seed&colour=brightness&where=cfg+>+1+and+steps+<+9"]
)
def test_first_picture_is_near_the_top(made, opened, options, most, address):
    axes = {"steps": [4, 8], "cfg": [1, 3, 5], "seed": [1, 2], "sampler": ["euler", "heun"]}
    others = {name: [1, 2] for name in ("denoise", "strength", "shift")} if address else {}  # they have menus
    page = opened(made(Sweep(axes | others, ends={4: ("failed", OOM), 5: ("failed", OOM)})), address, **options)
    assert page.locator(".cell").first.bounding_box()["y"] <= most
    assert page.locator("#bar").bounding_box()["height"] < 120
    tall = page.locator("#bar :is(.tabs, .menus) button:visible").evaluate_all(
        "all => Math.min(...all.map(one => one.offsetHeight))"
    )
    assert tall >= (40 if options.get("has_touch") else 30)


def test_parts_of_a_filter_are_removed_one_by_one(made, opened):
    page = opened(made(Sweep({"steps": [4, 8], "cfg": [1, 3], "seed": [1, 2]})), "#hide=seed:2")
    page.get_by_label("Filter").fill("steps >= 8 and cfg == 3")
    chips = page.locator(".chips button span")
    page.wait_for_function("() => document.querySelectorAll('.chips button').length === 3")
    assert chips.all_inner_texts() == ["steps >= 8", "cfg == 3", "seed: 1 hidden"]
    chips.nth(1).click()
    assert page.get_by_label("Filter").input_value() == "steps >= 8"
    chips.nth(1).click()
    assert chips.all_inner_texts() == ["steps >= 8"]
    page.get_by_label("Filter").fill("steps == 8 or cfg == 3")
    page.wait_for_function("() => document.querySelector('.chips').textContent.includes(' or ')")
    assert chips.all_inner_texts() == ["steps == 8 or cfg == 3"]


def test_accidents_are_counted_shown_and_run_again(tmp_path, opened):
    black, grey = (Image.new("RGB", (64, 48), colour) for colour in ((2, 1, 3), (120, 120, 120)))
    out = Sweep({"steps": [1, 2, 3, 4, 5, 6]}, ends={4: ("failed", OOM), 5: ("failed", OOM)}).write(tmp_path / "r")
    for number, image in enumerate((black, grey)):
        image.save(out / "artifacts" / f"picture-{number}.png")
    (out / "artifacts" / "picture-2.png").unlink()
    page = opened(write_report(out).page.parent)
    page.get_by_role("button", name="causes · 1 nearly black · 1 flat · 1 with a missing file").click()
    assert page.locator(".accidents p").all_inner_texts() == [
        "2 failed: OutOfMemoryError in KSampler (2)", "1 nearly black", "1 flat", "1 with a missing file",
    ]  # fmt: skip
    assert page.locator('[data-trial="4"] .why').inner_text() == "OutOfMemoryError in KSampler"  # the rest on hover
    assert page.locator('[data-trial="2"]').inner_text() == "file is gone"
    page.evaluate("() => document.addEventListener('copy', () => (window.copied = String(getSelection())))")
    page.get_by_role("button", name="Copy command: runs them again: 2 failed").click()
    page.wait_for_selector("#message.shown")
    assert page.evaluate("window.copied").startswith("sweeper run gone.yaml ")
    assert page.evaluate("window.copied").endswith(" --retry-failed")
    page.get_by_role("button", name="Show: 1 nearly black").click()
    assert page.get_by_label("Filter").input_value() == "picture == 'nearly black'"
    assert read_all(page, ".cell[data-trial]", "all => all.map(one => one.dataset.trial)") == ["0"]


def test_menus_fit_into_a_narrow_window(made, opened):
    page = opened(made(Sweep(GRID)), viewport={"width": 390, "height": 800})
    for name in ("View", "Marks"):
        open_menu(page, name)
        box = page.locator(".menu-panel:visible").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_f_cycles_all_in_view_as_wide_as_the_window_and_pixels(made, opened):
    page = opened(made(Sweep({"steps": [1, 2, 3, 4], "cfg": [5, 7, 9, 11, 13]})), "#x=steps&y=cfg")
    overflow = """() => { const one = document.querySelector('.scroller');
        return [one.scrollWidth > one.clientWidth, one.scrollHeight > one.clientHeight]; }"""
    widths = []
    for _ in range(4):
        widths.append((page.locator(".cell").first.bounding_box()["width"], page.evaluate(overflow)))
        page.keyboard.press("f")
    (whole, _), (wide, _), (pixels, _), (again, _) = widths
    assert [spill for _, spill in widths[:2]] == [[False, False], [False, True]]
    assert 112 <= whole < wide
    assert pixels == 64  # the pictures have 64 x 48 pixels
    assert again == whole
    assert page.locator(".cell img").first.get_attribute("src").startswith("thumbs/")


def test_lines_have_the_shapes_of_the_pictures_in_them(made, opened):
    sizes = [(256, 64), (256, 64), (96, 288), (96, 288)]
    page = opened(made(Sweep({"width": [256, 96], "seed": [1, 2]}, sizes=sizes)), "#x=seed&y=width&size=200")
    boxes = read_all(page, ".cell[data-trial]", "all => all.map(one => [one.offsetWidth, one.offsetHeight])")
    assert boxes == [[200, 50], [200, 50], [200, 173], [200, 173]]


def test_lines_of_a_gallery_are_full_and_their_pictures_whole(made, opened):
    sizes = [(256, 64), (96, 288), (160, 160), (192, 108)] * 6
    page = opened(made(Sweep({"seed": range(24)}, sizes=sizes)), "#view=gallery&captions=false&size=304")
    spans = read_all(
        page,
        ".cell[data-trial]",
        "all => all.map(one => { const b = one.getBoundingClientRect(); return [b.y, b.right, b.width / b.height]; })",
    )
    lines = [[one for one in spans if one[0] == top] for top in sorted({top for top, *_ in spans})]
    assert len(lines) > 2
    assert all(abs(line[-1][1] - 1392) < 2 for line in lines[:-1])  # 8 pixels remain on each side
    assert [ratio for *_, ratio in spans] == [pytest.approx(width / height, rel=0.05) for width, height in sizes]
    page.locator("[role=grid]").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")  # another line has another number of pictures
    assert page.locator(".cell.current").is_visible()


def test_dialog_of_a_trial_announces_a_comparison_and_lists_its_keys(made, opened):
    page = opened(made(Sweep(GRID)), "#trial=0")
    page.keyboard.press("h")
    said = page.locator("dialog #message")
    assert said.inner_text() == "Trial 0 is the reference. Move to another trial."
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    assert page.locator("#zoom figure").count() == 2
    page.get_by_role("button", name="Reference: trial 0").click()  # ends the comparison
    assert page.locator("#zoom figure").count() == 0
    assert "with" not in page.url.partition("#")[2]
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    assert {"Everywhere", "In the grid and the gallery", "In an open trial"} == {*keys.locator("h2").all_inner_texts()}
    assert "side by side, blink" in keys.inner_text()
    page.keyboard.press("k")
    assert page.evaluate("sweeper.page.marks.count()") == 0
    # A key that follows at once acts again, although the browser tells the list a moment later that it is closed.
    page.evaluate("""() => { document.querySelector("#keys button").click();
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "h", bubbles: true })); }""")
    assert page.get_by_role("dialog", name="One trial").is_visible()
    assert said.inner_text() == "Trial 1 is the reference. Move to another trial."


def test_lost_picture_says_so(made, browser):
    folder = made(Sweep({"steps": [1, 2]}))
    for file in folder.rglob("*.webp"):
        file.unlink()
    page = browser.new_page()  # not `opened`, because the console reports each lost file
    page.goto(f"{folder.as_uri()}/index.html")
    page.wait_for_function("() => document.querySelectorAll('.cell img[alt*=\"cannot be loaded\"]').length === 2")
    page.close()


def test_cursor_alone_frames_a_kept_cell(made, opened):
    page = opened(made(Sweep({"steps": [1, 2]})))
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    kept = page.locator(".cell.keep")
    style = """one => { const [own, flag] = [getComputedStyle(one), getComputedStyle(one, '::after')];
        return [own.outlineStyle, flag.content, flag.width]; }"""
    assert kept.evaluate(style) == ["none", '"✓"', "22px"]
    page.locator("[role=grid]").focus()
    page.keyboard.press("ArrowLeft")
    assert kept.evaluate(style) == ["solid", '"✓"', "22px"]


def test_description_is_the_subtitle(project, tmp_path, opened, capsys):
    file = project(description="Which width is best?")
    assert main(["run", str(file), "--out", str(tmp_path / "out"), "--target", "embedded"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    page = opened(tmp_path / "out" / "report")
    assert page.locator(".subtitle").inner_text() == "Which width is best?"
    assert json.loads((tmp_path / "out" / "report" / "data.json").read_text())["together"] == []
