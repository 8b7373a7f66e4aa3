"""Hypothesis strategies for experiments with a search, over all forms of values."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import strategies as st

import sweeper
from sweeper.planning.searching.search_plan import SearchSpace
from tests.experiment_files import write

BUNDLES = [
    {"label": "tall", "set": {"width": 512, "height": 768}},
    {"label": "wide", "set": {"width": 768, "height": 512}},
    {"label": "square", "set": {"width": 512, "height": 512}},
]
FORMS = {
    "cfg": [
        {"from": 1, "to": 12}, {"from": 0.01, "to": 30, "scale": "log"}, {"from": 1, "to": 3, "step": 0.25}, [7, 1.5],
        {"from": 0.1, "to": 10, "count": 4, "scale": "log"}, [{"label": "low", "value": 1.5}, 4, 8.25],
    ],
    "steps": [
        {"from": 4, "to": 20}, {"from": 1, "to": 100, "scale": "log"}, {"from": 4, "to": 20, "step": 4}, [20, 4, 9],
        [{"label": 1, "value": 30}, {"label": 30, "value": 1}],
    ],
    "prompt": [["a fox", "a house"], {"choices": "a {red|blue} {fox|house}"}, [{"label": "a fox", "value": "a wolf"}]],
    "format": [BUNDLES, BUNDLES[:2]],
    "seed": [{"seeds": 3}, [1, 2, 2**60]],
    "mood": [["calm", "wild"], [{"label": "calm", "value": 0.5}, {"label": "wild", "value": 2}], {"from": 0, "to": 2}],
}  # fmt: skip


@st.composite
def searches(draw, *, finite=False, **given):
    """The space of an experiment with a search. `finite`: without continuous ranges. `given`: keys of the section."""
    names = draw(st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=5, unique=True))
    forms = {name: draw(st.sampled_from([form for form in FORMS[name] if not (finite and _is_range(form))]))
             for name in names}  # fmt: skip
    over = [name for name in names[1:] if not _is_range(forms[name]) and draw(st.booleans())][:2]
    terms = [f"{name} != {draw(st.integers(0, 9))}" for name in ("cfg", "steps", "seed") if name in names]
    terms += ["mood not in ('calm', 0.5)"] if "mood" in names else []
    terms += [f"(cfg * steps) % 7 < {draw(st.integers(2, 6))}"] if {"cfg", "steps"} <= set(names) else []
    where = draw(st.sampled_from([None, *terms, " and ".join(terms)])) or None
    search = {
        "maximize": "brightness", "trials": 60, "space": {name: forms[name] for name in names if name not in over},
        **({"over": {name: forms[name] for name in over}} if over else {}), **({"where": where} if where else {}),
        **given,
    }  # fmt: skip
    derive = {"prompt": "{{ mood }} fox"} if "mood" in names and "prompt" not in names else {}
    if "mood" in names and not derive and "mood" not in (where or ""):  # each variable must be used
        search["where"] = f"{where} and mood != 7" if where else "mood != 7"
    with tempfile.TemporaryDirectory() as folder:
        body = {"name": "e", "template": "t.json", "search": search, **({"derive": derive} if derive else {})}
        return make_space(Path(folder), body)


def make_space(folder, body):
    """The space of an experiment given as a mapping."""
    experiment = sweeper.load(write(folder, body))
    return SearchSpace(experiment, experiment.search)


def _is_range(form):
    return isinstance(form, dict) and "from" in form and not {"step", "count"} & form.keys()


def vectors(space, count):
    """Lists of up to `count` vectors of a space."""
    return st.lists(st.lists(st.floats(0, 1), min_size=len(space.axes), max_size=len(space.axes)), min_size=1,
                    max_size=count)  # fmt: skip
