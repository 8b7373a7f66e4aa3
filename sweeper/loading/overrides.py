"""`--set name=value`: an experiment's mapping with names fixed to one value each, wherever it gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.model.axis_values import format_label
from sweeper.model.expressions import ExpressionError, compile_text
from sweeper.model.workflow import encode_canonical

Overrides = Mapping[str, Any]


def apply_overrides(value: Mapping[str, Any], overrides: Overrides) -> tuple[dict[str, Any], frozenset[str]]:
    """The experiment with each name fixed, and the names that only a `derive` that is now gone has read.

    An axis becomes one value (or the one of its labelled values or bundles that the value names), a derived name a
    plain one, anything else moves to `params`. `value` has the shape of an experiment.
    """
    changed = dict(value)
    raw = value.get("sweep")
    blocks = [] if raw is None else raw if isinstance(raw, list) else [raw]
    fixed = [_override_block(block, overrides) for block in blocks]
    if raw is not None:
        changed["sweep"] = fixed if isinstance(raw, list) else fixed[0]
    swept = [set(_iter_axis_names(block)) & overrides.keys() for block in blocks]
    everywhere = set.intersection(*swept) if swept else set()
    params = {name: one for name, one in (value.get("params") or {}).items() if name not in everywhere}
    changed["params"] = {**params, **{name: one for name, one in overrides.items() if name not in everywhere}}
    derive = value.get("derive") or {}
    changed["derive"] = {name: text for name, text in derive.items() if name not in overrides}
    read = {name for gone in derive.keys() & overrides.keys() for name in _find_names(derive[gone])}
    return changed, frozenset(read)


def _iter_axis_names(block: Mapping[str, Any]) -> Iterator[str]:
    yield from block.get("grid", {})
    for group in block.get("zip", []):
        yield from group


def _override_block(block: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    changed = dict(block)
    if "grid" in block:
        changed["grid"] = {name: _override_axis(name, form, overrides) for name, form in block["grid"].items()}
    if "zip" in block:
        groups = []
        for group in block["zip"]:
            kept = {name: form for name, form in group.items() if name not in overrides}
            alone = [{name: _override_axis(name, form, overrides)} for name, form in group.items() if name in overrides]
            groups += [*([kept] if kept else []), *alone]
        changed["zip"] = groups
    if "exclude" in block:  # a row about a value that is gone can drop nothing any more
        changed["exclude"] = [row for row in block["exclude"] if _can_match(row, overrides)]
    if "include" in block:
        changed["include"] = [{name: overrides.get(name, one) for name, one in row.items()} for row in block["include"]]
    return changed


def _override_axis(name: str, form: Any, overrides: Overrides) -> Any:
    if name not in overrides:
        return form
    items = form if isinstance(form, list) else []
    labelled = [item for item in items if isinstance(item, dict) and "label" in item]
    named = [item for item in labelled if format_label(item["label"]) == format_label(overrides[name])]
    return named or [overrides[name]]


def _can_match(row: Mapping[str, Any], overrides: Overrides) -> bool:
    return all(
        encode_canonical(one) == encode_canonical(overrides[name]) for name, one in row.items() if name in overrides
    )


def _find_names(text: str) -> tuple[str, ...]:
    try:
        return compile_text(text).names
    except ExpressionError:  # it is told where the file is checked without the override
        return ()
