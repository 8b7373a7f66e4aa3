"""The reference planner: the rules for values and trials, written a second time in the simplest way.

It shares no code with `sweeper`: plain dicts, itertools.product, Jinja2 on the strings of parsed JSON, hashlib over
json.dumps. `expand` takes the experiment as a mapping and reads files of `lines` and `csv` from `folder`. It leaves out
which trials `sample` draws, and how an input file enters the digest.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import jinja2
from jinja2 import meta

NOTHING = object()
JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
ALONE = re.compile(r"\s*\{\{((?:(?!\{\{|\}\}).)*)\}\}\s*", re.DOTALL)


@dataclass
class Option:
    value: object = NOTHING
    label: str | None = None
    sets: dict | None = None

    @property
    def cell(self):
        return self.value if self.label is None else self.label


@dataclass
class Row:
    index: int
    params: dict
    axes: dict
    digest: str


def expand(experiment, graph, slots, folder=None):
    """Every trial in written order: a list of Row."""
    reference = ReferencePlanner(experiment, graph, slots, folder)
    rows = [row for block in list_blocks(experiment) for row in reference.expand_block(block)]
    return [Row(index, *row) for index, row in enumerate(rows)]


def list_blocks(experiment):
    sweep = experiment.get("sweep", {})
    return sweep if isinstance(sweep, list) else [sweep]


def unify_number(value):
    """7.0 and 7 have one digest."""
    if isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, dict):
        return {key: unify_number(item) for key, item in value.items()}
    return [unify_number(item) for item in value] if isinstance(value, list) else value


def compute_digest(graph):
    bare = {node: {key: part for key, part in body.items() if key != "_meta"} for node, body in graph.items()}
    text = json.dumps(unify_number(bare), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class ReferencePlanner:
    def __init__(self, experiment, graph, slots, folder):
        self.experiment, self.graph, self.rules, self.folder = experiment, graph, slots, folder
        self.slots = list(slots)
        for _, _, text in find_strings(graph):
            for name in sorted(find_names(text), key=text.find):
                if name not in self.slots:
                    self.slots.append(name)
        self.axis_names = []
        for block in list_blocks(experiment):
            for group in [*({name: form} for name, form in block.get("grid", {}).items()), *block.get("zip", [])]:
                self.axis_names += [name for name in group if name not in self.axis_names]

    # Names and values

    def find_schema(self, name):
        return (self.rules.get(name) or {}).get("schema") or {}

    def normalise(self, name, value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        kind = self.find_schema(name).get("type")
        if kind == "integer":
            assert value == math.floor(value)
            return int(value)
        if kind == "number":
            return float(value) + 0.0
        for member in self.find_schema(name).get("enum", []):
            if member == value and not isinstance(member, bool):
                return member
        return value + 0.0 if isinstance(value, float) else value

    def find_defaults(self):
        found = {}
        for name in self.slots:
            rules = self.rules.get(name) or {}
            if "default" in rules:
                found[name] = self.normalise(name, rules["default"])
            elif "at" in rules:
                first = rules["at"][0] if isinstance(rules["at"], list) else rules["at"]
                node, _, key = first.partition(".")
                found[name] = self.normalise(name, self.graph[node]["inputs"][key])
        return found

    def expand_options(self, name, form):
        if isinstance(form, list):
            made = []
            for item in form:
                if isinstance(item, dict) and "label" in item:
                    made.append(Option(item.get("value", NOTHING), item["label"], item.get("set")))
                else:
                    made.append(Option(item))
        elif "seeds" in form:
            made = [Option(seed) for seed in make_seeds(form["seeds"], form.get("key", self.experiment["name"]), name)]
        elif "choices" in form:
            made = [Option(text) for text in expand_choices(form["choices"])]
        elif "lines" in form:
            lines = (self.folder / form["lines"]).read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
            made = [Option(self.parse_cell(name, line)) for line in lines if line.strip()]
        elif "csv" in form:
            with (self.folder / form["csv"]).open(encoding="utf-8-sig", newline="") as file:
                made = [Option(self.parse_cell(name, row[form["column"]])) for row in csv.DictReader(file)]
        else:
            made = [Option(value) for value in expand_range(form) if value is not None]
        for option in made:
            if option.value is not NOTHING:
                option.value = self.normalise(name, option.value)
            option.sets = {slot: self.normalise(slot, value) for slot, value in (option.sets or {}).items()}
        return made

    def parse_cell(self, name, text):
        kind = self.find_schema(name).get("type")
        return json.loads(text) if kind in ("integer", "number", "boolean") else text

    # Trials

    def expand_block(self, block):
        dimensions = []
        for name, form in block.get("grid", {}).items():
            dimensions.append([[(name, option)] for option in self.expand_options(name, form)])
        for group in block.get("zip", []):
            columns = [[(name, option) for option in self.expand_options(name, form)] for name, form in group.items()]
            dimensions.append([list(step) for step in zip(*columns, strict=True)])
        kept = []
        for point in itertools.product(*dimensions):
            chosen = dict(pair for step in point for pair in step)
            if any(
                all(is_same(chosen[name], value) for name, value in row.items()) for row in block.get("exclude", [])
            ):
                continue
            row, names = self.make_trial(chosen, {})
            if "where" not in block or JINJA.compile_expression(block["where"], undefined_to_none=False)(**names):
                kept.append(row)
        return [*kept, *(self.make_include_row(dimensions, extra) for extra in block.get("include", []))]

    def make_include_row(self, dimensions, extra):
        chosen = dict(pair for dimension in dimensions for pair in dimension[0])
        fixed = {}
        for name, value in extra.items():
            if name not in chosen:
                fixed[name] = self.normalise(name, value)
                continue
            known = [option for dim in dimensions for step in dim for axis, option in step if axis == name]
            found = [option for option in known if is_same(option, value)]
            chosen[name] = found[0] if found else Option(self.normalise(name, value), None, {})
        return self.make_trial(chosen, fixed)[0]

    def make_trial(self, chosen, fixed):
        names = {**self.find_defaults()}
        names |= {name: self.normalise(name, value) for name, value in self.experiment.get("params", {}).items()}
        for name, option in chosen.items():
            if option.value is not NOTHING:
                names[name] = option.value
            elif name not in self.slots:  # in expressions, a bundle has its label
                names[name] = option.label
            names |= option.sets
        names |= fixed
        waiting = {name: text for name, text in self.experiment.get("derive", {}).items() if name not in fixed}
        for name in waiting:
            names.pop(name, None)
        while waiting:
            ready = [name for name, text in waiting.items() if find_names(text) <= names.keys()]
            assert ready, "a circle, or a name that nobody gives"
            for name in ready:
                names[name] = self.normalise(name, render(waiting.pop(name), names))
        params = {name: names[name] for name in self.slots}
        axes = {name: chosen[name].cell if name in chosen else names.get(name) for name in self.axis_names}
        return (params, axes, compute_digest(self.render_workflow(params))), names

    def render_workflow(self, params):
        graph = copy.deepcopy(self.graph)
        for container, key, text in find_strings(graph):
            container[key] = render(text, params)
        for name, rules in self.rules.items():
            at = (rules or {}).get("at", [])
            for address in at if isinstance(at, list) else [at]:
                node, _, key = address.partition(".")
                graph[node]["inputs"][key] = params[name]
        return graph


def is_same(option, value):
    if option.label is not None and option.label == value:
        return True
    if option.value is NOTHING or isinstance(option.value, bool) != isinstance(value, bool):
        return False
    return option.value == value


def find_strings(graph):
    """(container, key, text) of every string with Jinja2 in the inputs."""

    def below(value):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if isinstance(item, str):
                if "{{" in item or "{%" in item:
                    yield value, key, item
            elif isinstance(item, dict | list):
                yield from below(item)

    return [found for node in graph.values() for found in below(node["inputs"])]


def find_names(text):
    return meta.find_undeclared_variables(JINJA.parse(text))


def render(text, names):
    alone = ALONE.fullmatch(text)
    if alone and text.startswith("{{") and text.endswith("}}"):
        return JINJA.compile_expression(alone[1].strip(), undefined_to_none=False)(**names)
    return JINJA.from_string(text).render(names)


def make_seeds(count, key, axis):
    seeds_so_far = []
    index = 0
    while len(seeds_so_far) < count:
        seed = int(hashlib.sha256(f"{key}\n{axis}\n{index}".encode()).hexdigest()[:8], 16)
        seeds_so_far += [seed] if seed not in seeds_so_far else []
        index += 1
    return seeds_so_far


def expand_range(form):
    """A range in exact fractions: every value that a step lands on between `from` and `to`."""
    first, last = to_fraction(form["from"]), to_fraction(form["to"])
    if "step" in form:
        step = to_fraction(form["step"])
        values = itertools.takewhile(
            lambda value: value <= last if step > 0 else value >= last, (first + step * n for n in itertools.count())
        )
        all_integers = all(isinstance(form[key], int) for key in ("from", "to", "step"))
        return [int(value) if all_integers else float(value) for value in values]
    count = 1 if first == last else form["count"]
    points = [first + (last - first) * Fraction(index, max(count - 1, 1)) for index in range(count)]
    return [round_number(point) for point in points]


def round_number(value, digits=12):
    with localcontext(prec=80):
        return float(f"{Decimal(value.numerator) / Decimal(value.denominator):.{digits - 1}e}")


def to_fraction(number):
    return Fraction(Decimal(repr(number)))


def expand_choices(text):
    """Expand `a {b|c}`: replace the first group by each of its choices, again and again."""
    open_at = find_unescaped(text, "{")
    if open_at is None:
        return [re.sub(r"\\([{}|\\])", r"\1", text)]
    depth, cuts = 0, [open_at]
    position = open_at
    while True:
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if (text[position] == "|" and depth == 1) or depth == 0:
            cuts.append(position)
        if depth == 0:
            break
        position += 1
    parts = [text[a + 1 : b].strip() for a, b in itertools.pairwise(cuts)]
    heads = [text_of_part for part in parts for text_of_part in expand_choices(part)]
    before = re.sub(r"\\([{}|\\])", r"\1", text[:open_at])
    return [before + head + tail for head in heads for tail in expand_choices(text[position + 1 :])]


def find_unescaped(text, letter):
    position = 0
    while position < len(text):
        if text[position] == letter:
            return position
        position += 2 if text[position] == "\\" else 1
    return None
