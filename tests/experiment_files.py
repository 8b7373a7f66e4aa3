"""Write an experiment, its template and its files into a folder, and plan it."""

from __future__ import annotations

import json
from pathlib import Path

import sweeper


def node(class_type, title=None, **inputs):
    return {"class_type": class_type, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


def small():
    """A workflow of two nodes and its slots, enough for most tests."""
    graph = {
        "1": node("Text", "Words", text="a fox", steps=20, cfg=7.0, width=512, height=512, seed=0),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    slots = {
        "prompt": {"at": "1.text", "schema": {"type": "string", "minLength": 1}},
        "steps": {"at": "1.steps", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
        "cfg": {"at": "1.cfg", "schema": {"type": "number", "minimum": 0, "maximum": 30}},
        "width": {"at": "1.width", "schema": {"type": "integer", "multipleOf": 8}},
        "height": {"at": "1.height", "schema": {"type": "integer", "multipleOf": 8}},
        "seed": {"at": "1.seed", "schema": {"type": "integer", "minimum": 0}},
    }
    return graph, slots


def write(folder, experiment, graph=None, slots=None, files=None):
    """Write `e.yaml`, `t.json`, `t.slots.yaml` and `files`: str and bytes unchanged, other values as JSON."""
    if graph is None:
        graph, slots = small() if slots is None else (small()[0], slots)
    contents = {"t.json": graph, "e.yaml": experiment}
    if slots:
        contents["t.slots.yaml"] = {"slots": slots}
    contents |= files or {}
    for name, content in contents.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, str | bytes) else json.dumps(content, ensure_ascii=False)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(folder) / "e.yaml"


def make_search_writer(write_text, search):
    """A function that writes an experiment with a search; keywords change the section, `more` adds other sections."""

    def make(more=None, **changes):
        section = {name: value for name, value in {**search, **changes}.items() if value is not None}
        return write_text(json.dumps({"template": "t.json", "search": section, **(more or {})}))

    return make


def make_plan(folder, experiment, graph=None, slots=None, files=None):
    """The plan of an experiment given as a mapping or a text."""
    if isinstance(experiment, dict):
        experiment = {"name": "e", "template": "t.json", **experiment}
    return sweeper.plan(sweeper.load(write(folder, experiment, graph, slots, files)))


def rows(plan):
    """The trials of a plan in written order, as plain data."""
    return [(trial.index, dict(trial.params), dict(trial.axes), trial.digest) for trial in plan.written()]
