"""Text nodes with hostile patterns and texts: every job ends, can be cancelled, and leaves the server usable."""

from __future__ import annotations

import re
import time

import pytest

from sweeper.embedded import EmbeddedServer
from tests.embedded.clients import Comfy
from tests.waiting import wait_until

FLAGS = {"case_insensitive": False, "multiline": False, "dotall": False}
NEVER_ENDING = {"string": "a" * 60 + "!", "regex_pattern": "^(a+)+$"}
NODES = {
    "RegexMatch": FLAGS,
    "RegexExtract": {**FLAGS, "mode": "First Match", "group_index": 1},
    "RegexReplace": {**FLAGS, "replace": "x", "count": 0},
}


@pytest.fixture
def comfy():
    with EmbeddedServer("comfyui") as server:
        client = Comfy(server)
        yield client
        client.http.close()


def graph(kind, **inputs):
    return {
        "1": {"class_type": kind, "inputs": inputs},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def read_error(entry):
    (data,) = [data for event, data in entry["status"]["messages"] if event == "execution_error"]
    return data


@pytest.mark.parametrize("kind", NODES)
def test_endless_pattern_fails_the_job_and_the_next_runs(comfy, kind, monkeypatch):
    monkeypatch.setattr("sweeper.embedded.nodes.regular_expressions.MAX_SECONDS", 1.0)

    error = read_error(comfy.run(graph(kind, **NEVER_ENDING, **NODES[kind])))

    assert error["exception_type"] == "RuntimeError"
    assert "'^(a+)+$' took longer than 1 seconds" in error["exception_message"]
    monkeypatch.undo()
    entry = comfy.run(graph(kind, string="aaa", regex_pattern="^(a+)+$", **NODES[kind]))
    assert entry["status"]["status_str"] == "success"


def test_endless_pattern_can_be_cancelled_while_others_are_served(comfy):
    job = comfy.submit(graph("RegexMatch", **NEVER_ENDING, **FLAGS))
    wait_until(lambda: comfy.http.get("/queue").json()["queue_running"])
    started = time.monotonic()
    assert comfy.http.get("/system_stats").status_code == 200
    comfy.http.post("/interrupt", json={"prompt_id": job})

    entry = comfy.wait_for_end(job)

    assert time.monotonic() - started < 5
    assert [event for event, _ in entry["status"]["messages"]][-1] == "execution_interrupted"


def test_server_stops_during_an_endless_pattern():
    with EmbeddedServer("comfyui") as server:
        client = Comfy(server)
        client.submit(graph("RegexMatch", **NEVER_ENDING, **FLAGS))
        wait_until(lambda: client.http.get("/queue").json()["queue_running"])
        client.http.close()
        started = time.monotonic()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("pattern", "string", "expected"),
    [
        (r"(?<=\$)\d+", "costs $42", "42"),  # a look-behind
        (r"(\w)\1", "a book", "oo"),  # a back-reference
        (r"\w+$", "grün\n", "grün"),  # `$` before a final line feed, Unicode words
        ("\ud800", "x\ud800", "\ud800"),  # a lone surrogate
    ],
)
def test_patterns_keep_the_meaning_that_python_gives_them(context, pattern, string, expected):
    inputs = {"string": string, "regex_pattern": pattern, "group_index": 1, **FLAGS}
    assert context.run("RegexExtract", mode="First Match", **inputs) == expected


@pytest.mark.parametrize(("pattern", "kind"), [("(", re.error), ("a", re.error), ("(?P<n>a)", IndexError)])
def test_replacement_raises_the_errors_of_python(context, pattern, kind):
    replace = r"\g<m>" if kind is IndexError else r"\3"
    with pytest.raises(kind) as caught:
        context.run("RegexReplace", string="a", regex_pattern=pattern, replace=replace)
    with pytest.raises(kind, match=re.escape(str(caught.value))):
        re.sub(pattern, replace, "a")


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("StringConcatenate", {"string_a": "a" * 6_000_000, "string_b": "b" * 6_000_000, "delimiter": ""}),
        ("StringReplace", {"string": "a" * 5_000, "find": "", "replace": "b" * 1_000_000}),
        ("RegexReplace", {"string": "a" * 5_000, "regex_pattern": "a", "replace": "b" * 100_000}),
        ("RegexReplace", {"string": "a" * 50_000, "regex_pattern": "a", "replace": "b" * 1_000_000}),
    ],
)
def test_nodes_make_no_text_beyond_the_limit(context, kind, inputs):
    with pytest.raises((ValueError, MemoryError), match=r"at most 10000000 are allowed|memory|^$"):
        context.run(kind, **inputs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(fox:" + "1" * 400_000 + "!", None),  # once took time by the square of the digits
        ("(fox:" + " " * 400_000 + "!", None),
        ("(fox " * 100 + "a" + ")" * 100, None),
        ("(" * 101, "the brackets of the prompt nest deeper than 100 levels"),
        ("(fox" * 200_000, "the brackets of the prompt nest deeper than 100 levels"),
        ("a" * 1_000_001, "the prompt has 1000001 characters; at most 1000000 are allowed"),
    ],
    ids=["digits", "spaces", "deep", "too deep", "much too deep", "too long"],
)
def test_hostile_prompt_is_encoded_or_refused_soon(context, text, message):
    clip = context.run("CheckpointLoaderSimple", ckpt_name="procedural-photo.safetensors")[1]
    started = time.monotonic()
    if message is None:
        context.run("CLIPTextEncode", text=text, clip=clip)
    else:
        with pytest.raises(ValueError, match=message):
            context.run("CLIPTextEncode", text=text, clip=clip)
    assert time.monotonic() - started < 5
