"""The JSON Schemas of the files that users write, and jsonschema's findings turned into sentences.

The files beside this module are for editors too (`# yaml-language-server: $schema=...`). Rules that a schema cannot
say, such as "one name in one place", live with the thing they are about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sweeper.nearest import hint, listed

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

Path = tuple[str | int, ...]

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "nothing",
}


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema `experiment`, `slots` or `workflow` as a dict."""
    text = resources.files(__package__).joinpath(f"{name}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _validator(name: str) -> Validator:
    return validator_for(schema(name))


def validator_for(rules: dict[str, Any]) -> Validator:
    """A compiled validator. Raises jsonschema's SchemaError when `rules` are no JSON Schema."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - half a hundred ms that `--help` must not pay

    Draft202012Validator.check_schema(rules)
    return Draft202012Validator(rules)


def shape_problems(name: str, value: Any) -> list[tuple[Path, str]]:
    """Everything in `value` that the schema `name` refuses, as (path, sentence) pairs."""
    found: list[tuple[Path, str]] = []
    for error in _validator(name).iter_errors(value):
        found.extend(_sentences(error))
    return found


def _sentences(error: ValidationError) -> Iterator[tuple[Path, str]]:
    path = tuple(error.absolute_path)
    rules: Any = error.schema
    wanted: Any = error.validator_value
    if error.validator == "additionalProperties" and isinstance(error.instance, dict) and wanted is False:
        allowed = list(rules.get("properties", {}))
        for key in error.instance:
            if key not in allowed:
                yield (*path, key), f"unknown key '{key}'{hint(key, allowed)}"
    elif error.validator == "required" and isinstance(error.instance, dict):
        missing = [key for key in wanted if key not in error.instance]
        # jsonschema reports one error per missing key, each with the whole list: take the one it is about.
        key = next((key for key in missing if f"'{key}'" in error.message), missing[0])
        yield path, f"the key '{key}' is missing"
    else:
        yield path, reason(error)


def reason(error: ValidationError) -> str:
    """One jsonschema error in our words: what was found, and what is allowed."""
    value: Any = error.instance
    allowed: Any = error.validator_value
    found = shown(value)
    match error.validator:
        case "type":
            kinds = [allowed] if isinstance(allowed, str) else allowed
            return f"found {found}, but {' or '.join(_TYPES.get(kind, kind) for kind in kinds)} is needed"
        case "enum":
            return f"found {found}{hint(value, allowed)}"
        case "const":
            return f"found {found}; allowed: {shown(allowed)}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            word = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
            return f"found {found}, but {word.get(str(error.validator), 'less than')} {allowed} is needed"
        case "minLength" | "minItems" | "minProperties" if not value:
            return "is empty"
        case "multipleOf":
            return f"found {found}, but a multiple of {allowed} is needed"
        case "pattern":
            return f"found {found}, which does not match {allowed}"
        case "anyOf" | "oneOf" if error.context:
            return "; or ".join(dict.fromkeys(reason(part) for part in error.context))
        case _:
            return error.message


def shown(value: object, limit: int = 80) -> str:
    """A value as a message shows it: JSON, cut at `limit` characters; a container by its kind."""
    if isinstance(value, dict):
        return f"a mapping ({listed(value)})" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = f"'{value}'" if isinstance(value, str) else "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."
