"""Named targets in the experiment, and which outputs a run downloads: previews on request, files of any kind."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NodeOutput
from sweeper.errors import ExperimentError
from sweeper.running.run_events import Notice
from tests.few_classes import pick_classes
from tests.running.conftest import NODES, make_node
from tests.running.servers import DIALECTS

PREVIEW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": "{{ color }}"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


@pytest.fixture
def sweep(tmp_path):
    def make(graph=PREVIEW, **more):
        (tmp_path / "t.json").write_text(json.dumps(graph))
        (tmp_path / "e.yaml").write_text(json.dumps({"template": "t.json", **more}))
        return tmp_path / "e.yaml"

    return make


def outputs(out):
    return list(sweeper.results(out)["outputs"])


ASKED = [
    ({}, {}, 1),
    ({"keep_temp": True}, {}, 2),
    ({}, {"keep_temp": True}, 2),
    ({"keep_temp": True}, {"keep_temp": False}, 1),
]


@pytest.mark.parametrize(("dialect", "asked"), [*product(DIALECTS, ASKED[:2]), *product(["comfyui"], ASKED[2:])])
def test_previews_are_downloaded_on_request(sweep, tmp_path, dialect, asked):
    run, options, files = asked
    with EmbeddedServer(dialect=dialect, nodes=pick_classes()) as server:
        sweeper.run(sweep(params={"color": 7}, run=run), server.url, tmp_path / "out", **options)
    (paths,) = outputs(tmp_path / "out")
    assert len(paths) == files
    assert all((tmp_path / "out" / path).is_file() for path in paths)


UNSAVED = "node 3 (PreviewImage): it only shows its result, and no node of the workflow saves one"


def test_a_workflow_that_saves_nothing_is_refused_before_submission(sweep, tmp_path):
    file = sweep({node: PREVIEW[node] for node in ("1", "3")}, params={"color": 7})
    with EmbeddedServer(nodes=pick_classes()) as server:
        with pytest.raises(ExperimentError, match="or keep previews with `--keep-temp`") as failure:
            sweeper.run(file, server.url, tmp_path / "out")
        assert UNSAVED in str(failure.value)
        assert not (tmp_path / "out").exists()
        sweeper.run(file, server.url, tmp_path / "out", keep_temp=True)
    ((path,),) = outputs(tmp_path / "out")
    assert (tmp_path / "out" / path).is_file()


def test_an_unknown_output_node_counts_as_one_that_saves(sweep, tmp_path):
    graph = {"1": {"class_type": "Paint", "inputs": {"text": "a fox", "seed": "{{ color }}"}}}
    graph["2"] = {"class_type": "PreviewKeep", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    with EmbeddedServer(nodes={**NODES, "PreviewKeep": replace(NODES["Keep"], name="PreviewKeep")}) as server:
        run = sweeper.run(sweep(graph, params={"color": 7}), server.url, tmp_path / "out")
    assert run.succeeded == 1


def test_trials_that_left_no_file_are_counted_and_remade(sweep, tmp_path):
    file = sweep({node: PREVIEW[node] for node in ("1", "3")}, params={"color": 7})
    events = []

    def run(**options):
        events.clear()
        found = sweeper.run(file, server.url, tmp_path / "out", progress=events.append, **options)
        return found, [event.message for event in events if isinstance(event, Notice)]

    with EmbeddedServer(nodes=pick_classes()) as server:
        first, (after,) = run(check=False)
        assert (first.succeeded, outputs(tmp_path / "out")) == (1, [[]])
        assert after.startswith("1 trial succeeded but saved no file: add a node that saves")
        again, (message,) = run(keep_temp=True)
        assert (again.submitted, message) == (
            0,
            "1 trial succeeded but saved no file; if they ran without `--keep-temp`, run them again with `--remake`",
        )
        remade, notices = run(keep_temp=True, remake=True)
    assert (remade.submitted, remade.succeeded, notices) == (1, 1, [])
    ((path,),) = outputs(tmp_path / "out")
    assert (tmp_path / "out" / path).is_file()


def test_the_experiments_target_name_overrides_the_users(sweep, tmp_path):
    file = sweep(params={"color": 7}, target="studio", targets={"studio": "http://127.0.0.1:9"})
    with EmbeddedServer(nodes=pick_classes()) as server:
        sweep(params={"color": 7}, target="studio", targets={"studio": {"url": server.url, "concurrency": 1}})
        run = sweeper.run(file, out=tmp_path / "out", named={"studio": "http://127.0.0.1:9"})
    assert run.succeeded == 1
    assert set(sweeper.results(tmp_path / "out")["target"]) == {"studio"}


def test_an_unknown_target_name_is_reported_with_all_known_names(sweep, tmp_path):
    file = sweep(params={"color": 7}, target="studoi", targets={"studio": "http://a:1"})
    with pytest.raises(ExperimentError, match="unknown name 'studoi'; did you mean 'studio'"):
        sweeper.run(file, out=tmp_path / "out", named={"lab": "http://b:1"})


def test_a_mistake_in_named_targets_is_reported_with_its_line(sweep):
    sweep()
    path = Path(sweep())
    path.write_text(
        "template: t.json\nparams: {color: 7}\ntargets:\n  studio:\n    urk: http://a:1\n    concurrency: 0\n"
    )
    with pytest.raises(ExperimentError) as caught:
        sweeper.load(path)
    message = str(caught.value)
    assert "e.yaml:5: targets.studio.urk: unknown key 'urk'; did you mean 'url'?" in message
    assert "e.yaml:6: targets.studio.concurrency: found 0, but at least 1 is needed" in message
    assert "targets.studio: the key 'url' is missing" in message


KINDS = {
    "images": ("a.PNG", "png"), "gifs": ("b.webp", "webp"), "video": ("c.mp4", "mp4"), "audio": ("d.flac", "flac"),
    "text": ("e.txt", "txt"), "3d": ("f.glb", "glb"), "latents": ("g.latent", "latent"), "made_up": ("h.exe", "bin"),
}  # fmt: skip


def _many(context, filename_prefix):
    folder = context.output_dir / filename_prefix
    folder.mkdir(parents=True, exist_ok=True)
    shown = {"text": ["words, and no file"], "animated": [True]}
    for kind, (name, _) in KINDS.items():
        (folder / name).write_bytes(f"the bytes of {name}".encode())
        shown[kind] = [{"filename": name, "subfolder": filename_prefix, "type": "output"}]
    return NodeOutput((), shown)


@pytest.mark.parametrize("dialect", ["cloud", "comfyui", "v2"])
def test_every_listed_file_is_downloaded_whole(sweep, tmp_path, dialect):
    many = make_node("Many", {"filename_prefix": ("STRING", {})}, (), _many)
    graph = {"1": {"class_type": "Many", "inputs": {"filename_prefix": "p"}}}
    with EmbeddedServer(dialect=dialect, nodes={**NODES, "Many": many}) as server:
        server.faults.truncate_download_times = 3
        sweeper.run(sweep(graph), server.url, tmp_path / "out")
    (paths,) = outputs(tmp_path / "out")
    found = {Path(path).suffix[1:]: (tmp_path / "out" / path).read_bytes() for path in paths}
    assert found == {ending: f"the bytes of {name}".encode() for name, ending in KINDS.values()}
