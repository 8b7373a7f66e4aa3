"""Jinja2 again: signs and comments, and the bombs, each in a process of its own with little memory and time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from writing import planned

from sweeper.errors import ExperimentError

ROOT = Path(__file__).resolve().parents[2]
GRAPH = {"1": {"class_type": "A", "inputs": {"v": None, "s": "ab", "n": 3}}}
SLOTS = {name: {"at": f"1.{name}"} for name in GRAPH["1"]["inputs"]}


def derived(folder, text):
    (trial,) = planned(folder, {"derive": {"v": text}}, GRAPH, SLOTS)
    return trial.params["v"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("{{ -n }}", -3), ("{{ -5 + 10 }}", 5), ("{{ -n + 1 }}", -2), ("{{- -n -}}", -3), ("{{ n - -n }}", 6)],
)
def test_a_sign_in_front_is_part_of_the_expression(tmp_path, text, value):
    assert derived(tmp_path, text) == value


@pytest.mark.parametrize("text", ["{{ n }}{# why #}", "{# why #}{{ n }}", "{{- n -}}{#- why -#}"])
def test_a_comment_beside_an_expression_changes_nothing(tmp_path, text):
    assert derived(tmp_path, text) == 3


@pytest.mark.parametrize("text", ["{{ n }}{# why #}", "{{ -n }}"])
def test_inline_strings_of_a_template_are_read_the_same_way(tmp_path, text):
    plan = planned(tmp_path, {"params": {"n": 3}}, {"1": {"class_type": "A", "inputs": {"v": text}}}, {})
    (trial,) = plan
    assert plan.workflow(trial)["1"]["inputs"]["v"] == (-3 if "-" in text else 3)


LOOPS = "{{% for i in range(1000) %}}{{% for j in range(1000) %}}{}{{% endfor %}}{{% endfor %}}"

# What each asks for is gigabytes or hours; the answer has to be a refusal, soon.
BOMBS = {
    "power inside the round filter": "{{ 1 | round(200000000, 'ceil') }}",
    "format method": "{{ '{:>9999999999}'.format(1) }}",
    "format_map method": "{{ '{a:>9999999999}'.format_map({'a': 1}) }}",
    "replace filter": "{{ ('a' * 10000) | replace('a', 'a' * 10000) | replace('a', 'a' * 100) }}",
    "replace method": "{{ ('a' * 10000).replace('a', 'a' * 10000).replace('a', 'a' * 100) }}",
    "list of lists": "{{ [[1] * 10000] * 10000 }}",
    "text of a list of lists": "{{ ([['a' * 10000] * 1000] * 1000) | string | length }}",
    "sum of lists": "{{ ([[1] * 5000] * 10000) | sum(start=[]) | length }}",
    "long text in two loops": LOOPS.format("{{ 'a' * 10000 }}"),
    "work in two loops": LOOPS.format("{{ range(1000) | sum }}"),
    "doubling in with": (
        "{% with a = 'a' * 10000 %}{% with b = a~a~a~a~a~a~a~a~a~a %}{% with c = b~b~b~b~b~b~b~b~b~b %}"
        "{% with d = c~c~c~c~c~c~c~c~c~c %}{% with e = d~d~d~d~d~d~d~d~d~d %}{% with f = e~e~e~e~e~e~e~e~e~e %}{{ f }}"
        "{% endwith %}{% endwith %}{% endwith %}{% endwith %}{% endwith %}{% endwith %}"
    ),
    "join of joins": "{{ ([([('a' * 10000)] * 10000) | join] * 10000) | join }}",
}  # fmt: skip

RUN = """
import resource, sys, tempfile
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
sys.path[:0] = sys.argv[1:3]
from sweeper.errors import ExperimentError
from test_faults_expressions import BOMBS, derived
for name in sys.argv[3:]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 4, resource.RLIM_INFINITY))
    print(name, end=": ", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            derived(folder, BOMBS[name])
            print("computed", flush=True)
        except ExperimentError as error:
            print("refused" if "MemoryError" not in str(error) else "out of memory", flush=True)
"""


@pytest.fixture(scope="module")
def fates():
    """What became of each bomb. One process tries all; where one kills it, another goes on behind it."""
    found = {}
    while left := [name for name in BOMBS if name not in found]:
        command = [sys.executable, "-c", RUN, str(ROOT), str(Path(__file__).parent), *left]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        told = dict(line.split(": ") for line in done.stdout.splitlines())
        found |= {left[0]: f"no answer at all: {done.stderr[-500:]}"} | {
            name: fate or "killed" for name, fate in told.items()
        }
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory and time are set by POSIX's setrlimit")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_a_gigabyte_or_four_seconds(fates, name):
    assert fates[name] == "refused"


@pytest.mark.parametrize("text", ["-" * 400 + "n", "n" + " + n" * 900, "not " * 400 + "n", "n" + " ~ n" * 900])
def test_a_long_chain_is_computed_or_refused_but_never_a_traceback(tmp_path, text):
    try:
        derived(tmp_path, "{{ " + text + " }}")
    except ExperimentError as error:
        assert len(str(error)) < 1000  # noqa: PT017 - either way is right


def test_a_message_about_a_long_where_does_not_print_all_of_it(tmp_path):
    with pytest.raises(ExperimentError) as caught:
        planned(tmp_path, {"sweep": {"grid": {"n": [1]}, "where": "n + " * 3000 + ")"}}, GRAPH, SLOTS)
    assert len(str(caught.value)) < 500


def test_an_integer_too_long_to_print_is_refused_with_a_message(tmp_path):
    with pytest.raises(ExperimentError):
        derived(tmp_path, "{{ ('f' * 9000) | int(base=16) }}")


def test_a_slot_may_be_named_range_or_the_name_is_refused(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"v": "{{ range }}"}}}
    plan = planned(tmp_path, {"params": {"range": 7}}, graph, {"range": {"default": 1}})
    assert plan.workflow(next(iter(plan)))["1"]["inputs"]["v"] == 7
