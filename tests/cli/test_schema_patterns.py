"""The patterns of our own schemas fit into the time that a pattern may take."""

from __future__ import annotations

import pytest

PLAIN = "template: t.json\nparams: {prompt: a fox, seed: 1}\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('checks: {ssim: ">= 0.95"}', 0),
        ("run: {max_failures: 10.5 %}", 0),
        ("run: {out: 's3://bucket/folder/with/a/rather/long/path'}", 0),
        ("run: {out: 's3://user@bucket:80/a:b@c'}", 0),
        ("run: {out: 's3://user:password@bucket/folder'}", 2),
        ("run: {out: 's3://bucket/folder?query'}", 2),
        ("run: {out: 's3://'}", 2),
        ('run: {out: "s3://bucket\\n"}', 2),
        ('checks: {ssim: ">= 0.95\\n"}', 2),
        (f"name: {'a' * 101}", 2),
    ],
)
def test_values_with_a_pattern_are_checked(sweeper, write, text, code):
    assert sweeper("validate", write(f"{PLAIN}{text}\n"), "--trust").code == code
