"""How fast a plan is made, against the obvious way, in one run: `python tests/benchmarks/planner.py`.

The obvious way is what a first script does for each trial: render the JSON text with Jinja2, parse it, and validate the
whole graph with a compiled jsonschema validator. Both give the params and the digest of the 7-node txt2img template
over four axes. Prints trials per second of both, their ratio, the time to the first trial, and the peak memory of a
plan ten times as long. The last lines compare the whole work of `sweeper plan` for a million trials of a partner node
with and without the price of its class. Nothing is asserted, because a busy machine gives small numbers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import jsonschema

import sweeper
from sweeper.model.node_classes import NodeInfo
from sweeper.running.count_plan import answer_plan
from sweeper.running.node_class_cache import get_embedded_classes
from sweeper.running.prepare import Prepared

TEMPLATE = Path(__file__).parents[2] / "templates" / "txt2img.json"
AXES: dict[str, Any] = {
    "prompt": [f"a {colour} fox" for colour in ("red", "blue", "green", "white", "black", "grey", "old", "sly")],
    "steps": {"from": 1, "to": 25, "step": 1},
    "cfg": {"from": 1, "to": 10.9, "step": 0.1},
    "seed": {"seeds": 10},
}


def experiment(folder: Path, seeds: int) -> sweeper.Experiment:
    file = folder / f"speed-{seeds}.yaml"
    axes = {**AXES, "seed": {"seeds": seeds}}
    file.write_text(json.dumps({"template": str(TEMPLATE), "sweep": {"grid": axes}}))
    return sweeper.load(file)


def rate(count: int, seconds: float) -> float:
    return count / seconds


def ours(declared: sweeper.Experiment) -> tuple[float, float]:
    """(trials per second, seconds to the first trial)."""
    start = time.perf_counter()
    trials = iter(sweeper.plan(declared))
    next(trials)
    first = time.perf_counter() - start
    count = 1 + sum(1 for _ in trials)
    return rate(count, time.perf_counter() - start), first


def obvious(declared: sweeper.Experiment, count: int) -> float:
    """Trials per second of the obvious way, and a check that it finds the same digests."""
    graph = json.loads(TEMPLATE.read_text("utf-8"))
    for node in graph.values():
        node["inputs"] = plain(node["inputs"])
    for node, name, slot in (
        ("6", "text", "prompt"),
        ("3", "steps", "steps"),
        ("3", "cfg", "cfg"),
        ("3", "seed", "seed"),
    ):
        graph[node]["inputs"][name] = "{{ " + slot + " | tojson }}"
    text = json.dumps(graph).replace('"{{', "{{").replace('}}"', "}}")
    validator = jsonschema.Draft202012Validator(whole_graph_schema(graph))
    template = jinja2.Template(text)
    points = itertools.islice(sweeper.plan(declared).written(), count)
    params = [(plain(trial.params), trial.digest) for trial in points]
    start = time.perf_counter()
    for values, digest in params:
        concrete = json.loads(template.render(values))
        validator.validate(concrete)
        bare = {key: {k: v for k, v in node.items() if k != "_meta"} for key, node in concrete.items()}
        canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if hashlib.sha256(canonical.encode()).hexdigest() != digest:
            sys.exit("the two ways disagree")
    return rate(count, time.perf_counter() - start)


def plain(params: Any) -> dict[str, Any]:
    """7.0 as 7, as the canonical form has it."""
    return {name: int(one) if isinstance(one, float) and one.is_integer() else one for name, one in params.items()}


def whole_graph_schema(graph: dict[str, Any]) -> dict[str, Any]:
    """What the node classes ask of the inputs of every node, as one JSON Schema of the graph."""
    classes = get_embedded_classes()
    link = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2}
    nodes = {}
    for node_id, node in graph.items():
        specs = classes.classes[node["class_type"]].inputs
        inputs = {name: dict(spec.schema) if spec.schema is not None else link for name, spec in specs.items()}
        required = [name for name, spec in specs.items() if spec.required]
        rules = {"type": "object", "properties": inputs, "required": required, "additionalProperties": False}
        wanted = {"class_type": {"const": node["class_type"]}, "inputs": rules, "_meta": {"type": "object"}}
        nodes[node_id] = {"type": "object", "properties": wanted, "required": ["class_type", "inputs"]}
    return {"type": "object", "properties": nodes, "required": list(nodes), "additionalProperties": False}


def peak_memory(declared: sweeper.Experiment) -> tuple[int, float]:
    """(trials, peak MB) of walking a whole plan."""
    tracemalloc.start()
    count = sum(1 for _ in sweeper.plan(declared))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return count, peak / 1e6


PAID_AXES: dict[str, Any] = {
    "width": {"from": 512, "to": 2048, "step": 16},
    "seed": {"seeds": 1_000},
    "radius": {"from": 1, "to": 10, "step": 1},
}
PAID_CLASSES = {
    "Paid": {
        "input": {"required": {"prompt": ["STRING", {}], "width": ["INT", {}], "seed": ["INT", {}]}},
        "output": ["IMAGE"],
        "price_badge": {
            "engine": "jsonata",
            "expr": '{"type": "usd", "usd": 0.03 + 0.015 * $floor(widgets.width / 1024)}',
            "depends_on": {"widgets": [{"name": "width", "type": "INT"}]},
        },
    },
    "Blur": {"input": {"required": {"image": ["IMAGE", {}], "radius": ["INT", {}]}}, "output": ["IMAGE"]},
    "SaveImage": {"input": {"required": {"images": ["IMAGE", {}]}}, "output": [], "output_node": True},
}


def summarize(folder: Path, classes: NodeInfo | None) -> tuple[float, Any]:
    """(trials per second, cost) of all that `sweeper plan` does for a million trials with a partner node."""
    graph = {
        "1": {"class_type": "Paid", "inputs": {"prompt": "a fox", "width": 512, "seed": 0}},
        "2": {"class_type": "Blur", "inputs": {"image": ["1", 0], "radius": 1}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    slots = {"width": {"at": "1.width"}, "seed": {"at": "1.seed"}, "radius": {"at": "2.radius"}}
    (folder / "paid.json").write_text(json.dumps(graph))
    (folder / "paid.slots.yaml").write_text(json.dumps({"slots": slots}))
    (folder / "paid.yaml").write_text(json.dumps({"template": "paid.json", "sweep": {"grid": PAID_AXES}}))
    declared = sweeper.load(folder / "paid.yaml")
    start = time.perf_counter()
    prepared = Prepared(declared, None, {}, (sweeper.plan(declared),), classes=classes)
    answer = answer_plan(prepared, folder / "none")
    return rate(answer.outline.count, time.perf_counter() - start), answer.cost


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        declared = experiment(folder, 10)
        rounds = [(ours(declared), obvious(declared, 2_000)) for _ in range(3)]
        fast, first = max(one[0] for one, _ in rounds), min(one[1] for one, _ in rounds)
        slow = max(other for _, other in rounds)
        print(f"sweeper      {fast:>12,.0f} trials a second, the first after {first * 1000:.1f} ms")
        print(f"obvious way  {slow:>12,.0f} trials a second")
        print(f"ratio        {fast / slow:>12,.0f}")
        for seeds in (10, 50):
            count, peak = peak_memory(experiment(folder, seeds))
            print(f"memory       {peak:>12.1f} MB at the peak of {count:,} trials")
        free, _ = summarize(folder, None)
        paid, cost = summarize(folder, NodeInfo.from_object_info(PAID_CLASSES))
        print(f"no price     {free:>12,.0f} trials a second, summarized as `plan` does")
        print(
            f"with a price {paid:>12,.0f} trials a second, {paid / free:.2f} of that; {cost.total.low / 1e6:,.2f} USD"
        )


if __name__ == "__main__":
    main()
