"""Check values with jsonschema, and turn its errors into sentences.

Three keywords of our own in a schema: `x-allowed` describes what a pattern or type allows, `x-hidden` keeps the value
out of the message, and `x-unknown` says where the unknown keys of a mapping may belong.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any, Final

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from sweeper.errors import ALSO_WRONG, MAX_EXAMPLES, MAX_PROBLEMS
from sweeper.schemas.patterns import CostlyPatternError, estimate_steps, is_cheap_for_names, search_pattern
from sweeper.schemas.values import InvalidSchemaError, KeyPath, format_value, is_integer, is_multiple
from sweeper.wording import find_nearest, join_names, shorten, suggest

_MAX_WORK: Final = 2_000_000  # steps of a schema for all values: a step is a keyword, or a part of its list
_FREE_WORK: Final = 50  # steps of a valid value, so that any number of values may have a usual schema
_MEMBERS: Final = 4  # of an `enum` that are compared in one step
_MAX_REASONS: Final = 20  # why one value is refused
_MAX_REFERENCES: Final = 10_000  # followed for one value
_ENDLESS: Final = f"refers to itself without end, or more than {_MAX_REFERENCES:,} times for one value"
_WORK: ContextVar[int] = ContextVar("work", default=_MAX_WORK)  # steps that are left
_REFERENCES: ContextVar[int] = ContextVar("references", default=_MAX_REFERENCES)  # that are left
# One inside the other. Far below Python's limit of recursion, at which the library below jsonschema panics.
_MAX_NESTING: Final = 100
_NESTING: ContextVar[int] = ContextVar("nesting", default=0)

_MISSPELT_KEY: Final = 0.75  # of its letters: `gird` is a misspelt `grid`, but `steps` is a slot and no `sweep`

_TYPES: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "nothing",
}


class TooMuchWorkError(Exception):
    """A schema refers to itself too often, or needs too many steps. The message completes "the schema ..."."""


def _charge(steps: int) -> None:
    """Pay for `steps` before they are taken. Raises TooMuchWorkError."""
    remaining = _WORK.get() - steps
    _WORK.set(remaining)
    if remaining < 0:
        raise TooMuchWorkError(f"needs more than {_MAX_WORK:,} steps for its values; write a simpler one")


def _make_charging(keyword: str, check: Any) -> Any:
    """Return the check of a keyword of a user's schema, which pays for its work first."""

    def run(validator: Validator, rule: Any, value: Any, rules: Any) -> Iterator[ValidationError]:
        size = len(value) if isinstance(value, (dict, list)) else 0
        steps = 1 + (len(rule) if isinstance(rule, (dict, list)) else 0) // (_MEMBERS if keyword == "enum" else 1)
        if keyword.startswith("unevaluated"):  # jsonschema searches a list for each item
            steps += size * size // 64
        elif keyword in ("patternProperties", "additionalProperties") and size:  # a search for each key and pattern
            steps += size * sum(estimate_steps(pattern, 40) for pattern in rules.get("patternProperties", ()))
        _charge(steps)
        yield from check(validator, rule, value, rules)

    return run


def _check_multiple(validator: Validator, factor: float, value: Any, _rules: object) -> Iterator[ValidationError]:
    """Check `multipleOf` in decimal, because jsonschema divides doubles and says that 0.3 is not a multiple of 0.1."""
    if validator.is_type(value, "number") and not is_multiple(value, factor):
        yield ValidationError(f"{value} is not a multiple of {factor}")


def _check_pattern(validator: Validator, pattern: str, value: Any, rules: Any) -> Iterator[ValidationError]:
    """Check `pattern` in bounded time. A text that is longer than `maxLength` is refused for that alone."""
    is_short = validator.is_type(value, "string") and len(value) <= rules.get("maxLength", len(value))
    if is_short:
        _charge(estimate_steps(pattern, len(value)))
    if is_short and not search_pattern(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _check_own_pattern(validator: Validator, pattern: str, value: Any, rules: Any) -> Iterator[ValidationError]:
    """Check a `pattern` of our own schemas, each of which is fast for texts of its `maxLength`."""
    is_short = validator.is_type(value, "string") and len(value) <= rules.get("maxLength", len(value))
    if is_short and re.search(pattern, value) is None:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


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
        keys = {json.dumps(_unify_numbers(item), sort_keys=True) for item in value}
        if len(keys) < len(value):
            yield ValidationError("has an item twice")


def _unify_numbers(value: Any) -> Any:
    """Return a JSON value with 7 for 7.0, because they are equal in JSON Schema."""
    if isinstance(value, dict):
        return {key: _unify_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unify_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _make_counting(keyword: str) -> Any:
    """Return the check of `$ref` or `$dynamicRef`, which counts: a few lines can refer to each other 2**30 times."""
    check: Any = Draft202012Validator.VALIDATORS[keyword]

    def follow(validator: Validator, reference: str, value: Any, rules: Any) -> Iterator[ValidationError]:
        remaining, nesting = _REFERENCES.get(), _NESTING.get()
        if remaining <= 0 or nesting >= _MAX_NESTING:
            raise TooMuchWorkError(_ENDLESS)
        _REFERENCES.set(remaining - 1)
        _NESTING.set(nesting + 1)
        try:
            yield from check(validator, reference, value, rules)
        finally:
            _NESTING.set(nesting)

    return follow


_OWN_CHECKS: Final = {
    "multipleOf": _check_multiple,
    "pattern": _check_pattern,
    "uniqueItems": _check_unique,
    "$ref": _make_counting("$ref"),
    "$dynamicRef": _make_counting("$dynamicRef"),
}
_CHECKS: Final = Draft202012Validator.VALIDATORS | _OWN_CHECKS
_Validator: type[Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {keyword: _make_charging(keyword, check) for keyword, check in _CHECKS.items()}
)
_OwnValidator: type[Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    _OWN_CHECKS
    | {
        "pattern": _check_own_pattern,
        "items": _make_bounded("items", "maxItems"),
        "additionalProperties": _make_bounded("additionalProperties", "maxProperties"),
    },
)
_StrictValidator: type[Validator] = extend(  # type: ignore[no-untyped-call]
    _OwnValidator, type_checker=_Validator.TYPE_CHECKER.redefine("integer", lambda _checker, value: is_integer(value))
)


class SchemaValidator:
    """A compiled JSON Schema (draft 2020-12). It never fetches a schema that it refers to.

    `is_own`: the schema is ours, so tests have checked it and its patterns need no bound. Raises InvalidSchemaError if
    `rules` are not a schema.
    """

    def __init__(self, rules: dict[str, Any], *, is_own: bool = False) -> None:
        if not is_own:
            _check_schema(rules)
        self._rules = rules
        self._remaining_work = _MAX_WORK
        self._validator = (_OwnValidator if is_own else _Validator)(rules, registry=Registry())

    @cached_property
    def _strict(self) -> Validator:
        """The same schema, but a float is never an integer."""
        return _StrictValidator(self._rules, registry=Registry())

    def is_valid(self, value: Any) -> bool:
        """Whether the schema accepts the value."""
        return not self.list_reasons(value)

    def find_problems(self, value: Any) -> list[tuple[KeyPath, str]]:
        """Return all that the schema refuses, as (path, sentence) pairs. Of many, only the first are explained."""
        _REFERENCES.set(sys.maxsize)  # our own schemas refer to themselves once for each value
        _NESTING.set(-sys.maxsize)
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
        _REFERENCES.set(_MAX_REFERENCES)
        _NESTING.set(0)
        before = self._remaining_work
        _WORK.set(before)
        try:
            found = list(itertools.islice(self._validator.iter_errors(value), _MAX_REASONS))
        except Unresolvable as error:
            return [f"the schema refers to {format_value(error.ref)}, which is not in it"]
        except CostlyPatternError as error:
            return [f"found {format_value(value)}, but {error}"]
        except (TooMuchWorkError, RecursionError) as error:  # the caller's stack decides which of them comes first
            return [f"the schema {_ENDLESS if isinstance(error, RecursionError) else error}"]
        finally:
            self._remaining_work = _WORK.get()
        if not found:
            self._remaining_work = min(before, self._remaining_work + _FREE_WORK)
        errors = sorted(found, key=lambda error: list(map(str, error.absolute_path)))
        keys = [".".join(key for key in error.absolute_path if isinstance(key, str)) for error in errors]
        return list(dict.fromkeys(f"{shorten(key)}: {_explain(error)}" if key else _explain(error)
                                  for key, error in zip(keys, errors, strict=True)))  # fmt: skip

    def find_whole_floats(self, value: Any) -> list[KeyPath]:
        """Return the paths of floats such as 3.0 where the schema demands an integer."""
        _REFERENCES.set(sys.maxsize)
        _NESTING.set(-sys.maxsize)
        return [tuple(error.absolute_path) for error in self._strict.iter_errors(value) if _is_whole_float(error)]


def _check_schema(rules: dict[str, Any]) -> None:
    try:
        _Validator.check_schema(rules)
    except SchemaError as error:
        raise InvalidSchemaError(tuple(error.absolute_path), shorten(error.message, 300)) from error
    _check_property_patterns(rules)


def _check_property_patterns(rules: Any) -> None:
    """Raise InvalidSchemaError for a pattern of property names that may be slow: jsonschema matches them by `re`."""
    pending: list[tuple[KeyPath, Any]] = [((), rules)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, dict):
            patterns = part.get("patternProperties")
            for pattern in patterns if isinstance(patterns, dict) else ():
                if not is_cheap_for_names(pattern):
                    message = "this pattern may need too much time; write it with ^, and with one repetition"
                    raise InvalidSchemaError((*path, "patternProperties", pattern), message)
            pending += [((*path, key), item) for key, item in part.items()]
        elif isinstance(part, list):
            pending += [((*path, index), item) for index, item in enumerate(part)]


def _is_whole_float(error: ValidationError) -> bool:
    value: Any = error.instance
    types: Any = error.validator_value
    is_integer_wanted = error.validator == "type" and "integer" in ([types] if isinstance(types, str) else types)
    return is_integer_wanted and isinstance(value, float) and value.is_integer()


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
    found = f"found {_describe_instance(error)}"
    description = error.schema.get("x-allowed") if isinstance(error.schema, dict) else None
    if description and error.validator in ("type", "pattern"):
        return f"{found}; allowed: {description}"
    return _explain_keyword(error, found)


def _explain_keyword(error: ValidationError, found: str) -> str:
    value: Any = error.instance
    allowed: Any = error.validator_value
    match error.validator:
        case "type":
            types = [allowed] if isinstance(allowed, str) else allowed
            return f"{found}, but {' or '.join(_TYPES.get(name, name) for name in types)} is needed"
        case "enum":
            return f"{found}{suggest(value, allowed) if allowed else ', but there is nothing to choose from'}"
        case "const":
            return f"{found}; allowed: {format_value(allowed)}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            relation = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
            return f"{found}, but {relation.get(str(error.validator), 'less than')} {format_value(allowed)} is needed"
        case "minLength" | "minItems" | "minProperties" if not value:
            return "is empty"
        case "multipleOf":
            return f"{found}, but a multiple of {format_value(allowed)} is needed"
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


def _describe_instance(error: ValidationError) -> str:
    is_hidden = isinstance(error.schema, dict) and error.schema.get("x-hidden")  # the value may contain a key
    return "a text that is not shown here" if is_hidden else format_value(error.instance)
