"""*Sweep...* in ComfyUI's page, by a stand-in of its `app` in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import ROOT

SCRIPTS = ROOT / "sweeper/editing/comfyui_extension/js"
COMFYUI = "http://localhost:8188"
SWEEP = "http://127.0.0.1:9001/#token=secret"
# A graph of a sampler, a loader whose value another node sets, and a node that stands for a subgraph with a sampler.
APP = """
const widget = (name, value, options = {}) => ({ name, value, options });
const next = widget("next", "fixed", { serialize: false });
const sampler = { id: 3, widgets: [widget("steps", 4), widget("<b>cfg", 7), next],
  inputs: [{ name: "model" }, { name: "steps", widget: { name: "steps" } }],
  getWidgetOnPos: (x) => sampler.widgets[x] };
const loader = { id: 4, widgets: [widget("ckpt_name", "a.safetensors")], inputs: [] };
const subgraph = { id: 9, widgets: [widget("speed", 4)], inputs: [{ name: "speed", widget: { name: "speed" } }],
  subgraph: { inputs: [{ linkIds: [1] }], getLink: () => ({ target_id: 3, target_slot: 1 }),
    getNodeById: () => sampler } };
export const app = {
  nodes: { sampler, loader, subgraph },
  canvas: { graph_mouse: [0, 0] },
  extensionManager: {
    workflow: { activeWorkflow: { filename: "My flow" } },
    toast: { add: (toast) => app.toasts.push(toast) },
    registerSidebarTab: (tab) => (app.tab = tab),
  },
  toasts: [],
  registerExtension: (extension) => { app.extension = extension; app.ready = extension.setup(); },
  graphToPrompt: async () => ({ workflow: { nodes: [] }, output: {
    3: { class_type: "KSampler", inputs: { steps: 4, "<b>cfg": 7 } },
    4: { class_type: "Loader", inputs: { ckpt_name: ["3", 0] } },
    "9:3": { class_type: "KSampler", inputs: { steps: 4 } } } }),
};
window.app = app;
"""


class Page:
    """ComfyUI's page with the extension. `sent` are the requests to the pack, `answers` what it answers."""

    def __init__(self, page: Any) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {"open": {"url": SWEEP}, "pages": {"pages": [], "can_start": True}}
        page.context.route("**/*", self._respond)  # also for the tabs that it opens
        self.page = page

    def _respond(self, route: Any) -> None:
        address = route.request.url.removeprefix(COMFYUI).partition("?")[0]
        name = address.rpartition("/")[2]
        if address.startswith("/sweeper/"):
            self.sent.append((name, json.loads(route.request.post_data)))
            answer = self.answers[name]
            route.fulfill(status=422 if "problem" in answer else 200, json=answer)
        elif address == "/scripts/app.js":
            route.fulfill(body=APP, content_type="text/javascript")
        elif address.startswith("/extensions/"):
            route.fulfill(path=SCRIPTS / name)
        else:
            route.fulfill(body="<title>a page</title><canvas></canvas>", content_type="text/html")

    def open(self) -> Page:
        self.page.goto(COMFYUI)
        self.page.add_script_tag(url="/extensions/comfyui-sweeper/sweep.js", type="module")
        self.page.wait_for_function("window.app?.ready")
        self.page.evaluate("app.ready")
        return self

    def list_items(self, node: str) -> list[str]:
        script = "(n) => app.extension.getNodeMenuItems(app.nodes[n]).filter(Boolean).map((i) => i.content)"
        return list(self.page.evaluate(script, node))

    def choose(self, node: str, label: str) -> Any:
        """Press an entry of a node's submenu, and return what the page sends to open."""
        script = """([node, label]) => app.extension.getNodeMenuItems(app.nodes[node]).at(-1).submenu.options
          .find((item) => item.content === label).callback()"""
        with self.page.expect_response("**/sweeper/*"):
            self.page.evaluate(script, [node, label])
        return self.sent[-1][1]


@pytest.fixture
def comfyui(lend_pages: Any) -> Iterator[Page]:
    with lend_pages({}) as lend:
        yield Page(page := lend())
        page.context.unroute_all()


def test_a_widget_becomes_the_first_axis_of_a_sweep_in_a_new_tab(comfyui: Page) -> None:
    page = comfyui.open().page
    page.locator("canvas").dispatch_event("pointerdown")
    assert comfyui.list_items("sampler") == ["Sweep steps", "Sweep..."]
    with page.context.expect_page() as opened:
        page.evaluate("app.extension.getNodeMenuItems(app.nodes.sampler)[1].callback()")
    opened.value.wait_for_url("http://localhost:9001/#token=secret")  # the name of ComfyUI's page, for its cookie
    name, body = comfyui.sent[-1]
    assert (name, body["axis"], body["title"], list(body["prompt"])) == (
        "open",
        "3.steps",
        "My flow",
        ["3", "4", "9:3"],
    )


def test_axes_are_named_as_in_the_prompt_also_in_subgraphs_and_html_nodes(comfyui: Page) -> None:
    comfyui.open()
    comfyui.page.locator("body").dispatch_event("pointerdown")
    assert comfyui.list_items("sampler") == ["Sweep..."]
    assert comfyui.choose("sampler", "bcfg")["axis"] == "3.<b>cfg"  # older pages take a label for HTML
    assert comfyui.choose("subgraph", "speed")["axis"] == "9:3.steps"
    assert comfyui.choose("loader", "ckpt_name")["axis"] is None
    assert comfyui.page.evaluate("app.toasts.map((t) => t.detail)") == [
        "ckpt_name is set by another node, so it cannot be an axis; choose one on the page"
    ]

    # A row of a node that is drawn as HTML is its widget.
    comfyui.page.evaluate("""() => {
      document.body.innerHTML = '<div class="lg-node-widget"><i data-slot-key="3-in-1"></i><input></div>';
      document.querySelector("input").dispatchEvent(new Event("contextmenu", { bubbles: true }));
    }""")
    assert comfyui.list_items("sampler") == ["Sweep steps", "Sweep..."]


def test_the_sidebar_shows_the_open_sweep_and_ends_it(comfyui: Page) -> None:
    page = comfyui.open().page
    page.evaluate("app.tab.render(document.body)")
    page.get_by_text("No sweep is open").wait_for()
    pages = [{"url": SWEEP, "title": "<b>mine"}, {"url": SWEEP.replace("1/", "2/"), "title": "b"}]
    comfyui.answers["pages"]["pages"] = pages
    page.evaluate("app.tab.render(document.body)")
    page.locator("iframe").wait_for()
    assert page.locator("iframe").get_attribute("src") == "http://localhost:9002/#token=secret"
    page.get_by_label("Open sweeps").select_option("<b>mine")
    page.wait_for_function("document.querySelector('iframe').src.startsWith('http://localhost:9001/')")
    comfyui.answers["end"] = comfyui.answers["pages"] = {"pages": [], "can_start": True}
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="End").click()
    page.get_by_text("No sweep is open").wait_for()
    assert ("end", {"url": SWEEP}) in comfyui.sent


def test_a_problem_or_the_command_is_shown_and_the_waiting_tab_closes(comfyui: Page) -> None:
    comfyui.answers["open"] = {"problem": "4 sweeps are open"}
    page = comfyui.open().page
    page.evaluate("app.extension.commands[0].function()")
    assert page.evaluate("app.toasts.map((t) => [t.severity, t.detail])") == [["error", "4 sweeps are open"]]
    assert len(page.context.pages) == 1

    comfyui.answers["open"] = {"command": "sweeper open 'a b.json'"}  # it could start sweeper when the page was loaded
    page.evaluate("app.extension.commands[0].function()")
    assert page.get_by_label("Command").input_value() == "sweeper open 'a b.json'"
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    assert len(page.context.pages) == 1
