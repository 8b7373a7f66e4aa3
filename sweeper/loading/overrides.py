"""Apply `--set name=value`: fix names of an experiment to one value, wherever the experiment defines them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.model.axis_values import format_label
from sweeper.model.expressions import ExpressionError, compile_text
from sweeper.model.workflow import encode_canonical

Overrides = Mapping[str, Any]


def apply_overrides(value: Mapping[str, Any], overrides: Overrides) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the experiment with each name fixed, and the names that only a replaced `derive` reads.

    An axis gets one value, which may be the label of a labelled value or bundle. A derived name becomes a plain one,
    and all other names move to `params`. `value` must be a valid experiment by the schema.
    """
    changed = dict(value)
    raw = value.get("sweep")
    blocks = [] if raw is None else raw if isinstance(raw, list) else [raw]
    new_blocks = [_override_block(block, overrides) for block in blocks]
    if raw is not None:
        changed["sweep"] = new_blocks if isinstance(raw, list) else new_blocks[0]
    swept_names = [set(_iter_axis_names(block)) & overrides.keys() for block in blocks]
    swept_everywhere = set.intersection(*swept_names) if swept_names else set()
    params = {
        name: item_value for name, item_value in (value.get("params") or {}).items() if name not in swept_everywhere
    }
    changed["params"] = {
        **params,
        **{name: item_value for name, item_value in overrides.items() if name not in swept_everywhere},
    }
    derive = value.get("derive") or {}
    changed["derive"] = {name: text for name, text in derive.items() if name not in overrides}
    unused = {name for replaced in derive.keys() & overrides.keys() for name in _find_names(derive[replaced])}
    return changed, frozenset(unused)


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
            others = {name: form for name, form in group.items() if name not in overrides}
            overridden = [
                {name: _override_axis(name, form, overrides)} for name, form in group.items() if name in overrides
            ]
            groups += [*([others] if others else []), *overridden]
        changed["zip"] = groups
    if "exclude" in block:  # a row for another value of a fixed axis matches nothing now
        changed["exclude"] = [row for row in block["exclude"] if _can_match(row, overrides)]
    if "include" in block:
        changed["include"] = [
            {name: overrides.get(name, item_value) for name, item_value in row.items()} for row in block["include"]
        ]
    return changed


def _override_axis(name: str, form: Any, overrides: Overrides) -> Any:
    if name not in overrides:
        return form
    items = form if isinstance(form, list) else []
    labelled = [item for item in items if isinstance(item, dict) and "label" in item]
    matching = [item for item in labelled if format_label(item["label"]) == format_label(overrides[name])]
    return matching or [overrides[name]]


def _can_match(row: Mapping[str, Any], overrides: Overrides) -> bool:
    return all(
        encode_canonical(value) == encode_canonical(overrides[name]) for name, value in row.items() if name in overrides
    )


def _find_names(text: str) -> tuple[str, ...]:
    try:
        return compile_text(text).names
    except ExpressionError:  # a check without the override reports it
        return ()
