"""The manifest: any values survive a round trip, and file names are safe."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.files import find_name_problem
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry, read_baseline
from sweeper.regression.cases import Case

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
scalar = (
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | text
)
case = st.builds(
    Case, st.dictionaries(text, scalar | st.lists(scalar, max_size=2), max_size=4), text, st.integers(0, 9)
)


@settings(max_examples=60)
@given(st.lists(case, max_size=6), scalar)
def test_every_case_survives_a_round_trip_with_its_workflow(cases, value):
    with tempfile.TemporaryDirectory() as folder:
        baseline = Baseline(Path(folder), "shop")
        graph = {"1": {"class_type": "A", "inputs": {"x": 0, "y": ["2", 0]}}, "2": {"class_type": "B", "inputs": {}}}
        other = {**graph, "1": {"class_type": "A", "inputs": {"x": value, "y": ["2", 0]}}}
        baseline.add_graph(graph)
        for case_ in cases:
            base, changes = baseline.add_graph(other)
            accepted = AcceptedFile(
                case_.build_file_name("png"), "0" * 64, None, 1, {}, "d", "t", workflow=base, changes=changes
            )
            baseline.entries[case_.key] = BaselineEntry(case_, (accepted,))
        baseline.save()
        restored = read_baseline(Path(folder), "shop")
        assert set(restored.entries) == {case_.key for case_ in cases}
        assert all(entry.case.key == key for key, entry in restored.entries.items())
        assert all(restored.get_graph(entry.accepted[0]) == other for entry in restored.entries.values())
        assert len(restored.workflows) <= 1


@given(case, case)
def test_different_cases_have_different_safe_file_names(case_, other):
    name = case_.build_file_name("png")
    assert name.isascii()
    assert Path(name).name == name
    assert len(name) < 200
    assert find_name_problem(name) is None
    assert (name == other.build_file_name("png")) == (case_.key == other.key)


@pytest.mark.parametrize("value", ["CON", "nul.tar", "com1", "lpt\u00b9", "prn", "x.", "..."])
def test_value_that_windows_refuses_as_a_name_is_accepted(value):
    assert find_name_problem(Case({"word": value}, "9", 0).build_file_name("png")) is None


@given(case)
def test_case_name_is_one_printable_line(case_):
    assert case_.name.isprintable()
