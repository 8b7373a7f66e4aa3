"""Arbitrary experiments and arbitrary PNG files: exit codes and errors of ours only, in bounded memory and time."""

# ruff: noqa: E501 - lists of samples

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sweeper.cli import main
from sweeper.comfy.uploads import paint_mask
from sweeper.editing.read_workflow import read_workflow_texts
from sweeper.errors import SweeperError
from sweeper.images.compare import compare_images
from sweeper.images.metrics.measure import read_picture
from sweeper.reporting.sheet_pages import load_small_picture
from tests import ROOT
from tests.platforms import needs_memory_limit

FUZZ = settings(
    derandomize=True, database=None, deadline=None, max_examples=int(os.environ.get("SWEEPER_FUZZ", "40")),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
GRAPH = {
    "1": {"class_type": "PrimitiveString", "inputs": {"value": "a fox"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}
KEYS = st.sampled_from([
    "name", "template", "target", "targets", "params", "derive", "sweep", "order", "metrics", "checks", "run", "grid",
    "zip", "exclude", "include", "where", "sample", "n", "seed", "from", "to", "step", "count", "scale", "seeds", "lines",
    "csv", "column", "files", "choices", "label", "value", "set", "url", "concurrency", "s", "x", "max_failures", "timeout",
])  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from([
        "t.json", "embedded", "cloud", "{{ s }}", "{{ x | round }}", "{a|b}", "s != x", "log", "*.yaml", "/dev/zero", "..",
        ">= 0.9", "10%", "brightness", "1e400", "{{ [1] | map('(round)', 9) }}", "auto", -1, 0, 1, 1e300, 10**9,
    ]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
SWEEPS = st.fixed_dictionaries(
    {}, optional={"grid": st.dictionaries(st.sampled_from(["s", "x", "y"]), VALUES, max_size=3), "zip": VALUES,
                  "exclude": VALUES, "include": VALUES, "where": SCALARS, "sample": VALUES},
)  # fmt: skip
EXPERIMENTS = st.fixed_dictionaries(
    {"template": st.just("t.json") | SCALARS},
    optional={"params": st.dictionaries(st.sampled_from(["s", "x", "y"]), VALUES), "derive": VALUES, "name": SCALARS,
              "sweep": SWEEPS | st.lists(SWEEPS) | VALUES, "run": VALUES, "metrics": VALUES, "checks": VALUES,
              "targets": VALUES, "order": SCALARS},
)  # fmt: skip
TEXTS = st.one_of(
    EXPERIMENTS.map(lambda value: yaml.safe_dump(value, allow_unicode=True)),
    VALUES.map(yaml.safe_dump),
    st.text(max_size=200),
    st.text(alphabet="ab:-{}[]&*#|>!%@`'\" \n\t,?<~", max_size=80),
).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)  # fmt: skip


SHIPPED = sorted(file.name for file in (ROOT / "experiments").glob("*.yaml"))
REPLACEMENTS = VALUES | st.sampled_from([
    10**18, -(10**18), 1e300, float("nan"), float("inf"), "2026-11-27", "1-20", "7", "a: b", "", {}, [], [[]], [None],
    {"seeds": -1}, {"from": 1, "to": 20}, {"n": -1}, "templates/txt2img.json", "http://127.0.0.1:9", "cloud", 0.95,
])  # fmt: skip
LINES = st.sampled_from([
    "\tsteps: 4", "  - x", "a: &a [1, *a]", "b: *a", "<<: *a", "? [a]", "date: 2026-11-27", "---", "sweep:", "%YAML 1.2",
    'path: "C:\\models\\x"', "prompt: a fox: red", "checks: {ssim: 0.9, simm: '> 1'}", "x: !!binary aa", "\ufeff", "}",
])  # fmt: skip


def list_places(value: object) -> list[tuple]:
    """Every (container, key) inside a value."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    return [(value, key) for key, _ in items] + [place for _, item in items for place in list_places(item)]


@st.composite
def wrong_experiments(draw) -> bytes:
    """A shipped experiment with up to three changes: of its values and keys, or of its lines."""
    text = (ROOT / "experiments" / draw(st.sampled_from(SHIPPED))).read_text("utf-8")
    changes = range(draw(st.integers(1, 3)))
    if draw(st.booleans()):
        value = yaml.safe_load(text)
        for _ in changes:
            container, key = draw(st.sampled_from(list_places(value)))
            if draw(st.integers(0, 2)):
                container[key] = copy.deepcopy(draw(REPLACEMENTS))
            elif isinstance(container, dict):
                container[draw(KEYS | st.just(f"{key}s"))] = container.pop(key)
            else:
                container.append(copy.deepcopy(container[key]))
        return yaml.dump(value).encode("utf-8", "surrogatepass")
    lines = text.splitlines()
    for _ in changes:
        index = draw(st.integers(0, len(lines) - 1))
        changed = [
            [f" {lines[index]}"],
            [lines[index]] * 2,
            [],
            [lines[index].replace(":", ""), draw(LINES)],
            [draw(LINES)],
        ]
        lines[index : index + 1] = draw(st.sampled_from(changed))
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def run_commands(content: bytes, limit: int) -> None:
    """Validate, plan and run an experiment with this content. A run of at most one trial may fail, nothing else."""
    folder = Path(tempfile.mkdtemp())
    for name in ("experiments", "templates"):
        (folder / name).mkdir()
        for file in (ROOT / name).iterdir():
            if file.is_file() and file.suffix in (".json", ".yaml", ".csv", ".txt"):
                shutil.copy(file, folder / name)
    os.chdir(folder / "experiments")
    Path("t.json").write_text(json.dumps(GRAPH))
    Path("t.slots.yaml").write_text("slots: {s: {at: 1.value, schema: {type: string}}}\n")
    Path("e.yaml").write_bytes(content)
    for command in (
        ["validate"],
        ["plan", "--target", "embedded"],
        ["run", "--target", "embedded", f"--limit={limit}"],
    ):
        code = main([*command, "e.yaml"])
        assert code in (0, 2) or (limit and code == 1), (command, code)
    os.chdir("/")
    shutil.rmtree(folder)


@settings(FUZZ, max_examples=FUZZ.max_examples // 3)
@example(b"template: t.json\nsweep: {sample: {n: -1, seed: 1}, grid: {s: [a]}}\n", 0)
@example(b"template: t.json\nparams: {s: a}\nsweep: {grid: {x: [1]}, where: x}\n", 1)
@example(b"[", 0)
@given(TEXTS | wrong_experiments(), st.integers(0, 1))
def fuzz_experiments(content, limit):
    run_commands(content, limit)


def chunk(kind: bytes, data: bytes, *, damage: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


HEADERS = st.builds(
    lambda *fields: chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)),
    st.integers(0, 40) | st.integers(0, 2**31 - 1), st.integers(0, 40), st.sampled_from([1, 2, 4, 8, 16, 3]),
    st.sampled_from([0, 2, 3, 4, 6, 1]), st.sampled_from([0, 0, 1]), st.sampled_from([0, 0, 1]), st.sampled_from([0, 1, 2]),
)  # fmt: skip
KINDS = st.sampled_from([
    b"PLTE", b"tRNS", b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"comf", b"IHDR",
    b"IDAT", b"pHYs", b"abcd",
])  # fmt: skip
LONG = zlib.compress(b"\0" * 10_000_000)  # a text that inflates
DATA = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=20).map(lambda key: key + b"\0\0" + LONG),
    st.binary(max_size=2000).map(zlib.compress),
    st.just(zlib.compress(bytes(40 * 400))),
)
CHUNKS = st.lists(st.builds(lambda kind, data, damage: chunk(kind, data, damage=damage), KINDS, DATA,
                            st.sampled_from([0, 0, 0, 1])), max_size=6)  # fmt: skip
PNGS = st.builds(
    lambda header, chunks, cut: (b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b""))[: cut or None],
    HEADERS, CHUNKS, st.sampled_from([0, 0, 0, -3, -20, 40]),
)  # fmt: skip


@FUZZ
@given(PNGS)
def fuzz_png(content):
    path = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.png"
    path.write_bytes(content)
    other = path.with_suffix(".other.png")
    other.write_bytes(content[:-1])
    for door in (
        lambda: read_picture(path),
        lambda: compare_images(path, other),
        lambda: paint_mask(content, content, "a"),
        lambda: read_workflow_texts(path, "PNG"),
        lambda: load_small_picture(path, (64, 64)),
    ):
        with contextlib.suppress(SweeperError):
            door()
    path.unlink()
    other.unlink()


RUN = """
import resource, sys
sys.path.insert(0, sys.argv[1])  # for Python, which a test starts where it cannot fork
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (200, 200))
from tests.cli import test_fuzz
getattr(test_fuzz, sys.argv[2])()
"""


@needs_memory_limit
@pytest.mark.parametrize("fuzz", ["fuzz_experiments", "fuzz_png"])
def test_arbitrary_input_gives_errors_of_ours_only(fuzz, python, tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    command = [python, "-P", str(tmp_path / "run.py"), str(ROOT), fuzz]
    process = subprocess.run(command, capture_output=True, timeout=400, check=False)
    assert process.returncode == 0, process.stderr[-4000:].decode(errors="replace")
