"""Check values with jsonschema in bounded time, and turn its errors into sentences.

Three keywords of our own in a schema: `x-allowed` describes what a pattern or type allows, `x-hidden` keeps the value
out of the message, and `x-unknown` says where the unknown keys of a mapping may belong.

A user's schema may come from a stranger. It has no references and nothing else whose work can grow beyond the product
of the schema and the value, so this product is paid for before the check. RE2 matches a `pattern` in linear time, where
Python's `re` may try all ways: for `^(a+)+[A-Z]$` their number doubles with every letter.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, Final

import re2
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from sweeper.errors import ALSO_WRONG, MAX_EXAMPLES, MAX_PROBLEMS
from sweeper.schemas.values import InvalidSchemaError, KeyPath, format_value, is_multiple, unify_numbers
from sweeper.wording import find_nearest, join_names, shorten, suggest

_MAX_WORK: Final = 2_000_000  # steps of a schema for all values: a step is a part of the schema for a part of a value
# Steps of a valid value, and for each character of it, so that any number of values may have a usual schema.
_FREE_WORK: Final = 50
_FREE_WORK_OF_CHARACTER: Final = 4
_CHARACTERS_OF_STEP: Final = 100  # that a message repeats
_STATES_OF_STEP: Final = 16  # RE2 takes up to 100 ns for each state of its automaton and character
_MAX_REASONS: Final = 20  # why one value is refused
# They follow references, or search again for each part of a value. No schema of one input needs them.
_REFUSED: Final = ("$ref", "$dynamicRef", "patternProperties", "unevaluatedItems", "unevaluatedProperties")
_REFUSED_BELOW: Final = (*_REFUSED, "$schema")  # in a part of a schema it would let jsonschema check as another draft
_MAX_PATTERN: Final = 10_000  # characters; RE2 needs about a hundred bytes for each
_MAX_PATTERN_MEMORY: Final = 2**20  # bytes
_MAX_STATES: Final = 200_000  # of all patterns of a schema
_END_OF_TEXT: Final = r"$(?!\n)"  # in the dialect that JavaScript shares, for editors; RE2 has a word of its own

_MISSPELT_KEY: Final = 0.75  # of its letters: `gird` is a misspelt `grid`, but `steps` is a slot and no `sweep`

_TYPES: Final = {
    "object": "a mapping", "array": "a list", "string": "text", "number": "a number", "integer": "an integer",
    "boolean": "true or false", "null": "nothing",
}  # fmt: skip
_RELATIONS: Final = {
    "minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}  # fmt: skip


def _check_multiple(validator: Validator, factor: float, value: Any, _rules: object) -> Iterator[ValidationError]:
    """Check `multipleOf` in decimal, because jsonschema divides doubles and says that 0.3 is not a multiple of 0.1."""
    if validator.is_type(value, "number") and not is_multiple(value, factor):
        yield ValidationError(f"{value} is not a multiple of {factor}")


def _check_pattern(validator: Validator, pattern: str, value: Any, rules: Any) -> Iterator[ValidationError]:
    """Check `pattern` in linear time. A text that is longer than `maxLength` is refused for that alone."""
    is_text = validator.is_type(value, "string") and len(value) <= rules.get("maxLength", len(value))
    if is_text and _compile_pattern(pattern).search(value) is None:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


@lru_cache(maxsize=256)
def _compile_pattern(pattern: str) -> Any:
    """Compile a pattern with RE2. Raises re2.error."""
    options = re2.Options()
    options.log_errors, options.never_capture, options.max_mem = False, True, _MAX_PATTERN_MEMORY
    return re2.compile(pattern.replace(_END_OF_TEXT, r"\z"), options)


def _make_bounded(keyword: str, limit: str) -> Any:
    """Return the check of `items` or `additionalProperties`, which looks into nothing that has too many parts."""
    check: Any = Draft202012Validator.VALIDATORS[keyword]

    def run(validator: Validator, rule: Any, value: Any, rules: Any) -> Iterator[ValidationError]:
        if limit not in rules or not isinstance(value, (dict, list)) or len(value) <= rules[limit]:
            yield from check(validator, rule, value, rules)

    return run


def _check_unique(validator: Validator, is_wanted: bool, value: Any, _rules: object) -> Iterator[ValidationError]:
    """Check `uniqueItems` in linear time, because jsonschema compares each pair of items that it cannot sort."""
    if is_wanted and validator.is_type(value, "array"):
        keys = {json.dumps(unify_numbers(item), sort_keys=True) for item in value}
        if len(keys) < len(value):
            yield ValidationError("has an item twice")


_CHECKS: Final = {"multipleOf": _check_multiple, "pattern": _check_pattern, "uniqueItems": _check_unique}
_OWN_CHECKS: Final = {
    "items": _make_bounded("items", "maxItems"),
    "additionalProperties": _make_bounded("additionalProperties", "maxProperties"),
}
_Validator: type[Validator] = extend(Draft202012Validator, _CHECKS)  # type: ignore[no-untyped-call]
_OwnValidator: type[Validator] = extend(_Validator, _OWN_CHECKS)  # type: ignore[no-untyped-call]


class SchemaValidator:
    """A compiled JSON Schema (draft 2020-12).

    `is_own`: the schema is ours, so tests have checked it and it needs no bound. Raises InvalidSchemaError if `rules`
    are not a schema, or have a keyword or a pattern that is not allowed.
    """

    def __init__(self, rules: dict[str, Any], *, is_own: bool = False) -> None:
        self._parts, self._states = (0, 0) if is_own else _measure(json.dumps(rules))
        self._remaining_work = _MAX_WORK
        self._validator = (_OwnValidator if is_own else _Validator)(rules)

    def find_problems(self, value: Any) -> list[tuple[KeyPath, str]]:
        """Return all that the schema refuses, as (path, sentence) pairs. Of many, only the first are explained."""
        problems: list[tuple[KeyPath, str]] = []
        counts: Counter[tuple[str, ...]] = Counter()  # of explained problems by keyword and place, and () of all
        for error in self._validator.iter_errors(value):
            kind = (str(error.validator), *(key for key in error.absolute_path if isinstance(key, str)))
            for path, explain in _iter_problems(error):
                is_explained = counts[kind] < MAX_EXAMPLES and counts[()] < MAX_PROBLEMS
                problems.append((path, explain() if is_explained else ALSO_WRONG))
                counts.update([kind, ()] if is_explained else [])
        return problems

    def list_reasons(self, value: Any) -> list[str]:
        """Return why the schema refuses the value, a sentence for each of the first reasons; empty if it is valid.

        A sentence about a part of a mapping begins with its key.
        """
        text = json.dumps(value)
        work = self._parts * (_count_parts(text) + len(text) // _CHARACTERS_OF_STEP)
        work += self._states * len(text) // _STATES_OF_STEP
        if work > self._remaining_work:
            return [f"the schema needs more than {_MAX_WORK:,} steps for its values; write a simpler one"]
        found = list(itertools.islice(self._validator.iter_errors(value), _MAX_REASONS))
        free = 0 if found else _FREE_WORK + _FREE_WORK_OF_CHARACTER * len(text)
        self._remaining_work -= max(work - free, 0)
        errors = sorted(found, key=lambda error: list(map(str, error.absolute_path)))
        keys = [".".join(key for key in error.absolute_path if isinstance(key, str)) for error in errors]
        return list(dict.fromkeys(f"{shorten(key)}: {_explain(error)}" if key else _explain(error)
                                  for key, error in zip(keys, errors, strict=True)))  # fmt: skip


@lru_cache(maxsize=4096)  # by the JSON of the schema, because the check takes as long as all the rest of a slot
def _measure(text: str) -> tuple[int, int]:
    """Return the number of parts of a user's schema, and of states of all its patterns. Raises InvalidSchemaError."""
    rules = json.loads(text)
    try:
        _Validator.check_schema(rules)
    except SchemaError as error:
        message = f"is not a JSON Schema: {shorten(error.message, 300)}"
        raise InvalidSchemaError(tuple(error.absolute_path), message) from error
    except RecursionError:  # of Python's compiler of patterns, which jsonschema asks
        raise InvalidSchemaError((), "nests a pattern too deeply") from None
    states = 0
    pending: list[tuple[KeyPath, Any]] = [((), rules)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, dict):
            if refused := next((key for key in (_REFUSED_BELOW if path else _REFUSED) if key in part), ""):
                raise InvalidSchemaError((*path, refused), "is not allowed in the schema of a slot; write it without")
            if isinstance(pattern := part.get("pattern"), str):
                states += _count_states(pattern, (*path, "pattern"))
                if states > _MAX_STATES:
                    raise InvalidSchemaError((*path, "pattern"), "makes the patterns of the schema too large")
            # What `enum` lists are values. A property of that name has a mapping.
            pending += [((*path, key), item) for key, item in part.items() if key != "enum" or isinstance(item, dict)]
        elif isinstance(part, list):
            pending += [((*path, index), item) for index, item in enumerate(part)]
    return _count_parts(text), states


def _count_parts(text: str) -> int:
    """Return about how many values are in a JSON text."""
    return 1 + text.count(",") + text.count(":")


def _count_states(pattern: str, path: KeyPath) -> int:
    if len(pattern) > _MAX_PATTERN:
        raise InvalidSchemaError(path, f"has more than {_MAX_PATTERN:,} characters")
    try:
        return int(_compile_pattern(pattern).programsize)
    except re2.error as error:
        advice = "write it without look-around and back-references, which RE2 does not have"
        reason = shorten(error.args[0].decode("utf-8", "replace"))
        raise InvalidSchemaError(path, f"is not a pattern of RE2 ({reason}); {advice}") from error


def _iter_problems(error: ValidationError) -> Iterator[tuple[KeyPath, Callable[[], str]]]:
    """Yield the path of each mistake that an error stands for, and a function that makes the sentence about it."""
    path = tuple(error.absolute_path)
    rules: Any = error.schema
    wanted: Any = error.validator_value
    if error.validator == "additionalProperties" and isinstance(error.instance, dict) and wanted is False:
        allowed = rules.get("properties", {})
        for key in error.instance:
            if key not in allowed:
                yield (*path, key), partial(_explain_unknown_key, key, rules)
    elif error.validator == "required" and isinstance(error.instance, dict):
        missing = [key for key in wanted if key not in error.instance]
        # jsonschema reports one error for each missing key, each with the whole list: take the key of this error.
        key = next((key for key in missing if f"'{key}'" in error.message), missing[0])
        yield path, lambda: f"the key '{shorten(key)}' is missing"
    elif "propertyNames" in error.schema_path and isinstance(error.instance, str):
        yield (*path, error.instance), partial(_explain, error)  # the key itself is wrong: show its own line
    elif error.validator == "not":  # a known key that is forbidden here; its value may be a secret
        yield path, lambda: str(rules["x-allowed"])
    else:
        yield path, partial(_explain, error)


def _explain_unknown_key(key: str, rules: Any) -> str:
    allowed = list(rules.get("properties", {}))
    is_near = "x-unknown" not in rules or find_nearest(key, allowed, _MISSPELT_KEY)
    advice = suggest(key, allowed) if is_near else f"; {rules['x-unknown']}; allowed: {join_names(allowed)}"
    return f"unknown key '{shorten(key)}'{advice}"


def _explain(error: ValidationError) -> str:
    """Say what was found and what is allowed."""
    value: Any = error.instance
    allowed: Any = error.validator_value
    rules: Any = error.schema if isinstance(error.schema, dict) else {}
    found = f"found {'a text that is not shown here' if rules.get('x-hidden') else format_value(value)}"
    if rules.get("x-allowed") and error.validator in ("type", "pattern"):
        return f"{found}; allowed: {rules['x-allowed']}"
    match error.validator:
        case "type":
            types = [allowed] if isinstance(allowed, str) else allowed
            return f"{found}, but {' or '.join(_TYPES.get(name, name) for name in types)} is needed"
        case "enum":
            return f"{found}{suggest(value, allowed) if allowed else ', but there is nothing to choose from'}"
        case "const":
            return f"{found}; allowed: {format_value(allowed)}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" | "multipleOf" as keyword:
            return f"{found}, but {_RELATIONS[keyword]} {format_value(allowed)} is needed"
        case "minLength" | "minItems" | "minProperties" if not value:
            return "is empty"
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            limit = "at least" if str(error.validator).startswith("min") else "at most"
            unit = {"h": "characters", "s": "items"}[str(error.validator)[-1]]
            return f"{found} of {len(value)} {unit}, but {limit} {allowed} are needed"
        case "pattern":
            return f"{found}, which does not match {shorten(allowed, 200)}"
        case "anyOf" | "oneOf" if error.context:
            return "; or ".join(dict.fromkeys(_explain(part) for part in error.context))
        case _:
            return shorten(error.message, 300)
