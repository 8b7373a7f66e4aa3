"""Files that today's nodes save: each is kept, shown as far as a browser can, and never fails a run."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image, features

import sweeper
from sweeper.cli import main
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NodeOutput
from tests.running.conftest import make_node

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


FILES = {
    "sixteen.png": encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"),
    "single.png": encode(Image.new("L", (8, 8), 90), "PNG"),
    "high.exr": b"v/1\x01" + bytes(60),
    "drawing.svg": SVG,
    "mesh.glb": b"glTF\x02\0\0\0\x0c\0\0\0",
} | ({"small.avif": encode(Image.new("RGB", (16, 16), "red"), "AVIF")} if features.check("avif") else {})


def save(context, name):
    (context.output_dir / name).write_bytes(FILES[name])
    return NodeOutput((), {"images": [{"filename": name, "subfolder": "", "type": "output"}]})


@pytest.fixture
def run(tmp_path):
    node = make_node("SaveAny", {"name": ("STRING", {})}, (), save)
    (tmp_path / "w.json").write_text(json.dumps({"1": {"class_type": "SaveAny", "inputs": {"name": "{{ name }}"}}}))
    sweep = {"grid": {"name": list(FILES)}}
    body = {"name": "e", "template": "w.json", "metrics": ["brightness"], "sweep": sweep}
    (tmp_path / "e.yaml").write_text(json.dumps(body))
    messages = []
    with EmbeddedServer(nodes={node.name: node}) as server:
        ended = sweeper.run(
            tmp_path / "e.yaml", server.url, progress=lambda event: messages.append(getattr(event, "message", ""))
        )
    return ended, messages, tmp_path / "results" / "e"


def test_every_file_is_kept_and_those_without_pixels_are_named(run):
    ended, messages, folder = run
    assert (ended.succeeded, ended.failed, ended.error) == (len(FILES), 0, None)
    rows = sweeper.results(folder)
    for row in rows.to_dict("records"):
        (path,) = row["outputs"]
        assert path.endswith(row["name"].rpartition(".")[2])
        assert (folder / path).read_bytes() == FILES[row["name"]]
    measured = dict(zip(rows["name"], rows["brightness"].notna(), strict=True))
    assert measured == {name: name.endswith(("png", "avif")) for name in FILES}
    for kind in ("EXR", "SVG", "GLB"):
        assert sum(f"not measured: {kind}" in message for message in messages) == 1, messages


def test_page_shows_what_a_browser_can_and_links_the_rest(run, browser):
    _, _, folder = run
    assert main(["report", str(folder)]) == 0
    page = browser.new_page()
    page.goto((folder / "report" / "index.html").as_uri() + "#view=grid")
    page.wait_for_selector("[data-trial]")
    for index, name in enumerate(FILES):
        page.locator(f'[data-trial="{index}"]').first.click()
        dialog = page.locator("dialog[open]")
        dialog.wait_for()
        if name.endswith(("exr", "glb")):
            assert dialog.locator(f'a[href$=".{name.rpartition(".")[2]}"]').count() >= 1
        else:
            page.wait_for_function(
                "() => [...document.querySelectorAll('dialog[open] img')].some((i) => i.naturalWidth > 0)"
            )
        page.keyboard.press("Escape")
    page.close()
