"""From a run to a baseline, and from a changed workflow to exit code 1, on the embedded server."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest
from PIL import Image

import sweeper
from sweeper.errors import ExperimentError, ResultsError, UsageError
from sweeper.running.stop_control import StopControl

BASELINE = Path("baselines/shop")


def run_and_accept(shop):
    sweeper.run(shop.file)
    return sweeper.accept("results/shop")


def to_states(found):
    return {one.case.name: one.state for one in found}


def test_changed_workflow_fails_the_check_and_a_revert_passes(shop, command):
    assert command("run", shop.file, "-q").code == 0
    assert command("accept", "results/shop").code == 0
    assert command("check", shop.file, "-q").code == 0
    shop.rewire(cfg=2.0)
    changed = command("check", shop.file, "--junit", "out/check.xml", "--html", "page", "--summary", "s.md", "-q")
    assert changed.code == 1
    assert "steps=3 seed=1 [9]" in changed.out
    assert "steps=5 seed=1 [9]" in changed.out
    suite = ET.parse("out/check.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "2", "0")
    assert {case.get("name") for case in suite} == {"steps=3 seed=1 [9]", "steps=5 seed=1 [9]"}
    assert "2 changed" in Path("s.md").read_text("utf-8")
    states = json.loads(Path("page/data.json").read_text("utf-8"))["check"]["columns"][0]
    assert [states["values"][index] for index in states["of"]] == ["changed", "changed"]
    assert [len(list(Path("page", name).iterdir())) for name in ("files", "accepted")] == [2, 2]
    shop.rewire()
    assert command("check", shop.file, "-q").code == 0


@pytest.mark.parametrize(("other", "output"), [("Draft", "Save\u2028final"), ("Save\u2028final", "9"), ("9", "9")])
def test_a_case_has_the_title_of_its_node_if_no_other_node_has_it(shop, command, other, output):
    graph = json.loads((shop.folder / "shop.json").read_text())
    graph["9"]["_meta"] = {"title": "Save\u2028final" if other != "9" else "8"}
    graph["8"]["_meta"] = {"title": other}
    (shop.folder / "shop.json").write_text(json.dumps(graph))
    run_and_accept(shop)
    name = f"steps=3 seed=1 [{output.replace(chr(0x2028), ' ')}]"
    assert to_states(sweeper.check(shop.file))[name] == "same"
    assert json.loads((BASELINE / "manifest.json").read_text("utf-8"))["cases"][0]["case"] == name


@pytest.mark.parametrize("absolute", [False, True])
def test_reports_show_paths_relative_to_the_current_folder(shop, accepted, command, absolute):
    shop.rewire(cfg=2.0)
    baseline, out = (path.absolute() if absolute else path for path in (BASELINE, Path("now")))
    outcome = command("check", shop.file, "--baseline", baseline, "--out", out, "--junit", "nodir/x.xml", "--json")
    lines = ET.parse("nodir/x.xml").getroot()[0][0][0].text.splitlines()
    pictures = [line.partition(": ")[2] for line in lines if line.startswith(("accepted:", "now:"))]
    assert [Path(path).parent for path in pictures] == [BASELINE, Path("now/artifacts")]
    case = json.loads(outcome.out)["cases"][0]
    assert [case["accepted"], case["now"]] == pictures


def test_accepting_twice_writes_the_same_manifest(shop, accepted):
    before = (BASELINE / "manifest.json").read_bytes()
    shutil.rmtree("baselines")
    sweeper.accept("results/shop")
    assert (BASELINE / "manifest.json").read_bytes() == before
    manifest = json.loads(before)
    assert [case["case"] for case in manifest["cases"]] == ["steps=3 seed=1 [9]", "steps=5 seed=1 [9]"]
    assert len(manifest["workflows"]) == 1
    files = {one["file"] for case in manifest["cases"] for one in case["accepted"]}
    assert files == {path.name for path in BASELINE.glob("*.png")}


def test_accepting_the_same_pictures_again_changes_nothing(shop, accepted):
    rerun = sweeper.accept("results/shop")
    assert rerun.counts == {"same": 2}
    assert not rerun.writes


def test_accepted_pictures_are_overwritten_only_with_yes(shop, accepted, command):
    before = {path.name: path.read_bytes() for path in BASELINE.iterdir()}
    shop.rewire(cfg=2.0)
    sweeper.run(shop.file)
    refused = command("accept", "results/shop")
    assert refused.code == 2
    assert "changed" in refused.out
    with pytest.raises(UsageError, match="overwritten"):
        sweeper.accept("results/shop")
    assert {path.name: path.read_bytes() for path in BASELINE.iterdir()} == before
    assert command("accept", "results/shop", "--yes").code == 0
    after = {path.name: path.read_bytes() for path in BASELINE.iterdir()}
    assert set(after) == set(before)
    assert not any(after[name] == before[name] for name in after)
    assert sweeper.check("results/shop").ok


# For each N on a line: `accept`, in a process that is killed before it renames or removes its file number N, from 1.
KILLED_ACCEPT = """
import os, sys
from sweeper.regression.accept import accept
def kill(event, _):
    global left
    left -= event in ("os.rename", "os.remove")
    if left == 0:
        os._exit(9)
for line in sys.stdin:
    if not hasattr(os, "fork") or (child := os.fork()) == 0:
        left = int(line)
        sys.addaudithook(kill)
        accept("results/shop", yes=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_accept_killed_at_any_step_leaves_the_old_or_the_new_baseline(shop, python):
    shop.write(steps=(3, 5, 7))
    run_and_accept(shop)
    shutil.copytree("results/shop", "results/before")
    shutil.copytree(BASELINE, "old")
    shop.rewire(cfg=2.0)
    shop.write(steps=(3, 9))
    sweeper.run(shop.file)
    Path("killed.py").write_text(KILLED_ACCEPT)
    ended_as, process, forks = [], None, hasattr(os, "fork")
    for step in range(1, 20):
        shutil.rmtree(BASELINE)
        shutil.copytree("old", BASELINE)
        if process is None or not forks:  # an import for each step takes half a second
            process = subprocess.Popen([python, "killed.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.stdin.write(f"{step}\n")
        process.stdin.flush()
        code = int(process.stdout.readline()) if forks else process.wait(60)
        ended_as.append([sweeper.check(f"results/{name}", BASELINE).ok for name in ("before", "shop")])
        assert sweeper.accept("results/shop", yes=True).baseline.exists
        manifest = json.loads((BASELINE / "manifest.json").read_text())
        files = {file["file"] for case in manifest["cases"] for file in case["accepted"]}
        left = {path.name for path in BASELINE.iterdir()} - {"manifest.json", *files}
        assert left <= {path.name for path in Path("old").iterdir()}  # of cases that are gone
        assert sweeper.check("results/shop").ok
        if code == 0:
            break
    process.communicate()
    assert code == 0
    old, new = ended_as.count([True, False]), ended_as.count([False, True])
    assert old >= 3  # two pictures and the manifest
    assert old + new == len(ended_as)


def test_picture_that_was_altered_since_its_run_is_not_accepted(shop, accepted):
    before = {path.name: path.read_bytes() for path in BASELINE.iterdir()}
    artifact = min(Path("results/shop/artifacts").glob("*.png"))
    Image.new("RGB", (64, 64)).save(artifact)
    with pytest.raises(ResultsError, match="is not the file that the run saved"):
        sweeper.accept("results/shop", yes=True)
    assert {path.name: path.read_bytes() for path in BASELINE.iterdir()} == before


def test_accept_removes_no_file_of_somebody_else(shop, accepted):
    Path("elsewhere.png").write_bytes(b"mine")
    own = ["README.md", ".123456789abc.fox.png", ".part", ".123456789abc.link.png"]
    for name in own[:3]:
        (BASELINE / name).write_text("mine")
    (BASELINE / own[3]).symlink_to(Path("elsewhere.png").absolute())
    shop.rewire(cfg=2.0)
    sweeper.run(shop.file)
    sweeper.accept("results/shop", yes=True)
    assert {path.name for path in BASELINE.iterdir()} >= set(own)


def test_new_only_where_and_cases_select_pictures(shop, accepted):
    shop.write(steps=(3, 5, 7, 9))
    shop.rewire(cfg=2.0)
    sweeper.run(shop.file)
    assert sweeper.accept("results/shop", new_only=True, where="steps == 7").counts == {"new": 1}
    assert sweeper.accept("results/shop", cases=["steps=9 seed=1 [9]"]).counts == {"new": 1}
    assert sweeper.accept("results/shop", where="steps == 3", yes=True).counts == {"changed": 1}
    assert to_states(sweeper.check("results/shop"))["steps=5 seed=1 [9]"] == "changed"
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        sweeper.accept("results/shop", where="step == 3")
    with pytest.raises(UsageError, match="no picture of case"):
        sweeper.accept("results/shop", cases=["steps=4 seed=1 [9]"])


def test_where_without_a_match_is_reported(shop, command):
    sweeper.run(shop.file)
    outcome = command("accept", "results/shop", "--where", "steps > 100")
    assert outcome.code == 0
    assert outcome.err == "--where: steps > 100 matches none of the 2 trials\n"
    assert command("accept", "results/shop", "--where", "steps > 4").err == ""


def test_case_with_two_accepted_pictures_passes_with_either(shop, accepted):
    shop.rewire(cfg=2.0)
    sweeper.run(shop.file)
    assert sweeper.accept("results/shop", add=True).counts == {"added": 2}
    assert sweeper.check("results/shop").ok
    shop.rewire()
    sweeper.run(shop.file)
    assert sweeper.check("results/shop").ok
    shop.rewire(cfg=4.0)
    sweeper.run(shop.file)
    assert not sweeper.check("results/shop").ok


def test_new_cases_fail_unless_allowed_and_missing_ones_are_reported(shop, accepted, command):
    shop.write(steps=(3, 7))
    sweeper.run(shop.file)
    found = sweeper.check("results/shop")
    assert to_states(found) == {
        "steps=3 seed=1 [9]": "same",
        "steps=7 seed=1 [9]": "new",
        "steps=5 seed=1 [9]": "missing",
    }
    assert not found.ok
    shop.write(steps=(3, 5, 7))
    sweeper.run(shop.file)
    assert not sweeper.check("results/shop").ok
    assert sweeper.check("results/shop", allow_new=True).ok
    assert command("check", "results/shop", "--allow-new").code == 0


def test_check_without_a_baseline_fails(shop, command):
    sweeper.run(shop.file)
    outcome = command("check", "results/shop", "--allow-new")
    assert outcome.code == 1
    assert "there is no baseline" in outcome.err


def test_suggested_accept_command_creates_the_baseline(shop, command):
    check = ("check", shop.file, "--baseline", "my base", "--html", "page")
    outcome = command(*check)
    assert outcome.code == 1
    assert (
        "my base: there is no baseline; `sweeper accept results/shop-check --baseline 'my base'` makes one"
        in outcome.err
    )
    told = json.loads(Path("page/data.json").read_text("utf-8"))["check"]["accept_command"]
    assert told == "sweeper accept results/shop-check --baseline 'my base'"
    _, *words = shlex.split(outcome.err.split("`")[1])
    assert command(*words).code == 0
    assert command(*check).code == 0
    assert not Path("baselines").exists()
    outcome = command("report", "results/shop-check", "--baseline", "no base")
    assert "`sweeper accept results/shop-check --baseline 'no base'` makes one" in outcome.err


def test_accepting_a_whole_run_removes_cases_that_no_longer_exist(shop, accepted):
    shop.write(steps=(3,))
    sweeper.run(shop.file)
    with pytest.raises(UsageError, match="1 removed"):
        sweeper.accept("results/shop")
    assert sweeper.accept("results/shop", yes=True).counts == {"same": 1, "removed": 1}
    assert len(list(BASELINE.glob("*.png"))) == 1
    assert sweeper.check("results/shop").ok


def test_failed_trial_fails_its_case_and_keeps_its_picture(shop, accepted):
    broken = json.loads(Path("shop.json").read_text())
    broken["10"] = {"class_type": "PrimitiveInt", "inputs": {"value": 1}}  # no picture
    broken["9"]["inputs"]["images"] = ["10", 0]
    Path("shop.json").write_text(json.dumps(broken))
    found = sweeper.check(shop.file, check=False)
    assert set(to_states(found).values()) == {"failed"}
    assert sweeper.accept("results/shop-check", yes=True).counts == {"kept": 2}


def test_unusable_accepted_file_is_not_compared(shop, accepted):
    one, other = sorted(BASELINE.glob("*.png"))
    one.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    other.unlink()
    found = sweeper.check("results/shop")
    assert set(to_states(found).values()) == {"not compared"}
    assert any("git lfs pull" in item.reason for item in found)
    assert not found.ok


def write_with_text(source, destination, text):
    """Copy a PNG and add a text to it, without compressing its pixels again."""
    data, chunk = source.read_bytes(), b"tEXtprompt\0" + text.encode()
    chunk = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    destination.write_bytes(data[:33] + chunk + data[33:])  # after the signature and IHDR


@pytest.mark.parametrize("text", ["", "made elsewhere"])
def test_accepted_file_replaced_without_the_manifest_is_detected(shop, accepted, text):
    shop.rewire(cfg=1.0)
    assert set(to_states(sweeper.check(shop.file)).values()) == {"changed"}
    path = BASELINE / "manifest.json"
    manifest = json.loads(path.read_text())
    for item in sweeper.check("results/shop-check", BASELINE):
        shutil.copyfile(item.now, item.accepted)
        if text:
            write_with_text(item.now, item.accepted, text)
    for case in manifest["cases"]:  # even if the files have the recorded size
        for one in case["accepted"]:
            one["size"] = (BASELINE / one["file"]).stat().st_size
    path.write_text(json.dumps(manifest))
    found = sweeper.check("results/shop-check", BASELINE)
    assert set(to_states(found).values()) == {"not compared"}
    assert all("not the one recorded in the manifest" in item.reason for item in found)


@pytest.mark.parametrize("name", ["ending", "sha256"])
def test_picture_with_another_text_is_same_by_checksums_or_hash(shop, accepted, name):
    for item in sweeper.check("results/shop"):
        write_with_text(item.accepted, item.now, "of another day")
    path = BASELINE / "manifest.json"
    manifest = json.loads(path.read_text())
    for case in manifest["cases"]:
        for one in case["accepted"]:
            one.update({"ending": ""} if name == "ending" else {"sha256": "of nothing"})
    path.write_text(json.dumps(manifest))
    # Without checksums the hash decides, and it is right. With checksums the hash is not used.
    assert set(to_states(sweeper.check("results/shop")).values()) == {"same"}


def test_checks_allow_small_differences_and_overrides_win(shop, accepted):
    for path in Path("results/shop/artifacts").iterdir():
        with Image.open(path) as image:
            image.point(lambda level: min(255, level + 1)).save(path)
    assert set(to_states(sweeper.check("results/shop")).values()) == {"changed"}
    shop.write(checks={"mae": "<= 1.5"})
    found = sweeper.check("results/shop")
    assert found.ok
    assert {one.tier for one in found} == {"within"}
    shop.write(checks={"mae": "<= 1.5", "overrides": [{"where": "steps == 5", "mae": "<= 0.1"}]})
    assert to_states(sweeper.check("results/shop")) == {"steps=3 seed=1 [9]": "same", "steps=5 seed=1 [9]": "changed"}


def test_deleted_picture_is_restored_by_the_suggested_command(shop, accepted, command):
    gone, _ = sorted(Path("results/shop/artifacts").iterdir())
    gone.unlink()
    (lost,) = [one for one in sweeper.check("results/shop") if one.state == "not compared"]
    rerun = "sweeper run shop.yaml --out results/shop"
    assert lost.reason == f"{gone.resolve()} is gone; `{rerun}` fetches it again from its server"
    before = (BASELINE / "manifest.json").read_bytes()
    outcome = command("accept", "results/shop", "--yes")
    assert (outcome.code, outcome.err) == (2, f"error: {lost.reason}\n")
    assert (BASELINE / "manifest.json").read_bytes() == before
    assert command(*rerun.split()[1:], "-q").code == 0
    assert command("accept", "results/shop").code == 0
    assert sweeper.check("results/shop").ok


@pytest.mark.parametrize("name", ["validate", "plan", "run", "check"])
def test_every_command_reports_every_invalid_check_with_its_line(shop, command, name):
    shop.file.write_text(
        "template: shop.json\nsweep:\n  grid:\n    steps: [3]\n    seed: [1]\nchecks:\n  simm: '>= 0.9'\n"
        "  overrides:\n    - {where: stpes > 1, ssim: '>= 1'}\n"
    )
    outcome = command(name, "shop.yaml")
    assert (outcome.code, outcome.out) == (2, "")
    unknown, where = outcome.err.splitlines()
    assert unknown.startswith("error: shop.yaml:7: checks.simm: unknown key 'simm'; did you mean 'ssim'?")
    assert where.startswith("error: shop.yaml:9: checks.overrides[0].where: ")
    assert "did you mean 'steps'?" in where


def test_all_mistakes_in_checks_are_reported_before_the_run(shop):
    shop.write(checks={"simm": ">= 1", "overrides": [{"where": "stpes > 1", "ssim": ">= 1"}]})
    with pytest.raises(ExperimentError) as caught:
        sweeper.check(shop.file)
    assert "did you mean 'ssim'" in str(caught.value)
    assert "did you mean 'steps'" in str(caught.value)
    assert not Path("results").exists()


def test_missing_model_of_a_measure_is_reported_before_the_run(shop, command, monkeypatch):
    monkeypatch.delenv("SWEEPER_LPIPS", raising=False)
    shop.write(checks={"lpips": "<= 0.1"})
    outcome = command("check", shop.file)
    assert outcome.code == 2
    assert "shop.yaml" in outcome.err
    assert "'lpips' needs a model of yours: set SWEEPER_LPIPS to an ONNX file" in outcome.err
    assert not Path("results").exists()


def test_picture_of_another_size_is_changed(shop, accepted):
    for path in Path("results/shop/artifacts").iterdir():
        Image.new("RGB", (32, 64)).save(path)
    found = sweeper.check("results/shop")
    assert {one.tier for one in found} == {"size"}
    assert all("32 x 64" in one.reason for one in found)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"sweeper_baseline": 99}', '{"sweeper_baseline": 1, "experiment": "shop"}']
)
def test_unusable_manifest_is_an_error(shop, accepted, text):
    (BASELINE / "manifest.json").write_text(text)
    with pytest.raises(ResultsError, match="manifest"):
        sweeper.check("results/shop")


def test_manifest_cannot_name_files_outside_its_folder(shop, accepted):
    manifest = json.loads((BASELINE / "manifest.json").read_text())
    manifest["cases"][0]["accepted"][0]["file"] = "../../secret.png"
    (BASELINE / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResultsError, match="not a file name in"):
        sweeper.check("results/shop")


def test_limit_where_and_set_check_some_cases(shop, accepted):
    found = sweeper.check(shop.file, limit=1)
    assert (list(to_states(found).values()), found.left_out, found.ok) == (["same"], 1, True)
    found = sweeper.check(shop.file, where="steps > 4")
    assert (to_states(found), found.left_out) == ({"steps=5 seed=1 [9]": "same"}, 1)
    found = sweeper.check(sweeper.load(shop.file, overrides={"steps": [5, 6]}))
    assert to_states(found) == {"steps=5 seed=1 [9]": "same", "steps=6 seed=1 [9]": "new"}
    assert found.left_out == 1
    assert set(sweeper.accept("results/shop-check").counts) == {"same", "new"}  # the other case is not removed


def test_trial_that_was_not_run_this_time_is_not_compared(shop, accepted):
    sweeper.check(shop.file)
    control = StopControl()
    control.stop()
    found = sweeper.check(shop.file, control=control)
    assert {(one.state, one.reason) for one in found} == {("not compared", "its trial was not run this time")}
    assert not found.ok


def test_options_of_a_run_are_rejected_for_a_results_folder(shop, accepted, command):
    refused = command(
        "check", "results/shop", "--target", "cloud", "--out", "foo", "--dask", "local:2", "--dask-resource", "GPU=1"
    )
    assert refused.code == 2
    assert refused.err == (
        "error: results/shop: checking a results folder runs nothing, so leave out --out and --target and --dask and "
        "--dask-resource, or check the experiment (shop.yaml)\n"
    )
    with pytest.raises(UsageError, match=r"runs nothing, so leave out target, or check"):
        sweeper.check("results/shop", target="cloud")
    with pytest.raises(TypeError, match="tryals"):
        sweeper.check("results/shop", tryals=[1])
    with pytest.raises(UsageError, match="runs nothing, so leave out out and runner"):
        sweeper.check("results/shop", out="foo", runner=sweeper.run)
    with pytest.raises(UsageError, match="runs nothing, so leave out out, "):
        sweeper.check("results/shop", out="foo", attribute=True)
    assert command("check", "results/shop", "--target", "embedded", "--attribute").code == 0


def test_options_of_a_results_folder_are_rejected_for_an_experiment(shop, accepted):
    with pytest.raises(TypeError, match="run"):
        sweeper.check(shop.file, run=1)
    with pytest.raises(TypeError, match="fresh"):
        sweeper.check(sweeper.load(shop.file), fresh=True)
    assert not Path("results/shop-check").exists()


def test_a_check_can_run_and_compare_only_some_trials(shop, accepted):
    found = sweeper.check(shop.file, trials=[1])
    assert to_states(found) == {"steps=5 seed=1 [9]": "same"}
    assert (found.left_out, len(list(Path("results/shop-check/artifacts").iterdir()))) == (1, 1)


def test_attribution_needs_the_experiment_file(shop, accepted):
    shop.file.rename("moved.yaml")
    assert [one.state for one in sweeper.check("results/shop", BASELINE)] == ["same", "same"]
    with pytest.raises(UsageError, match=r"attribute needs the experiment of these results, and .*shop\.yaml is gone"):
        sweeper.check("results/shop", BASELINE, attribute=True)
