"""`sweeper run --rehearse`: the embedded server in place of the targets, in a folder of its own."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from sweeper import embedded
from sweeper.embedded import EmbeddedServer
from sweeper.store import Store

CLOUD = "template: t.json\ntarget: cloud\nsweep: {grid: {seed: [1, 2, 3]}}\nparams: {steps: 1}\n"
REHEARSAL = Path("results/shop/rehearsal")


@pytest.fixture(scope="module")
def strict_classes(tmp_path_factory):
    """The node classes of a server that allows at most 3 steps, in a file."""
    info = json.loads(json.dumps(embedded.node_classes()))
    info["KSampler"]["input"]["required"]["steps"][1]["max"] = 3
    file = tmp_path_factory.mktemp("info") / "info.json"
    file.write_text(json.dumps(info))
    return file


def test_a_rehearsal_needs_no_key_and_mixes_with_nothing(sweeper, write):
    experiment = write(CLOUD)
    rehearsed = sweeper("run", experiment, "--rehearse", "--where", "seed < 3", "--limit", "1", "--set", "cfg=2")
    assert rehearsed.code == 0
    assert "not checked against cloud, whose node classes are unknown here" in rehearsed.err
    real = f"sweeper run {experiment} --where 'seed < 3' --limit 1 --set cfg=2"
    assert f"This was a rehearsal on sweeper's own server. The real run is: {real}\n" in rehearsed.out
    assert [path.name for path in Path("results/shop").iterdir()] == ["rehearsal"]
    rows = sweeper("results", REHEARSAL, "--json").json
    assert [(row["status"], row["target"], row["cfg"]) for row in rows] == [
        ("succeeded", "embedded", 2), ("pending", None, 2), ("pending", None, 2),
    ]  # fmt: skip
    for command in (("report",), ("runs",), ("export", "-o", "-", "--format", "csv")):
        assert sweeper(command[0], REHEARSAL, *command[1:]).code == 0
    assert f"has only been rehearsed; the results are in {REHEARSAL}" in sweeper("results", experiment).err
    # The command for the real run is complete: it stops only at the key that is missing here.
    refused = sweeper(*shlex.split(real)[1:])
    assert (refused.code, "COMFY_CLOUD_API_KEY" in refused.err) == (2, True)
    assert sweeper("run", experiment, "--target", "embedded", "--json").json["submitted"] == 3


def test_a_slow_rehearsal_says_why_and_how_to_look_faster(sweeper, write):
    experiment = write(CLOUD.replace("[1, 2, 3]", "[1, 2, 3, 4, 5, 6]"))
    with Path("t.slots.yaml").open("a") as file:
        file.write('  width: {at: "5.width", schema: {type: integer}}\n')
    note = "6 pictures of 16384 x 64 on this computer take a while; add --set width=512 to look faster\n"
    assert "take a while" not in sweeper("run", experiment, "--rehearse").err
    assert "take a while" not in sweeper("run", experiment, "--rehearse", "--set", "width=16384", "--limit", "1").err
    assert note in sweeper("run", experiment, "--rehearse", "--set", "width=16384").err


def test_a_rehearsal_sends_nothing_to_the_target(sweeper, write, stranger):
    experiment = write(CLOUD.replace("target: cloud", f"target: {stranger.url}\nrun: {{out: 's3://bucket/a'}}"))
    outcome = sweeper("run", experiment, "--rehearse", "--json", "--trust")
    assert (outcome.code, outcome.json["succeeded"], stranger.seen) == (0, 3, [])
    assert len(list((REHEARSAL / "artifacts").iterdir())) == 3  # and not at the URL
    assert outcome.json["real_run"] == f"sweeper run {experiment}"


def test_a_rehearsal_follows_no_link_in_place_of_its_folder(sweeper, write, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    REHEARSAL.parent.mkdir(parents=True)
    REHEARSAL.symlink_to(tmp_path / "elsewhere")
    outcome = sweeper("run", write(CLOUD), "--rehearse")
    assert outcome.code == 2
    assert "rehearsal: is a link" in outcome.err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_rehearsal_checks_against_the_target(sweeper, write, strict_classes):
    experiment = write(CLOUD)
    outcome = sweeper("run", experiment, "--rehearse", "--object-info", strict_classes, "--set", "steps=4")
    assert (outcome.code, Path("results").exists()) == (2, False)
    assert "(on the server of info.json)" in outcome.err
    assert "steps" in outcome.err
    with EmbeddedServer(dialect="comfyui") as server:
        url = server.url
        assert sweeper("plan", experiment, "--target", url).code == 0  # which caches the node classes
    outcome = sweeper("run", experiment, "--rehearse", "--target", url, "--limit", "0")
    assert (outcome.code, "not checked" in outcome.err) == (0, False)


def test_stand_ins_rehearse_the_classes_of_the_target(sweeper, write):
    experiment = write(CLOUD)
    graph = json.loads(Path("t.json").read_text())
    graph["8"] = {"class_type": "My Decoder", "inputs": {**graph["8"]["inputs"], "tiles": 8}}
    Path("t.json").write_text(json.dumps(graph))
    declared = embedded.node_classes()
    tiles = ["INT", {"default": 1, "min": 1, "max": 8}]
    decoder = {**declared["VAEDecode"], "name": "My Decoder"}
    decoder["input"] = {"required": {**decoder["input"]["required"], "tiles": tiles}}
    Path("info.json").write_text(json.dumps({**declared, "My Decoder": decoder}))
    outcome = sweeper("run", experiment, "--rehearse", "--object-info", "info.json")
    assert outcome.code == 0, outcome.err
    assert "stand-ins run My Decoder: each of their inputs changes the picture" in outcome.err
    pictures = [path.read_bytes() for path in (REHEARSAL / "artifacts").glob("*.png")]
    names = [json.loads(Image.open(io.BytesIO(picture)).info["sweeper_stand_ins"]) for picture in pictures]
    assert names == [["My Decoder"]] * 3
    graph["8"]["inputs"]["tiles"] = 9
    Path("t.json").write_text(json.dumps(graph))
    refused = sweeper("run", experiment, "--rehearse", "--object-info", "info.json")
    assert (refused.code, "tiles" in refused.err) == (2, True)


def test_nodes_take_a_share_of_the_time_that_the_target_took(sweeper, write):
    experiment = write(CLOUD)
    Path("results/shop").mkdir(parents=True)
    with Store.open(Path("results/shop")) as store:
        store.servers.add_node_times("cloud", {"KSampler": (2, 60.0), "VAEDecode": (1, 10.0), "": (1, 500.0)})
    options = ("--rehearse", "--no-check")
    assert sweeper("run", experiment, *options, "--limit", "0", "--quiet").err == ""
    outcome = sweeper("run", experiment, *options, "--limit", "3")  # of a job, a busy machine may miss events
    assert "Each node takes 1/40 of the time that nodes of its class took on cloud.\n" in outcome.err
    with Store.open(REHEARSAL, readonly=True) as store:
        seconds = store.servers.mean_node_seconds(["embedded"])
    assert seconds["KSampler"] >= 0.7
    assert 0.2 <= seconds["VAEDecode"] < seconds["KSampler"]


def test_a_class_that_nothing_describes_runs_with_a_warning(sweeper, write):
    experiment = write(CLOUD)
    graph = json.loads(Path("t.json").read_text())
    graph["3"]["class_type"] = "KSamplr"
    Path("t.json").write_text(json.dumps(graph))
    for options in ((experiment, "--rehearse"), (experiment, "--target", "embedded")):
        outcome = sweeper("run", *options)
        assert outcome.code == 0, outcome.err
        assert outcome.err.count("stand-ins run KSamplr (did you mean 'KSampler'?): each of their") == 1
    pictures = {path.read_bytes() for path in Path("results/shop/artifacts").glob("*.png")}
    assert len(pictures) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rehearse", "--dask", "local:1"], "--rehearse runs on this machine; drop --dask"),
        (["--rehearse", "--out", "s3://bucket/a"], "a rehearsal keeps its pictures on this machine"),
        (["--object-info", "info.json"], "--object-info belongs to --rehearse"),
    ],
)
def test_options_that_contradict_a_rehearsal_exit_2(sweeper, write, options, message):
    outcome = sweeper("run", write(CLOUD), *options)
    assert (outcome.code, message in outcome.err) == (2, True)


def test_a_rehearsal_for_no_other_server_says_so(sweeper, write):
    experiment = write(CLOUD.replace("cloud", "embedded"))
    own = "the target is sweeper's own server already; to rehearse for another, add --target"
    assert own in sweeper("run", experiment, "--rehearse", "--limit", "1").err
    assert own not in sweeper("run", experiment, "--rehearse", "--limit", "1", "--target", "cloud").err
