"""How two statements of servers about a model file are compared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeper.model.model_facts import (
    Change,
    ModelFacts,
    ModelKey,
    decode_models,
    describe_change,
    describe_models,
    encode_models,
    read_metadata,
)

TRAINED = {"ss_epoch": "3", "ss_steps": "300", "sshs_model_hash": "f" * 64}
numbers = st.one_of(st.none(), st.integers(0, 2**70))
FACTS = st.builds(
    ModelFacts,
    size=numbers,
    modified=st.one_of(st.none(), st.floats(1, 4e9)),
    metadata=st.one_of(st.none(), st.sampled_from(["", "a" * 64, "b" * 64])),
    stated=st.dictionaries(st.sampled_from(["ss_epoch", "ss_steps"]), st.text(max_size=5), max_size=2),
    content=st.one_of(st.none(), st.sampled_from(["blake3:1", "blake3:2"])),
    placed=st.one_of(st.none(), st.floats(1, 4e9)),
)


def make(metadata=None, **facts):
    digest, stated = read_metadata(metadata or {})
    return ModelFacts(**{"size": 10, "modified": 1.0, "metadata": digest, "stated": stated} | facts)


@given(FACTS, FACTS)
def test_comparison_has_no_direction_and_equal_facts_never_differ(first, second):
    assert first.compare(second) is second.compare(first)
    assert first.compare(first) is Change.SAME
    assert first.compare(second, same_server=False) in (Change.SAME, Change.CHANGED)
    assert describe_change(first, second)


@given(st.dictionaries(st.builds(ModelKey, st.text(max_size=5), st.text(max_size=5)), FACTS, max_size=3))
def test_facts_survive_storage(models):
    stored = decode_models(encode_models(models))
    assert stored == models
    assert {key: facts.placed for key, facts in stored.items()} == {key: f.placed for key, f in models.items()}
    assert describe_models(stored) == describe_models(models)


def test_size_header_and_hash_tell_another_content_and_time_alone_does_not():
    assert make().compare(make(size=11)) is Change.CHANGED
    assert make(TRAINED).compare(make(TRAINED | {"ss_epoch": "4"})) is Change.CHANGED
    assert make(TRAINED).compare(make()) is Change.CHANGED
    assert make(content="blake3:1").compare(make(content="blake3:2")) is Change.CHANGED
    assert make(content="blake3:1").compare(make(content="blake3:1", modified=2.0)) is Change.SAME
    assert make(TRAINED).compare(make(TRAINED, modified=2.0)) is Change.TOUCHED
    assert make().compare(make(modified=2.0)) is Change.UNCLEAR
    assert make().compare(make(modified=2.0), same_server=False) is Change.SAME


def test_format_alone_in_the_header_tells_nothing_of_the_content():
    base = {"format": "pt"}
    assert make(base).compare(make(base, modified=2.0)) is Change.UNCLEAR


def test_tag_differs_if_and_only_if_the_content_may():
    assert make(TRAINED).tag == make(TRAINED, modified=2.0).tag
    assert len({make(TRAINED).tag, make(TRAINED | {"ss_epoch": "4"}).tag, make(size=11).tag, make().tag}) == 4
