"""`sweeper lock` writes what a plan needs as `comfy-build.yaml`, and names how a server differs from one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from sweeper.cli import main
from sweeper.comfy.client import ComfyClient
from sweeper.embedded import EmbeddedServer
from tests.running.studio import BASE, FOURTH, GRAPH, NAME, OTHER_BASE, Studio, make_file

LOCK = Path("comfy-build.yaml")
COMMIT = "0badcafe" * 5
FIXER = {
    "FaceFix": {
        "input": {"required": {"image": ["IMAGE"]}},
        "output": ["IMAGE"],
        "output_name": ["IMAGE"],
        "python_module": "custom_nodes.Face-Fix",
        "category": "test",
        "output_node": False,
    }
}
PACKS = {
    "Face-Fix": {"ver": "1.2.3", "cnr_id": "face-fix", "aux_id": None, "enabled": True},
    "unused": {"ver": "9.0.0", "cnr_id": "unused", "aux_id": None, "enabled": True},
}
BY_GIT = {"Face-Fix": {"ver": COMMIT, "cnr_id": "", "aux_id": "me/Face-Fix", "enabled": True}}


@pytest.fixture
def studio(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "trusted.json"))
    with ExitStack() as stack:
        yield Studio(tmp_path, stack)


@pytest.fixture
def sweeper(capsys):
    def run(*arguments: object) -> SimpleNamespace:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return SimpleNamespace(code=code, out=streams.out, err=streams.err)

    return run


@contextmanager
def answer_before(server: EmbeddedServer, answers: dict[str, Any]) -> Iterator[SimpleNamespace]:
    """A server in front of another one, which answers some paths itself."""
    client = httpx.Client(trust_env=False, timeout=30)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in answers:
                content, status = json.dumps(answers[self.path]).encode(), 200
            else:
                length = int(self.headers.get("Content-Length", 0))
                answer = client.request(
                    self.command, server.url + self.path, content=self.rfile.read(length),
                    headers={name: text for name, text in self.headers.items() if name.lower() == "content-type"},
                )  # fmt: skip
                content, status = answer.content, answer.status_code
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=front.serve_forever, daemon=True).start()
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{front.server_port}", folders=server.folders)
    finally:
        front.shutdown()
        front.server_close()
        client.close()


def add_face_fix(studio: Studio) -> EmbeddedServer:
    """A server with a class of a node pack, which the workflow uses."""
    graph = json.loads(json.dumps(GRAPH))
    graph["8"] = {"class_type": "FaceFix", "inputs": {"image": ["6", 0]}}
    graph["7"]["inputs"]["images"] = ["8", 0]
    (studio.folder / "w.json").write_text(json.dumps(graph))
    return studio.serve("studio", object_info=FIXER)


def read() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(LOCK.read_text())
    return found


def test_lock_has_what_the_plan_uses_and_no_more(studio, sweeper):
    server = studio.serve("studio")
    studio.place(server, BASE, "checkpoints/unused.safetensors")
    slots = "slots: {lora: {at: 2.lora_name}, seed: {at: 5.seed}}\n"
    models = "models: [{name: base.safetensors, folder: checkpoints, url: 'https://example.com/b'}]\n"
    (studio.folder / "w.slots.yaml").write_text(models + slots)
    done = sweeper("lock", "e.yaml", "-t", server.url)
    assert done.code == 0
    assert f"no source is known of {NAME}, style.safetensors" in done.err
    lock = read()
    assert lock["schema"] == "comfy-build/1"
    assert lock["definition"] == {
        "schema": "distribution-definition/0",
        "baseComfyVersion": "v0.33.0",
        "models": [
            {"filename": "base.safetensors", "sizeBytes": len(BASE), "sourceUri": "https://example.com/b",
             "type": "checkpoints"},
            {"filename": NAME, "sizeBytes": len(FOURTH), "type": "loras"},
            {"filename": "style.safetensors", "sizeBytes": len(FOURTH), "type": "loras"},
        ],
        "customNodes": [],
    }  # fmt: skip
    assert lock["x-sweeper"]["models"][f"loras/{NAME}"]["stated"] == {"ss_epoch": "3"}
    assert f"  # {len(FOURTH)} bytes, epoch 3, 2023-11-14 22:13:20Z\n  - filename: {NAME}" in LOCK.read_text()
    assert server.seen.submits == 0


def test_server_that_is_as_locked_has_no_difference(studio, sweeper):
    server = studio.serve("studio")
    sweeper("lock", "e.yaml", "-t", server.url)
    studio.place(server, make_file({"ss_epoch": "3"}))  # another time, the same content
    checked = sweeper("lock", "--check", "e.yaml", "-t", server.url)
    assert (checked.code, checked.err) == (0, "")
    assert f"{server.url}: no difference from comfy-build.yaml\n" in checked.out
    assert "base.safetensors: nothing states its content, and its size agrees" in checked.out


def test_trained_again_missing_and_longer_files_are_named(studio, sweeper):
    server = studio.serve("studio")
    sweeper("lock", "e.yaml", "-t", server.url)
    studio.place(server, FOURTH)
    studio.place(server, BASE + b"\0" * 8, "checkpoints/base.safetensors")
    (server.folders.base / "models/loras/style.safetensors").unlink()
    assert sweeper("lock", "--check", "e.yaml", "-t", server.url).code == 1
    checked = sweeper("lock", "--check", "e.yaml", "-t", server.url, "--json")
    (target,) = json.loads(checked.out)["targets"]
    assert checked.code == 1
    assert [(drift["name"], drift["locked"], drift["found"]) for drift in target["drifts"]] == [
        ("checkpoints/base.safetensors", f"{len(BASE)} bytes", f"{len(BASE) + 8} bytes"),
        (f"loras/{NAME}", f"{len(FOURTH)} bytes, epoch 3", f"{len(FOURTH)} bytes, epoch 4"),
        ("loras/style.safetensors", f"{len(FOURTH)} bytes, epoch 1", "missing"),
    ]


def test_header_that_differs_in_other_words_is_a_difference(studio, sweeper):
    server = studio.serve("studio")
    sweeper("lock", "e.yaml", "-t", server.url)
    studio.place(server, make_file({"ss_epoch": "3", "ss_tags": "fox"})[: len(FOURTH)].ljust(len(FOURTH)))
    studio.place(server, make_file({"format": "xx"}), "checkpoints/base.safetensors")
    checked = sweeper("lock", "--check", "e.yaml", "-t", server.url)
    assert checked.code == 1
    assert "another header, " in checked.out


@pytest.mark.parametrize(
    ("packs", "entry"),
    [
        (PACKS, {"id": "face-fix", "name": "Face-Fix", "registryVersion": "1.2.3"}),
        (BY_GIT, {"gitRef": COMMIT, "name": "Face-Fix", "repository": "https://github.com/me/Face-Fix"}),
        ({}, {"name": "Face-Fix"}),
    ],
)
def test_node_packs_of_the_workflow_are_locked(studio, sweeper, packs, entry):
    with answer_before(add_face_fix(studio), {"/v2/customnode/installed": packs}) as server:
        done = sweeper("lock", "e.yaml", "-t", server.url)
        assert done.code == 0
        assert read()["definition"]["customNodes"] == [entry]
        assert ("no version is known of Face-Fix" in done.err) == (packs == {})
        assert sweeper("lock", "--check", "e.yaml", "-t", server.url).code == 0


@pytest.mark.parametrize(
    ("locked", "now", "found"),
    [
        (PACKS, {"Face-Fix": {**PACKS["Face-Fix"], "ver": "1.3.0"}}, "1.3.0"),
        (PACKS, BY_GIT, COMMIT),
        (BY_GIT, {"Face-Fix": {**BY_GIT["Face-Fix"], "ver": "1" * 40}}, "1" * 40),
    ],
)
def test_other_version_of_a_pack_and_of_comfyui_is_named(studio, sweeper, locked, now, found):
    server = add_face_fix(studio)
    with answer_before(server, {"/v2/customnode/installed": locked}) as front:
        sweeper("lock", "e.yaml", "-t", front.url)
    stats = {"system": {"comfyui_version": "0.34.0"}, "devices": []}
    with answer_before(server, {"/v2/customnode/installed": now, "/system_stats": stats}) as front:
        checked = sweeper("lock", "--check", "e.yaml", "-t", front.url, "--json")
    drifts = json.loads(checked.out)["targets"][0]["drifts"]
    assert [(drift["kind"], drift["found"]) for drift in drifts] == [("ComfyUI", "0.34.0"), ("node pack", found)]


def test_file_of_comfy_tools_is_compared_as_far_as_the_server_tells(studio, sweeper):
    server = studio.serve("studio")
    studio.place(server, BASE, "diffusion_models/flux.safetensors")
    LOCK.write_text(f"""
schema: comfy-build/1
id: bld_1
name: Studio
description: ''
syncedRevision: r7
definition:
  baseComfyVersion: master
  pipDependencies: |
    torch==2.4.0
  models:
  - {{type: unet, filename: flux.safetensors, sha256: {"AB" * 32}, sizeBytes: {len(BASE)}, source: local}}
  - {{type: loras, sourceUri: 'https://example.com/my%63har.safetensors?token=1'}}
  - {{type: vae, filename: gone.safetensors, blobId: blob_1, sha256: {"cd" * 32}}}
  - {{type: vae, blobId: blob_2}}
  customNodes:
  - {{name: gone, id: gone, registryVersion: 1.0.0}}
  - {{name: other-name, id: face-fix, registryVersion: 1.2.3}}
  - {{name: branch, repository: 'https://github.com/me/branch.git', gitRef: main}}
""")
    packs = {**PACKS, "there": {"ver": COMMIT, "aux_id": "me/branch", "enabled": True}}
    with answer_before(server, {"/v2/customnode/installed": packs}) as front:
        checked = sweeper("lock", "--check", "e.yaml", "-t", front.url, "--json")
    (target,) = json.loads(checked.out)["targets"]
    assert [(drift["name"], drift["found"]) for drift in target["drifts"]] == [
        ("vae/gone.safetensors", "missing"), ("gone", "missing"),
    ]  # fmt: skip
    assert set(target["not_compared"]) == {
        "pipDependencies: no server tells it",
        "definition.models[3]: it has no filename",
        "ComfyUI master: the server tells 0.33.0",
        "unet/flux.safetensors: the server does not tell its sha256; what it tells agrees",
        f"loras/{NAME}: nothing states its content",
        "node pack branch: the lock has main for its version",
        "checkpoints/base.safetensors: the plan uses it, and the lock does not list it",
        "loras/style.safetensors: the plan uses it, and the lock does not list it",
    }


def test_hashes_of_cloud_assets_are_locked_and_compared(studio, sweeper):
    server = studio.serve("studio", dialect="cloud")
    assert sweeper("lock", "e.yaml", "-t", server.url).code == 0
    stated = read()["x-sweeper"]["models"]
    assert stated["checkpoints/base.safetensors"]["content"].startswith("blake3:")
    assert sweeper("lock", "--check", "e.yaml", "-t", server.url).code == 0
    studio.place(server, OTHER_BASE, "checkpoints/base.safetensors")
    assert sweeper("lock", "--check", "e.yaml", "-t", server.url).code == 1


def test_every_mistake_of_a_lock_is_named_with_its_line(studio, sweeper):
    server = studio.serve("studio")
    LOCK.write_text(
        "schema: comfy-build/2\ndefinition:\n  models:\n  - {filename: 3, sha256: xx}\n"
        "  customNodes: [{id: a}]\nx-sweeper: 3\n"
    )
    checked = sweeper("lock", "--check", "e.yaml", "-t", server.url)
    assert checked.code == 2
    assert checked.err.splitlines() == [
        "error: comfy-build.yaml:1: schema: found 'comfy-build/2'; allowed: comfy-build/1",
        "error: comfy-build.yaml:4: definition.models[0]: the key 'type' is missing",
        "error: comfy-build.yaml:4: definition.models[0].filename: found 3, but text or nothing is needed",
        "error: comfy-build.yaml:4: definition.models[0].sha256: found 'xx'; allowed: 64 hexadecimal digits",
        "error: comfy-build.yaml:5: definition.customNodes[0]: the key 'name' is missing",
        "error: comfy-build.yaml:6: x-sweeper: found 3, but a mapping is needed",
    ]


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "x: " + "[" * 99, "a: !!python/object:os.system {}"])
def test_file_that_is_no_lock_is_refused(studio, sweeper, text):
    LOCK.write_text(text)
    checked = sweeper("lock", "--check", "e.yaml", "-t", studio.serve("studio").url)
    assert (checked.code, checked.out) == (2, "")
    assert "comfy-build.yaml" in checked.err


def test_missing_lock_says_how_to_write_it(studio, sweeper):
    checked = sweeper("lock", "--check", "e.yaml", "-t", studio.serve("studio").url)
    assert checked.code == 2
    assert "there is no such file; the same command without --check writes it" in checked.err


def test_file_that_differs_is_overwritten_only_if_told(studio, sweeper):
    server = studio.serve("studio")
    LOCK.write_text("mine\n")
    refused = sweeper("lock", "e.yaml", "-t", server.url)
    assert (refused.code, LOCK.read_text()) == (2, "mine\n")
    assert "add --yes" in refused.err
    assert sweeper("lock", "e.yaml", "-t", server.url, "--yes").code == 0
    os.utime(LOCK, (1, 1))
    assert "(unchanged)" in sweeper("lock", "e.yaml", "-t", server.url).out
    assert LOCK.stat().st_mtime == 1
    assert sweeper("lock", "e.yaml", "-t", server.url, "-o", "sub/other.yaml").code == 0
    assert sweeper("lock", "--check", "e.yaml", "-t", server.url, "-o", "sub/other.yaml").code == 0


def test_link_in_place_of_a_lock_is_neither_read_nor_followed(studio, sweeper, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
    outside.write_text("schema: secret\n")
    LOCK.symlink_to(outside)
    server = studio.serve("studio")
    checked = sweeper("lock", "--check", "e.yaml", "-t", server.url)
    assert checked.code == 2
    assert "outside of the project" in checked.err
    studio.run(("studio", server))
    assert any("outside of the project" in notice for notice in studio.notices)
    assert sweeper("lock", "e.yaml", "-t", server.url, "--yes").code == 0
    assert (outside.read_text(), LOCK.is_symlink()) == ("schema: secret\n", False)


def test_lock_of_a_search_has_the_models_of_all_its_points(studio, sweeper):
    server = studio.serve("studio")
    space = f"{{lora: [{NAME}, style.safetensors], seed: {{from: 1, to: 9, step: 1}}}}"
    search = f"search: {{maximize: brightness, trials: 4, method: random, space: {space}}}\n"
    (studio.folder / "find.yaml").write_text(f"name: f\ntemplate: w.json\nmetrics: [brightness]\n{search}")
    assert sweeper("lock", "find.yaml", "-t", server.url).code == 0
    assert [model["filename"] for model in read()["definition"]["models"]] == [
        "base.safetensors", NAME, "style.safetensors",
    ]  # fmt: skip


def test_lock_is_of_one_real_server(studio, sweeper):
    servers = [studio.serve(name).url for name in ("a", "b")]
    both = sweeper("lock", "e.yaml", "-t", servers[0], "-t", servers[1])
    rehearsal = sweeper("lock", "e.yaml", "-t", "embedded")
    assert (both.code, rehearsal.code, LOCK.exists()) == (2, 2, False)
    assert "give one --target" in both.err
    assert "name a real server with --target" in rehearsal.err


def test_what_a_server_says_cannot_add_keys_to_the_lock(studio, sweeper):
    server = studio.serve("studio")
    studio.place(server, make_file({"ss_epoch": "3\ndefinition: evil", "ss_steps": "\ud800"}))
    assert sweeper("lock", "e.yaml", "-t", server.url).code == 0
    assert read()["definition"]["baseComfyVersion"] == "v0.33.0"
    assert sweeper("lock", "--check", "e.yaml", "-t", server.url).code == 0


def test_run_names_drift_in_one_line_and_goes_on(studio, sweeper):
    server = studio.serve("studio")
    sweeper("lock", "e.yaml", "-t", server.url)
    assert studio.run(("studio", server), limit=1).succeeded == 1
    assert not any("comfy-build" in notice for notice in studio.notices)
    LOCK.write_text(LOCK.read_text().replace("v0.33.0", "v0.3.64"))
    assert "comfy-build" not in sweeper("run", "e.yaml", "--rehearse").err
    LOCK.write_text(LOCK.read_text().replace("v0.3.64", "v0.33.0"))
    studio.place(server, FOURTH)
    studio.place(server, BASE + b"\0" * 8, "checkpoints/base.safetensors")
    assert studio.run(("studio", server)).succeeded == 4
    (line,) = [notice for notice in studio.notices if "comfy-build" in notice]
    assert line == (
        f"studio differs from comfy-build.yaml: checkpoints/base.safetensors: {len(BASE)} bytes -> "
        f"{len(BASE) + 8} bytes and 1 more; `sweeper lock --check {studio.folder / 'e.yaml'}` shows all"
    )


def test_run_and_check_go_on_beside_a_broken_lock(studio, sweeper):
    server = studio.serve("studio")
    LOCK.write_text("schema: 3\n")
    assert studio.run(("studio", server)).succeeded == 4
    assert any("nothing was compared with this lock" in notice for notice in studio.notices)
    sweeper("accept", "results/e", "--yes")
    sweeper("lock", "e.yaml", "-t", server.url, "--yes")
    LOCK.write_text(LOCK.read_text().replace("v0.33.0", "v0.32.0"))
    checked = sweeper("check", "e.yaml", "-t", server.url)
    assert checked.code == 0
    assert f"{server.url} differs from comfy-build.yaml: baseComfyVersion: 0.32.0 -> 0.33.0; " in checked.err


def test_run_compares_packs_that_the_server_lists(studio, sweeper, monkeypatch):
    server = add_face_fix(studio)
    with answer_before(server, {"/v2/customnode/installed": PACKS}) as front:
        sweeper("lock", "e.yaml", "-t", front.url)

    async def get_server_info(_: ComfyClient) -> dict[str, Any]:
        return {"comfyui": "0.33.0", "nodes": {"face-fix": "1.3.0", "by-hand": "unknown"}}

    monkeypatch.setattr(ComfyClient, "get_server_info", get_server_info)
    studio.run(("studio", server), limit=1)
    assert any("comfy-build.yaml: Face-Fix: 1.2.3 -> 1.3.0; " in notice for notice in studio.notices)
