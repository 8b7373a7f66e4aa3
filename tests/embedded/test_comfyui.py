"""The comfyui dialect over HTTP: ids, order, queue, history, interrupt, free, facts."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.embedded.clients import job_id, name_of
from tests.embedded.probes import chain, waiting

RUNNING = job_id("running")


def test_job_runs_and_its_file_can_be_fetched(comfy):
    entry = comfy.run(chain(text="a lighthouse"), prompt_id=job_id("mine"))
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    file = entry["outputs"]["9"]["images"][0]
    assert file == {"filename": "probe_00001_.txt", "subfolder": "", "type": "output"}
    answer = comfy.http.get("/view", params=file)
    assert (answer.status_code, answer.text) == (200, "alpha|alpha:a lighthouse|0|4|7.0|euler")


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_every_path_exists_with_and_without_api(comfy, prefix):
    answer = comfy.http.post(f"{prefix}/prompt", json={"prompt": chain(), "prompt_id": (name := job_id("p"))})
    assert answer.json() == {"prompt_id": name, "number": 0, "node_errors": {}}
    comfy.wait_for_end(name)
    for path in ("queue", "prompt", "history", f"history/{name}", "object_info", "object_info/ProbeSave",
                 "system_stats", "features", "embeddings", "extensions"):  # fmt: skip
        assert comfy.http.get(f"{prefix}/{path}").status_code == 200, path
    for path in ("queue", "history", "free", "interrupt"):
        assert comfy.http.post(f"{prefix}/{path}", json={}).status_code == 200, path
    assert comfy.http.put(f"{prefix}/prompt").status_code == 405


@pytest.mark.parametrize("given", ["sweep-1/cell 7", 7, "", [], job_id("zz").upper(), job_id("ab").replace("-", "")])
def test_id_of_a_job_must_be_a_canonical_uuid(comfy, given):
    answer = comfy.http.post("/prompt", json={"prompt": chain(), "prompt_id": given})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_prompt_id")
    assert comfy.server.seen.accepted == 0


def test_server_makes_an_id_instead_of_null(comfy):
    name = comfy.submit(chain(), prompt_id=None)
    assert str(uuid.UUID(name)) == name


def test_reused_id_replaces_its_history_entry_at_the_same_position(comfy):
    first, second = job_id("a"), job_id("b")
    for name, seed in ((first, 1), (second, 2)):
        comfy.run(chain(seed=seed), prompt_id=name)
    comfy.submit(chain(seed=3), prompt_id=first)
    last = comfy.run(chain(seed=4))["prompt"][1]
    history = comfy.http.get("/history").json()
    assert list(history) == [first, second, last]
    assert history[first]["prompt"][2]["3"]["inputs"]["seed"] == 3


def test_jobs_without_number_are_counted_and_front_is_negative(comfy, gate):
    def number(**fields):
        return comfy.http.post("/prompt", json={"prompt": chain(), **fields}).json().get("number")

    comfy.submit(waiting())
    assert gate.entered.wait(60)
    assert [number(), number(), number(front=True), number(number="-2.5"), number(number=3)] == [1, 2, -3, -2.5, 3]
    assert number(prompt={}) is None
    assert number() == 5


def test_jobs_run_by_number_then_id_and_queue_lists_5_tuples(comfy, gate):
    comfy.submit(waiting(), prompt_id=job_id("first"))
    assert gate.entered.wait(60)
    for index, (name, number) in enumerate([("c", 5), ("b", 5), ("a", 6), ("z", 1), ("y", -1)]):
        comfy.submit(chain(seed=index), prompt_id=job_id(name), number=number, client_id="me", extra_data={"k": 1})
    queue = comfy.http.get("/queue").json()
    assert [name_of(item[1]) for item in queue["queue_running"]] == ["first"]
    assert sorted(name_of(item[1]) for item in queue["queue_pending"]) == ["a", "b", "c", "y", "z"]
    item = next(item for item in queue["queue_pending"] if item[1] == job_id("a"))
    assert item[3].pop("create_time") > 10**12
    assert item == [6, job_id("a"), chain(seed=2), {"k": 1, "client_id": "me"}, ["9"]]
    assert comfy.http.get("/prompt").json() == {"exec_info": {"queue_remaining": 6}}
    gate.opened.set()
    comfy.wait_for_end(job_id("a"))
    assert [name_of(name) for name in comfy.http.get("/history").json()] == ["first", "y", "z", "b", "c", "a"]


def test_job_is_always_in_the_queue_or_in_the_history(comfy):
    def where(name):
        queue = comfy.http.get("/queue").json()
        if any(item[1] == name for items in queue.values() for item in items):
            return "queue"
        return "history" if comfy.http.get(f"/history/{name}").json() else None

    for seed in range(40):
        name = comfy.submit(chain(seed=seed, steps=1, prefix=f"n{seed}"))
        counts = []
        while not counts or counts[-1] != "history":
            counts.append(where(name))
            assert counts[-1] is not None


def test_delete_removes_only_waiting_jobs_without_a_trace(comfy, gate):
    comfy.submit(waiting(), prompt_id=RUNNING)
    assert gate.entered.wait(60)
    for name in ("a", "b", "b", "c"):
        comfy.submit(chain(), prompt_id=job_id(name))
    answer = comfy.http.post("/queue", json={"delete": [RUNNING, job_id("b"), "nobody"]})
    assert (answer.status_code, answer.content) == (200, b"")
    assert sorted(name_of(item[1]) for item in comfy.http.get("/queue").json()["queue_pending"]) == ["a", "c"]
    comfy.http.post("/queue", json={"clear": True})
    assert comfy.http.get("/queue").json()["queue_pending"] == []
    gate.opened.set()
    comfy.wait_for_end(RUNNING)
    assert list(comfy.http.get("/history").json()) == [RUNNING]
    assert sorted(name_of(name) for name in comfy.server.seen.cancelled) == list("abbc")


def test_history_pages_from_either_end(comfy):
    for seed in range(5):
        comfy.run(chain(seed=seed), prompt_id=job_id(str(seed)))

    def page(query):
        return "".join(name_of(name) for name in comfy.http.get(f"/history?{query}").json())

    assert [page(""), page("max_items=2"), page("max_items=2&offset=1"), page("offset=3"), page("max_items=0")] == [
        "01234", "34", "12", "34", "",
    ]  # fmt: skip
    assert comfy.http.get("/history?max_items=abc").status_code == 400
    comfy.http.post("/history", json={"delete": [job_id("1"), "nobody"]})
    assert page("") == "0234"
    comfy.http.post("/history", json={"clear": True})
    assert page("") == ""
    assert comfy.http.get(f"/history/{job_id('0')}").json() == {}


def test_interrupt_stops_the_named_job_only_while_it_runs(comfy, gate):
    comfy.submit(waiting(), prompt_id=RUNNING)
    comfy.submit(chain(), prompt_id=job_id("pending"))
    assert gate.entered.wait(60)
    comfy.http.post("/interrupt", json={"prompt_id": job_id("pending")})
    comfy.http.post("/interrupt", json={"prompt_id": "nobody"})
    assert comfy.http.get(f"/history/{RUNNING}").json() == {}
    comfy.http.post("/interrupt", json={"prompt_id": RUNNING})
    entry = comfy.wait_for_end(RUNNING)
    event, data = entry["status"]["messages"][-1]
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    assert (event, data["node_id"], data["node_type"]) == ("execution_interrupted", "5", "ProbeWait")
    assert data["executed"] == ["1", "2", "3", "4"]
    assert comfy.wait_for_end(job_id("pending"))["status"]["status_str"] == "success"


@pytest.mark.parametrize("body", [b"", b"not json", b"{}"])
def test_interrupt_without_id_stops_the_running_job(comfy, gate, body):
    comfy.submit(waiting(), prompt_id=RUNNING)
    assert gate.entered.wait(60)
    assert comfy.http.post("/interrupt", content=body).status_code == 200
    assert comfy.wait_for_end(RUNNING)["status"]["messages"][-1][0] == "execution_interrupted"


def test_interrupt_while_idle_does_not_affect_the_next_job(comfy):
    comfy.http.post("/interrupt", json={})
    assert comfy.run(chain())["status"]["status_str"] == "success"


def test_failing_node_ends_its_job_and_saved_files_stay(comfy):
    graph = chain(fail=True)
    graph["10"] = {"class_type": "ProbeSave", "inputs": {"images": ["3", 0], "filename_prefix": "early"}}
    entry = comfy.run(graph)
    event, data = entry["status"]["messages"][-1]
    assert entry["status"]["status_str"] == "error"
    assert event == "execution_error"
    assert data["node_id"] == "4"
    assert data["node_type"] == "ProbeFail"
    assert data["exception_type"] == "ValueError"
    assert data["exception_message"] == "the switch is on\n"
    assert data["current_inputs"]["fail"] == [True]
    assert any("the switch is on" in line or "raise" in line for line in data["traceback"])
    assert entry["outputs"] == {"10": {"images": [{"filename": "early_00001_.txt", "subfolder": "", "type": "output"}]}}


def test_fully_cached_job_reports_the_old_file(comfy):
    first = comfy.run(chain())
    second = comfy.run(chain())
    assert second["outputs"] == first["outputs"]
    assert second["status"]["messages"][1][1]["nodes"] == ["1", "2", "3", "4", "9"]
    assert comfy.server.seen.nodes["ProbeSave"] == 1


def test_invalid_output_is_reported_and_the_other_one_runs(comfy):
    graph = chain()
    graph["50"] = {"class_type": "ProbeSave", "inputs": {"filename_prefix": "x"}}
    answer = comfy.http.post("/prompt", json={"prompt": graph})
    assert answer.status_code == 200
    errors = answer.json()["node_errors"]["50"]
    assert errors["dependent_outputs"] == ["50"]
    assert errors["errors"][0]["type"] == "required_input_missing"
    entry = comfy.wait_for_end(answer.json()["prompt_id"])
    assert entry["prompt"][4] == ["9"]
    assert set(entry["outputs"]) == {"9"}


def test_partial_execution_targets_run_only_those_outputs(comfy):
    graph = chain()
    graph["10"] = {"class_type": "ProbeSave", "inputs": {"images": ["3", 0], "filename_prefix": "other"}}
    entry = comfy.run(graph, partial_execution_targets=["10"])
    assert entry["prompt"][4] == ["10"]
    assert set(entry["outputs"]) == {"10"}
    assert comfy.server.seen.nodes["ProbeFail"] == 0


def test_free_memory_clears_node_results_unload_models_does_not(comfy):
    comfy.run(chain())
    comfy.http.post("/free", json={"unload_models": True})
    assert comfy.count_executed(chain()) == {}
    comfy.http.post("/free", json={"free_memory": True})
    assert comfy.count_executed(chain()) == {"1": 1, "2": 1, "3": 1, "4": 1, "9": 1}


def test_64_bit_seeds_are_kept_exactly(comfy):
    entry = comfy.run(chain(seed=2**64 - 1))
    assert entry["prompt"][2]["3"]["inputs"]["seed"] == 18446744073709551615
    info = comfy.http.get("/object_info/ProbeSampler").json()
    assert info["ProbeSampler"]["input"]["required"]["seed"][1]["max"] == 18446744073709551615


def test_object_info_has_comfyuis_shape_and_live_lists(comfy):
    (comfy.server.folders.input_dir / "b.txt").write_text("b")
    info = comfy.http.get("/object_info").json()
    sampler = info["ProbeSampler"]
    assert list(sampler) == [
        "input", "input_order", "is_input_list", "output", "output_is_list", "output_name", "name", "display_name",
        "description", "python_module", "category", "output_node", "has_intermediate_output", "search_aliases",
    ]  # fmt: skip
    assert sampler["input"]["required"]["model"] == ["PROBE_MODEL"]
    assert sampler["input"]["required"]["sampler_name"] == [["euler", "heun", "dpmpp_2m"]]
    assert sampler["input_order"] == {"required": ["model", "cond", "seed", "steps", "cfg", "sampler_name"]}
    assert info["ProbeSave"]["input"]["hidden"] == {"prompt": "PROMPT"}
    assert info["ProbeSave"]["output_node"] is True
    assert info["ProbeFile"]["input"]["required"]["file"] == [["b.txt"], {"image_upload": True}]
    assert info["ProbeCombo"]["input"]["required"]["mode"] == ["COMBO", {"options": ["normal", "screen"]}]
    assert info["ProbeCombo"]["api_node"] is False
    assert comfy.http.get("/object_info/Nobody").json() == {}


@pytest.mark.parametrize(
    ("cache", "flags"), [("classic", ["--cache-classic"]), ("lru 5", ["--cache-lru", "5"]), ("none", ["--cache-none"])]
)
def test_system_stats_show_the_cache_policy_in_argv(serve, cache, flags):
    stats = serve("comfyui", cache=cache).http.get("/system_stats").json()
    assert stats["system"]["argv"][1:] == flags
    assert stats["system"]["comfyui_version"] == "0.33.0"
    assert stats["devices"][0]["type"] == "cpu"


def test_bodies_of_any_content_type_are_read(comfy):
    body = json.dumps({"prompt": chain(), "prompt_id": job_id("plain")}).encode()
    answer = comfy.http.post("/prompt", content=iter([body[:50], body[50:]]), headers={"content-type": "text/plain"})
    assert answer.status_code == 200


def test_node_id_may_be_empty(comfy):
    graph = chain()
    graph[""] = graph.pop("9")
    assert set(comfy.run(graph)["outputs"]) == {""}


def test_only_one_job_runs_at_a_time_with_any_workers(serve):
    client = serve("comfyui", workers=4)
    names = [client.submit(chain(seed=seed)) for seed in range(20)]
    for name in names:
        client.wait_for_end(name)
    assert client.server.seen.most_running == 1
