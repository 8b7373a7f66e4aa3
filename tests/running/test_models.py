"""A trial is known by the content of its model files: a file that changes under its name, servers that differ."""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

import sweeper
from sweeper.cli import main
from sweeper.embedded import Faults, Scenario
from sweeper.store.damage import register_checksum
from tests.running.studio import (
    BASE,
    FOURTH,
    NAME,
    NEW,
    OLD,
    OTHER_BASE,
    THIRD,
    Studio,
    draw_by_hand,
    make_file,
    read_pixels,
)


@pytest.fixture
def studio(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield Studio(tmp_path, stack)


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


@pytest.mark.parametrize("dialect", ["comfyui", "cloud"])
def test_pictures_after_a_swap_are_those_of_the_new_file(studio, dialect):
    server = studio.serve("studio", dialect=dialect)
    studio.run(("studio", server), where=f"lora == '{NAME}'")
    studio.place(server, FOURTH)  # the server has the old one in its cache
    studio.run(("studio", server), where=f"lora == '{NAME}'")
    assert any("2 stale: mychar.safetensors on studio changed" in line for line in studio.notices)
    fresh = studio.serve("fresh")
    studio.place(fresh, FOURTH)
    for row in studio.rows()[:2]:
        drawn = draw_by_hand(fresh, row["seed"])
        assert read_pixels(Path(row["picture"])) == read_pixels(drawn)


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


def test_file_that_was_not_there_before_has_replaced_nothing(studio):
    server, file = studio.serve("studio"), studio.folder / "e.yaml"
    studio.run(("studio", server), where=f"lora == '{NAME}'")
    studio.place(server, FOURTH, "loras/new.safetensors", time=time.time())
    file.write_text(file.read_text().replace(NAME, "new.safetensors"))
    studio.run(("studio", server), where="lora == 'new.safetensors'")
    assert not [line for line in studio.notices if "reads all models again" in line]
    for name in ("new", "style"):  # one was used here, the other one only listed
        studio.place(server, FOURTH, f"loras/{name}.safetensors", time=time.time())
        studio.run(("studio", server), where=f"lora == '{name}.safetensors'", out=studio.folder / name)
        assert sum(f"{name}.safetensors was replaced" in line for line in studio.notices) == 1


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


def test_check_names_the_model_as_the_cause(studio, capsys):
    server = studio.serve("studio")
    studio.write("", f"target: {{url: '{server.url}', name: studio}}")
    assert main(["run", "e.yaml", "--yes"]) == 0
    assert main(["accept", "e.yaml", "--yes"]) == 0
    assert main(["check", "e.yaml", "--yes"]) == 0
    studio.place(server, FOURTH)  # the check made the server read the old one
    capsys.readouterr()
    assert main(["check", "e.yaml", "--yes"]) == 1
    assert "mychar.safetensors changed (14 Nov -> 20 Nov)" in capsys.readouterr().out
    assert main(["check", "e.yaml", "--yes", "--attribute"]) == 1
    out = capsys.readouterr().out
    assert "the server drifted: mychar.safetensors changed (14 Nov -> 20 Nov)" in out


def test_verdict_compares_the_pictures_of_the_new_file_with_the_old_ones(studio, capsys):
    server = studio.serve("studio")
    studio.write("metrics: [sharpness]")
    studio.run(("studio", server))
    studio.place(server, FOURTH)
    studio.run(("studio", server))
    assert main(["compare", "e.yaml@1", "e.yaml@2", "--verdict", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["metrics"][0]["pairs"] == 4


def test_resumed_search_makes_the_trials_of_a_changed_file_again(studio):
    pytest.importorskip("optuna")
    server = studio.serve("studio")
    space = "space: {seed: {from: 1, to: 100, step: 1}}, maximize: brightness, trials: 4, batch: 2"
    text = f"name: e\ntemplate: w.json\nmetrics: [brightness]\nparams: {{lora: {NAME}}}\nsearch: {{{space}}}\n"
    (studio.folder / "e.yaml").write_text(text)
    target = {"url": server.url, "name": "studio"}
    first = sweeper.search("e.yaml", target, progress=False)
    assert first.run.submitted == 4
    before = studio.tags()
    studio.place(server, FOURTH)
    again = sweeper.search("e.yaml", target, progress=False)
    assert again.run.submitted == 4
    assert {*before}.isdisjoint(studio.tags())
    assert sweeper.search("e.yaml", target, progress=False).run.submitted == 0


def test_new_file_beside_a_swapped_one_hides_nothing(studio, capsys):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, FOURTH)
    studio.place(server, make_file({"ss_epoch": "9"}), "loras/new.safetensors")
    assert studio.run(("studio", server)).submitted == 2


def test_half_written_file_hides_no_other(studio, monkeypatch):
    server = studio.serve("studio")
    studio.run(("studio", server))
    studio.place(server, FOURTH)
    studio.place(server, make_file({"ss_epoch": "1"}), "loras/style.safetensors", time=OLD)
    real = sweeper.embedded.folders.read_metadata

    def fail(path):
        if path.name == "style.safetensors":
            raise OSError("half written")
        return real(path)

    for module in list(sys.modules.values()):
        if getattr(module, "read_metadata", None) is real:
            monkeypatch.setattr(module, "read_metadata", fail)
    assert studio.run(("studio", server)).submitted == 2
    assert [line for line in studio.notices if "no answer about the content of loras/style.safetensors" in line]


def test_failure_with_another_file_does_not_stand_for_the_trial(studio):
    server = studio.serve("studio")
    server.faults.fail_nodes = {"KSampler"}
    assert studio.run(("studio", server), retries=0).failed == 4
    server.faults.fail_nodes = set()
    assert studio.run(("studio", server)).submitted == 0
    studio.place(server, FOURTH + bytes(8))
    run = studio.run(("studio", server))
    assert (run.submitted, run.succeeded, run.failed) == (2, 2, 2)


def test_failure_before_the_stale_success_does_not_stand_for_the_trial(studio):
    server = studio.serve("studio")
    server.faults.fail_nodes = {"KSampler"}
    studio.run(("studio", server), retries=0)
    server.faults.fail_nodes = set()
    assert studio.run(("studio", server), retry_failed=True).succeeded == 4
    studio.place(server, FOURTH)
    assert studio.run(("studio", server)).submitted == 2


def test_file_replaced_during_the_run_makes_its_pictures_uncertain(studio):
    slow = Faults(scenario=Scenario(node_seconds={"KSampler": (0.5, 0.5)}))
    server = studio.serve("studio", faults=slow)
    swapped = []

    def swap(event):
        if type(event).__name__ == "TrialDone" and not swapped:
            swapped.append(studio.place(server, FOURTH))
            httpx.post(f"{server.url}/free", json={"unload_models": True, "free_memory": True})

    notices = []
    target = {"url": server.url, "name": "studio", "concurrency": 1}
    sweeper.run(
        studio.folder / "e.yaml",
        target,
        progress=lambda event: (swap(event), notices.append(getattr(event, "message", ""))),
    )
    assert [line for line in notices if "mychar.safetensors replaced during the run" in line]
    studio.place(server, THIRD)  # as if nothing had been
    run = sweeper.run(studio.folder / "e.yaml", target, progress=False)
    assert 1 <= run.submitted <= 2
    for row in studio.rows()[:2]:
        assert read_pixels(Path(row["picture"])) == read_pixels(draw_by_hand(server, row["seed"]))


def test_swap_back_between_two_experiments_reads_the_file_again(studio):
    server = studio.serve("studio")
    studio.run(("studio", server), where="seed == 1")
    studio.place(server, FOURTH)
    studio.run(("studio", server), out=studio.folder / "other", where="seed == 1")
    studio.place(server, THIRD, time=OLD)
    studio.run(("studio", server), where=f"seed == 2 and lora == '{NAME}'")
    assert read_pixels(Path(studio.rows()[1]["picture"])) == read_pixels(draw_by_hand(server, 2))


def test_header_with_numbers_that_json_lacks_is_no_error(studio):
    server = studio.serve("studio")
    text = b'{"__metadata__":{"ss_epoch":NaN},"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    studio.place(server, struct.pack("<Q", len(text)) + text + b"\0" * 8)
    assert studio.run(("studio", server)).succeeded == 4


def test_cleared_history_does_not_hide_that_the_server_read_the_old_file(studio):
    server = studio.serve("studio")
    studio.run(("studio", server), where=f"lora == '{NAME}'")
    studio.place(server, FOURTH)
    httpx.post(f"{server.url}/history", json={"clear": True}).raise_for_status()
    studio.run(("studio", server), out=studio.folder / "other", where=f"lora == '{NAME}'")
    for row in list(sweeper.results(studio.folder / "other").to_dict("records"))[:2]:
        assert read_pixels(Path(row["picture"])) == read_pixels(draw_by_hand(server, row["seed"]))


def test_link_to_an_older_file_is_read_again_by_a_first_check(studio):
    server = studio.serve("studio")
    models = server.folders.base / "models" / "loras"
    (models / NAME).unlink()
    for name, content in (("v3.bin", THIRD), ("v4.bin", FOURTH)):
        (models / name).write_bytes(content)
    (models / NAME).symlink_to("v3.bin")
    studio.write("", f"target: {{url: '{server.url}', name: studio}}")
    assert main(["run", "e.yaml", "--yes"]) == 0
    assert main(["accept", "e.yaml", "--yes"]) == 0
    (models / NAME).unlink()
    (models / NAME).symlink_to("v4.bin")
    assert main(["check", "e.yaml", "--yes"]) == 1


def test_open_job_of_a_killed_run_does_not_count_after_a_swap(studio):
    server = studio.serve("studio")
    studio.run(("studio", server), where=f"lora == '{NAME}' and seed == 1")
    store = studio.folder / "results" / "e" / "sweeper.sqlite"
    with closing(sqlite3.connect(store)) as database:  # as if the run had been killed before it knew of the end
        register_checksum(database)
        database.execute("UPDATE jobs SET state = 'submitted', ended = NULL")
        database.execute("DELETE FROM artifacts")
        database.commit()
    studio.place(server, FOURTH)
    run = studio.run(("studio", server), where=f"lora == '{NAME}' and seed == 1")
    assert (run.submitted, run.succeeded) == (1, 1)
    row = studio.rows()[0]
    assert read_pixels(Path(row["picture"])) == read_pixels(draw_by_hand(server, row["seed"]))
    assert studio.run(("studio", server), where=f"lora == '{NAME}' and seed == 1").submitted == 0
