"""Each answer about pictures that changed keeps its approved words, in every form in which it is shown."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sweeper.answers.render import render_html, render_markdown
from sweeper.model.result import Result
from sweeper.regression.accept import AcceptPlan, CaseChange
from sweeper.regression.baseline import Baseline
from sweeper.regression.bisection import Bisection
from sweeper.regression.calibrate import Calibration, CaseNoise, MeasureNoise
from sweeper.regression.cases import Case, RunCases, TrialRow
from sweeper.regression.compare_runs import AxisValue, CaseDifference, RunDifferences
from sweeper.regression.comparison import Comparison, Comparisons
from sweeper.regression.match_files import parse_threshold
from sweeper.regression.verdict import MetricVerdict, TrialPair, Verdict
from sweeper.regression.verdict_pairs import SideTrials
from sweeper.regression.versions import Commit, VersionCheck, VersionChecks
from sweeper.store.records import TableLayout
from sweeper.tables.effect_answer import ReplicateScope
from tests.answers.approved import check_approved

CHANGED = Comparison(
    Case({"prompt": "a fox", "steps": 4}, "9", 0), "changed", "beyond", "ssim 0.81, not >= 0.98",
    {"ssim": 0.81, "psnr": float("inf")}, accepted_file="accepted.png", current_file="now.png",
    verdict="the server drifted", servers="accepted on ComfyUI 1, now on ComfyUI 2 (ComfyUI 1 -> 2)",
)  # fmt: skip
NEW = Comparison(Case({"prompt": "a fox", "steps": 8}, "9", 1), "new", reason="no picture was accepted for it yet")
SAME = Comparison(
    Case({"steps": 6}, "9", 0), "same", "bytes", servers="accepted on ComfyUI 2, now on the same", trial=3,
)  # fmt: skip


def make_check(*cases, **facts):
    return Comparisons("foxes", Path("base"), Path("out"), cases, **facts)


def test_check():
    check_approved("check", make_check(CHANGED, NEW, SAME, left_out=3))
    check_approved("check_ok", make_check(SAME))
    many = [Comparison(Case({"steps": number}, "9", 0), "failed", reason="OutOfMemory: no") for number in range(51)]
    assert [part.text for part in list(make_check(*many).parts())[1:]] == ["... and 1 more", "foxes: 51 failed"]


def test_the_summary_of_a_check_shows_what_keeps_it_from_passing():
    assert render_markdown(make_check(CHANGED, NEW, SAME, allow_new=True).summary_parts()) == (
        "### ❌ sweeper check: foxes\n\n1 changed, 1 new, 1 same.\n\n"
        "accepted on ComfyUI 1, now on ComfyUI 2 (ComfyUI 1 -\\> 2) (1 cases)\n\n"
        "accepted on ComfyUI 2, now on the same (1 cases)\n\n"
        "| case | state | why | whose change |\n| --- | --- | --- | --- |\n"
        "| prompt=a fox steps=4 \\[9\\] | changed | ssim 0.81, not \\>= 0.98 | the server drifted |\n"
    )
    assert render_markdown(make_check(has_baseline=False, stopped_by="interrupt").summary_parts()) == (
        "### ❌ sweeper check: foxes\n\nno cases.\n\nThere is no baseline: nothing was compared.\n\n"
        "The run ended early (interrupt), so the remaining trials were not compared.\n"
    )
    assert render_markdown(make_check(NEW, allow_new=True).summary_parts()).startswith("### ✅")


def test_compare():
    cases = [CaseDifference(Case({"style": "in oil", "style.label": "oil", "steps": 8}, "9", 0), "changed",
                            "pixels differ: 100.00% of them", {"mae": 40.0, "psnr": float("inf")}),
             CaseDifference(Case({"style": "in ink", "style.label": "oil", "steps": 4}, "9", 0), "gone")]  # fmt: skip
    axes = (AxisValue("style", "in oil", "oil", Counter(changed=1, same=1), 40.123),
            AxisValue("style", "in ink", "oil", Counter(gone=1), None),
            AxisValue("steps", 8, None, Counter(changed=1), 40.0))  # fmt: skip
    counts = {"changed": 1, "not compared": 0, "gone": 1, "new": 0, "same": 1}
    check_approved("compare", RunDifferences(counts, axes, tuple(cases)))
    same = RunDifferences({**counts, "changed": 0, "gone": 0}, (), (CaseDifference(Case({}, "9", 0), "same"),))
    check_approved("compare_same", same)


def test_versions():
    ran = VersionCheck("v1", "", make_check(SAME, left_out=3))
    left_out = VersionCheck("v2", "ComfyUI did not start: exit code 1\n  No module named 'x'")
    changed = VersionCheck("v3", "", make_check(CHANGED, NEW, stopped_by="unreachable"), "v1", make_check(CHANGED))
    check_approved("versions", VersionChecks("foxes", Path("out"), (ran, left_out, changed)))
    check_approved("versions_same", VersionChecks("foxes", Path("out"), (ran, ran)))
    alone = VersionCheck("v1", "", make_check(NEW, has_baseline=False))
    check_approved("versions_without_baseline", VersionChecks("foxes", Path("out"), (alone,)))
    failed = replace(alone, checked=make_check(replace(NEW, state="failed"), has_baseline=False))
    assert [VersionChecks("foxes", Path("out"), (version,)).ok for version in (alone, failed)] == [True, False]


def test_bisect():
    commits = [Commit(f"{number:040x}", "2026-01-02T03:04:05Z", "Ada", f"Say {number}") for number in range(3)]

    def make(*found, **marks):
        folders = Path("/comfy"), Path("out/000000000000"), Path("base")
        return Bisection("foxes", found, (CHANGED,) if found else (), marks, *folders, has_baseline=not marks)

    check_approved("bisect", make(commits[0]))
    check_approved("bisect_skipped", make(*commits, good=1, skip=2))
    check_approved("bisect_interrupted", make(good=1))


METRICS = (
    MetricVerdict("aesthetic", "better", 1, 101.04, 107.21, 6.167, 5.41, 6.92, 5.0, 7.3, 1.627, 24, 0, 24),
    MetricVerdict("entropy", "lower", 0, 103.5, 99.46, -4.04, -4.28, -3.79, -9.0, 0.9, 2.07, 1, 23, 24),
    MetricVerdict("contrast", "equivalent", 0, 107.5, 107.6, 0.0914, -0.5, 0.7, None, None, 1.7, 14, 10, 24),
    MetricVerdict("steady", "undecided", -1, 104.0, 104.1, 0.06, -0.49, 0.61, -0.5, 0.6, 0.01, 12, 12, 24, 0.3123),
    MetricVerdict("share", "undecided", 0, 1.0, 1.1, 0.1, -0.01, 0.21, None, None, 0.1, 24, 0, 24),
    MetricVerdict("huge", "undecided", note="The numbers are too large to compute with"),
)


def make_verdict(word, metrics):
    sides = [SideTrials(label, Path(), TableLayout("", (), ()), ()) for label in ("old", "new")]
    rows = [Result(0, {}, {}, "d", outputs=(output,), sha256=("0" * 64,)) for output in ("a.png", "b.png")]
    pair = TrialPair({"prompt": "a <fox>"}, {"aesthetic": (96.26, 102.3)}, tuple(zip(sides, rows, strict=True)), 9.0)
    axes = {"prompt": 6, "seed": 4, "cfg": 1}
    notes = ("own is a metric of old alone, so it is not judged",)
    return Verdict(word, "old", "new", 24, metrics, (pair,), notes, ReplicateScope(6, 4), "checkpoint", axes)


def test_verdict():
    verdict = make_verdict("undecided", METRICS)
    check_approved("verdict", verdict)
    assert render_markdown(verdict.comment_parts()).endswith(
        "The pairs that differ most:\n\n| pair | old -\\> new | pictures |\n| --- | --- | --- |\n"
        "| prompt=a \\<fox\\> | aesthetic 96.26 -\\> 102.3 | a.png, b.png |\n\n"
        "- own is a metric of old alone, so it is not judged\n"
        "- The intervals of all metrics hold together with 95 % confidence. A margin is 0.2 standard deviations of the "
        "old trials unless you give one.\n"
    )
    assert render_html(verdict.largest[0].parts()) == (
        "<h3>prompt=a &lt;fox&gt;</h3><div>aesthetic 96.26 -&gt; 102.3</div><div></div>"  # its pictures are gone
    )
    ok = make_verdict("better", METRICS[:1])
    assert render_markdown(ok.comment_parts()).startswith(
        "### ✅ better on these 6 prompts: checkpoint new against old, over 24"
    )


def test_report_of_a_verdict():
    facts = {"host": "gpu:8000", "model": "qwen3-vl", "score": "yes-no", "questions": [["A fox?", "yes"]]}
    sides = [
        SideTrials(label, Path(), TableLayout("", (), ()), (), judges={"aesthetic": facts},
                   source=f"run {number} of mine, 28 Nov 2026 09:31:05, on studio (ComfyUI 0.3.64)",
                   models=(("checkpoints/a.safetensors", "510,040 bytes, hash 1a2b"),))
        for number, label in enumerate(("old", "new"), 1)
    ]  # fmt: skip
    doubt = "aesthetic agrees with people in 48% of 60 votes (36% to 61%)"
    verdict = replace(make_verdict("better", METRICS[:1]), sides=tuple(sides), doubts=(doubt,))
    report = render_markdown(verdict.report_parts())
    file = Path(__file__).parent / "approved" / "verdict_report.txt"
    if os.environ.get("APPROVE_ANSWERS"):
        file.write_text(report, encoding="utf-8")
    assert report == file.read_text(encoding="utf-8")
    check_approved("verdict_in_doubt", verdict)


def make_acceptance(*changes):
    return AcceptPlan(Baseline(Path("base"), "foxes"), RunCases("foxes", Path("f.yaml"), Path(), 1, (), {}), changes)


def test_accept():
    rows = [TrialRow({}, "", Result(0, {}, {}, "d", target=target), (), 1) for target in ("gpu", "cloud")]
    changes = [CaseChange(Case({"steps": 4}, "9", 0), "changed", row=rows[0], reason="pixels differ"),
               CaseChange(Case({"steps": 6}, "9", 0), "same", row=rows[1]),
               CaseChange(Case({"steps": 8}, "9", 0), "kept", reason="its trial is failed")]  # fmt: skip
    check_approved("accept", make_acceptance(*changes))
    check_approved("accept_nothing", make_acceptance())
    many = [CaseChange(Case({"steps": number}, "9", 0), "new") for number in range(41)]
    assert [part.text for part in list(make_acceptance(*many).parts())[1:]] == ["... and 1 more", "base: 41 new"]


STABLE = CaseNoise(Case({"steps": 4}, "9", 0), 3, True, ())
NOISY = CaseNoise(Case({"steps": 8}, "9", 0), 3, False, (
    MeasureNoise("ssim", 0.991, 0.9876543, 0.5, parse_threshold(">= 0.98")),
    MeasureNoise("psnr", 50.0, 44.4, None, None, ">= 38.4 would accept the picture of a neighbouring case (44)"),
))  # fmt: skip
HOPELESS = CaseNoise(Case({"steps": 9}, "9", 0), 1, False, (), "fewer than two of its repeats succeeded")


def test_calibrate():
    check_approved("calibrate", Calibration("foxes", 3, {"ssim": ">= 0.98"}, None, (STABLE, NOISY, HOPELESS)))
    check_approved("calibrate_stable", Calibration("foxes", 3, {}, None, (STABLE,)))
    check_approved("calibrate_without_checks", Calibration("foxes", 3, {}, "interrupt", (NOISY,)))
    assert [Calibration("foxes", 3, {}, None, (case,)).ok for case in (STABLE, NOISY, HOPELESS)] == [True, True, False]
    assert not Calibration("foxes", 3, {}, "interrupt", (STABLE,)).ok
