"""An object_info is read as it arrives: the same values as json.loads, with equal lists of names as one object."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.graph_check import find_value_problem
from sweeper.model.node_classes.object_info import ClassReader, pack_object_info, unpack_object_info

NAMES = [f"{index:05d}.safetensors" for index in range(100)]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def loader(names, **more):
    return {"input": {"required": {"lora_name": [names, {}]}}, "output": ["MODEL"], **more}


def read(content, step=7, **options):
    reader = ClassReader(**{"max_member": 1_000_000, **options})
    for start in range(0, len(content), step):
        reader.feed(content[start : start + step])
    return reader.finish()


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.sampled_from([1, 2, 50, 10**6]),
       st.sampled_from([None, 1]), st.booleans())  # fmt: skip
def test_pieces_of_any_size_give_what_the_whole_gives(value, step, indent, is_ascii):
    content = f" {json.dumps(value, indent=indent, ensure_ascii=is_ascii)}\n ".encode()
    assert read(content, step) == value
    assert unpack_object_info(iter("".join(pack_object_info(read(content, step))).splitlines())) == value


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b'{"a": 1', b'{"a": 1}}', b'{"a" 1}', b"{1: 2}", b'{"a": 1,}', b'{"a": 1,} b": 2}',
     b"\xff{}", b'{"a": tru}', b'{"a":' + b"[" * 9_000, b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(content):
    for step in (1, 10**6):
        with pytest.raises(ValueError, match=r"begin|early|end|nested|utf-8"):
            read(content, step)


def test_one_class_that_is_too_large_is_not_waited_for():
    with pytest.raises(OverflowError, match="one class has more than"):
        read(b'{"a": "' + b"x" * 10_000, max_member=1000)


@pytest.mark.parametrize("member", ['"%d": 1, ', '"%d": [1, 2, 3], ', '"%d": "' + "x" * 500 + '", '])
def test_more_than_fits_into_memory_is_refused(member, monkeypatch):
    monkeypatch.setattr("sweeper.model.node_classes.object_info._MAX_BYTES", 100_000)
    content = "{" + "".join(member % index for index in range(2000))
    with pytest.raises(OverflowError, match="its classes take more than"):
        read(content.encode())


def test_a_key_that_the_server_repeats_is_removed():
    content = json.dumps({"a": loader(["sk-secret"]), "sk-secret": 1, "b": 2}).encode()
    found = read(content, redact=lambda text: text.replace("sk-secret", "***"))
    assert found == {"a": loader(["***"]), "***": 1, "b": 2}


def test_equal_lists_are_kept_and_written_once():
    found = read(json.dumps({f"Loader{index}": loader(NAMES) for index in range(50)}).encode(), 1000)
    lists = {id(declared["input"]["required"]["lora_name"][0]) for declared in found.values()}
    assert len(lists) == 1
    assert "".join(pack_object_info(found)).count(NAMES[50]) == 1
    info = NodeInfo.from_object_info(json.loads(json.dumps(found)))
    assert len({id(spec.inputs["lora_name"].choices) for spec in info.classes.values()}) == 1


def test_thousands_of_values_are_checked_by_a_set():
    names = [f"{index:05d}{'-' * 70}.safetensors" for index in range(9_000)]
    spec = NodeInfo.from_object_info({"Loader": loader(names)}).classes["Loader"].inputs["lora_name"]
    began = time.process_time()
    assert [name for name in names if find_value_problem(spec, name)] == []
    assert time.process_time() - began < 1.0  # a schema takes 30 s
    assert "did you mean" in (find_value_problem(spec, names[5].replace("-", "_", 1)) or "")
