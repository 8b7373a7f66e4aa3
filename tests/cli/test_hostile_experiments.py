"""Experiments and templates that would need gigabytes or hours: exit code 2 soon, with the file, the line and the key."""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from sweeper.cli import main
from tests import ROOT
from tests.platforms import needs_memory_limit

GRAPH = {"1": {"class_type": "A", "inputs": {"s": "ab", "n": 3, "x": 1.5}}}
SLOTS = "slots:\n  s: {at: 1.s}\n  n: {at: 1.n}\n  x: {at: 1.x}\n"
PATTERN = "slots:\n  s: {at: 1.s, schema: {pattern: %s}}\n"
SLOW = "{{pattern: '(?:" + "ab" * 150 + "c{}){{900}}'}}"
REFUSED = "schema.%s: is not allowed in the schema of a slot"
GRID = "sweep: {grid: {%s}}\n"
POINTS = "grid: {s: {seeds: 100000}, n: {seeds: 100000}}"
SEEDS = "grid: {s: {seeds: 20000}, n: {seeds: 20000}}"
WORK = "takes too much work"

# ruff: noqa: E501 - each case is one line
# name -> (the experiment below its template, the slots file, what the error says)
CASES = {
    "unguarded filter": (
        """derive: {s: "{{ [1] | map('round', 200000000, 'ceil') | list }}"}""", SLOTS, "derive.s: uses the filter"),
    "choices of 100 KB": (GRID % ('s: {choices: "' + "{a|b}" * 19 + "x" * 100_000 + '"}'), SLOTS, f"grid.s: {WORK}"),
    "many choices": (GRID % ('s: {choices: "' + "{a|b}" * 10 + "{a}" * 20_000 + '"}'), SLOTS, f"grid.s: {WORK}"),
    "many long axes": (GRID % ", ".join(f"v{i}: {{from: 1, to: 1000000, step: 1}}" for i in range(20)), SLOTS, f"grid.v2: {WORK}"),
    "aliases of 2 MB": (
        f'params: {{s: [&a "{"x" * 2_000_000}", {", ".join(["*a"] * 1000)}]}}', SLOTS,
        "params.s[7]: contains more than 16,000,000 characters with its aliases expanded"),
    "a long key": (f"params: {{{'k' * 2000}: 1}}", SLOTS, "params: a key has more than 1,000 characters"),
    "where over 10^10 points": (f'sweep: {{{POINTS}, where: "s != n"}}', SLOTS, "sweep.where: would look at 10,000,000,000"),
    "a large sample": (f"sweep: {{{SEEDS}, sample: {{n: 100000000}}}}", SLOTS, "sample.n: found 100000000, but at most 10"),
    "a negative sample": (f"sweep: {{{SEEDS}, sample: {{n: -1, seed: 1}}}}", SLOTS, "sample.n: found -1, but at least 1"),
    "a long log range": (
        GRID % "x: {from: 1, to: 1e300, count: 1000000, scale: log}", SLOTS, f"grid.x: {WORK}"),
    "a pattern with nested repetitions": ("", PATTERN % '"^(a+)+[A-Z]$"', "slots.s.schema: refuses the workflow's own"),
    "a pattern with a look-ahead": ("params: {s: %s}" % ("a" * 40), PATTERN % '"^(?=(a+)+$)b|ab"', "schema.pattern: is not a pattern of RE2 ("),
    "a pattern with many states": (
        f'params: {{s: "{random.Random(3).getrandbits(2_000_000):b}"}}',
        PATTERN % '"[01]*1[01]{1000}2|^ab$"', "needs more than 2,000,000 steps"),
    "a pattern of property names": (
        "", 'slots:\n  s: {at: 1.s, schema: {patternProperties: {"^(a+)+[A-Z]$": {}}}}\n', REFUSED % "patternProperties"),
    "many patterns that compile slowly": (
        "", f"slots:\n  s: {{at: 1.s, schema: {{anyOf: [{', '.join(map(SLOW.format, range(40)))}]}}}}\n", "schema.anyOf"),
    "a pattern of 3,000 parentheses": ("", PATTERN % f'"{"(" * 3000}{")" * 3000}"', "schema: nests a pattern too deeply"),
    "a part of an earlier draft": (
        "", 'slots:\n  s: {at: 1.s, schema: {anyOf: [{$schema: "http://json-schema.org/draft-07/schema#", pattern: "^(a+)+[A-Z]$"}]}}\n',
        "schema.anyOf[0].$schema: is not allowed in the schema of a slot"),
    "a long text in many messages": (
        f'params: {{s: "{"x" * 1_000_000}"}}',
        f"slots:\n  s: {{at: 1.s, schema: {{anyOf: [{'{type: integer}, ' * 1000}{{const: ab}}]}}}}\n",
        "needs more than 2,000,000 steps"),
    "a schema that refers to itself": ("", 'slots:\n  s: {at: 1.s, schema: {$ref: "#"}}\n', REFUSED % "$ref"),
    "a schema beside many values": (
        f"params: {{s: [{', '.join(map(str, range(10_000)))}]}}",
        f"slots:\n  s: {{at: 1.s, schema: {{items: {{anyOf: [{', '.join('{type: string}' for _ in range(1000))}]}}}}}}\n",
        "needs more than 2,000,000 steps"),
    "a bound of 200,000 digits": ('checks: {ssim: ">= %s!"}' % ("9" * 200_000), SLOTS, "checks.ssim: found '>= 999"),
    "a share of 200,000 digits": ('run: {max_failures: "9.%s%%"}' % ("9" * 200_000), SLOTS, "run.max_failures: found '9.99"),
    "a factor of 4,000 digits": (
        "", f"slots:\n  x: {{at: 1.x, schema: {{multipleOf: {'9' * 3999}}}}}\n", "but a multiple of 99999"),
    "a minimum of 200,000 digits": (
        "", f"slots:\n  n: {{at: 1.n, schema: {{minimum: {'9' * 200_000}}}}}\n", "schema.minimum: a number of more than 4300"),
    "many equal mappings": (
        f"params: {{s: [{', '.join('{}' for _ in range(100_000))}]}}",
        "slots:\n  s: {at: 1.s, schema: {uniqueItems: true}}\n", "params.s: "),
}  # fmt: skip

# The process tries one case after the other, and dies of it if one takes more than 20 seconds of the processor.
RUN = """
import json, os, resource, sys
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from sweeper.cli import main
for name in sys.argv[2:]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 20, resource.RLIM_INFINITY))
    print("begin", file=sys.stderr, flush=True)
    code = main(["validate", f"{name}/e.yaml"])
    print("code", code, file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, python):
    """What `sweeper validate` says about each case: its exit code and its errors."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "run.py").write_text(RUN)
    folders = {}
    for number, (name, (experiment, slots, _)) in enumerate(CASES.items()):
        place = folder / str(number)
        place.mkdir()
        (place / "w.json").write_text(json.dumps(GRAPH))
        (place / "w.slots.yaml").write_text(slots)
        (place / "e.yaml").write_text(f"template: w.json\ntarget: http://127.0.0.1:1\n{experiment}\n")
        folders[name] = str(number)
    results = {}
    while remaining := [name for name in CASES if name not in results]:
        command = [python, "-P", str(folder / "run.py"), str(ROOT), *(folders[name] for name in remaining)]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        said = process.stderr.split("begin\n")[1:]
        results |= {remaining[0]: (None, process.stderr[-500:])}
        for name, text in zip(remaining, said, strict=False):
            errors, _, code = text.rpartition("code ")
            results[name] = (int(code), errors) if code.strip().isdigit() else (None, f"killed: {text[-500:]}")
    return results


@pytest.mark.parametrize(
    "text",
    [
        'checks: {ssim: ">= 0.95", mae: "< 1.5e-3"}',
        "run: {max_failures: 10.5%}",
    ],
)
def test_bounds_and_shares_of_usual_length_are_accepted(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.json").write_text(json.dumps(GRAPH))
    (tmp_path / "e.yaml").write_text(f"template: w.json\ntarget: http://127.0.0.1:1\n{text}\n")
    assert main(["validate", "e.yaml"]) == 0, capsys.readouterr().err


@needs_memory_limit
@pytest.mark.parametrize("name", CASES)
def test_hostile_experiment_is_refused_soon_and_names_its_key(outcomes, name):
    code, errors = outcomes[name]
    assert code == 2, errors
    assert CASES[name][2] in errors
    assert ".yaml:" in errors
    assert max(map(len, errors.splitlines())) < 2000
