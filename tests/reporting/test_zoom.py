"""The dialog of one trial, the table and the plots, in a real browser."""

from __future__ import annotations

import hashlib
import itertools
import json
from urllib.parse import quote, unquote

import httpx
import pytest
import yaml
from PIL import Image

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from sweeper.store.records import INTENT, SUCCEEDED, Artifact, JobEnd, JobRecord, TableLayout
from tests.few_classes import pick_classes
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, open_menu, read_all
from tests.reporting.page_modules import evaluate

GRID = {"sampler": ["euler", "heun"], "steps": [4, 8, 16]}
MODES = {"s": ".side-by-side", "b": ".stack img + img", "l": ".slider-line", "d": ".subtracted img + img"}


def read_heading(page):
    return page.locator("dialog[open] .zoom-head").inner_text()


@pytest.fixture
def planned(tmp_path):
    """Results of a real experiment, so that workflows are known."""
    graph = {
        "1": {"class_type": "Save", "inputs": {"text": "x", "seed": 0, "from": ["2", 0]}},
        "2": {"class_type": "A", "inputs": {}},
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    (tmp_path / "t.slots.yaml").write_text(
        "slots: {text: {at: '1.text'}, seed: {at: '1.seed', schema: {type: integer}}}"
    )
    file = tmp_path / "e.yaml"
    file.write_text(f'name: e\ntemplate: t.json\nsweep: {{grid: {{text: [a, "b\'s"], seed: [{2**64 - 1}, 3]}}}}\n')
    plan = sweeper.plan(sweeper.load(file))
    out = tmp_path / "results"
    with Store.open(out) as store, store.transaction():
        run = store.create_run(
            TableLayout("e", plan.axis_columns, plan.slot_names), file=str(file), targets=["x"], now=1.0
        )
        store.add_trials(run, ((t.index, t.digest, t.params, t.columns) for t in plan.written()))
        for trial in plan.written():
            record_finished(store, run, trial, out)
    return plan, write_report(out).page.parent


def record_finished(store, run, trial, out):
    """Record a finished job for a trial, with a picture."""
    name = f"artifacts/{trial.index}.png"
    (out / "artifacts").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (60 * trial.index, 0, 0)).save(out / name)
    sha256 = hashlib.sha256((out / name).read_bytes()).hexdigest()
    store.record_intent(JobRecord(f"job-{trial.index}", run, "x", trial.digest, "", 1, None, INTENT, 1.0))
    artifact = Artifact("1", "images", 0, name, sha256, 80, "a.png")
    store.record_finished(f"job-{trial.index}", JobEnd(SUCCEEDED, artifacts=[artifact]))


@pytest.fixture
def embedded_comfyui():
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        yield server


def test_keys_move_in_the_dialog_and_compare_two_trials_in_every_mode(made, opened):
    page = opened(made(Sweep(GRID)), "#x=steps&y=sampler")
    page.locator("[role=grid]").focus()
    page.keyboard.press("Enter")
    assert "trial 0" in read_heading(page)
    page.keyboard.press("ArrowRight")
    assert "trial 1" in read_heading(page)
    page.keyboard.press("ArrowDown")
    assert "trial 4" in read_heading(page)
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.locator(".cell.current").get_attribute("data-trial") == "4"
    assert page.evaluate("document.activeElement.getAttribute('role')") == "grid"
    for key, part in MODES.items():
        change_address(page, "#x=steps&y=sampler&trial=0")
        assert page.locator(part).count() == 0, key
        page.keyboard.press("h")
        page.keyboard.press("ArrowDown")
        page.keyboard.press(key)
        page.wait_for_selector(part, state="attached")
        differing = page.locator(".params .differs th").all_inner_texts()
        assert differing[0] == "sampler", key
        assert "steps" not in differing, key
    page.keyboard.press("Escape")
    # The arrows follow a sorted and filtered table.
    change_address(page, "#view=table&sort=-steps&where=steps%20%3C%2016")
    rows = read_all(page, ".tbody .trow", "rows => rows.map(row => Number(row.dataset.trial))")
    assert rows == [1, 4, 0, 3]
    page.locator('.trow[data-trial="1"]').click()
    for key, trial in [("Left", 1), ("Right", 4), ("Right", 0), ("Down", 3), ("Right", 3), ("Up", 0), ("Left", 4)]:
        page.keyboard.press(f"Arrow{key}")
        assert f"trial {trial}" in read_heading(page), (key, trial)
    page.keyboard.press("Escape")
    assert page.locator(".trow.current").get_attribute("data-trial") == "4"


def test_only_equal_pictures_have_a_black_difference(made, opened, tmp_path):
    page = opened(made(Sweep({"steps": [1, 2, 3]}, distinct=2)), "#trial=0&with=2&mode=difference")
    difference, shot = page.locator(".subtracted"), []
    for key in ("Shift", "ArrowRight"):
        page.keyboard.press(key)
        difference.evaluate("one => Promise.all([...one.children].map(image => image.decode()))")
        difference.evaluate("one => (one.style.filter = 'none')")
        shot.append(difference.screenshot())
    assert brightest(shot[0]) < 60  # letterbox and theme around the black picture
    assert brightest(shot[1]) > brightest(shot[0])


def brightest(png):
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        middle = image.convert("L").crop(
            (image.width // 3, image.height // 3, image.width * 2 // 3, image.height * 2 // 3)
        )
        return middle.getextrema()[1]


DROPPED = """node => {
  const data = new DataTransfer();
  node.dispatchEvent(new DragEvent('dragstart', {dataTransfer: data, bubbles: true}));
  return data.getData('text/uri-list');
}"""


def read_dropped(node):
    """[workflow, file name] in the first URL of a drag, which ComfyUI fetches."""
    kind, _, rest = node.evaluate(DROPPED).partition(",")
    assert kind == "data:application/json"
    text, _, name = rest.partition("#/")
    return [json.loads(unquote(text)), name]


def test_trials_leave_as_workflow_command_or_experiment(planned, opened, tmp_path):
    plan, folder = planned
    expected = [plan.workflow(trial) for trial in plan.written()]
    page = opened(folder, "#x=seed&y=text")
    texts = "(all) => all.map(index => Workflow.toText(sweeper.page.dataset, index))"
    found = evaluate(page, texts, [trial.index for trial in plan.written()])
    assert [json.loads(text) for text in found] == expected
    assert read_dropped(page.locator('[data-trial="1"]')) == [expected[1], "trial-1.json"]
    change_address(page, "#trial=3")
    assert read_dropped(page.locator(".actions a")) == [expected[3], "trial-3.json"]
    command = evaluate(page, "Workflow.makeCommand(sweeper.page.dataset, 2)")  # it selects by the slots that vary
    assert command.endswith("""--fresh --where 'text == "b'\\''s" and seed == 18446744073709551615'""")
    # The experiment of the kept trials makes them again.
    page.evaluate("for (const row of [0, 3]) sweeper.page.marks.set(row, {verdict: 'keep', comment: 'x # y\\nz'})")
    text = evaluate(page, "MarkExport.toYaml(sweeper.page.dataset, sweeper.page.marks)")
    (tmp_path / "kept.yaml").write_text(text)
    assert yaml.safe_load(text)["name"] == "e-kept"
    kept = sweeper.plan(sweeper.load(tmp_path / "kept.yaml"))
    trials = {trial.index: trial for trial in plan.written()}
    assert [trial.digest for trial in kept.written()] == [trials[0].digest, trials[3].digest]


def test_workflow_has_the_input_names_of_its_target(embedded_comfyui, tmp_path, opened):
    """The input file has another name on this machine; the workflow must run on the target unchanged."""
    Image.new("RGB", (8, 8), "teal").save(tmp_path / "hills.png")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "hills.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    (tmp_path / "t.slots.yaml").write_text("slots: {image: {at: 1.image, kind: file}}")
    (tmp_path / "e.yaml").write_text("name: e\ntemplate: t.json\nparams: {image: hills.png}\n")
    out = tmp_path / "results"
    assert sweeper.run(tmp_path / "e.yaml", embedded_comfyui.url, out).succeeded == 1
    given = evaluate(
        opened(write_report(out).page.parent, "#trial=0"), "JSON.parse(Workflow.toText(sweeper.page.dataset, 0))"
    )
    assert given["1"]["inputs"]["image"].startswith("sweeper-")
    answer = httpx.post(f"{embedded_comfyui.url}/prompt", json={"prompt": given})
    assert answer.json()["node_errors"] == {}


def test_table_sorts_numbers_and_puts_missing_last(made, opened):
    page = opened(made(Sweep({"steps": [4, 16, 8]}, ends={1: ("failed", ("E", "no"))})), "#view=table")
    page.get_by_role("button", name="brightness").click()
    page.get_by_role("button", name="steps").click()
    trials = "rows => rows.map(row => Number(row.dataset.trial))"
    assert read_all(page, ".tbody .trow", trials) == [0, 2, 1]
    page.get_by_role("button", name="steps").click()
    assert read_all(page, ".tbody .trow", trials) == [1, 2, 0]
    page.get_by_role("button", name="brightness").click()
    assert read_all(page, ".tbody .trow", trials)[-1] == 1


def test_table_columns_can_be_chosen(made, opened):
    page = opened(made(Sweep({"steps": [4, 16]}, slots={"prompt": "a fox"})), "#view=table")
    open_menu(page, "View")
    page.get_by_role("checkbox", name="prompt").check()
    assert "prompt" in page.locator(".thead").inner_text()
    assert page.locator(".tbody .trow").first.inner_text().count("a fox") == 1


def test_plots_show_the_means_of_the_metric(made, opened):
    page = opened(made(Sweep(GRID)), "#view=plots&x=steps&y=sampler&metric=brightness")
    cells = page.locator(".heat td").all_inner_texts()
    assert cells == ["10", "11", "12", "13", "14", "15"]
    assert page.locator("svg.plot path[fill=none]").count() == 2
    assert page.locator("svg.plot rect.bar").count() >= 5


def test_videos_and_sounds_have_players(made, opened, tmp_path):
    for number, (suffix, content, tag) in enumerate(
        (("mp4", b"\0\0\0\x18ftypmp42", "video"), ("wav", b"RIFF", "audio"))
    ):
        page = opened(made(Sweep({"steps": [1]}, suffix=suffix, content=content), f"r{number}"))
        assert page.locator(f"[data-trial='0'] {tag}").count() == 1


def test_picture_without_thumbnail_support_is_shown_itself(made, opened):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(2)</script></svg>'
    page = opened(made(Sweep({"steps": [1]}, suffix="svg", content=svg)), "#trial=0")
    page.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 0")
    assert page.get_by_text("Open the file").count() == 0  # opened by itself, its script would run


PROMPTS = [f"p{number:02}" for number in range(1, 13)]


def test_plots_show_only_what_is_in_view(made, opened):
    """Only values in view get one of the eight lines."""
    at = "#view=plots&x=steps&y=prompt&metric=brightness"
    lines = "svg.plot path[fill=none]"
    page = opened(made(Sweep({"prompt": PROMPTS, "steps": [4, 8]})), at)
    key = page.locator(".key li")
    assert key.all_inner_texts() == ["prompt:", *PROMPTS[:8]]
    assert page.get_by_text("These are the first 8 of 12 values of prompt in view; hide values or filter").is_visible()
    page.get_by_label("Filter").fill("prompt >= 'p10'")
    page.wait_for_function("() => document.querySelectorAll('.key li').length === 4")
    assert key.all_inner_texts() == ["prompt:", *PROMPTS[9:]]
    assert all(path.startswith("M") for path in read_all(page, lines, "all => all.map(p => p.getAttribute('d'))"))
    assert page.locator(".heat tbody th").all_inner_texts() == PROMPTS[9:]
    change_address(page, f"{at}&hide={quote(','.join(['prompt', *PROMPTS[:9]]))}")
    assert key.all_inner_texts() == ["prompt:", *PROMPTS[9:]]
    assert page.locator(lines).count() == 3


def test_ticks_are_existing_values_and_do_not_overlap(made, opened):
    seeds = [150369102, 150369105, 738590412, 1619594292, 2**64 - 1, 2**64 - 3]
    page = opened(made(Sweep({"seed": seeds, "sampler": ["euler", "heun"]})), "#view=plots&metric=brightness")
    along = page.get_by_role("group", name="brightness along seed")
    boxes = along.locator("text[text-anchor=middle]").evaluate_all(
        "all => all.map(t => [t.textContent, t.getBoundingClientRect().left, t.getBoundingClientRect().right])"
    )[:-1]
    assert {text for text, _, _ in boxes} <= {*"ABCDEF"}  # letters stand for long seeds
    assert len(boxes) >= 2
    assert all(one[2] < other[1] for one, other in itertools.pairwise(boxes))
    plot = along.bounding_box()
    assert boxes[-1][2] <= plot["x"] + plot["width"]


def test_heat_map_labels_empty_and_long_texts(made, opened):
    story = "a fox " * 170
    page = opened(made(Sweep({"prompt": ["", story], "steps": [1, 2]})), "#view=plots&x=steps&y=prompt")
    heads = page.locator(".heat tbody th span")
    assert heads.nth(0).inner_text() == "(empty)"
    assert heads.nth(1).get_attribute("title") == story
    assert page.locator(".heat tbody tr").nth(1).bounding_box()["height"] < 80
