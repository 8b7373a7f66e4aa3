"""`sweeper open` over HTTP: who may ask, what the state says, edits, and what stands in the way of them."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from sweeper.editing.open_server import OpenServer
from sweeper.editing.state import Editor
from sweeper.loading.trust import add_grants
from tests.cli.conftest import TXT2IMG
from tests.editing.conftest import EXPERIMENT, Page
from tests.waiting import read_line, wait_until

AXIS = {"set": "axis", "name": "steps", "value": [3, 5, 7]}


def test_the_state_says_what_a_run_would_do(open_page, write):
    state = open_page(write()).follow()

    assert (state["mode"], state["file"], state["command"]) == (
        "edit", "mine/experiment.yaml", "sweeper run mine/experiment.yaml",
    )  # fmt: skip
    assert (state["plan"]["trials"], state["plan"]["axes"], state["plan"]["done"]) == (2, {"steps": 2}, 0)
    assert (state["problems"], state["run"], state["report"]) == ([], None, None)


def test_inputs_have_their_limits_and_the_useful_ones_come_first(open_page, write):
    rows = {row["address"]: row for row in open_page(write()).follow()["inputs"]}

    assert rows["3.steps"]["slot"] == "steps"
    assert rows["3.steps"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100}
    assert (rows["3.denoise"]["slot"], rows["3.denoise"]["type"], rows["3.denoise"]["step"]) == (None, "number", 0.01)
    assert rows["6.text"]["multiline"]
    assert rows["4.ckpt_name"]["model"]
    groups = [row["group"] for row in rows.values()]
    assert groups == sorted(groups, key=["app", "often", "other"].index)
    assert rows["3.cfg"]["group"] == "app"  # the slots file leaves out others


def test_a_strangers_title_is_short_plain_and_on_one_line(open_page, write):
    file = write()
    graph = TXT2IMG | {"3": TXT2IMG["3"] | {"_meta": {"title": "a\u202e\n\x00b" + "c" * 3_000_000}}}
    Path(file.parent, "t.json").write_text(json.dumps(graph))
    titles = {row["address"]: row["title"] for row in open_page(file).follow()["inputs"]}
    assert titles["3.steps"].startswith("a bccc")
    assert len(titles["3.steps"]) <= 150


def test_an_input_that_becomes_a_slot_stays_where_it_was(open_page, write):
    page = open_page(write())
    before = [(row["address"], row["group"]) for row in page.follow()["inputs"]]
    page.edit({"set": "axis", "address": "3.denoise", "value": [0.5, 1]})
    rows = page.follow()["inputs"]
    assert [(row["address"], row["group"]) for row in rows] == before
    assert next(row["slot"] for row in rows if row["address"] == "3.denoise") == "denoise"
    assert page.state["plan"]["trials"] == 4


def test_choices_are_filtered_by_words(open_page, write):
    page = open_page(write())
    page.follow()
    found = page.http.get("choices", params={"address": "3.sampler_name", "filter": "SDE 3m"}).json()
    assert found["total"] == len(found["values"]) > 0
    assert all("3m" in value and "sde" in value for value in found["values"])
    assert page.http.get("choices", params={"address": "../../etc/passwd"}).json() == {"values": [], "total": 0}


def test_an_edit_is_on_disk_before_its_answer(open_page, write):
    page = open_page(file := write())
    page.edit(AXIS)
    assert "steps: [3, 5, 7]" in file.read_text() or "- 7" in file.read_text()
    assert page.follow()["plan"]["trials"] == 3
    page.edit(step="undo")
    assert page.follow()["plan"]["trials"] == 2


def test_mistakes_have_the_words_of_the_command_line_and_their_slot(open_page, write, capsys):
    from sweeper.cli import main

    page = open_page(file := write())
    page.edit(text=EXPERIMENT.replace("[2, 4]", "[2, many]"))
    (problem,) = page.follow()["problems"]
    assert (problem["slot"], page.state["plan"]) == ("steps", None)
    main(["plan", str(file)])
    assert problem["text"] in capsys.readouterr().err


def test_text_that_is_no_yaml_is_saved_and_can_be_mended(open_page, write):
    page = open_page(file := write())
    page.edit(text="sweep: [")
    assert file.read_text() == "sweep: ["
    assert page.follow()["problems"]
    page.edit(text=EXPERIMENT)
    assert page.follow()["plan"]["trials"] == 2


def test_two_pages_of_one_file_see_the_same(write):
    with OpenServer(file := write()) as server:
        pages = [Page(server.url) for _ in range(2)]
        for count in range(1, 6):
            pages[count % 2].edit({"set": "axis", "name": "steps", "value": list(range(1, count + 1))})
            states = [
                page.follow(lambda state, n=count: state["plan"] and state["plan"]["trials"] == n) for page in pages
            ]
            assert states[0]["version"] == states[1]["version"]
            stale = pages[(count + 1) % 2].edit(text="name: x", version="other", status=409)
            assert stale["text"] == file.read_text()
        for page in pages:
            page.http.close()


def test_what_another_program_writes_wins(open_page, write):
    page = open_page(file := write())
    page.follow()
    file.write_text(EXPERIMENT.replace("[2, 4]", "[9]"))
    state = page.edit(AXIS, status=409)
    assert "[9]" in state["text"]
    assert "[9]" in file.read_text()
    assert page.state["notice"]

    file.write_text(EXPERIMENT.replace("[2, 4]", "[1, 2, 3, 4]"))
    assert page.follow(lambda state: state["plan"] and state["plan"]["trials"] == 4)["notice"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("edit", {"version": 1, "changes": []}, 422), ("edit", {"changes": [1]}, 422), ("edit", [], 422),
        ("edit", {"version": "x"}, 422), ("edit", {"version": "x", "text": "", "step": "undo"}, 422),
        ("edit", {"version": "x", "text": 5}, 422), ("edit", {"version": "x", "step": 5}, 422),
        ("edit", {"version": "x", "step": "back"}, 422),
        ("run", {"version": "x", "kind": "rm -rf"}, 422), ("run", {"version": "x", "kind": "run"}, 409),
        ("open", {"experiment": "mine/experiment.yaml"}, 422), ("stop", {}, 422),
    ],
)  # fmt: skip
def test_wrong_requests_change_nothing(open_page, write, path, body, status):
    page = open_page(file := write())
    response = page.http.post(path, json=body)
    assert response.status_code == status, response.text
    assert file.read_text() == EXPERIMENT
    if status != 409:
        assert response.json()["problem"]


def test_too_long_requests_are_refused(open_page, write):
    page = open_page(write())
    response = page.http.post("edit", content=b" " * (16 * 2**20 + 1), headers={"content-type": "application/json"})
    assert response.status_code == 422


def test_nobody_gets_in_without_the_token(write):
    with OpenServer(write()) as server:
        base = server.url.partition("#")[0]
        with httpx.Client(base_url=base, trust_env=False) as stranger:
            for path in ("state", "choices", "sources", "files/x.png", "page.js"):
                assert stranger.get(path).status_code == 401, path
            for path in ("edit", "upload", "run", "stop", "open"):
                assert stranger.post(path, json={}).status_code == 401, path


def test_a_strangers_page_can_neither_read_nor_send(open_page, write):
    page = open_page(file := write())
    body = json.dumps({"version": page.state["version"], "changes": [AXIS]})
    as_json = {"content-type": "application/json"}
    refused = [
        ({"origin": "http://evil.example"} | as_json, 403), ({"origin": "null"} | as_json, 403),
        ({"origin": "http://127.0.0.1:8188"} | as_json, 403),  # another page on this machine
        ({"content-type": "text/plain"}, 403), ({"content-type": "application/x-www-form-urlencoded"}, 403),
        ({"host": "evil.example"} | as_json, 421),  # DNS rebinding
    ]  # fmt: skip
    for headers, status in refused:
        assert page.http.post("edit", content=body, headers=headers).status_code == status, headers
    assert page.http.options("edit").status_code == 405
    assert page.http.get("edit").status_code != 200
    assert page.http.get("state", headers={"host": "evil.example"}).status_code == 421
    answer = page.http.get("state", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert file.read_text() == EXPERIMENT


def test_a_comfyui_on_this_machine_may_frame_the_page(open_page, write):
    answer = open_page(write(), embedder="http://127.0.0.1:8188").http.get("state")
    assert "frame-ancestors http://127.0.0.1:8188" in answer.headers["content-security-policy"]


def test_a_server_that_never_answers_does_not_stop_editing(open_page, write, monkeypatch):
    monkeypatch.setattr("sweeper.running.node_class_cache._CONNECT_TIMEOUT", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"http://127.0.0.1:{silent.getsockname()[1]}"
        page = open_page(file := write(EXPERIMENT.replace("embedded", target)))
        for count in range(2, 6):
            page.edit({"set": "axis", "name": "steps", "value": list(range(1, count + 1))})
            state = page.follow(lambda state, n=count: state["plan"] and state["plan"]["trials"] == n)
            assert state["checking"]
            assert state["notes"] == [f"not checked against {target} yet: sweeper asks it now"]
        monkeypatch.setattr("sweeper.running.node_class_cache._CONNECT_TIMEOUT", 0.5)
        later = open_page(file).follow()
    for state, reason in ((later, "does not respond within 0.5 s"), (page.follow(), "does not respond: ")):
        assert any(reason in note for note in state["notes"]), state["notes"]
        assert state["plan"]["trials"] == 5


def test_what_needs_trust_is_a_mistake_and_is_not_done(open_page, write, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of another folder\n")
    Path("mine").mkdir()
    Path("mine/own.py").write_text("open('imported', 'w')")
    page = open_page(write())
    text = EXPERIMENT.replace("    steps:", f"    prompt: {{lines: {secret}}}\n    steps:")
    page.edit(text=f"{text}metrics: ['own:measure']\n")
    texts = "\n".join(problem["text"] for problem in page.follow()["problems"])

    assert "If you trust its author: `sweeper trust mine/experiment.yaml`" in texts
    assert "imports the module 'own'" in texts
    assert str(secret) in texts
    assert "the secret" not in json.dumps(page.state)
    page.post("run", 422, version=page.state["version"], kind="run")
    assert not Path("imported").exists()


def test_no_key_is_sent_to_a_server_that_the_file_names(open_page, write, monkeypatch):
    monkeypatch.setenv("MY_KEY", "key-of-mine")
    received = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(3)
        target = f"{{url: 'http://127.0.0.1:{server.getsockname()[1]}', api_key_env: MY_KEY}}"
        page = open_page(write(EXPERIMENT.replace("embedded", target)))
        assert any("MY_KEY" in problem["text"] for problem in page.follow()["problems"])
        page.post("run", 422, version=page.state["version"], kind="run")
        with contextlib.suppress(TimeoutError):
            received.append(server.accept())
    assert received == []


def test_files_that_change_beside_the_page_count(open_page, write):
    file = write(EXPERIMENT.replace("    steps:", "    picture: {files: inputs/*.png}\n    steps:"))
    graph = {**TXT2IMG, "10": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}}
    with (file.parent / "t.slots.yaml").open("a") as slots:
        slots.write('  picture: {at: "10.image", kind: file}\n')
    page = open_page(file)
    assert page.follow()["plan"] is None
    (file.parent / "t.json").write_text(json.dumps(graph))
    (file.parent / "inputs").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (file.parent / "inputs" / name).write_bytes(b"x")
    assert page.follow(lambda state: state["plan"])["plan"]["trials"] in (2, 4, 6)
    page.follow(lambda state: state["plan"] and state["plan"]["trials"] == 6)


def test_trust_of_another_terminal_counts_at_once(open_page, write):
    page = open_page(write(EXPERIMENT + "run: {confirm_above: 50 USD}\n"))
    assert any("without a question" in problem["text"] for problem in page.follow()["problems"])
    add_grants(Path("mine"), ["lets runs cost 50 USD without a question"])
    page.follow(lambda state: state["plan"])
    assert page.state["problems"] == []


def test_a_file_that_is_gone_is_said_and_found_again(open_page, write):
    page = open_page(file := write())
    text = page.follow()["text"]
    file.rename("elsewhere.yaml")
    assert "experiment.yaml" in page.follow(lambda state: state["problem"])["problem"]
    assert page.state["text"] == text
    Path("elsewhere.yaml").write_text(EXPERIMENT.replace("[2, 4]", "[7]"))
    Path("elsewhere.yaml").rename(file)
    page.follow(lambda state: state["problem"] is None and "[7]" in state["text"])


def test_a_folder_that_is_gone_is_not_made_again(open_page, write):
    page = open_page(file := write())
    page.follow()
    file.parent.rename("elsewhere")
    assert "cannot be saved" in page.edit(AXIS, status=422)["problem"]
    page.post("upload", 422, name="cat.mp4", content="eA==")
    assert not file.parent.exists()


SECRETS = ("../../secret.png", "/etc/passwd", "inputs/link.png", "../t.json/../../secret.png")


@pytest.mark.parametrize("value", SECRETS)
def test_a_strangers_workflow_reads_no_file_elsewhere(open_page, write, value):
    secret = Path("../secret.png").absolute()
    secret.write_bytes(b"the secret")
    file = write(EXPERIMENT.replace("    steps:", f"    picture: ['{value}']\n    steps:"))
    (file.parent / "inputs").mkdir()
    (file.parent / "inputs/link.png").symlink_to(secret)
    graph = json.loads((file.parent / "t.json").read_text())
    graph["10"] = {"class_type": "LoadImage", "inputs": {"image": value}}
    (file.parent / "t.json").write_text(json.dumps(graph))
    with (file.parent / "t.slots.yaml").open("a") as slots:
        slots.write('  picture: {at: "10.image", kind: file}\n')
    page = open_page(file)
    assert page.follow()["problems"]
    assert "the secret" not in json.dumps(page.state)
    for name in (value, "link.png", "..%2f..%2fsecret.png", "%2fetc%2fpasswd", ".hidden.png"):
        assert page.http.get(f"files/{name}").status_code == 404, name


def draw_picture(side):
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 99).save(buffer, "PNG")
    return buffer.getvalue()


def test_uploads_go_into_inputs_and_replace_nothing(open_page, write, tmp_path):
    page = open_page(file := write())

    def upload(name, content, status=200):
        return page.post("upload", status, name=name, content=base64.b64encode(content).decode())

    one, two = (draw_picture(side) for side in (40, 41))
    assert upload("../../Cat 1.PNG", one) == {"path": "inputs/Cat-1.png"}
    assert upload("Cat 1.png", two) == {"path": "inputs/Cat-1-2.png"}
    assert upload("C:\\x\\Cat 1.png", one)["path"].startswith("inputs/C-x-Cat-1")
    assert upload("Cat 1.png", one) == {"path": "inputs/Cat-1.png"}
    assert upload("con.png", one) == {"path": "inputs/file-con.png"}
    assert upload("film.mp4", b"one") == {"path": "inputs/film.mp4"}
    inputs = file.parent / "inputs"
    (inputs / "taken.png").symlink_to(tmp_path / "made-by-upload")
    assert upload("taken.png", one) == {"path": "inputs/taken-2.png"}
    assert not (tmp_path / "made-by-upload").exists()
    for name in ("x.yaml", "x.py", ".png", "", "png", "x.svg"):
        assert "neither a picture" in upload(name, b"one", 422)["problem"], name
    page.post("upload", 422, name="x.png", content="no base64!")
    problem = upload("x.png", b"one", 422)["problem"]
    assert problem == "x.png: cannot be read as a picture: unknown format"
    assert "x.png: cannot be decoded: " in upload("x.png", one[:800], 422)["problem"]
    assert page.http.get("files/Cat-1.png").content == one
    assert "sandbox" in page.http.get("files/Cat-1.png").headers["content-security-policy"]
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "experiment.yaml",
        "inputs",
        "t.json",
        "t.slots.yaml",
    ]


def test_inputs_that_is_a_link_gets_no_uploads(open_page, write, tmp_path):
    page = open_page(file := write())
    (file.parent / "inputs").symlink_to(tmp_path)
    page.post("upload", 422, name="x.png", content="AAAA")
    assert not (tmp_path / "x.png").exists()


# --- the command


@pytest.fixture
def start(python):
    """A function that starts `sweeper open` and returns the process and the address that it prints."""
    started = []

    def make(*arguments, program=python):
        command = [program, "-P", "-m", "sweeper", "open", "--no-open", *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1], read_line(started[-1].stdout).strip()

    yield make
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_server_loses_no_edit(start, write):
    file = write()
    process, url = start(file, program=sys.executable)
    page = Page(url)
    for count in range(1, 20):
        page.edit({"set": "axis", "name": "steps", "value": list(range(1, count + 1))})
    process.kill()
    process.wait()
    page.http.close()
    process, url = start(file, "--json")
    page = Page(json.loads(url)["url"])
    assert page.follow()["plan"]["trials"] == 19
    page.http.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets the limits of another process")
def test_a_full_disk_leaves_no_part_of_a_file(start, monkeypatch):
    import resource

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # a part of compiled code would stay
    process, url = start("--into", "made", program=sys.executable)
    page = Page(url)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1400, -1))  # more than the workflow, less than the rest
    assert "File too large" in page.post("open", 422, example=True)["problem"]
    assert [path.name for path in Path("made").iterdir()] == []
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (-1, -1))
    assert page.post("open", example=True)["file"] == "made/experiment.yaml"
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1400, -1))
    page.post("upload", 422, name="cat.mp4", content=base64.b64encode(b"x" * 5000).decode())
    assert list(Path("made/inputs").iterdir()) == []
    page.http.close()


def test_the_command_makes_a_folder_for_a_workflow_and_opens_it_again(start, write):
    workflow = write().parent / "t.json"
    process, url = start(workflow, "--axis", "3.cfg")
    page = Page(url)
    assert page.follow()["file"] == "t/experiment.yaml"
    assert [(axis["name"], axis["value"]) for axis in page.state["axes"]] == [("cfg", [8])]
    page.edit({"set": "axis", "name": "cfg", "value": [4, 7, 9]})
    assert page.follow()["plan"]["trials"] == 3
    page.http.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    before = Path("t/experiment.yaml").read_text()
    process, url = start(workflow)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert Path("t/experiment.yaml").read_text() == before
    assert not Path("t-2").exists()


def test_an_axis_may_be_any_of_the_inputs_that_are_one_slot(write):
    graph = json.loads(json.dumps(TXT2IMG))
    graph["11"] = {**graph["3"], "_meta": {"title": "Second"}}
    file = write(f"{EXPERIMENT}  zip: [{{cfg: [4, 7], seed: [1, 2]}}]\n")
    Path("mine/t.json").write_text(json.dumps(graph))
    editor = Editor(target=None, trust=False)
    editor.open(file)
    editor.make_axis("11.sampler_name")
    editor.make_axis("3.cfg")  # stays in its group
    assert [axis["name"] for axis in editor.describe()["axes"]][:2] == ["sampler", "steps"]
    editor.refresh()
    rows = {row["address"]: row for row in editor.describe()["inputs"]}
    assert (rows["3.sampler_name"]["others"], rows["11.steps"]["title"]) == (("11.sampler_name",), "Second")


def test_the_browser_gets_the_token_by_a_file_of_the_user(start, write, monkeypatch):
    browser = Path("browser.sh").absolute()
    browser.write_text('#!/bin/sh\necho "$1" > argument\ncat "${1#file://}" > page.html\ntouch seen\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    process, url = start(write(), "--open")
    wait_until(Path("seen").exists)
    assert url in Path("page.html").read_text()
    assert "token" not in Path("argument").read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not Path(Path("argument").read_text().strip().removeprefix("file://")).exists()


def test_the_command_opens_a_file_with_mistakes(start, write):
    _, url = start(write("sweep: ["))
    page = Page(url)
    assert page.follow()["problems"]
    page.http.close()


def test_the_command_says_what_is_wrong(start, write):
    for arguments in (
        ("none.yaml",),
        ("--axis", "3.cfg"),
        ("none.json",),
        (write(), "--axis", "3.none"),
        (write(), "--embed-in", "http://x"),
    ):
        process, url = start(*arguments)
        assert url == ""
        assert process.wait(60) == 2, arguments
    assert os.listdir() == ["mine"]  # noqa: PTH208
