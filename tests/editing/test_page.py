"""The page of `sweeper open` in a real Chromium: by mouse alone, by keyboard alone, and with another editor."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

from sweeper.editing.open_server import OpenServer
from tests.cli.conftest import TXT2IMG
from tests.editing.test_runs import box  # noqa: F401 (a fixture)
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)
EXPERIMENT = """\
# mine
name: mine
template: workflow.json
target: embedded

sweep:
  grid:
    cfg: [4, 8]  # few
    seed: {seeds: 2}
metrics: [brightness]  # a column
"""
SLOTS = """\
slots:
  cfg: {at: "3.cfg", schema: {type: number, minimum: 0, maximum: 100}}
  seed: {at: "3.seed", schema: {type: integer, minimum: 0}}
  prompt: {at: "6.text", schema: {type: string}}
  width: {at: "5.width", schema: {type: integer, minimum: 16}}
  height: {at: "5.height", schema: {type: integer, minimum: 16}}
"""
AXE = """async () => {
    const found = (await axe.run(document, { resultTypes: ['violations'], preload: false })).violations;
    return found.flatMap(({ id, nodes }) => nodes.map(node => [id, node.target.join(' '), node.failureSummary])); }"""


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """The file of an experiment, whose folder has nothing else than it needs."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    Path(folder, "workflow.json").write_text(json.dumps(TXT2IMG))
    Path(folder, "workflow.slots.yaml").write_text(SLOTS)
    file = Path("mine", "experiment.yaml")
    file.write_text(EXPERIMENT)
    return file


@pytest.fixture
def visit(lend_pages):
    """Serve an experiment, or the choice of one, and open the page; what it writes to the console fails the test."""
    servers, trouble = [], []
    hear = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
    }

    def go(file=None, address="", **options):
        server = OpenServer(file)
        servers.append(server.__enter__())
        page = lend(**{"viewport": {"width": 1200, "height": 900}, **options})
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.wait_for_selector("#main > *")
        if address:
            page.goto(server.url.split("#")[0] + address)
        page.server = server
        return page

    with lend_pages(hear) as lend:
        yield go
    for server in servers:
        server.runner.stop()
        server.__exit__()
    assert [text for text in trouble if not text.startswith("Failed to load resource")] == []


def wait_for_count(page, text):
    page.locator(".count").get_by_text(text, exact=True).wait_for()


def has(file, text):
    wait_until(lambda: text in file.read_text())
    return True


def tab_to(page, label):
    """Press Tab until the element with this label, text or placeholder has the focus."""
    script = (
        "() => { const e = document.activeElement; return e.ariaLabel ?? e.labels?.[0]?.innerText ?? e.innerText; }"
    )
    for _ in range(150):
        page.keyboard.press("Tab")
        if page.evaluate(script) == label:
            return
    raise AssertionError(f"Tab does not reach {label}")


def drop_file(page, place, name, content):
    script = """([name, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        return data; }"""
    place.dispatch_event("drop", {"dataTransfer": page.evaluate_handle(script, [name, list(content)])})


def test_fields_show_all_20_digits_of_a_seed_on_wide_and_narrow_screens(experiment, visit):
    seeds = ["18446744073709551615", "18446744073709551614"]
    experiment.write_text(EXPERIMENT.replace("{seeds: 2}", f"[{', '.join(seeds)}]"))
    page = visit(experiment)

    def assert_shows_all(field):
        is_cut = "field => field.value.length === 20 && field.scrollWidth > field.clientWidth"
        for width in (390, 1200):
            page.set_viewport_size({"width": width, "height": 900})
            assert field.evaluate(is_cut) is False, width
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width

    wait_for_count(page, "4 pictures")
    page.get_by_role("button", name=seeds[0], exact=True).click()
    assert_shows_all(page.get_by_role("textbox", name="Value 1 of seed", exact=True))
    experiment.write_text(EXPERIMENT.replace("{seeds: 2}", f"{{from: {seeds[1]}, to: {seeds[0]}, step: 1}}"))
    for name in ("from", "to"):
        assert_shows_all(page.get_by_label(f"{name} of seed", exact=True))
    page.get_by_role("button", name="Do not vary seed").click()
    field = page.get_by_label("seed of KSampler", exact=True)
    field.fill(seeds[0])
    assert_shows_all(field)


def test_mouse_alone_leads_from_an_unknown_workflow_to_its_grid(tmp_path, monkeypatch, visit):
    monkeypatch.chdir(tmp_path)
    workflow = tmp_path / "unknown.json"
    workflow.write_text(json.dumps(TXT2IMG))
    page = visit()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="A file: Choose a file…").click()
    chooser.value.set_files(workflow)
    page.get_by_role("button", name="Vary sampler of KSampler").click()
    page.get_by_role("checkbox", name="heun", exact=True).check()
    page.get_by_role("button", name="Do not vary steps").click()
    wait_for_count(page, "4 pictures")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(lambda url: url.split("#")[0] != page.server.url.split("#")[0])
    page.locator("#view img").nth(3).wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "unknown"
    page.get_by_role("button", name="Edit", exact=True).click()
    wait_for_count(page, "4 pictures")


@pytest.mark.parametrize(
    ("sweep", "names"),
    [
        ("grid: {cfg: [4, 8], seed: {seeds: 2}}", ["cfg", "seed"]),
        ("grid: {cfg: [4.25, 8.5], seed: {seeds: 2}}", ["seed", "cfg"]),
        ("grid: {seed: [1, 2], cfg: [3, 4, 5], prompt: [a, the fox]}\n"
         "  zip: [{width: [64, 96], height: [96, 64]}]", ["cfg", "prompt", "width", "seed"]),
    ],
)  # fmt: skip
def test_the_drawn_grid_has_the_axes_of_the_report(experiment, visit, sweep, names):
    experiment.write_text(f"template: workflow.json\ntarget: embedded\nsweep:\n  {sweep}\n")
    page = visit(experiment)
    wait_until(lambda: re.findall(r"\d (\w+)", page.locator("figcaption").inner_text()) == names)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(lambda url: url.split("#")[0] != page.server.url.split("#")[0])
    page.locator("#view img").first.wait_for()
    view = page.evaluate("sweeper.page.getState()")
    assert [view[direction] for direction in ("x", "y", "xx", "yy") if view[direction]] == names


def test_keyboard_alone_leads_from_a_workflow_to_its_grid(experiment, visit):
    page = visit(experiment)
    wait_for_count(page, "4 pictures")
    tab_to(page, "Add a value to cfg")
    page.keyboard.type("6 7")
    page.keyboard.press("Enter")

    wait_for_count(page, "8 pictures")
    for key in ("Shift+Tab", "ArrowRight", "Delete"):  # to the chips, to the second, away with it
        page.keyboard.press(key)
    wait_for_count(page, "6 pictures")
    tab_to(page, "Vary text of CLIPTextEncode")
    page.keyboard.press("Enter")
    page.locator("textarea:focus").wait_for()  # in the new axis
    page.keyboard.type("a wolf")
    page.keyboard.press("Enter")
    wait_for_count(page, "12 pictures")
    for key in ("Shift+Tab", "Enter"):  # to the first chip, which opens
        page.keyboard.press(key)
    page.locator(".editor :focus").wait_for()  # its value; its label is the next field
    page.keyboard.press("Tab")
    page.keyboard.type("none")
    assert has(experiment, "label: none")
    page.keyboard.press("Enter")  # back on the chip
    page.locator(".chip:focus").wait_for()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    wait_until(lambda: "label: none" not in experiment.read_text())
    assert "# few" in experiment.read_text()
    tab_to(page, "Run")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.split("#")[0] != page.server.url.split("#")[0])
    page.locator("#view img").nth(3).wait_for()


def test_typed_values_and_text_are_saved_while_typing_goes_on(experiment, visit):
    page = visit(experiment)
    field = page.get_by_label("prompt of CLIPTextEncode", exact=True)
    field.click()
    page.keyboard.press("End")
    for word in ("one", "two", "three"):  # with pauses, in which the page is shown anew
        page.keyboard.type(f" {word}")
        assert has(experiment, f" {word}")
    before = experiment.read_text()
    for _ in range(20):  # without any
        page.keyboard.type("0123", delay=25)
    assert experiment.read_text() != before
    page.keyboard.type(" end")
    assert has(experiment, f" one two three{'0123' * 20} end")
    page.get_by_role("button", name="Vary prompt of CLIPTextEncode", exact=True).click()
    assert has(experiment, "prompt:\n") or has(experiment, "prompt: [")
    assert "three0123" in experiment.read_text()  # what was typed becomes the first value
    assert "params" not in experiment.read_text()

    # The text of the file.
    page.get_by_role("button", name="File", exact=True).click()
    page.locator("#yaml").focus()
    page.keyboard.press("Control+End")
    for _ in range(20):
        page.keyboard.type("# 34", delay=25)
    assert "# 34" in experiment.read_text()
    page.keyboard.type("# end")
    assert has(experiment, f"{'# 34' * 20}# end")


def test_another_editor_wins_and_a_mistake_stands_at_its_field(experiment, visit):
    page = visit(experiment)
    wait_for_count(page, "4 pictures")
    page.get_by_label("Add a value to cfg").fill("6, 1")
    experiment.write_text(EXPERIMENT.replace("[4, 8]", "[4, 8, 12]"))
    wait_for_count(page, "6 pictures")
    assert "changed by another program" in page.locator("#notices").inner_text()
    assert page.get_by_label("Add a value to cfg").input_value() == "6, 1"
    page.keyboard.type("0")
    assert page.get_by_label("Add a value to cfg").input_value() == "6, 10"
    page.keyboard.press("Enter")
    wait_for_count(page, "10 pictures")
    assert "cfg: [4, 8, 12, 6, 10]  # few" in experiment.read_text()

    # A mistake has the words of `sweeper validate`, whether a field or the file has it.
    experiment.write_text(EXPERIMENT)
    wait_for_count(page, "4 pictures")
    page.get_by_label("Add a value to cfg").fill("abc")
    page.keyboard.press("Enter")
    card = page.get_by_role("group", name="cfg varies", exact=True)
    card.get_by_role("alert").get_by_text("found 'abc', but a number is needed", exact=True).wait_for()
    page.get_by_label("Add a value to cfg").fill("700")
    page.keyboard.press("Enter")
    card.get_by_role("alert").get_by_text("found 700.0, but at most 100.0 is needed", exact=True).wait_for()
    assert experiment.read_text() == EXPERIMENT  # neither was written
    experiment.write_text(EXPERIMENT.replace("[4, 8]", "[4, 700]").replace("metrics", "metrix"))
    card.locator("p.error").get_by_text("found 700.0, but at most 100.0 is needed").last.wait_for()
    assert card.locator(".chip.wrong").inner_text() == "700"
    page.get_by_role("link", name="Show it").click()
    page.get_by_label("Add a value to cfg").and_(page.locator(":focus")).wait_for()
    assert "metrix" in page.locator(".outcome .error").first.inner_text()  # it has no field
    assert page.get_by_role("button", name="Run", exact=True).get_attribute("aria-disabled") == "true"


def test_axes_vary_together_or_alone_and_named_values_set_what_is_free(experiment, visit):
    page = visit(experiment)
    wait_for_count(page, "4 pictures")
    page.locator("[id='axis 3.seed'], .card").nth(1).locator(".grip").drag_to(page.locator(".card").first)
    wait_for_count(page, "2 pictures")
    assert has(experiment, "zip:")
    page.get_by_role("button", name="Vary seed alone").click()
    wait_for_count(page, "4 pictures")
    page.get_by_role("button", name="More for cfg").click()
    page.get_by_label("Vary cfg together with").select_option("seed")
    wait_for_count(page, "2 pictures")

    # A named value does not set what is fixed.
    experiment.write_text(f"{EXPERIMENT}params: {{prompt: a fox}}\n")
    wait_for_count(page, "4 pictures")
    page.get_by_role("button", name="Add a named value that sets several inputs").click()
    assert has(experiment, "look: [{label: first, set: {")
    assert "prompt" not in page.get_by_label("Also set an input").inner_text()
    experiment.write_text(experiment.read_text().replace("set: {", "set: {prompt: a hare, "))
    page.locator(".input .error").get_by_text("is also swept").wait_for()  # at the field


def test_pasted_lines_become_one_text_or_several(experiment, visit, browser):
    page = visit(experiment, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Vary prompt of CLIPTextEncode").click()
    page.evaluate("navigator.clipboard.writeText('a wolf\\n\\na lynx\\n')")
    page.keyboard.press("Control+v")
    page.get_by_role("button", name="2 values, a line each").click()
    wait_for_count(page, "12 pictures")
    page.keyboard.press("Control+v")
    page.get_by_role("button", name="One text").click()
    wait_for_count(page, "16 pictures")


def test_pictures_and_bundles_are_written(experiment, visit, tmp_path):
    workflow = json.loads(json.dumps(TXT2IMG)) | {"10": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    experiment.with_name("workflow.json").write_text(json.dumps(workflow))
    slots = SLOTS + '  image: {at: "10.image", kind: file}\n'
    experiment.with_name("workflow.slots.yaml").write_text(slots)
    Image.effect_noise((40, 40), 99).save(tmp_path / "a fox.png")
    Image.new("RGB", (8, 9)).save(experiment.with_name("a.png"))
    page = visit(experiment)
    page.get_by_role("button", name="Vary image of LoadImage").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="image: choose files…").click()
    chooser.value.set_files(tmp_path / "a fox.png")
    assert has(experiment, "image: [a.png, inputs/a-fox.png]")
    page.wait_for_function("() => document.querySelector('img.thumb')?.naturalWidth > 0")  # an answer may draw it anew
    data = (tmp_path / "a fox.png").read_bytes()
    for content, problem in ((data[:800], "cannot be decoded: "), (b"<html>", "cannot be read as a picture: unknown")):
        drop_file(page, page.locator(".drop"), "half.png", content)
        page.locator(".drop").get_by_role("alert").get_by_text(f"half.png: {problem}").wait_for()
    assert not experiment.with_name("inputs").joinpath("half.png").exists()
    assert "inputs/a-fox.png]" in experiment.read_text()
    page.get_by_role("button", name="Add a named value that sets several inputs").click()
    page.locator(".editor :focus").wait_for()
    page.keyboard.type("tall")
    page.get_by_label("Also set an input").select_option("height")
    page.get_by_label("height of tall").fill("128")
    assert has(experiment, 'look: [{label: tall, set: {prompt: "a fox", height: 128}}]')


def test_the_question_about_money_is_asked_on_the_page(experiment, visit, box):  # noqa: F811
    experiment.write_text(EXPERIMENT.replace("embedded", "box"))
    page = visit(experiment)
    wait_for_count(page, "4 pictures")
    page.get_by_text("how long is known after the first job there").wait_for()
    for answer in ("No", "Yes, run"):
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_role("alert").get_by_text("Submit 4 jobs to box for 8.00 USD?").wait_for()
        page.get_by_role("button", name="Yes, run").and_(page.locator(":focus")).wait_for()
        assert not experiment.with_name("results").exists()
        page.get_by_role("button", name=answer, exact=True).click()
    page.wait_for_url(lambda url: url.split("#")[0] != page.server.url.split("#")[0])
    page.locator("#view img").nth(3).wait_for()


def test_what_the_page_has_no_control_for_stays_as_it_is(experiment, visit):
    text = EXPERIMENT.replace("sweep:", 'derive:\n  prompt: "a {{ beast }}"   # kept\n\nsweep:').replace(
        "    seed", "    beast: {choices: 'fox'}\n    seed"
    )
    experiment.write_text(text)
    page = visit(experiment, "#yaml")
    field = page.get_by_label("The text of mine/experiment.yaml")
    assert field.input_value() == text
    page.get_by_role("button", name="Close").click()
    assert 'prompt: "a {{ beast }}"' in page.locator(".others").inner_text()
    page.get_by_role("button", name="Remove 8").click()
    wait_until(lambda: experiment.read_text() == text.replace("[4, 8]", "[4]"))


def test_the_address_keeps_no_token_and_a_page_without_a_server_its_text(experiment, visit):
    page = visit(experiment)
    page.goto("about:blank")
    page.goto(page.server.url)
    page.wait_for_selector("#main > *")
    assert page.url == page.server.url.partition("#")[0]
    wait_for_count(page, "4 pictures")
    page.goto(f"{page.url}#input=width")
    page.locator("[data-key='input 5.width']:focus").wait_for()
    page.server.stop()
    page.get_by_label("width of EmptyLatentImage", exact=True).fill("128")
    page.get_by_text("sweeper has stopped; start it again with sweeper open mine/experiment.yaml").wait_for()
    assert page.get_by_label("width of EmptyLatentImage", exact=True).input_value() == "128"


def test_axe_finds_nothing_on_wide_and_dark_narrow_screens(experiment, visit):
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    found = {}

    def look(page, name):
        for theme, width in (("light", 1440), ("dark", 390)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            found[name, theme] = page.evaluate(AXE)

    start = visit(reduced_motion="reduce")
    start.evaluate(axe)
    look(start, "start")
    experiment.write_text(EXPERIMENT.replace("[4, 8]", "[4, {label: high, value: 800}]"))
    page = visit(experiment, reduced_motion="reduce")
    page.evaluate(axe)
    page.get_by_role("button", name="Vary sampler_name of KSampler").or_(page.locator(".fold").first).first.click()
    page.get_by_role("button", name="high", exact=True).click()
    page.get_by_role("button", name="More for cfg").click()
    page.get_by_role("button", name="Add a named value").click()
    page.get_by_label("Add a value to cfg").fill("abc")
    page.keyboard.press("Enter")
    page.get_by_role("group", name="cfg varies", exact=True).get_by_role("alert").wait_for()
    look(page, "editing")
    page.get_by_role("button", name="File", exact=True).click()
    look(page, "file")
    assert {place: problems for place, problems in found.items() if problems} == {}
