"""Hypothesis strategies for templates with sidecar and inline slots, and for valid experiments over them.

`experiments()` draws (experiment, graph, slots, files). Every name has one role: it keeps its default, is fixed in
`params`, is derived, or is swept in some blocks.
"""

from __future__ import annotations

from hypothesis import Phase
from hypothesis import strategies as st

# Without `explain`, which takes minutes here and gives little information.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink)

TEXT = st.text(alphabet="abz {}%'\"\\|é🦊,", min_size=1, max_size=8).filter(lambda text: text.strip() == text)
NUMBERS = st.one_of(st.integers(-9, 9), st.integers(-90, 90).map(lambda n: n / 10), st.just(-0.0))
KINDS = {
    "integer": ({"type": "integer"}, st.one_of(st.integers(-9, 2**64 - 1), st.integers(-9, 9).map(float))),
    "number": ({"type": "number"}, NUMBERS),
    "string": ({"type": "string"}, TEXT),
    "boolean": ({"type": "boolean"}, st.booleans()),
    "enum": ({"enum": ["euler", "heun", 4, True]}, st.sampled_from(["euler", "heun", 4, 4.0, True])),
    "any": (None, st.one_of(NUMBERS, TEXT, st.booleans(), st.none(), st.lists(st.integers(0, 3), max_size=2))),
}
SIDECAR = ["alpha", "beta", "gamma", "delta"]
INLINE = ["one", "two", "three"]


def is_plain(value):
    """Whether a workflow may contain the value: no Jinja2, and no list that looks like an invalid link."""
    return not isinstance(value, list) and not (isinstance(value, str) and ("{{" in value or "{%" in value))


@st.composite
def templates(draw, *, nested):
    """(graph, slots, kinds): some names stand in the sidecar, some in the strings, some in both.

    `nested` puts some of the strings into lists inside an input.
    """
    kinds, slots = {}, {}
    graph = {"1": {"class_type": "A", "inputs": {"free": 1.5, "link": ["2", 0]}, "_meta": {"title": "é"}},
             "2": {"class_type": "B", "inputs": {"deep": {"list": [0, "plain", None]}}}}  # fmt: skip
    for index, name in enumerate(SIDECAR[: draw(st.integers(0, 4))]):
        kinds[name] = draw(st.sampled_from(sorted(KINDS)))
        schema, values = KINDS[kinds[name]]
        addresses = [f"1.x{index}", f"2.y{index}"][: draw(st.integers(1, 2))]
        for address in addresses:
            written, _, key = address.partition(".")
            graph[written]["inputs"][key] = draw(values.filter(is_plain))
        slots[name] = {"at": addresses if len(addresses) > 1 else addresses[0]}
        if schema is not None:
            slots[name]["schema"] = schema
        if draw(st.booleans()):
            slots[name]["default"] = draw(values)
    for index, name in enumerate(INLINE[: draw(st.integers(0 if kinds else 1, 3))]):
        kinds[name] = draw(st.sampled_from(sorted(KINDS)))
        forms = ["{{ NAME }}", "a {{ NAME }}\nb", "{% if NAME %}{{ NAME }}{% else %}'{% endif %}", "{{NAME}}{{ NAME }}"]
        graph["2"]["inputs"][f"z{index}"] = draw(st.sampled_from(forms)).replace("NAME", name)
        if nested and draw(st.booleans()):
            graph["2"]["inputs"]["deep"]["list"].append("{{ NAME }}".replace("NAME", name))
        schema, values = KINDS[kinds[name]]
        if schema is not None or draw(st.booleans()):
            slots[name] = {"default": draw(values), **({"schema": schema} if schema is not None else {})}
    return graph, slots, kinds


def draw_form(draw, name, kind, files, *, least=1):
    """Values for one axis, in one of the forms that fit its kind."""
    values = KINDS[kind][1] if kind in KINDS else TEXT
    forms = ["list", "labels"]
    forms += {"integer": ["range", "seeds", "lines"], "number": ["range", "count", "csv"]}.get(kind, [])
    forms += ["choices", "lines", "csv"] if kind in ("string", "variable") else []
    chosen = draw(st.sampled_from(forms)) if least == 1 else "list"
    if chosen == "list":
        return draw(st.lists(values, min_size=least, max_size=max(least, 3)))
    if chosen == "labels":
        labels = draw(st.lists(st.sampled_from(["l1", "l2", "l3"]), min_size=1, max_size=3, unique=True))
        return [{"label": label, "value": draw(values)} for label in labels]
    if chosen == "seeds":
        return {"seeds": draw(st.integers(1, 3)), **({"key": "k"} if draw(st.booleans()) else {})}
    if chosen == "choices":
        return {"choices": draw(st.sampled_from(["{a|b} x", "q", "{ a | {b|c} d |}", r"\{a\} {x|y\|}{|z}"]))}
    if chosen in ("lines", "csv"):
        texts = draw(st.lists(st.integers(0, 99).map(str), min_size=1, max_size=3))
        end = draw(st.sampled_from(["\n", "\r\n"]))
        bom = draw(st.sampled_from(["", "\ufeff"]))
        head = f'other,"col"{end}' if chosen == "csv" else ""
        files[f"{name}.{chosen}"] = bom + head + "".join(("o," if head else "") + text + end for text in texts)
        return {"lines": f"{name}.lines"} if chosen == "lines" else {"csv": f"{name}.csv", "column": "col"}
    first, last = draw(st.integers(-5, 5)), draw(st.integers(-5, 5))
    if chosen == "count":
        return {"from": first, "to": last / 4, "count": draw(st.integers(1, 3))}
    step = draw(st.sampled_from([1, 3, 4] if kind == "integer" else [1, 0.5, 2.25, 3]))
    return {"from": first, "to": last, "step": -step if last < first else step}


def draw_axes(draw, names, kinds, files, number):
    """The `grid` and `zip` of a block: every name once, alone, in a group, or in a bundle."""
    grid, groups, waiting = {}, [], list(names)
    while waiting:
        name = waiting.pop(0)
        way = draw(st.sampled_from(["grid", "grid", "zip", "bundle"]))
        if way == "grid":
            grid[name] = draw_form(draw, name, kinds[name], files)
        elif way == "bundle" and kinds[name] != "variable":
            members = [name, *[waiting.pop(0) for _ in waiting[:1] if kinds[waiting[0]] != "variable"]]
            labels = ["portrait", "landscape"][: draw(st.integers(1, 2))]
            grid[f"bundle{number}{name}"] = [
                {"label": label, "set": {member: draw(KINDS[kinds[member]][1]) for member in members}}
                for label in labels
            ]
        else:
            members = [name, *[waiting.pop(0) for _ in waiting[:1]]]
            size = draw(st.integers(2, 3))
            groups.append(
                {member: draw_form(draw, member, kinds[member], files, least=size)[:size] for member in members}
            )
    return {**({"grid": grid} if grid else {}), **({"zip": groups} if groups else {})}


def draw_excludes(draw, block):
    """Rows of `exclude` with values and labels of the block."""
    axes = [
        (name, values) for group in (block.get("grid", {}), *block.get("zip", [])) for name, values in group.items()
    ]
    listed = [(name, values) for name, values in axes if isinstance(values, list)]
    rows = []
    for _ in range(draw(st.integers(0, 2)) if listed else 0):
        row = {}
        for name, values in draw(st.lists(st.sampled_from(listed), min_size=1, max_size=2, unique_by=lambda p: p[0])):
            item = draw(st.sampled_from(values))
            labelled = isinstance(item, dict) and "label" in item
            row[name] = item.get(draw(st.sampled_from(["label", "value"])), item["label"]) if labelled else item
        rows.append(row)
    return rows


def draw_includes(draw, block, names, kinds):
    axes = [name for group in (block.get("grid", {}), *block.get("zip", [])) for name in group if name in kinds]
    rows = []
    for _ in range(draw(st.integers(0, 2))):
        keys = draw(st.lists(st.sampled_from([*axes, *names]), min_size=1, max_size=2, unique=True)) if names else []
        bundled = [key for item in block.get("grid", {}).values() for one in item if isinstance(one, dict)
                   for key in one.get("set", {})]  # fmt: skip
        rows.append({key: draw(KINDS.get(kinds[key], ("", TEXT))[1]) for key in keys if key not in bundled})
    return rows


@st.composite
def experiments(draw, *, nested=False):
    """(experiment, graph, slots, files) that plan without a problem, or to no trial at all."""
    graph, slots, kinds = draw(templates(nested=nested))
    files, params, derive = {}, {}, {}
    roles = {}
    for name in kinds:
        has_default = "at" in slots.get(name, {}) or "default" in slots.get(name, {})
        roles[name] = draw(st.sampled_from(["params", "swept", "swept", *(["default"] if has_default else [])]))
        if roles[name] == "params":
            params[name] = draw(KINDS[kinds[name]][1])
    texts = [name for name in kinds if kinds[name] in ("string", "any") and roles[name] != "swept"]
    variables = {}
    if texts and draw(st.booleans()):
        target = draw(st.sampled_from(texts))
        params.pop(target, None)
        roles[target] = "derive"
        variables = {"mood": "variable"}
        derive = {target: draw(st.sampled_from(["{{ mood }}, x", "{{ mood }}", "{{ tail }}!"]))}
        if "tail" in derive[target]:
            derive["tail"] = "{{ mood | upper }} {{ 1 + 1 }}"
    every = [name for name in roles if roles[name] == "swept"]
    must = [n for n in every if "at" not in slots.get(n, {}) and "default" not in slots.get(n, {})] + list(variables)
    kinds = kinds | variables
    blocks = []
    for number in range(draw(st.sampled_from([1, 1, 2, 3]))):
        names = [*must, *[name for name in every if name not in must and draw(st.integers(0, 3))]]
        block = draw_axes(draw, draw(st.permutations(names)), kinds, files, number)
        if names and block:
            block["exclude"] = draw_excludes(draw, block)
            block["where"] = draw(st.sampled_from(["true", f"{names[0]} != 4", f"{names[0]}|string|length > 1"]))
            block["include"] = draw_includes(draw, block, [n for n in roles if roles[n] != "derive"], kinds)
            block = {key: part for key, part in block.items() if part and part != "true"}
        blocks.append(block)
    experiment = {"name": "drawn", "template": "t.json"}
    experiment |= {"params": params} if params else {}
    experiment |= {"derive": derive} if derive else {}
    if all(blocks):
        experiment["sweep"] = blocks if len(blocks) > 1 or draw(st.booleans()) else blocks[0]
    elif must:
        experiment["sweep"] = [block for block in blocks if block]
    experiment["order"] = draw(st.sampled_from(["auto", "written"]))
    return experiment, graph, slots, files
