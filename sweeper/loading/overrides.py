"""Apply `--set name=value`: give names of an experiment other values, wherever the experiment defines them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.model.axis_values import AXIS_FORMS, format_label
from sweeper.model.expressions import ExpressionError, compile_text
from sweeper.model.template import Slot
from sweeper.model.workflow import encode_canonical

Overrides = Mapping[str, Any]


def apply_overrides(
    value: Mapping[str, Any], overrides: Overrides, slots: Mapping[str, Slot]
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the experiment with each name overridden, and the names that only a replaced `derive` reads.

    An axis gets the given values, which may be labels of labelled values or bundles. A name with one value that no
    block sweeps moves to `params`. A name with several values becomes an axis of every block, innermost, and of the
    space of a search. A derived name becomes a plain one. `value` must be a valid experiment by the schema.
    """
    changed = dict(value)
    forms = {name: _to_axis_form(item, slots.get(name)) for name, item in overrides.items()}
    axes = {name: form for name, form in forms.items() if form is not None}
    raw = value.get("sweep")
    if raw is None and axes and "search" not in value:
        raw = {}
    blocks = [] if raw is None else raw if isinstance(raw, list) else [raw]
    new_blocks = [_override_block(block, overrides, axes) for block in blocks]
    if raw is not None:
        changed["sweep"] = new_blocks if isinstance(raw, list) else new_blocks[0]
    if "search" in value:
        changed["search"] = _override_search(value["search"], overrides, axes)
    swept_names = [set(_iter_axis_names(block)) & overrides.keys() for block in new_blocks]
    if "search" in value:
        swept_names.append({*changed["search"]["space"], *changed["search"].get("over", {})} & overrides.keys())
    swept_everywhere = set.intersection(*swept_names) if swept_names else set()
    params = {**(value.get("params") or {}), **overrides}
    changed["params"] = {name: item for name, item in params.items() if name not in swept_everywhere}
    derive = value.get("derive") or {}
    changed["derive"] = {name: text for name, text in derive.items() if name not in overrides}
    unused = {name for replaced in derive.keys() & overrides.keys() for name in _find_names(derive[replaced])}
    return changed, frozenset(unused)


def _to_axis_form(value: Any, slot: Slot | None) -> Any:
    """The values of an override as an axis, or None if it is one value.

    A list has several values, unless its slot takes lists; then a list of lists has.
    """
    types = slot.schema.types if slot is not None else ()
    if isinstance(value, list):
        return value if "array" not in types or (value and all(isinstance(item, list) for item in value)) else None
    return value if isinstance(value, Mapping) and "object" not in types and {*AXIS_FORMS} & value.keys() else None


def _iter_axis_names(block: Mapping[str, Any]) -> Iterator[str]:
    yield from block.get("grid", {})
    for group in block.get("zip", []):
        yield from group


def _override_block(block: Mapping[str, Any], overrides: Overrides, axes: Mapping[str, Any]) -> dict[str, Any]:
    def override_axis(name: str, form: Any) -> Any:
        if name not in overrides:
            return form
        return _choose_options(form, axes.get(name, [overrides[name]]))

    changed = dict(block)
    if "grid" in block:
        changed["grid"] = {name: override_axis(name, form) for name, form in block["grid"].items()}
    if "zip" in block:
        groups = []
        for group in block["zip"]:
            others = {name: form for name, form in group.items() if name not in overrides}
            overridden = [{name: override_axis(name, form)} for name, form in group.items() if name in overrides]
            groups += [*([others] if others else []), *overridden]
        changed["zip"] = groups
    if added := {name: form for name, form in axes.items() if name not in set(_iter_axis_names(block))}:
        changed["grid"] = {**changed.get("grid", {}), **added}
    # Without the values of forms such as {seeds: 4}, which are not known yet.
    listed = {name: axes.get(name, [item]) for name, item in overrides.items() if isinstance(axes.get(name, []), list)}
    if "exclude" in block:  # a row for another value of an overridden axis matches nothing now
        given = {name: {encode_canonical(value) for value in values} for name, values in listed.items()}
        changed["exclude"] = [row for row in block["exclude"] if _can_match(row, given)]
    if "include" in block:
        rows = [row for row in block["include"] if row.keys() & overrides.keys() <= listed.keys()]
        changed["include"] = [other for row in rows for other in _override_row(row, listed)]
    return changed


def _override_search(search: Mapping[str, Any], overrides: Overrides, axes: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(search)
    for section in {"space", "over"} & search.keys():
        changed[section] = {
            name: _choose_options(form, axes.get(name, [overrides[name]])) if name in overrides else form
            for name, form in search[section].items()
        }
    given = {*changed["space"], *changed.get("over", {})}
    changed["space"] |= {name: form for name, form in axes.items() if name not in given}
    return changed


def _choose_options(form: Any, values: Any) -> Any:
    """The values of an override, where a label of the axis `form` stands for its labelled value or bundle."""
    if not isinstance(values, list) or not isinstance(form, list):
        return values
    labelled = {format_label(item["label"]): item for item in form if isinstance(item, dict) and "label" in item}
    return [value if isinstance(value, dict | list) else labelled.get(format_label(value), value) for value in values]


def _override_row(row: Mapping[str, Any], listed: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row of `include` with every combination of the values of the overridden names in it."""
    names = [name for name in row if name in listed]
    for values in itertools.product(*(listed[name] for name in names)):
        yield {**row, **dict(zip(names, values, strict=True))}


def _can_match(row: Mapping[str, Any], given: Mapping[str, set[bytes]]) -> bool:
    """Whether each overridden name in the row has one of its values, `given` as canonical JSON."""
    return all(encode_canonical(value) in given[name] for name, value in row.items() if name in given)


def _find_names(text: str) -> tuple[str, ...]:
    try:
        return compile_text(text).names
    except ExpressionError:  # a check without the override reports it
        return ()
