"""Text nodes and text encoders with hostile texts."""

from __future__ import annotations

import time

import pytest


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("StringConcatenate", {"string_a": "a" * 6_000_000, "string_b": "b" * 6_000_000, "delimiter": ""}),
        ("StringReplace", {"string": "a" * 5_000, "find": "", "replace": "b" * 1_000_000}),
    ],
)
def test_nodes_make_no_text_beyond_the_limit(context, kind, inputs):
    with pytest.raises(ValueError, match="at most 10000000 are allowed"):
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
    started = time.process_time()
    if message is None:
        context.run("CLIPTextEncode", text=text, clip=clip)
    else:
        with pytest.raises(ValueError, match=message):
            context.run("CLIPTextEncode", text=text, clip=clip)
    assert time.process_time() - started < 5
