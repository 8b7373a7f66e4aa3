"""What `sweeper open` offers without a file: experiments here, and workflows and jobs of a ComfyUI that may lie."""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path

import pytest

from sweeper.editing.read_workflow import NodeClassSource
from sweeper.editing.starter_folder import make_experiment
from tests.cli.conftest import TXT2IMG
from tests.editing.conftest import EXPERIMENT, serve

NAMES = [
    {"path": "old.json", "modified": 1_700_000_000_000},
    {"path": "sub/my fox.json", "modified": 1_800_000_000_000},
]
OWL = {**TXT2IMG, "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "an owl"}}}
HISTORY = {
    "aaaa-1": {"prompt": [0, "aaaa-1", TXT2IMG, {"create_time": 1_750_000_000_000}, ["9"]]},
    "bbbb-2": {"prompt": [1, "bbbb-2", OWL]},
}  # fmt: skip


def ask(page, target):
    return page.http.get("sources", params={"target": target})


def test_the_page_offers_the_experiments_here(open_page, write):
    write()
    Path("link.yaml").symlink_to("mine/experiment.yaml")
    Path(".hidden").mkdir()
    Path(".hidden/x.yaml").write_text(EXPERIMENT)
    Path("broken.yaml").write_text("template: [")
    Path("other.yaml").write_text("a: b")
    Path("huge.yaml").write_text("template: x\n" + "#" * 200_000)
    page = open_page()
    assert page.state["mode"] == "start"
    sources = page.state["sources"]
    assert [entry["path"] for entry in sources["experiments"]] == ["mine/experiment.yaml"]
    assert sources["targets"] == ["embedded", "cloud", "http://127.0.0.1:8188"]

    for path in (
        "other.yaml",
        "link.yaml",
        "/etc/passwd",
        "../work/mine/experiment.yaml",
        "mine/../mine/experiment.yaml",
    ):
        page.post("open", 422, experiment=path)
    assert page.post("open", experiment="mine/experiment.yaml")["mode"] == "edit"
    assert page.follow()["plan"]["trials"] == 2


def test_the_workflows_and_jobs_of_a_comfyui_open(open_page):
    workflow = json.dumps(TXT2IMG).encode()
    answers = {"/userdata": NAMES, "/userdata/workflows%2Fsub%2Fmy%20fox.json": workflow, "/history": HISTORY}
    with serve(answers) as (url, seen):
        page = open_page(target=url)
        sources = ask(page, url).json()
        assert sources["problem"] is None
        assert [entry["name"] for entry in sources["workflows"]] == ["sub/my fox.json", "old.json"]
        assert sources["workflows"][0]["modified"] == 1_800_000_000
        assert [(job["id"], job["title"]) for job in sources["jobs"]] == [("bbbb-2", "an owl"), ("aaaa-1", "blurry")]
        query = "/userdata?dir=workflows&recurse=true&split=false&full_info=true"
        assert query in [path for path, _ in seen]

        state = page.post("open", workflow="sub/my fox.json", target=url)
        assert (state["file"], state["target"]) == ("my-fox/experiment.yaml", url)
        assert page.follow()["problems"] == []
        second = open_page(target=url)
        ask(second, url)
        assert second.post("open", job="aaaa-1", target=url)["file"] == "job-aaaa-1/experiment.yaml"
        third = open_page(target=url)
        third.post("open", 422, job="aaaa-1", target=url)  # it has not listed it
        ask(third, url)
        third.post("open", 422, job="cccc", target=url)
        third.post("open", 422, workflow="../secret.json", target=url)
        assert not any("key" in head.lower() for _, head in seen)


PATHS = (
    "../../etc/passwd.json", "/abs.json", "a/../b.json", "x" * 3_000_000 + ".json", "a\\..\\b.json", "\x1b[2J.json", "",
    None, 7, "no.txt", "a//b.json", "good.json",
)  # fmt: skip
LIES = {
    "names": [*({"path": path, "modified": 1} for path in PATHS), "text", None, [], {}],
    "html": b"<html><body>hello</body></html>",
    "object": {"a": 1},
    "nested": b"[" * 100_000,
    "numbers": b"[1e999, NaN]",
    "many": [{"path": f"{index}.json", "modified": "yesterday"} for index in range(20_000)],
}
LYING_HISTORY = {
    "../../x": {"prompt": [0, 1, {"6": {"inputs": {"text": "y" * 3_000_000 + "\x1b"}}, "7": None}, [], 5]},
    "b": [],
    "c": {"prompt": "x"},
    "d": {"prompt": [1, 2, {}]},
    "e" * 3_000_000: {"prompt": [1, 2, {"a": 1}]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_harms_nothing(open_page, lie):
    with serve({"/userdata": LIES[lie], "/history": LYING_HISTORY}) as (url, _):
        page = open_page(target=url)
        answer = ask(page, url)
        assert answer.status_code == 200
        assert len(answer.content) < 100_000
        sources = answer.json()
        names = [entry["name"] for entry in sources["workflows"]]
        if lie == "many":
            assert len(names) == 500
        elif lie == "names":
            assert names == ["good.json"]
        else:
            assert names == []
            assert "not a ComfyUI" in sources["problem"]
        assert [job["id"] for job in sources["jobs"]] == ["../../x"]
        assert "\x1b" not in sources["jobs"][0]["title"]
        assert len(sources["jobs"][0]["title"]) <= 100
        page.post("open", 422, job="../../x", target=url)  # its graph is none
        page.post("open", 422, workflow="../../etc/passwd.json", target=url)
    assert os.listdir() == []  # noqa: PTH208


def test_a_target_that_nobody_named_is_not_asked(open_page):
    with serve({}) as (url, seen):
        page = open_page()
        before = len(seen)
        assert ask(page, url).status_code == 422
        page.post("open", 422, job="aaaa-1", target=url)
        assert len(seen) == before


def test_a_silent_server_is_named_after_seconds(open_page, monkeypatch):
    monkeypatch.setattr("sweeper.editing.open_server._SERVER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        page = open_page(target=url)
        problem = ask(page, url).json()["problem"]
    assert (url in problem, "does not respond within 0.5 s" in problem) == (True, True)


def test_sources_say_why_there_are_none(open_page):
    page = open_page(target="http://127.0.0.1:9")
    assert "keeps no workflows" in ask(page, "embedded").json()["problem"]
    assert "refused" in ask(page, "http://127.0.0.1:9").json()["problem"]


def test_an_upload_and_the_example_open(open_page):
    content = base64.b64encode(json.dumps(TXT2IMG).encode()).decode()
    page = open_page()
    assert page.post("open", upload={"name": "../../evil.json", "content": content})["file"] == "evil/experiment.yaml"
    page.post("open", 422, example=True)  # one is open
    assert page.follow()["problems"] == []

    page = open_page()
    for name, data, problem in (
        ("x.json", b"{}", "x.json:1: is empty"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "x.png: cannot be"),
    ):
        upload = {"name": name, "content": base64.b64encode(data).decode()}
        assert page.post("open", 422, upload=upload)["problem"].startswith(problem)
    page.post("open", 422, upload={"name": "x.json", "content": "no base64!"})
    page.post("open", 422)
    Path("txt2img").mkdir()
    Path("txt2img/mine.txt").touch()
    assert page.post("open", example=True)["file"] == "txt2img-2/experiment.yaml"  # txt2img has other things
    assert page.follow()["plan"]["trials"] == 4
    assert {path.name for path in Path("..").iterdir()} <= {"work", "config"}


def test_a_strangers_workflow_gets_no_neighbours(open_page):
    Path("secret.png").write_bytes(b"the secret")
    picture = {"class_type": "LoadImage", "inputs": {"image": "../../secret.png"}}
    latent = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    graph = {**TXT2IMG, "5": latent, "10": picture}
    content = base64.b64encode(json.dumps(graph).encode()).decode()
    page = open_page()
    page.post("open", upload={"name": "w.json", "content": content})
    assert any("placeholder" in note for note in page.follow()["notes"])
    assert b"the secret" not in Path("w/inputs/secret.png").read_bytes()


def test_pictures_of_one_name_in_two_subfolders_stay_apart():
    batch = {"class_type": "ImageBatch", "inputs": {"image1": ["10", 0], "image2": ["11", 0]}}
    latent = {"class_type": "VAEEncode", "inputs": {"pixels": ["12", 0], "vae": ["4", 2]}}
    graph = {**TXT2IMG, "5": latent, "12": batch}
    for node, name in (("10", "one/cat.png"), ("11", "two/cat.png")):
        graph[node] = {"class_type": "LoadImage", "inputs": {"image": name}}
        Path("input", name).parent.mkdir(parents=True)
        Path("input", name).write_text(name)
    Path("w.json").write_text(json.dumps(graph))
    file, _ = make_experiment(Path("w.json"), Path("made"), NodeClassSource())
    made = {path.name: path.read_text() for path in (file.parent / "inputs").iterdir()}
    assert made == {"one-cat.png": "one/cat.png", "two-cat.png": "two/cat.png"}


def test_a_link_beside_a_strangers_workflow_is_not_followed():
    Path("secret.png").write_bytes(b"the secret")
    Path("theirs/input").mkdir(parents=True)
    Path("theirs/input/cat.png").symlink_to(Path("secret.png").absolute())
    Path("theirs/input/dog.png").write_bytes(b"a dog")
    latent = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    for name, expected in (("cat.png", b"PNG"), ("dog.png", b"a dog")):
        picture = {"class_type": "LoadImage", "inputs": {"image": name}}
        Path("theirs/w.json").write_text(json.dumps({**TXT2IMG, "5": latent, "10": picture}))
        file, _ = make_experiment(Path("theirs/w.json"), Path(f"mine-{name}"), NodeClassSource())
        assert expected in (file.parent / "inputs" / name).read_bytes()


def test_what_to_know_of_a_workflow_names_its_file_in_the_folder(open_page):
    page = open_page()
    content = base64.b64encode(json.dumps({"prompt": TXT2IMG}).encode()).decode()
    page.post("open", upload={"name": "my flow-.json", "content": content})
    note = page.follow()["notes"][0]
    assert note.startswith("my-flow/my-flow.json"), note
    assert Path("my-flow/my-flow.json").is_file()
