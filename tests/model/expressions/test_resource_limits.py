"""Texts that would need gigabytes or hours ("bombs") are refused soon, tested in a process with limits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sweeper.errors import ExperimentError
from sweeper.model.expressions import ExpressionError, compile_text
from tests import ROOT
from tests.experiment_files import make_plan
from tests.platforms import needs_memory_limit

GRAPH = {"1": {"class_type": "A", "inputs": {"v": None, "s": "ab", "n": 3}}}
SLOTS = {name: {"at": f"1.{name}"} for name in GRAPH["1"]["inputs"]}


GIVEN = {"big": "a" * 400_000, "same": "a" * 400_000, "huge": 10**4000, "words": ["x" * 900] * 1000}


def derive(folder, text):
    given = {name: value for name, value in GIVEN.items() if name in text}
    (trial,) = make_plan(folder, {"params": given, "derive": {"v": text}}, GRAPH, SLOTS)
    return trial.params["v"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("{{ -n }}", -3), ("{{ -5 + 10 }}", 5), ("{{ -n + 1 }}", -2), ("{{- -n -}}", -3), ("{{ n - -n }}", 6)],
)
def test_a_leading_sign_is_part_of_the_expression(tmp_path, text, value):
    assert derive(tmp_path, text) == value


@pytest.mark.parametrize("text", ["{{ n }}{# why #}", "{# why #}{{ n }}", "{{- n -}}{#- why -#}"])
def test_a_comment_next_to_an_expression_has_no_effect(tmp_path, text):
    assert derive(tmp_path, text) == 3


@pytest.mark.parametrize("text", ["{{ n }}{# why #}", "{{ -n }}"])
def test_strings_in_a_template_follow_the_same_rules(tmp_path, text):
    plan = make_plan(tmp_path, {"params": {"n": 3}}, {"1": {"class_type": "A", "inputs": {"v": text}}}, {})
    (trial,) = plan
    assert plan.workflow(trial)["1"]["inputs"]["v"] == (-3 if "-" in text else 3)


WORK = "takes too much work: more than 1,000,000 characters and steps"
DIGITS = "`round` takes at most 100 digits"
UNSAFE = "access to attribute '{}' of 'str' object is unsafe."
PADDED = "`format` is not allowed here; `epoch | pad(6)` writes leading zeros"
FOR = "contains a Jinja2 for, which is not allowed here"
LARGE = "gives a number too large to compute here"
PARTS = "has too many parts; longer computations belong in a program"

# Each of these needs gigabytes or hours and must be refused soon.
BOMBS = {
    "power inside the round filter": ("{{ 1 | round(200000000, 'ceil') }}", DIGITS),
    "power of a negative precision": ("{{ 1 | round(-200000000) }}", DIGITS),
    "format method": ("{{ '{:>9999999999}'.format(1) }}", PADDED),
    "format_map method": ("{{ '{a:>9999999999}'.format_map({'a': 1}) }}", UNSAFE.format("format_map")),
    "format as an item": ("{{ '{:>9999999999}'['format'](1) }}", PADDED),
    "replace filter": ("{{ ('a' * 10000) | replace('a', 'a' * 10000) | replace('a', 'a' * 100) }}", WORK),
    "replace method": ("{{ ('a' * 10000).replace('a', 'a' * 10000).replace('a', 'a' * 100) }}", WORK),
    "replace of nothing": ("{{ ('a' * 10000) | replace('', 'a' * 10000) }}", WORK),
    "list of lists": ("{{ [[1] * 10000] * 10000 }}", WORK),
    "text of a list of lists": ("{{ ([['a' * 10000] * 1000] * 1000) | string | length }}", WORK),
    "list of lists written out": ("{{ [" + "words, " * 900 + "] }}", WORK),
    "text of a list written out": ("a {{ [" + "words, " * 900 + "] }}", WORK),
    "equal lists written out": ("{{ [" + "big, " * 400 + "] == [" + "same, " * 400 + "] }}", WORK),
    "equal lists behind a choice": (
        "{{ ([" + "big, " * 400 + "] if n else n) == [[" + "same, " * 400 + "]][0] }}", WORK),
    "long list written out": ("{{ [" + "n, " * 5000 + "] }}", PARTS),
    "sum of long texts by +": ("{{ " + " + ".join(["big"] * 60) + " }}", WORK),
    "sum of long lists by +": ("{{ " + " + ".join(["words"] * 60) + " }}", WORK),
    "join of joins": ("{{ ([([('a' * 10000)] * 10000) | join] * 10000) | join }}", WORK),
    "join by a long text": ("{{ words | join(big) }}", WORK),
    "join method": ("{{ big.join(words) }}", WORK),
    "joins by ~": ("{{ " + " ~ ".join(["big"] * 60) + " }}", WORK),
    "loops": ("{% for i in words %}{% for j in words %}{{ big }}{% endfor %}{% endfor %}", FOR),
    "a filter behind a filter": (
        "{{ [1] | map('round', 200000000, 'ceil') | list }}",
        "uses the filter 'map', which is not known here; did you mean 'max'?",
    ),
    "given text many times": ("{{ big }}" * 40, "gives a text of more than 1,000,000 characters"),
    "given number many times": ("a{{ huge }}" * 900, WORK),
    "many tests": ("{{ " + " and ".join(["big is lower"] * 90) + " }}", WORK),
    "many methods": ("{{ " + " ~ ".join(["big.upper() | length"] * 90) + " }}", WORK),
    "division of a long number": ("{{ huge // 7 }}", f"`//` {LARGE}"),
    "many comparisons": ("{{ " + " and ".join(["big == same"] * 90) + " }}", WORK),
    "many slices": ("{{ big" + "[1:]" * 45 + " }}", WORK),
    "remainder of a long number": ("{{ huge % 7 }}", f"`%` {LARGE}"),
    "product of long numbers": ("{{ huge * huge }}", f"`*` {LARGE}"),
    "long hexadecimal": ("{{ ('f' * 9000) | int(base=16) }}", f"`int` {LARGE}"),
    "long literal": ("{{ 0x" + "f" * 15000 + " }}", "contains a number too large to compute here"),
    "search from the end": ("{{ big.rfind('b' ~ big[:200000]) }}", WORK),
    "split from the end": ("{{ big.rsplit('b' ~ big[:200000]) }}", WORK),
    "trim of many letters": ("{{ big | trim('b' ~ big[1:]) }}", WORK),
    "strip of many letters": ("{{ big.strip('bcdefghijklm' * 800 ~ 'a') }}", WORK),
    "words of a long text": ("{{ big.split('a') | length }}", WORK),
    "letters of a long text": ("{{ big | list | length }}", WORK),
    "doubling in with": (
        "".join(f"{{% with {new} = {old}~{old}~{old} %}}" for old, new in zip(["n", *"abc"], "abcd", strict=True))
        + "{{ d }}"
        + "{% endwith %}" * 4,
        "contains a Jinja2 with, which is not allowed here",
    ),
}  # fmt: skip

RUN = """
import json, resource, sys, tempfile, tracemalloc
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
sys.path.insert(0, sys.argv[1])
from sweeper.errors import ExperimentError
from sweeper.model.expressions import ExpressionError, compile_text
from tests.model.expressions.test_resource_limits import BOMBS, GIVEN
values = GIVEN | {"n": 3}
compile_text("{{ n }} {{ n ~ n }}").evaluate(values)
for name in sys.argv[2:]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 4, resource.RLIM_INFINITY))
    print(end=json.dumps(name), flush=True)
    tracemalloc.start()
    try:
        message = f"computed {str(compile_text(BOMBS[name][0]).evaluate(values))[:20]}"
    except ExpressionError as error:
        message = str(error)
    peak = tracemalloc.get_traced_memory()[1] >> 20
    tracemalloc.stop()
    print(end="\\t" + json.dumps([message, peak]) + "\\n", flush=True)
"""


@pytest.fixture(scope="module")
def fates():
    """The result of each bomb: [message, MiB]. One process tries all; if one kills it, another continues after it."""
    results = {}
    while remaining := [name for name in BOMBS if name not in results]:
        command = [sys.executable, "-c", RUN, str(ROOT), *remaining]
        process = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        lines = [line.split("\t") for line in process.stdout.splitlines()]
        results |= {remaining[0]: [f"no answer at all: {process.stderr[-500:]}", 0]}
        results |= {json.loads(name): json.loads(fate[0]) if fate else ["killed", 0] for name, *fate in lines}
    return results


@needs_memory_limit
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_four_seconds_and_sixteen_megabytes(fates, name):
    message, mebibytes = fates[name]
    assert message == BOMBS[name][1]
    assert mebibytes < 16


def test_a_refusal_names_the_location_of_the_text(tmp_path):
    with pytest.raises(ExperimentError, match=r"e\.yaml:1: derive\.v: takes too much work: more than 1,000,000"):
        derive(tmp_path, BOMBS["join of joins"][0])


def test_each_trial_has_its_own_budget():
    expression = compile_text("{{ (s | replace('a', 'b')) ~ s }}")
    for _ in range(50):
        assert len(expression.evaluate({"s": "a" * 100_000})) == 200_000


def test_texts_within_the_budget_are_accepted():
    assert len(compile_text("{{ big[1:] }}{{ big[2:] }}").evaluate(GIVEN)) == 799_997
    assert len(compile_text("{{ big[:9] | replace('a', 'b' * 9999) }}").evaluate(GIVEN)) == 89_991
    assert compile_text("{{ n < 2 ** 63 }}").evaluate({"n": 2**64 - 1}) is False
    assert compile_text("{{ n + 1 }}").evaluate({"n": 2**64 - 1}) == 2**64
    assert compile_text("{{ n * 6364136223846793005 % 2 ** 64 }}").evaluate({"n": 2**64 - 1}) == 12082607849862758611


@pytest.mark.parametrize("text", ["-" * 400 + "n", "n" + " + n" * 900, "not " * 400 + "n", "n" + " ~ n" * 900])
def test_a_long_chain_never_gives_a_traceback(tmp_path, text):
    try:
        derive(tmp_path, "{{ " + text + " }}")
    except ExperimentError as error:
        assert len(str(error)) < 1000  # noqa: PT017 - either way is right


@pytest.mark.parametrize("where", ["n + " * 3000 + ")", "n | " + "n" * 3000, "s." + "n" * 3000, "'n' * n * s"])
def test_a_message_about_a_long_where_is_cut(tmp_path, where):
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, {"sweep": {"grid": {"n": [1]}, "where": where}}, GRAPH, SLOTS)
    assert len(str(caught.value)) < 500


def test_an_integer_too_long_to_print_is_refused(tmp_path):
    with pytest.raises(ExperimentError):
        derive(tmp_path, "{{ ('f' * 9000) | int(base=16) }}")


@pytest.mark.parametrize("name", ["sort", "min", "max", "unique", "join"])
def test_no_filter_reads_private_attributes(name):
    with pytest.raises(ExpressionError):
        compile_text("{{ ['a', 'b'] | " + name + "(attribute='__class__') | list }}").evaluate({})


def test_a_slot_may_be_named_range(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"v": "{{ range }}"}}}
    plan = make_plan(tmp_path, {"params": {"range": 7}}, graph, {"range": {"default": 1}})
    assert plan.workflow(next(iter(plan)))["1"]["inputs"]["v"] == 7
