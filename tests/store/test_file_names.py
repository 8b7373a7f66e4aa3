from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.files import find_name_problem
from sweeper.model.trial import Trial
from sweeper.store.file_names import (
    FileNaming,
    build_file_name,
    candidate_names,
    find_job_prefix,
    is_artifact_name,
    is_file_of,
)
from tests.long_prompts import PROMPTS

JOB = "0123456789abcdef"


def name_trial(axes, index=3):
    return FileNaming(tuple(axes)).build_stem(Trial(index, {}, axes, "", {}))


@pytest.mark.parametrize(
    ("axes", "stem"),
    [
        ({"prompt": "a red fox", "seed": 247078804, "steps": 8}, "0003_seed-247078804_steps-8_a-red-fox"),
        ({"sampler": "euler", "cfg": -0.5, "fast": True}, "0003_cfg--0.5_fast-true_sampler-euler"),
        (
            {"lora": "style\\Ink v2.safetensors", "model": "sd/xl.base.ckpt"},
            "0003_lora-Ink-v2_model-xl.base",
        ),
        ({"style": "Öl auf Leinwand: 油画/風", "ink": None}, "0003_Öl-auf-Leinwand-油画-風"),
        ({"word": "CON", "dots": "../..\\.."}, "0003_word-CON"),
        ({}, "0003"),
        ({"short": "a b", "long": "many words " * 9}, "0003_a-b_" + "-".join(["many-words"] * 5) + "-many"),
    ],
)
def test_stem_has_the_number_then_short_values_then_texts(axes, stem):
    assert name_trial(axes) == stem


def test_only_axes_that_vary_are_named_and_large_plans_have_longer_numbers():
    naming = FileNaming.for_plan({"steps": 2, "cfg": 1}, 20_000)
    assert naming.build_stem(Trial(7, {}, {"steps": 8, "cfg": 1}, "", {})) == "00007_steps-8"


def test_long_prompts_are_named_by_the_words_that_differ():
    naming = FileNaming.for_plan({"prompt": 2, "style": 2}, 4, {"prompt": PROMPTS, "style": ["oil", 7]}.__getitem__)
    stems = [naming.build_stem(Trial(0, {}, {"prompt": prompt, "style": "oil"}, "", {})) for prompt in PROMPTS]
    words = ["drawn-in-charcoal-in-soft", "drawn-in-watercolour-in-soft"]
    assert stems == [f"0000_style-oil_{text}" for text in words]


def test_several_files_of_a_trial_have_node_and_number():
    assert build_file_name("0003", "png") == "0003.png"
    assert build_file_name("0003", "png", node="57:3", number=0) == "0003_node-57-3_0.png"
    name = build_file_name("0003", "mp4", number=1, job=JOB)
    assert (name, find_job_prefix(name)) == ("0003_1_01234567.mp4", "01234567")
    assert find_job_prefix("20240101_12345678.jpg") is None


@given(
    st.dictionaries(
        st.text(max_size=30),
        st.text(max_size=300) | st.integers() | st.floats() | st.none() | st.booleans(),
        max_size=8,
    ),
    st.text(max_size=60),
    st.integers(0, 9999),
    st.booleans(),
)
def test_file_names_are_safe_for_any_input(axes, node, number, has_job):
    stem = name_trial(axes, index=number)
    names = {
        build_file_name(stem, "safetensors", node=label, number=n, job=JOB if has_job else "")
        for label, n in [("", None), ("", 0), ("", number + 1), (node, number)]
    }
    assert len(names) >= 3
    for name in [*names, *(list(candidate_names(one))[-1] for one in names)]:
        assert len(name.encode()) <= 120
        assert all(letter in "._-" or unicodedata.category(letter)[0] in "LMN" for letter in name)
        assert name.startswith(f"{number:04}")
        assert ".." not in name
        assert find_name_problem(name) is None
        assert is_artifact_name(name)
        assert is_file_of(stem, name)
        assert not has_job or find_job_prefix(name) == JOB[:8]
