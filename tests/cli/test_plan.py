"""`sweeper plan` and `sweeper validate`: counts, streams and mistakes."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import pytest

from sweeper.store import Store
from sweeper.store.records import JobEnd, JobRecord, TableLayout
from tests.cli.conftest import TXT2IMG

SWEEP = """\
name: shop
template: t.json
derive: {prompt: "{{ subject }}, sharp"}
sweep:
  grid:
    subject: [a fox, "a, lighthouse"]
    steps: [4, 8]
    seed: [18446744073709551615]
"""


def test_plan_json_has_count_axes_order_new_and_done(sweeper, write):
    plan = sweeper("plan", write(SWEEP), "--json").json

    assert (plan["name"], plan["count"], plan["new"], plan["done"]) == ("shop", 4, 4, 0)
    assert plan["axes"] == {"subject": 2, "steps": 2, "seed": 1}
    assert plan["order"]["mode"] == "auto"
    assert sorted(plan["order"]["axes"][0]) == ["seed", "steps", "subject"]
    assert (plan["failed"], plan["open"], plan["duplicates"], plan["estimate_s"]) == (0, 0, 0, None)
    assert plan["targets"] == ["embedded"]
    assert not Path("results").exists()


def test_plan_text_shows_the_same_as_json(sweeper, write):
    outcome = sweeper("plan", write(SWEEP))

    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["shop:", "4", "trials", "of", "t.json", "on", "embedded"]
    for line in (
        ["steps", "2", "4", "|", "8"],
        ["product", "4", "=", "2", "x", "2", "x", "1"],
        ["new", "4"],
        ["done", "0"],
    ):
        assert line in lines
    assert "estimate  unknown: no job has run yet" in outcome.out.splitlines()


def test_plan_names_long_texts_by_the_words_that_differ(sweeper, write):
    media = ["oil on canvas", "ink", "chalk", "clay", "pencil", "charcoal", "tempera", "gouache"]
    texts = [f"{'a fox in the snow, ' * 30}in {medium}, {'very sharp, ' * 30}" for medium in media]
    write(f"name: shop\ntemplate: t.json\nsweep: {{grid: {{prompt: {json.dumps(texts)}, steps: [4, 8]}}}}\n")

    labels = [f"           …snow, in {medium}, very sharp…" for medium in media[1:6]]
    axes = ["prompt  8  …snow, in oil on canvas, very sharp…", *labels, "           and 2 more", "steps   2  4 | 8"]
    assert sweeper("plan", "shop.yaml").out.splitlines()[2:10] == axes
    two = ["--set", f"prompt={json.dumps(texts[1:3])}"]
    assert "prompt  2  …snow, in ink, very sharp… | …snow, in chalk" in sweeper("plan", "shop.yaml", *two).out


def test_plan_ends_with_the_command_of_the_next_step(sweeper, write):
    last = sweeper("plan", write(SWEEP), "--where", "steps > 4", "--set", "seed=7").out.splitlines()[-1]
    assert last == "next: sweeper run shop.yaml --where 'steps > 4' --set seed=7"

    sweeper(*shlex.split(last)[2:], "--quiet")
    assert sweeper("plan", "shop.yaml", *shlex.split(last)[4:]).out.endswith("\nnext: sweeper report shop.yaml\n")
    assert sweeper("plan", "shop.yaml", "--json").json["next"] == "sweeper run shop.yaml"


def test_jsonl_streams_every_trial_in_written_order(sweeper, write):
    outcome = sweeper("plan", write(SWEEP), "--jsonl", "-")

    trials = [json.loads(line) for line in outcome.out.splitlines()]
    assert [trial["index"] for trial in trials] == [0, 1, 2, 3]
    assert [list(trial) for trial in trials] == [["index", "axes", "params", "digest"]] * 4
    assert trials[2]["axes"] == {"subject": "a, lighthouse", "steps": 4, "seed": 2**64 - 1}
    assert trials[2]["params"] == {"prompt": "a, lighthouse, sharp", "seed": 2**64 - 1, "steps": 4, "cfg": 8.0}
    assert len({trial["digest"] for trial in trials}) == 4
    assert "4 trials" in outcome.err


def test_csv_streams_the_same_trials_as_jsonl(sweeper, write):
    write(SWEEP)
    sweeper("plan", "shop.yaml", "--csv", "plan.csv", "--jsonl", "plan.jsonl")

    text = Path("plan.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    trials = [json.loads(line) for line in Path("plan.jsonl").read_text().splitlines()]
    assert list(rows[0]) == ["index", "subject", "steps", "seed", "prompt", "cfg", "digest"]
    assert [row["digest"] for row in rows] == [trial["digest"] for trial in trials]
    assert rows[3]["prompt"] == "a, lighthouse, sharp"
    assert rows[3]["seed"] == str(2**64 - 1)


def test_only_one_of_json_and_streams_may_use_stdout(sweeper, write):
    outcome = sweeper("plan", write(SWEEP), "--json", "--csv", "new/plan.csv")

    assert outcome.json["count"] == 4
    assert len(Path("new/plan.csv").read_text().splitlines()) == 5

    refused = sweeper("plan", "shop.yaml", "--json", "--csv", "-")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: --json, --jsonl - and --csv - all write to stdout; give one\n"


def test_plans_larger_than_one_chunk_are_streamed_whole(sweeper, write):
    write("name: shop\ntemplate: t.json\nsweep: {grid: {seed: {from: 0, to: 9999, step: 1}}}\n")

    outcome = sweeper("plan", "shop.yaml", "--csv", "-")

    assert [line.split(",")[0] for line in outcome.out.splitlines()] == ["index", *map(str, range(10_000))]


def record_jobs(sweeper, seconds):
    """Record three jobs of `shop.yaml`: one succeeded, one failed, one was submitted and its outcome is unknown."""
    digests = [json.loads(line)["digest"] for line in sweeper("plan", "shop.yaml", "--jsonl", "-").out.splitlines()]
    with Store.open(Path("results/shop")) as store:
        with store.transaction():
            run = store.create_run(TableLayout("shop", (), ()), file="shop.yaml", targets=["embedded"], now=0.0)
        for digest, state in zip(digests, ["succeeded", "failed", "submitted"], strict=False):
            store.record_intent(JobRecord(digest, run, "embedded", digest, "s" * 64, 1, digest, "intent", 0.0))
            if state == "submitted":
                store.record_submitted(digest, digest, 1.0)
            else:
                store.record_finished(digest, JobEnd(state, started=10.0, ended=10.0 + seconds))


def test_plan_counts_done_failed_and_open_trials(sweeper, write):
    write(SWEEP)
    record_jobs(sweeper, 2.5)

    plan = sweeper("plan", "shop.yaml", "--json").json
    elsewhere = sweeper("plan", "shop.yaml", "--json", "--target", "http://127.0.0.1:9").json

    assert [plan[name] for name in ("count", "new", "done", "failed", "open")] == [4, 2, 1, 1, 1]
    assert plan["estimate_s"] == 5.0  # two jobs of 2.5 s
    assert [elsewhere[name] for name in ("count", "new", "done", "failed", "open")] == [4, 4, 0, 0, 0]
    assert sweeper("plan", "shop.yaml", "--json", "--out", "other").json["done"] == 0


@pytest.mark.parametrize(
    ("seconds", "duration"), [(2.5, "5.0 s"), (60.0, "2 min 0 s"), (3661.0, "2 h 2 min")]
)  # two jobs are left
def test_plan_text_shows_counts_and_estimated_time(sweeper, write, seconds, duration):
    write(SWEEP)
    record_jobs(sweeper, seconds)

    lines = sweeper("plan", "shop.yaml").out.splitlines()

    assert f"done      1  (in {Path('results/shop')})" in lines
    assert f"estimate  {duration} for one job at a time" in lines


def test_equal_trials_count_as_duplicates(sweeper, write):
    write("name: shop\ntemplate: t.json\nsweep: [{grid: {steps: [4, 8]}}, {grid: {steps: [8]}}]\n")

    plan = sweeper("plan", "shop.yaml", "--json").json

    assert (plan["count"], plan["new"], plan["duplicates"]) == (3, 3, 1)


def test_planning_for_the_cloud_needs_no_key(sweeper, write):
    outcome = sweeper("plan", write(SWEEP), "--target", "cloud", "--json")

    assert (outcome.code, outcome.json["targets"]) == (0, ["cloud"])


def test_plan_warns_of_a_slot_that_reaches_no_output(sweeper, write):
    from sweeper.embedded.nodes import NODE_CLASSES

    write("name: shop\ntemplate: t.json\nsweep: {grid: {idle: [1, 2]}}\n")
    graph = json.loads(Path("t.json").read_text())
    graph["20"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}
    Path("t.json").write_text(json.dumps(graph))
    with Path("t.slots.yaml").open("a") as file:
        file.write('  idle: {at: "20.batch_size"}\n')

    outcome = sweeper("plan", "shop.yaml", "--json")

    assert "EmptyLatentImage" in NODE_CLASSES
    assert any("idle" in warning and "no output" in warning for warning in outcome.json["warnings"])
    assert "warning: t.json:1: slot 'idle' has no effect: no output depends on node 20\n" in outcome.err


def test_plan_warns_of_more_trials_than_run_accepts(sweeper, write):
    write("name: shop\ntemplate: t.json\nsweep: {grid: {steps: [1, 2]}}\nrun: {max_trials: 1}\n")

    outcome = sweeper("plan", "shop.yaml")

    assert outcome.code == 0
    assert outcome.err == "warning: `run` refuses more than 1 trials; --max-trials 2 raises the limit\n"


@pytest.mark.parametrize(
    ("settings", "seeds"),
    [(["seed=3"], [3]), (["steps=5"], [2**64 - 1] * 2), (["prompt=a: b # c"], None)],
)
def test_set_overrides_a_value_for_one_command(sweeper, write, settings, seeds):
    write(SWEEP)
    options = [part for setting in settings for part in ("--set", setting)]

    outcome = sweeper("plan", "shop.yaml", "--jsonl", "-", *options)

    if seeds is None:  # YAML would read `a: b` as a mapping
        assert outcome.code == 2
    else:
        trials = [json.loads(line) for line in outcome.out.splitlines()]
        assert {trial["params"]["seed"] for trial in trials} == set(seeds)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps", "error: --set steps: write NAME=VALUE, such as steps=8\n"),
        ("=8", "error: --set =8: write NAME=VALUE, such as steps=8\n"),
        ("steps=[1", "error: --set steps=[1: is not YAML: "),
        ("stpes=8", "did you mean 'steps'?"),
    ],
)
def test_unreadable_setting_exits_2(sweeper, write, setting, message):
    outcome = sweeper("plan", write(SWEEP), "--set", setting)

    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


BOMB = "template: t.json\nparams:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"  {new}: &{new} [{','.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

# Each with a text that its message must contain. Other tests check the exact messages; these check exit code 2, file
# and line, no traceback, and that nothing is written.
BAD = {
    "unknown key": ("name: shop\ntemplate: t.json\nsweeps: {}\n", "shop.yaml:3: sweeps: unknown key"),
    "misspelt slot": ("template: t.json\nsweep:\n  grid:\n    stpes: [1]\n", "did you mean 'steps'?"),
    "wrong type": ("template: t.json\nparams:\n  steps: many\n", "shop.yaml:3: params.steps:"),
    "out of the schema": ("template: t.json\nparams:\n  steps: 1000\n", "shop.yaml:3: params.steps:"),
    "missing template": ("template: x.json\n", "shop.yaml:1: template: there is no file 'x.json'"),
    "no yaml": ("template: [\n", "is not YAML"),
    "alias bomb": (BOMB, "shop.yaml"),
    "one name defined twice": ("template: t.json\nparams: {steps: 1}\nsweep: {grid: {steps: [1]}}\n", "steps"),
    "empty axis": ("template: t.json\nsweep: {grid: {steps: []}}\n", "steps"),
    "zip of unequal lengths": ("template: t.json\nsweep: {zip: [{steps: [1, 2], seed: [1]}]}\n", "zip"),
    "where that fails": ("template: t.json\nsweep: {grid: {steps: [1]}, where: steps / 0}\n", "where"),
    "where that climbs": ("template: t.json\nsweep: {grid: {steps: [1]}, where: \"''.__class__\"}\n", "where"),
    "no trial left": ("template: t.json\nsweep: {grid: {steps: [1]}, where: steps > 1}\n", "no trial is left"),
    "unknown metric": ("template: t.json\nmetrics: [sharpnes]\n", "did you mean 'sharpness'?"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_exits_2_and_writes_nothing(sweeper, write, command, name):
    text, message = BAD[name]
    before = {*Path().rglob("*"), Path(write(text)), Path("t.json"), Path("t.slots.yaml")}

    outcome = sweeper(command, "shop.yaml")

    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert all(line.startswith("error: ") for line in outcome.err.splitlines())
    assert set(Path().rglob("*")) == before


def test_ui_format_template_is_refused_with_export_instructions(sweeper):
    Path("ui.json").write_text('{"last_node_id": 1, "nodes": [], "links": []}')
    Path("x.yaml").write_text("template: ui.json\n")

    for command in (["validate", "ui.json"], ["plan", "x.yaml"], ["template", "slots", "ui.json"]):
        outcome = sweeper(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Export (API)" in outcome.err


def test_validate_prints_every_mistake_on_its_own_line(sweeper, write):
    write("template: t.json\nparams:\n  steps: many\n  cfgg: 1\n", "a.yaml")
    write("template: t.json\n", "good.yaml")
    write("templat: t.json\n", "b.yaml")

    outcome = sweeper("validate", "a.yaml", "good.yaml", "b.yaml", "t.json", "t.slots.yaml")

    assert outcome.code == 2
    assert outcome.out.splitlines() == [
        "good.yaml: experiment is valid, 1 trial",
        "t.json: template is valid",
        "t.slots.yaml: template is valid",
    ]
    lines = outcome.err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["a.yaml", "a.yaml", "b.yaml", "b.yaml"]


def test_validate_json_has_one_entry_per_file(sweeper, write):
    write("template: t.json\nparams:\n  steps: many\n", "a.yaml")

    outcome = sweeper("validate", "a.yaml", "t.json", "--json")

    assert (outcome.code, outcome.err) == (2, "")
    bad, good = outcome.json
    assert (bad["file"], bad["kind"], bad["valid"], bad["trials"]) == ("a.yaml", "experiment", False, None)
    assert [(one["file"], one["line"], one["key"]) for one in bad["problems"]] == [("a.yaml", 3, "params.steps")]
    assert good == {"file": "t.json", "kind": "template", "valid": True, "trials": None, "problems": []}


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_saved_object_info_replaces_an_unreachable_server(sweeper, write, command):
    only = {"KSampler": {"input": {"required": {"steps": ["INT", {"min": 1, "max": 3}]}}, "output": ["LATENT"]}}
    Path("info.json").write_text(json.dumps(only))
    outcome = sweeper(command, write(SWEEP), "--object-info", "info.json")
    assert outcome.code == 2
    assert "(on the server of info.json)" in outcome.err
    outcome = sweeper(command, write(SWEEP), "--object-info", "nope.json")
    assert (outcome.code, outcome.err) == (2, "error: nope.json: cannot be read: No such file or directory\n")


def test_a_workflow_that_saves_nothing_is_refused_unless_previews_are_kept(sweeper, write):
    experiment = write("template: t.json\nparams: {steps: 1}\n")
    graph = {**TXT2IMG, "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}}
    Path("t.json").write_text(json.dumps(graph))
    for command in ("plan", "validate"):
        outcome = sweeper(command, experiment)
        assert (outcome.code, "(`run` refuses this)" in outcome.err) == (0, True)
    refused = sweeper("run", experiment)
    assert (refused.code, Path("results").exists()) == (2, False)
    assert "node 9 (PreviewImage): it only shows its result" in refused.err
    assert "keep previews with `--keep-temp`" in refused.err
    assert "(`run` refuses this)" in sweeper("run", experiment, "--dry-run").err
    assert sweeper("run", experiment, "--dry-run", "--keep-temp").err == ""
    assert sweeper("run", experiment, "--keep-temp").code == 0
    assert len(list(Path("results/shop/artifacts").iterdir())) == 1
    write("template: t.json\nparams: {steps: 1}\nrun: {keep_temp: true}\n")
    Path("t.json").write_text(json.dumps(graph))
    assert sweeper("plan", experiment).err == ""


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ("[a fox, 8k, film grain]", "3 prompts ('a fox', '8k', 'film grain'); quote a text that has commas"),
        ("[fox, 8k, film grain, dusk]", "4 prompts ('fox', '8k', 'film grain', ...); quote a text that has commas"),
        ("[a fox, '8k', film grain]", None),
        ("[a fox, a boat]", None),
        ("[a fox that runs far, 8k]", None),
        ("\n      - a fox\n      - 8k", None),
    ],
)
def test_a_list_that_may_be_one_text_is_noted(sweeper, write, values, note):
    file = write(f"template: t.json\nsweep:\n  grid:\n    prompt: {values}\n")
    for command in ("plan", "validate"):
        outcome = sweeper(command, file)
        assert outcome.code == 0
        assert ("quote a text" in outcome.err) == (note is not None)
        assert note is None or f"shop.yaml:4: sweep.grid.prompt: {note}" in outcome.err
    assert "quote a text" not in sweeper("plan", file, "--set", "prompt=[b, c d, e]").err
