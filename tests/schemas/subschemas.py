"""Walk through a JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
_NAMED = ("properties", "$defs")  # mappings of names to schemas
_LISTS = ("allOf", "anyOf")
_SINGLE = ("items", "additionalProperties", "propertyNames", "if", "then", "else")


def iter_subschemas(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the schema and every schema in it, with its path."""
    yield path, schema
    for word in _NAMED:
        for name, part in schema.get(word, {}).items():
            yield from iter_subschemas(part, (*path, word, name))
    for word in _LISTS:
        for index, part in enumerate(schema.get(word, ())):
            yield from iter_subschemas(part, (*path, word, index))
    for word in _SINGLE:
        if isinstance(schema.get(word), dict):
            yield from iter_subschemas(schema[word], (*path, word))


def iter_keys(schema: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield what a file may have as a key: each property, and each schema of free names; not what stands in an `if`."""
    for path, part in iter_subschemas(schema):
        is_key = path[-2:-1] == ("properties",) or path[-1:] == ("additionalProperties",)
        if is_key and "if" not in path:
            yield path, part


def find_description(schema: dict[str, Any], part: dict[str, Any]) -> str:
    """Return the description of a part, or of the definition that it refers to; empty if there is none."""
    named = schema.get("$defs", {}).get(part.get("$ref", "").removeprefix("#/$defs/"), {})
    return str(part.get("description") or named.get("description", ""))
