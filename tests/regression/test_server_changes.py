"""Which server made a picture: in the manifest, and in the reports of a check if the server changed."""

from __future__ import annotations

import json

import sweeper
from sweeper.answers.render import render_markdown
from sweeper.regression.baseline import describe_drift, list_changes, read_baseline, server_key
from sweeper.regression.comparison import to_junit_xml

BEFORE = {
    "comfyui": "0.3.64", "python": "3.12.3", "pytorch": "2.8.0", "devices": ["cuda:0 L4"], "argv": ["--lowvram"],
    "nodes": {"a": "1", "b": "2"},
}  # fmt: skip
NOW = BEFORE | {"comfyui": "0.3.70", "devices": ["cuda:0 H100"], "argv": [], "nodes": {"a": "1", "b": "3", "c": "1"}}


def test_each_changed_fact_is_listed():
    assert list_changes(BEFORE, NOW) == [
        "ComfyUI 0.3.64 -> 0.3.70",
        "device cuda:0 L4 -> cuda:0 H100",
        "option --lowvram given -> none",
        "nodes b 2 -> 3",
        "nodes c none -> 1",
    ]
    assert describe_drift(BEFORE, NOW).startswith(
        "accepted on ComfyUI 0.3.64, Python 3.12.3, PyTorch 2.8.0 on cuda:0 L4, now on ComfyUI 0.3.70,"
    )
    assert describe_drift(BEFORE, dict(BEFORE)).endswith("now on the same")
    assert describe_drift({}, {}) == ""
    assert describe_drift({}, NOW).startswith("accepted on an unknown server, now on ComfyUI 0.3.70")
    assert server_key(BEFORE) == server_key(dict(reversed(BEFORE.items()))) != server_key(NOW)


def test_only_the_option_that_differs_is_named():
    before = {"argv": ["main.py", "--listen", "--port", "8188", "--cache-lru", "10", "--fast", "fp16", "cublas"]}
    for argv, changes in (
        (["main.py", "--port", "8188", "--cache-lru", "10", "--fast", "fp16", "cublas", "--listen"], []),
        (["main.py", "--listen", "--port=8188", "--cache-lru", "20", "--fast", "fp16", "cublas"],
         ["option --cache-lru 10 -> 20"]),
        (["main.py", "--listen", "--port", "8188", "--fast", "fp16", "--deterministic"],
         ["option --cache-lru 10 -> none", "option --fast fp16 cublas -> fp16",
          "option --deterministic none -> given"]),
        (["app/main.py", *before["argv"][1:]], ["option program main.py -> app/main.py"]),
    ):  # fmt: skip
        assert list_changes(before, {"argv": argv}) == changes


def test_manifest_records_the_server_and_a_check_reports_its_changes(shop, command, monkeypatch):
    assert command("run", "shop.yaml", "-q").code == 0
    assert command("accept", "results/shop").code == 0
    path = shop.folder / "baselines" / "shop" / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    (name,) = manifest["servers"]
    assert manifest["servers"][name]["server"] == f"sweeper {sweeper.__version__}"
    for case in manifest["cases"]:
        (accepted,) = case["accepted"]
        assert (accepted["server"], accepted["models"]) == (name, ["x.safetensors"])
    assert "now on the same" in command("check", "shop.yaml").out
    monkeypatch.setattr("sweeper.embedded.app_comfyui.COMFYUI_VERSION", "9.9.9")
    shop.rewire(cfg=2.0)
    comparisons = sweeper.check("shop.yaml")
    (sentence,) = comparisons.servers
    assert sentence.endswith("(ComfyUI 0.33.0 -> 9.9.9)")
    assert comparisons.servers[sentence] == 2
    assert "ComfyUI 0.33.0 -&gt; 9.9.9" in to_junit_xml({"shop": comparisons}).decode()
    assert "9.9.9" in render_markdown(comparisons.summary_parts())
    assert "9.9.9" in command("check", "results/shop-check", "--html", "page").out
    assert "9.9.9" in (shop.folder / "page" / "data.json").read_text("utf-8")
    # An accepted picture keeps the server that made it, and the new one has its own.
    assert command("accept", "results/shop-check", "--add").code == 0
    baseline = read_baseline(path.parent, "shop")
    versions = [[baseline.get_server(one)["comfyui"] for one in entry.accepted] for entry in baseline.entries.values()]
    assert versions == [["0.33.0", "9.9.9"]] * 2
