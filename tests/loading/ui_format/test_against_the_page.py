"""Saved workflows are converted to what the page of a real ComfyUI sends.

SWEEPER_REAL_COMFYUI is the URL of a ComfyUI, and SWEEPER_WORKFLOWS names folders with saved workflows, separated as in
PATH: the templates of the package comfyui-workflow-templates-json, or ComfyUI's blueprints. The server's own page loads
each file in Chromium and says what it would send; nothing is submitted. Every file of which the server has all classes
is compared. The test prints how many files are equal, and why the others are not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from sweeper.loading.ui_format.convert import UiFormatError, convert_to_api
from sweeper.loading.ui_format.graph import BYPASSED, MUTED
from sweeper.model.node_classes import NodeInfo, find_graph_problems
from sweeper.model.workflow import is_link

REAL = os.environ.get("SWEEPER_REAL_COMFYUI", "")
FOLDERS = [Path(folder) for folder in os.environ.get("SWEEPER_WORKFLOWS", "").split(os.pathsep) if folder]
WAIT_MS = 120_000
FRONTEND_CLASSES = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
# What the page adds or replaces without an effect on the result: a 3D viewer's camera, the pictures of a comparison.
HARMLESS_INPUTS = {"viewport_state", "compare_view"}
PLACEHOLDER = re.compile(r"%[^%]+%")
READY = "() => window.app?.graph && window.LiteGraph?.registered_node_types.KSampler"
CONVERT = """async (text) => {
  try {
    await window.app.loadGraphData(JSON.parse(text))
    await new Promise((resolve) => setTimeout(resolve, 100))
    return JSON.stringify((await window.app.graphToPrompt()).output)
  } catch (error) {
    return JSON.stringify({ error: String(error) })
  }
}"""

pytestmark = pytest.mark.skipif(not (REAL and FOLDERS), reason="SWEEPER_REAL_COMFYUI or SWEEPER_WORKFLOWS is not set")


@pytest.fixture(scope="module")
def object_info() -> dict[str, Any]:
    info: dict[str, Any] = httpx.get(f"{REAL}/object_info", timeout=60).json()
    return info


@pytest.fixture(scope="module")
def page(browser: Any) -> Any:
    page = browser.new_page()
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.goto(REAL, wait_until="domcontentloaded", timeout=WAIT_MS)
    page.wait_for_function(READY, timeout=WAIT_MS)
    page.wait_for_timeout(3000)  # the extensions of the page register their widgets
    return page


def list_classes(workflow: Any) -> set[str]:
    """The classes of all nodes that are not muted or bypassed, inside used subgraphs too."""
    subgraphs = {one["id"]: one for one in (workflow.get("definitions") or {}).get("subgraphs", [])}
    classes: set[str] = set()
    pending, seen = [workflow], set()
    while pending:
        for node in pending.pop().get("nodes", []):
            kind = node["type"]
            if node.get("mode") in (MUTED, BYPASSED) or kind in seen:
                continue
            if kind in subgraphs:
                seen.add(kind)
                pending.append(subgraphs[kind])
            elif kind not in FRONTEND_CLASSES:
                classes.add(kind)
    return classes


def label_nodes(graph: dict[str, Any]) -> list[str]:
    """A label for each node without ids: its class, its values, and the labels of what it is linked to."""
    labels: dict[str, str] = {}

    def label(node: str) -> str:
        if node not in labels:
            labels[node] = "cycle"
            inputs = {
                name: [label(value[0]), value[1]] if is_link(value) and value[0] in graph else value
                for name, value in graph[node]["inputs"].items()
                if name not in HARMLESS_INPUTS
            }
            text = json.dumps([graph[node]["class_type"], inputs], sort_keys=True)
            labels[node] = hashlib.sha256(text.encode()).hexdigest()
        return labels[node]

    return sorted(map(label, graph))


def compare(page: dict[str, Any], ours: dict[str, Any], object_info: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The differences that change a result, and those that do not."""
    if page.keys() ^ ours.keys() and label_nodes(page) == label_nodes(ours):
        return [], ["only the ids differ, because pages before 1.49 keep those that two subgraphs share"]
    wrong, harmless = [f"{node}: sent by one only" for node in page.keys() ^ ours.keys()], []
    for node in page.keys() & ours.keys():
        theirs, own, kind = page[node]["inputs"], ours[node]["inputs"], page[node]["class_type"]
        groups = object_info[kind]["input"]
        declared = {*(groups.get("required") or {}), *(groups.get("optional") or {}), "index"}
        for name in theirs.keys() | own.keys():
            pair = (theirs.get(name, "nothing"), own.get(name, "nothing"))
            if pair[0] == pair[1]:  # in Python, 0 == False, which the server reads alike
                continue
            line = f"{node} ({kind}) {name}: the page sends {pair[0]!r:.60}, we send {pair[1]!r:.60}"
            is_page_only = name.partition(".")[0] not in declared and not isinstance(pair[0], list)
            has_placeholder = name == "filename_prefix" and PLACEHOLDER.search(str(pair[1]))
            is_harmless = is_page_only or has_placeholder or name in HARMLESS_INPUTS
            (harmless if is_harmless else wrong).append(line)
    return wrong, harmless


def check_file(path: Path, page: Any, object_info: dict[str, Any], info: NodeInfo) -> tuple[str, str]:
    """What the comparison of a file gave, and the details."""
    workflow = json.loads(path.read_text())
    if not isinstance(workflow, dict) or "nodes" not in workflow or list_classes(workflow) - object_info.keys():
        return "skipped", ""
    answer = json.loads(page.evaluate(CONVERT, path.read_text()))
    if "error" in answer:
        return "refused by the page", answer["error"]
    try:
        ours = convert_to_api(workflow, object_info).graph
    except UiFormatError as error:
        # Without an option that the server has not, its own page sends what the server refuses.
        problems = find_graph_problems(answer, info)
        return "refused" if problems else "refused although the page's answer is valid", str(error)
    wrong, harmless = compare(answer, ours, object_info)
    return "wrong" if wrong else "no effect" if harmless else "equal", "\n".join(wrong or harmless)


def test_every_file_is_converted_to_what_the_page_sends(
    page: Any, object_info: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    info = NodeInfo.from_object_info(object_info).with_any_model()
    results = {
        path: check_file(path, page, object_info, info)
        for folder in FOLDERS
        for path in sorted(folder.glob("*.json"))
        if not path.name.startswith("index")
    }
    counts = Counter(result for result, _ in results.values())
    lines = [f"{path.name}: {result}\n{details}" for path, (result, details) in results.items() if details]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, str(dict(counts)), ""]))
    assert counts["equal"]
    assert [path.name for path, (result, _) in results.items() if result == "wrong"] == []
