"""Each answer about pictures that changed keeps its approved words, in every form in which it is shown."""

from __future__ import annotations

from pathlib import Path

from sweeper.answers.render import render_markdown
from sweeper.regression.cases import Case
from sweeper.regression.comparison import Comparison, Comparisons
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
