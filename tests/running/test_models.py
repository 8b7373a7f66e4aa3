"""A trial is known by the content of its model files: a file that changes under its name, servers that differ."""

from __future__ import annotations

import json
import os
import struct
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import sweeper
from sweeper.cli import main
from sweeper.embedded import EmbeddedServer

NAME = "mychar.safetensors"
OLD, NEW = 1_700_000_000, 1_700_500_000


def make_file(metadata: dict[str, str] | None, weights: bytes = b"\0" * 8) -> bytes:
    header: dict[str, Any] = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    encoded = json.dumps(header if metadata is None else {"__metadata__": metadata, **header}).encode()
    return struct.pack("<Q", len(encoded)) + encoded + weights


THIRD, FOURTH = make_file({"ss_epoch": "3"}), make_file({"ss_epoch": "4"})
BASE, OTHER_BASE = make_file({"format": "pt"}), make_file({"format": "pt"}, b"\1" * 8)

GRAPH = {
    node: {"class_type": kind, "inputs": inputs}
    for node, kind, inputs in (
        ("1", "CheckpointLoaderSimple", {"ckpt_name": "base.safetensors"}),
        ("2", "LoraLoader", {"model": ["1", 0], "clip": ["1", 1], "lora_name": NAME, "strength_model": 1.0,
                             "strength_clip": 1.0}),
        ("3", "CLIPTextEncode", {"clip": ["2", 1], "text": "a fox"}),
        ("4", "EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        ("5", "KSampler", {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0],
                           "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
                           "seed": 1}),
        ("6", "VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        ("7", "SaveImage", {"images": ["6", 0], "filename_prefix": "m"}),
    )
}  # fmt: skip


class Studio:
    """An experiment over two seeds and two LoRAs, and ComfyUI servers with model files."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        (folder / "w.json").write_text(json.dumps(GRAPH))
        (folder / "w.slots.yaml").write_text("slots: {lora: {at: 2.lora_name}, seed: {at: 5.seed}}\n")
        self.write("")

    def write(self, more: str, target: str = "") -> None:
        sweep = f"sweep: {{grid: {{lora: [{NAME}, style.safetensors], seed: [1, 2]}}}}"
        (self.folder / "e.yaml").write_text(f"name: e\ntemplate: w.json\n{sweep}\n{target}\n{more}\n")

    def serve(self, name: str, **options: Any) -> EmbeddedServer:
        """Start a server with the first version of each file, and name it in the experiment's folder."""
        server = self._stack.enter_context(EmbeddedServer(**{"dialect": "comfyui", **options}))
        self.place(server, THIRD, time=OLD)
        self.place(server, make_file({"ss_epoch": "1"}), "loras/style.safetensors", time=OLD)
        self.place(server, BASE, "checkpoints/base.safetensors", time=OLD)
        return server

    def place(self, server: EmbeddedServer, content: bytes, name: str = f"loras/{NAME}", *, time: float = NEW) -> Path:
        """Put a file under its name as a trainer or `mv` does: another file takes its place."""
        path = server.folders.base / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part.tmp")
        part.write_bytes(content)
        os.utime(part, (time, time))
        part.replace(path)
        return path

    def run(self, *servers: Any, **options: Any) -> sweeper.Run:
        targets = [{"url": server.url, "name": name} for name, server in servers]
        self.notices: list[str] = []

        def note(event: Any) -> None:
            if hasattr(event, "message"):
                self.notices.append(event.message)

        return sweeper.run(self.folder / "e.yaml", targets, progress=note, **options)

    def rows(self) -> list[dict[str, Any]]:
        return list(sweeper.results(self.folder / "results" / "e").to_dict("records"))

    def tags(self) -> list[str]:
        """The tag of the LoRA in each row."""
        return [row["models"].rpartition("@")[2] for row in self.rows()]


@pytest.fixture
def studio(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield Studio(tmp_path, stack)


def draw_by_hand(server: EmbeddedServer, seed: int) -> bytes:
    """The picture of the same workflow, posted to a server that has read nothing yet."""
    httpx.post(f"{server.url}/free", json={"unload_models": True, "free_memory": True}).raise_for_status()
    graph = json.loads(json.dumps(GRAPH))
    graph["5"]["inputs"]["seed"] = seed
    job = httpx.post(f"{server.url}/prompt", json={"prompt": graph}).json()["prompt_id"]
    while not (history := httpx.get(f"{server.url}/history/{job}").json()):
        pass
    (image,) = history[job]["outputs"]["7"]["images"]
    return httpx.get(f"{server.url}/view", params=image).content


def read_pixels(content: bytes | Path) -> bytes:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as picture:
        return picture.tobytes()


def test_lora_trained_again_under_its_name_is_made_again(studio):
    server = studio.serve("studio")
    assert studio.run(("studio", server)).submitted == 4
    assert studio.run(("studio", server)).submitted == 0
    before = studio.tags()
    studio.place(server, FOURTH)
    run = studio.run(("studio", server))
    assert (run.submitted, run.reused) == (2, 2)
    assert "2 stale: mychar.safetensors on studio changed (14 Nov -> 20 Nov)" in studio.notices
    after = studio.tags()
    assert after[0] == after[1] != before[0]
    assert after[2:] == before[2:]
    assert studio.run(("studio", server)).submitted == 0
    old = sweeper.results(studio.folder / "results" / "e", run=1)
    assert [text.rpartition("@")[2] for text in old["models"]] == before
    assert all(Path(picture).is_file() for picture in [*old["picture"], *(row["picture"] for row in studio.rows())])


def test_pictures_after_a_swap_are_those_of_the_new_file(studio):
    server = studio.serve("studio")
    studio.run(("studio", server), where=f"lora == '{NAME}'")
    studio.place(server, FOURTH)  # the server has the old one in its cache
    studio.run(("studio", server), where=f"lora == '{NAME}'")
    fresh = studio.serve("fresh")
    studio.place(fresh, FOURTH)
    for row in studio.rows()[:2]:
        assert read_pixels(Path(row["picture"])) == read_pixels(draw_by_hand(fresh, row["seed"]))


def test_server_is_asked_to_free_its_memory_only_for_a_changed_file(studio):
    server = studio.serve("studio")
    studio.run(("studio", server), where="seed == 1")
    assert not [line for line in studio.notices if "reads all models again" in line]
    studio.run(("studio", server), where="seed == 2")
    assert not [line for line in studio.notices if "reads all models again" in line]
    studio.place(server, FOURTH)
    studio.run(("studio", server), where="lora != 'style.safetensors'")
    assert sum("mychar.safetensors was replaced" in line for line in studio.notices) == 1
    studio.run(("studio", server), fresh=True)
    assert not [line for line in studio.notices if "reads all models again" in line]


def test_another_folder_learns_from_the_history_that_the_server_is_older(studio):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, FOURTH)  # its time is in the past, but it came to its place now
    studio.run(("studio", server), out=studio.folder / "other")
    assert sum("mychar.safetensors was replaced" in line for line in studio.notices) == 1


def test_time_alone_keeps_a_base_model_done_and_says_so(studio):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, BASE, "checkpoints/base.safetensors")
    assert studio.run(("studio", server)).submitted == 0
    (note,) = [line for line in studio.notices if "base.safetensors" in line]
    assert "4 trials kept; --remake-stale makes them again" in note
    assert "14 Nov 2023" in note
    assert "20 Nov 2023" in note
    assert studio.run(("studio", server), keep_stale=True).submitted == 0
    assert studio.run(("studio", server)).submitted == 0
    assert not [line for line in studio.notices if "base.safetensors" in line]
    studio.place(server, OTHER_BASE, "checkpoints/base.safetensors", time=NEW + 1)
    assert studio.run(("studio", server), remake_stale=True).submitted == 4


def test_equal_header_with_another_time_is_the_same_content(studio):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, THIRD)
    assert studio.run(("studio", server)).submitted == 0
    assert [line for line in studio.notices if "its header states the same: 2 trials kept" in line]
    assert studio.run(("studio", server)).submitted == 0
    assert not [line for line in studio.notices if NAME in line]


def test_kept_results_stay_until_the_file_changes_once_more(studio):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, FOURTH)
    assert studio.run(("studio", server), keep_stale=True).submitted == 0
    assert studio.run(("studio", server)).submitted == 0
    studio.place(server, make_file({"ss_epoch": "5"}), time=NEW + 1)
    assert studio.run(("studio", server)).submitted == 2


def test_old_file_put_back_makes_its_pictures_count_again(studio):
    server = studio.serve("studio")
    studio.run(("studio", server))
    before = studio.tags()
    studio.place(server, FOURTH)
    studio.run(("studio", server))
    studio.place(server, THIRD)
    assert studio.run(("studio", server)).submitted == 0
    assert studio.tags() == before


def test_stale_picture_leaves_the_table_before_its_trial_is_made_again(studio):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, FOURTH)
    studio.run(("studio", server), where="seed == 1")
    statuses = [row["status"] for row in studio.rows()]
    assert statuses == ["succeeded", "pending", "succeeded", "succeeded"]


def test_work_of_a_dropped_server_is_not_paid_again(studio):
    first, second = studio.serve("gpu-1"), studio.serve("gpu-2")
    studio.run(("gpu-1", first), ("gpu-2", second))
    assert {row["target"] for row in studio.rows()} <= {"gpu-1", "gpu-2"}
    first.stop()
    run = studio.run(("gpu-2", second))
    assert (run.submitted, run.reused) == (0, 4)
    assert studio.run(("gpu-2", second), per_target=True).submitted == sum(
        row["target"] == "gpu-1" for row in sweeper.results(studio.folder / "results/e", run=1).to_dict("records")
    )


def test_result_of_another_server_counts_only_if_its_files_are_the_same(studio):
    first, second = studio.serve("gpu-1"), studio.serve("gpu-2")
    studio.place(second, FOURTH)
    studio.run(("gpu-1", first))
    run = studio.run(("gpu-2", second))
    assert (run.submitted, run.reused) == (2, 2)
    assert studio.run(("gpu-1", first)).submitted == 0


def test_servers_with_different_files_of_one_name_stop_the_run(studio):
    first, second = studio.serve("gpu-1"), studio.serve("gpu-2")
    studio.place(second, FOURTH)
    with pytest.raises(sweeper.SweeperError) as caught:
        studio.run(("gpu-1", first), ("gpu-2", second))
    text = str(caught.value)
    assert f"loras/{NAME}: " in text
    assert "epoch 3 on gpu-1" in text
    assert "epoch 4 on gpu-2" in text
    assert "--allow-different-models" in text
    assert not (studio.folder / "results").exists()
    assert studio.run(("gpu-1", first), ("gpu-2", second), allow_different_models=True).succeeded == 4
    assert main(["run", "e.yaml", "--target", first.url, "--target", second.url]) == 2


def test_rehearsal_stands_for_no_real_run_and_no_real_run_for_it(studio):
    server = studio.serve("gpu-1")
    assert sweeper.run(studio.folder / "e.yaml", "embedded", progress=False).submitted == 4
    assert studio.run(("gpu-1", server)).submitted == 4
    assert sweeper.run(studio.folder / "e.yaml", "embedded", progress=False, fresh=True).submitted == 4


def test_finished_run_needs_no_server(studio):
    server = studio.serve("gpu-1")
    studio.run(("gpu-1", server))
    url = server.url
    server.stop()
    run = studio.run(("gpu-1", SimpleNamespace(url=url)))
    assert (run.submitted, run.reused, run.stopped_by) == (0, 4, None)
    assert [line for line in studio.notices if "no answer about model files" in line]


def test_plan_counts_stale_trials_and_says_why(studio, capsys):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, FOURTH)
    studio.write("", f"target: {{url: '{server.url}', name: studio}}")
    assert main(["plan", "e.yaml", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["new"], answer["stale"], answer["done"]) == (2, 2, 2)
    assert main(["plan", "e.yaml"]) == 0
    assert "2 stale: mychar.safetensors on studio changed (14 Nov -> 20 Nov)" in capsys.readouterr().out
    assert main(["plan", "e.yaml", "--json", "--set", "seed=7"]) == 0


def test_plan_says_where_finished_work_was_made(studio, capsys):
    first, second = studio.serve("gpu-1"), studio.serve("gpu-2")
    studio.run(("gpu-1", first), where="seed == 1")
    studio.run(("gpu-2", second))
    studio.write("", f"target: {{url: '{second.url}', name: gpu-2}}")
    assert main(["plan", "e.yaml"]) == 0
    assert "2 on gpu-1, 2 on gpu-2" in capsys.readouterr().out
    studio.write("run: {per_target: true}", f"target: {{url: '{second.url}', name: gpu-2}}")
    assert main(["plan", "e.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2


def test_results_list_every_fact_about_the_files(studio, capsys):
    server = studio.serve("studio")
    studio.run(("studio", server))
    assert main(["results", "e.yaml", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)[0]["model_files"]
    assert [(file["folder"], file["name"]) for file in files] == [("checkpoints", "base.safetensors"), ("loras", NAME)]
    assert files[1]["stated"] == {"ss_epoch": "3"}
    assert (files[1]["size"], files[1]["modified"]) == (len(THIRD), OLD)


def test_doctor_shows_a_file_that_differs_between_targets(studio, capsys):
    first, second = studio.serve("gpu-1"), studio.serve("gpu-2")
    studio.place(second, FOURTH)
    studio.write("", f"target: [{{url: '{first.url}', name: gpu-1}}, {{url: '{second.url}', name: gpu-2}}]")
    main(["doctor", "e.yaml"])
    warnings = capsys.readouterr().err
    assert "epoch 3 on gpu-1" in warnings
    assert "epoch 4 on gpu-2" in warnings


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"null", b'[{"name": 3}, 7, {"name": ""}]', b"nonsense"])
def test_listing_of_another_shape_is_no_error(answer):
    from sweeper.comfy.model_files import list_files, list_folders
    from sweeper.comfy.protocol import ServerResponse

    for flow in (list_folders("/experiment/models"), list_files("/experiment/models", "loras")):
        next(flow)
        with pytest.raises(StopIteration) as stop:
            flow.send(ServerResponse(200, {}, answer))
        assert not stop.value.value
