"""The JSON Schemas of the files that users write, and jsonschema's findings turned into sentences.

The files beside this module are for editors too (`# yaml-language-server: $schema=...`). Rules that a schema cannot
say, such as "one name in one place", live with the thing they are about. `x-allowed` in them says in words what a
pattern takes; `x-hidden` keeps what was found out of the message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sweeper.did_you_mean import join_names, suggest

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

KeyPath = tuple[str | int, ...]

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
def load_schema(name: str) -> dict[str, Any]:
    """The schema `experiment`, `slots` or `workflow` as a dict."""
    text = resources.files(__package__).joinpath(f"{name}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _get_validator(name: str) -> Validator:
    return make_validator(load_schema(name))


def make_validator(rules: dict[str, Any]) -> Validator:
    """A compiled validator; it fetches nothing. Raises jsonschema's SchemaError when `rules` are no JSON Schema."""
    from referencing import Registry  # noqa: PLC0415 - as jsonschema

    validator = _make_validator_class()
    validator.check_schema(rules)
    return validator(rules, registry=Registry())


@cache
def _make_validator_class() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    made: type[Validator] = extend(Draft202012Validator, {"multipleOf": _check_multiple})  # type: ignore[no-untyped-call]
    return made


def _check_multiple(validator: Validator, factor: float, value: Any, _rules: object) -> Iterator[ValidationError]:
    """`multipleOf` of the numbers as written: jsonschema's quotient of doubles says that 0.3 is no multiple of 0.1."""
    from jsonschema.exceptions import ValidationError

    if validator.is_type(value, "number") and not is_multiple(value, factor):
        yield ValidationError(f"{value} is not a multiple of {factor}")


def is_multiple(value: float, factor: float) -> bool:
    """Whether `value` is a whole number of times `factor`, both taken as the decimals that they are written as."""
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0
    return math.isfinite(value) and math.isfinite(factor) and _to_fraction(value) % _to_fraction(factor) == 0


def _to_fraction(value: float) -> Fraction:
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def convert_whole_floats(name: str, value: Any) -> Any:
    """`value` with an int for every 3.0 that stands where the schema `name` asks for an integer.

    JSON Schema takes 3.0 for an integer; Python's `range` and `RunSettings` do not. What is refused stays as it is.
    """
    places = [
        tuple(error.absolute_path) for error in _get_strict_validator(name).iter_errors(value) if _is_whole(error)
    ]
    return _with_ints(value, (), frozenset(places)) if places else value


@cache
def _get_strict_validator(name: str) -> Validator:
    """As `_validator`, but a float is never an integer."""
    from jsonschema.validators import extend

    base = _make_validator_class()
    checker = base.TYPE_CHECKER.redefine("integer", lambda _, one: isinstance(one, int) and not isinstance(one, bool))
    made: type[Validator] = extend(base, type_checker=checker)  # type: ignore[no-untyped-call]
    return made(load_schema(name))


def _is_whole(error: ValidationError) -> bool:
    value: Any = error.instance
    kinds: Any = error.validator_value
    asked = error.validator == "type" and "integer" in ([kinds] if isinstance(kinds, str) else kinds)
    return asked and isinstance(value, float) and value.is_integer()


def _with_ints(value: Any, path: KeyPath, paths: frozenset[KeyPath]) -> Any:
    if path in paths:
        return int(value)
    if isinstance(value, dict):
        return {key: _with_ints(item, (*path, key), paths) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_ints(item, (*path, place), paths) for place, item in enumerate(value)]
    return value


def find_schema_problems(name: str, value: Any) -> list[tuple[KeyPath, str]]:
    """Everything in `value` that the schema `name` refuses, as (path, sentence) pairs."""
    found: list[tuple[KeyPath, str]] = []
    for error in _get_validator(name).iter_errors(value):
        found.extend(_iter_problems(error))
    return found


def _iter_problems(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    path = tuple(error.absolute_path)
    rules: Any = error.schema
    wanted: Any = error.validator_value
    if error.validator == "additionalProperties" and isinstance(error.instance, dict) and wanted is False:
        allowed = list(rules.get("properties", {}))
        for key in error.instance:
            if key not in allowed:
                yield (*path, key), f"unknown key '{key}'{suggest(key, allowed)}"
    elif error.validator == "required" and isinstance(error.instance, dict):
        missing = [key for key in wanted if key not in error.instance]
        # jsonschema reports one error per missing key, each with the whole list: take the one it is about.
        key = next((key for key in missing if f"'{key}'" in error.message), missing[0])
        yield path, f"the key '{key}' is missing"
    elif "propertyNames" in error.schema_path and isinstance(error.instance, str):
        yield (*path, error.instance), explain_error(error)  # the key itself is wrong: its own line is the one to show
    elif error.validator == "not":  # a key that is known, and refused here: its value is nobody's business
        yield path, rules["x-allowed"]
    else:
        yield path, explain_error(error)


def explain_error(error: ValidationError) -> str:
    """One jsonschema error in our words: what was found, and what is allowed."""
    value: Any = error.instance
    allowed: Any = error.validator_value
    found = _describe_instance(error)
    match error.validator:
        case "type":
            kinds = [allowed] if isinstance(allowed, str) else allowed
            return f"found {found}, but {' or '.join(_TYPES.get(kind, kind) for kind in kinds)} is needed"
        case "enum":
            return f"found {found}{suggest(value, allowed) if allowed else ', but there is nothing to choose from'}"
        case "const":
            return f"found {found}; allowed: {format_value(allowed)}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            word = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
            return f"found {found}, but {word.get(str(error.validator), 'less than')} {allowed} is needed"
        case "minLength" | "minItems" | "minProperties" if not value:
            return "is empty"
        case "multipleOf":
            return f"found {found}, but a multiple of {allowed} is needed"
        case "minLength" | "maxLength" | "minItems" | "maxItems":
            least = "at least" if str(error.validator).startswith("min") else "at most"
            what = "characters" if str(error.validator).endswith("Length") else "items"
            return f"found {found} of {len(value)} {what}, but {least} {allowed} are needed"
        case "pattern":
            words = error.schema.get("x-allowed") if isinstance(error.schema, dict) else None
            return f"found {found}; allowed: {words}" if words else f"found {found}, which does not match {allowed}"
        case "anyOf" | "oneOf" if error.context:
            return "; or ".join(dict.fromkeys(explain_error(part) for part in error.context))
        case _:
            return error.message


def _describe_instance(error: ValidationError) -> str:
    hidden = isinstance(error.schema, dict) and error.schema.get("x-hidden")  # it may hold a key
    return "a text that is not shown here" if hidden else format_value(error.instance)


def format_value(value: object, limit: int = 80) -> str:
    """A value as a message shows it: JSON on one line, cut at `limit` characters; a container by its kind."""
    if isinstance(value, dict):
        return f"a mapping ({join_names(value)})" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        text = f"'{_escape_unprintable(value[:limit])}'"
    else:
        text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _escape_unprintable(text: str) -> str:
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
