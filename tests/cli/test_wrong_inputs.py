"""Wrong inputs of every kind, made from valid ones by a fixed seed: a known exit code and no traceback."""

# ruff: noqa: E501 - lists of samples

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shlex
import shutil
import sqlite3
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest
import yaml

from sweeper.cli import main
from sweeper.statistics.ranking import rank
from tests.cli.conftest import SLOTS, TXT2IMG

COUNT = int(os.environ.get("SWEEPER_WRONG_INPUTS", "210"))
SEED = int(os.environ.get("SWEEPER_SEED", "1"))
EXIT_CODES = (0, 1, 2, 3, 130)

EXPERIMENT = """\
name: shop
description: foxes
template: t.json
target: embedded
targets: {far: {url: "http://127.0.0.1:9", dialect: comfyui, concurrency: 2, price: {per_second: 0.001 USD}}}
params: {cfg: 7.5}
derive: {negative: "{{ style | upper }}, {{ steps * 2 }}"}
sweep:
  - grid:
      prompt: {choices: "a {red|blue} fox"}
      steps: [1, 2, {label: four, value: 4}]
      format: [{label: wide, set: {width: 64}}, {label: tall, set: {width: 32}}]
    zip: [{seed: {seeds: 2, key: k}, style: [oil, ink]}]
    exclude: [{steps: four, format: tall}]
    include: [{steps: 3, seed: 7}]
    where: steps < 5 and style != 'wash'
    sample: {n: 3, seed: 1}
  - grid:
      prompt: {lines: prompts.txt}
      steps: {from: 1, to: 3, step: 1}
      cfg: {from: 0.1, to: 10, count: 2, scale: log}
      seed: {csv: seeds.csv, column: seed}
    zip: [{style: [wash]}]
metrics: [brightness, sharpness]
checks: {ssim: ">= 0.9", mae: "< 4", overrides: [{where: steps > 2, ssim: ">= 0.8"}]}
run: {timeout: 60, retries: 1, max_failures: 10%, budget: 2 USD, max_trials: 50, concurrency: 2}
"""
SEARCH = """\
template: t.json
params: {prompt: a fox, negative: blurry, width: 64}
search:
  space: {steps: {from: 1, to: 9}, cfg: {from: 0.5, to: 9, scale: log}}
  over: {seed: {seeds: 2}}
  maximize: brightness
  trials: 8
  until: no better for 4 trials
  batch: 2
  method: random
"""
SMALL = """\
name: small
template: t.json
params: {prompt: a fox, negative: blurry, width: 32}
sweep: {grid: {steps: [1, 2], seed: [1]}}
metrics: [brightness]
"""
TEMPLATE = {**copy.deepcopy(TXT2IMG), "10": {"class_type": "PreviewAny", "inputs": {"source": "{{ style }}"}}}
TEMPLATE["9"]["inputs"]["filename_prefix"] = "{{ style | default('oil') }}-{{ prompt | truncate(9) }}"
MORE_SLOTS = """\
  negative: {at: {class: CLIPTextEncode, node: "7", input: text}, schema: {type: string, pattern: "^[a-zA-Z0-9, ]*$"}}
  width: {at: [5.width, 5.height], schema: {type: integer, multipleOf: 8, enum: [32, 64]}, description: both sides}
"""
MARKS = {"format": "sweeper-marks", "version": 1, "marks": []}
HUGE = (
    10**400, -(10**400), 10**3999, 2**63, 2**1024, 1e308, -1e308, 5e-324, -0.0, float("nan"), float("inf"), 10**15, 1.5, -1
)  # fmt: skip
ODD = (
    None, True, -1, 0, -0.0, 1e308, float("nan"), float("inf"), 10**400, -(10**30), 2**53 + 1, "", " ", "\0", "\ud800", "\x1b[31m",
    "\u202e", "é" * 300, "x" * 5000, "1e400", "9" * 5000, "{{ 1 / 0 }}", "{{ [", "{% for x in y %}", "/dev/zero", "../x",
    "a\nb", "`", "'", "$(id)", [], {}, [[]], [None], {"": {}}, {"label": 1}, {"from": 1, "to": 10**400, "step": 1},
    {"seeds": 10**12}, {"from": 0, "to": 1e308, "count": 10**9}, {"choices": "{a|" * 40}, {"lines": "."}, {"files": "**/**"}, [1, "1", 1.0],
)  # fmt: skip
PIECES = (
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b]0;x\x07", b"\xe2\x80\xae", b"[" * 4000, b"{" * 200, b"&a [*a]", b"1e400", b"-0.0",
    b"9" * 4400, b"NaN", b"\t", b"\r", b": ", b"- ", b"'", b'"', b"!!binary x", b"<<: *x", b"\xc2\x85", b"\n---\n", b"%",
)  # fmt: skip
COMMANDS = {
    "experiment": ["validate e.yaml", "plan e.yaml", "plan e.yaml --json", "doctor e.yaml", "check e.yaml --limit 0"],
    "template": ["validate t.json", "template show t.json", "template slots t.json", "plan small.yaml", "validate e.yaml"],
    "slots": ["validate t.json", "template show t.json", "plan e.yaml", "validate small.yaml"],
    "file": ["validate e.yaml", "plan e.yaml --csv -"],
    "marks": ["report small.yaml --marks marks.json"],
    "votes": ["votes import small.yaml votes.jsonl", "votes list small.yaml"],
    "baseline": ["report small.yaml --baseline base", "accept small.yaml --baseline base", "accept small.yaml --baseline base --yes"],
    "store": ["results small.yaml", "runs small.yaml", "costs small.yaml", "report small.yaml", "plan small.yaml",
              "effects small.yaml", "export small.yaml -o -", "compare small.yaml small.yaml", "votes list small.yaml"],
}  # fmt: skip
LINES = (
    "plan e.yaml --set steps=[1,2] --where 'steps > 1' --limit 2 --target embedded", "validate e.yaml t.json --json",
    "results small.yaml --where 'steps > 1' --sort brightness --columns steps,seed --limit 1 --run 1",
    "results small.yaml --by steps --pivot steps,seed,brightness --set seed=1", "export small.yaml -o x.csv --format tsv",
    "effects small.yaml --metric brightness --axis steps --over seed", "compare small.yaml small.yaml --verdict --margin brightness=1",
    "report small.yaml -o page --sheet s.png --x steps --y seed --cell 40 --megapixels 1", "template slots t.json --json",
    "costs small.yaml --json", "accept small.yaml --cases - --new-only", "init new --from t.json", "schema experiment", "trust . --list",
)  # fmt: skip


def list_places(value):
    """Every (container, key) inside a value."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    return [(value, key) for key, _ in items] + [place for _, item in items for place in list_places(item)]


def change_value(random, value):
    """Delete, duplicate, rename, retype, nest or swap a part of a value, in place."""
    places = list_places(value)
    container, key = random.choice(places)
    other, other_key = random.choice(places)
    match random.randrange(8):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        case 2 if isinstance(container, dict):
            container[random.choice([f"{key}s", "", "\0", str(other_key), "k" * 2000])] = container.pop(key)
        case 3:
            container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(container[key])
        case 4:
            for _ in range(random.choice([1, 70, 3000])):
                container[key] = [container[key]] if random.random() < 0.5 else {str(other_key): container[key]}
        case 5 | 6:
            numbers = [place for place in places if isinstance(place[0][place[1]], (int, float))] or places
            container, key = random.choice(numbers)
            container[key] = random.choice(HUGE)
        case _:
            container[key] = copy.deepcopy(random.choice(ODD))


def change_bytes(random, content):
    """Cut, repeat, insert or encode otherwise a part of a file."""
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    match random.randrange(6):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + content[end:]
        case 2:
            return content[:end] + content[start:]
        case 3:
            return content.decode("utf-8", "replace").encode(
                random.choice(["utf-16", "utf-32-le", "utf-7", "cp037"]), "replace"
            )
        case _:
            return content[:start] + random.choice(PIECES) + content[start:]


def make_wrong(random, content, load, dump):
    """Up to three changes of the parsed value, or of the bytes."""
    if random.random() < 0.6:
        with contextlib.suppress(IndexError, RecursionError):  # nothing is left to change
            value = load(content)
            for _ in range(random.randint(1, 3)):
                change_value(random, value)
            return dump(value).encode("utf-8", "surrogatepass")
    for _ in range(random.randint(1, 2)):
        content = change_bytes(random, content)
    return content


def dump_yaml(value):
    return json.dumps(value) if len(repr(value)) > 20_000 else yaml.safe_dump(value, allow_unicode=True)


YAML = {"load": yaml.safe_load, "dump": dump_yaml}
JSON = {"load": json.loads, "dump": json.dumps}


def change_store(random, path):
    """Set cells of a results folder's database to odd values, drop a table, or damage its bytes."""
    if random.random() < 0.3:
        path.write_bytes(change_bytes(random, path.read_bytes()))
        return
    with contextlib.closing(sqlite3.connect(path)) as store, store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        filled = [name for name in tables if store.execute(f'SELECT 1 FROM "{name}"').fetchone()]
        table = random.choice(filled)
        columns = [row[1] for row in store.execute(f'PRAGMA table_info("{table}")')]
        column = random.choice(columns)
        with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):  # a constraint refuses it
            match random.randrange(5):
                case 0:
                    store.execute(f'DROP TABLE "{random.choice(tables)}"')
                case 1:
                    store.execute(f'DELETE FROM "{table}"')
                case 2:
                    value = random.choice(
                        ["[]", "{}", "NaN", "[" * 4000, b"\xff", "1e999", '{"a": NaN}', "null", '"x"']
                    )
                    store.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
                case _:
                    value = random.choice([value for value in ODD if not isinstance(value, (list, dict))])
                    store.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))


def change_line(random, line):
    """A command line with a word left out, repeated or replaced."""
    words = shlex.split(line)
    for _ in range(random.randint(1, 2)):
        index = random.randrange(len(words))
        odd = os.fsdecode(str(random.choice(ODD)).replace("\0", "")[:3000].encode("utf-8", "surrogatepass"))
        pieces = [
            [],
            [words[index]] * 2,
            [odd],
            [f"{words[index].partition('=')[0]}={odd}"],
            ["--json"],
            [words[index], odd],
        ]
        words[index : index + 1] = random.choice(pieces)
        words = words or [odd]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with valid files of every kind."""
    home = tmp_path_factory.mktemp("valid")
    files = {"e.yaml": EXPERIMENT, "search.yaml": SEARCH, "small.yaml": SMALL, "t.json": json.dumps(TEMPLATE),
             "t.slots.yaml": SLOTS + MORE_SLOTS, "prompts.txt": "a fox\na hen\n", "seeds.csv": "seed,x\n1,2\n3,4\n"}  # fmt: skip
    for name, text in files.items():
        (home / name).write_text(text)
    with contextlib.chdir(home):
        assert main(["run", "small.yaml", "--quiet"]) == 0
        assert main(["accept", "small.yaml", "--baseline", "base", "--yes"]) == 0
        digest = json.loads((home / "base" / "manifest.json").read_text())["cases"][0]["accepted"][0]
    vote = {"id": "v1", "voter": "ana", "axis": "steps", "left_digest": digest["digest"], "left_sha256": digest["sha256"],
            "right_digest": "0" * 64, "right_sha256": "0" * 64, "shown": 1.0, "answered": 2.0, "answer": "left", "undone": False}  # fmt: skip
    mark = {"digest": digest["digest"], "verdict": "keep", "stars": 3, "comment": "good", "changed": 1.0}
    (home / "votes.jsonl").write_text(json.dumps(vote) + "\n")
    (home / "marks.json").write_text(json.dumps({**MARKS, "marks": [mark]}))
    return home


def make_case(random, kind):
    """Make one file of the current folder wrong, or choose a wrong command line. Returns the command line."""
    change = {
        "experiment": partial(make_wrong, **YAML), "slots": partial(make_wrong, **YAML), "file": change_bytes,
        "template": partial(make_wrong, **JSON), "marks": partial(make_wrong, **JSON),
        "votes": partial(make_wrong, **JSON), "baseline": partial(make_wrong, **JSON),
    }  # fmt: skip
    files = {"slots": "t.slots.yaml", "template": "t.json", "marks": "marks.json", "votes": "votes.jsonl",
             "baseline": "base/manifest.json", "file": random.choice(["prompts.txt", "seeds.csv"])}  # fmt: skip
    if kind == "line":
        return change_line(random, random.choice(LINES))
    if kind == "store":
        change_store(random, Path("results/small/sweeper.sqlite"))
    else:
        valid = Path(files.get(kind) or random.choice(["e.yaml", "search.yaml", "small.yaml"]))
        content = change[kind](random, valid.read_bytes())
        Path("e.yaml" if kind == "experiment" else valid).write_bytes(content)
    return shlex.split(random.choice(COMMANDS[kind]))


KINDS = ("experiment", "template", "slots", "file", "marks", "votes", "baseline", "store", "line")


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_inputs_end_with_a_known_exit_code(folder, tmp_path, monkeypatch, capsys, kind):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setitem(rank.__kwdefaults__, "resamples", 20)  # a thousand take two seconds for each list of votes
    failures = []
    for number in range(-(-COUNT // len(KINDS))):
        home = tmp_path / "work"
        shutil.rmtree(home)
        shutil.copytree(folder, home)
        monkeypatch.chdir(home)
        arguments = make_case(Random(f"{SEED} {kind} {number}"), kind)
        code = main(arguments)
        errors = capsys.readouterr().err
        if code not in EXIT_CODES or "Traceback" in errors:
            failures.append((number, arguments, code, errors[-300:]))
    assert not failures


def name_all(number, text):
    """The text once for each number, with the number in it, as items of a flow list."""
    return ", ".join(text % index for index in range(number))


SLASH = "\\'"
SIZES = {  # for each kind of input, how many parts of it take a noticeable time, and the experiment with so many
    "a text of choices": (400_000, lambda n: f"sweep: {{grid: {{prompt: {{choices: {json.dumps('a' * n)}}}}}}}"),
    "unknown metrics": (500, lambda n: f"metrics: [{name_all(n, 'm%d')}]"),
    "unknown keys": (2_000, lambda n: f"run: {{{name_all(n, 'k%d: 1')}}}"),
    "wrong values": (2_000, lambda n: f"sweep: {{grid: {{steps: [{name_all(n, 'a%d')}]}}}}"),
    "quotes in a condition": (4_000, lambda n: f"checks: {{overrides: [{{where: {json.dumps(SLASH * n)}, ssim: '> 0'}}]}}"),
    "dots in a condition": (4_000, lambda n: f"checks: {{overrides: [{{where: a{'.a' * n}, ssim: '> 0'}}]}}"),
}  # fmt: skip


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A copy of the valid files as the current folder."""
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", SIZES)
def test_time_grows_no_faster_than_the_input(kind):
    number, make = SIZES[kind]

    def measure(count):
        Path("e.yaml").write_text(f"template: t.json\n{make(count)}\n")
        start = time.process_time()
        main(["validate", "e.yaml"])
        return time.process_time() - start

    measure(1)
    small = min(measure(number) for _ in range(2))
    assert measure(4 * number) < 8 * small + 0.2


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("kind", ["unknown metrics", "unknown keys", "wrong values"])
def test_many_mistakes_are_a_few_lines_and_a_count(capsys, kind, as_json):
    Path("e.yaml").write_text(f"template: t.json\n{SIZES[kind][1](1_000)}\nbudgett: 1\n")

    assert main(["validate", "e.yaml", *as_json]) == 2

    streams = capsys.readouterr()
    problems = json.loads(streams.out)[0]["problems"] if as_json else streams.err.splitlines()
    assert len(problems) < 25
    assert f"more {'of its values are wrong' if kind == 'wrong values' else 'are the same mistake'}" in str(problems)
    assert "budgett" in str(problems)


@pytest.mark.usefixtures("here")
def test_message_shows_only_the_beginning_of_a_value(capsys):
    Path("prompts.txt").write_text("\n".join("secret" + "x" * 5000 for _ in range(9)))
    Path("e.yaml").write_text(
        "template: t.json\nsweep: {grid: {style: {lines: prompts.txt}, steps: {lines: prompts.txt}}, exclude: [{style: zz}]}\n"
    )

    assert main(["validate", "e.yaml"]) == 2

    errors = capsys.readouterr().err
    assert "its values: secretx" in errors
    assert max(map(len, errors.splitlines())) < 900
    assert "x" * 61 not in errors


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("text", ["derive: 7", "metrics: 7.5", "targets: x", "sweep: {grid: 7}", "sweep: {zip: [7]}"])
def test_number_in_place_of_a_bounded_mapping_is_refused(capsys, text):
    Path("e.yaml").write_text(f"template: t.json\n{text}\n")
    assert main(["validate", "e.yaml"]) == 2
    assert "found" in capsys.readouterr().err
