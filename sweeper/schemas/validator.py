"""Check values with jsonschema in bounded time, and turn its errors into sentences.

Three keywords of our own in a schema: `x-allowed` describes what a pattern or type allows, `x-hidden` keeps the value
out of the message, and `x-unknown` says where the unknown keys of a mapping may belong.

Python's `re` tries all ways in which a text may match a `pattern`. For `^(a+)+[A-Z]$` their number doubles with every
letter. So `re` matches only what is certainly cheap, and RE2 the rest in linear time. RE2 has no look-around and no
back-references, and its classes of letters and digits are those of ASCII.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, Final

import re2
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from sweeper.errors import ALSO_WRONG, MAX_EXAMPLES, MAX_PROBLEMS
from sweeper.schemas.values import InvalidSchemaError, KeyPath, format_value, is_multiple, unify_numbers
from sweeper.wording import find_nearest, join_names, shorten, suggest

_MAX_WORK: Final = 2_000_000  # steps of a schema for all values: a step is a keyword, or a part of its list
_FREE_WORK: Final = 50  # steps of a valid value, so that any number of values may have a usual schema
_MEMBERS: Final = 4  # of an `enum` that are compared in one step
_MAX_REASONS: Final = 20  # why one value is refused
_REFERENCE: Final = 20  # steps to follow a reference
_ENDLESS: Final = "refers to itself without end"
_WORK: ContextVar[int] = ContextVar("work", default=_MAX_WORK)  # steps that are left
# One inside the other. Far below Python's limit of recursion, at which the library below jsonschema panics.
_MAX_NESTING: Final = 100
_NESTING: ContextVar[int] = ContextVar("nesting", default=0)

_MAX_WAYS: Final = 1_000_000  # in which `re` tries to match; at most some ten milliseconds
_MAX_PATTERN: Final = 10_000  # characters; RE2 needs about a hundred bytes for each
_MAX_NAME: Final = 1_000  # characters of a key, as `sweeper.loading.parse` limits it
_MAX_NAME_WAYS: Final = 10_000_000
_WAYS_OF_STEP: Final = 100
_STATES_OF_STEP: Final = 16  # RE2 takes up to 100 ns for each state of its automaton and character
_END_OF_TEXT: Final = r"$(?!\n)"  # in the dialect that JavaScript shares, for editors; RE2 has a word of its own
_UNLIMITED: Final = 1 << 62
_GROUP: Final = re.compile(r"\(\?(?:[aiLmsu]*[:)]|[=!>]|<[=!]|P<\w+>)")  # its question mark repeats nothing
_REPEATED_GROUP: Final = re.compile(r"\)[*+?{]")
_REPETITION: Final = re.compile(r"[*+?{]|\\[1-9]")  # or a back-reference

_MISSPELT_KEY: Final = 0.75  # of its letters: `gird` is a misspelt `grid`, but `steps` is a slot and no `sweep`

_TYPES: Final = {
    "object": "a mapping", "array": "a list", "string": "text", "number": "a number", "integer": "an integer",
    "boolean": "true or false", "null": "nothing",
}  # fmt: skip
_RELATIONS: Final = {
    "minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}  # fmt: skip


class CostlyPatternError(Exception):
    """A pattern may need more time than is allowed. The message completes a sentence that begins with the pattern."""


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
            ways = [_count_ways(pattern, 40) for pattern in rules.get("patternProperties", ())]
            steps += size * (len(ways) + sum(ways) // _WAYS_OF_STEP)
        _charge(steps)
        yield from check(validator, rule, value, rules)

    return run


def _check_multiple(validator: Validator, factor: float, value: Any, _rules: object) -> Iterator[ValidationError]:
    """Check `multipleOf` in decimal, because jsonschema divides doubles and says that 0.3 is not a multiple of 0.1."""
    if validator.is_type(value, "number") and not is_multiple(value, factor):
        yield ValidationError(f"{value} is not a multiple of {factor}")


def _check_pattern(validator: Validator, pattern: str, value: Any, rules: Any, *, is_own: bool) -> Iterator[Any]:
    """Check `pattern` in bounded time; those of our own schemas are fast for texts of their `maxLength`.

    A text that is longer than `maxLength` is refused for that alone.
    """
    if validator.is_type(value, "string") and len(value) <= rules.get("maxLength", len(value)):
        search = partial(re.search, pattern) if is_own else _pay_for_search(pattern, len(value))
        if search(value) is None:
            yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pay_for_search(pattern: str, length: int) -> Callable[[str], object]:
    """Pay for one search in a text of this length, and return it. Raises CostlyPatternError, TooMuchWorkError."""
    if len(pattern) > _MAX_PATTERN:
        raise CostlyPatternError(f"has more than {_MAX_PATTERN:,} characters")
    ways = _count_ways(pattern, length)
    if ways <= _MAX_WAYS:
        _charge(1 + ways // _WAYS_OF_STEP)
        return partial(re.search, pattern)
    linear = _compile_linear(pattern)
    if linear is None:
        raise CostlyPatternError(
            f"may need too much time for a text of {length:,} characters, because it repeats or looks around; write "
            "it without look-around and back-references, or without a repetition inside a repetition"
        )
    _charge(1 + length * int(linear.programsize) // _STATES_OF_STEP)
    search: Callable[[str], object] = linear.search
    return search


def _count_ways(pattern: str, length: int) -> int:
    r"""Return a bound of the ways in which `re` may try to match a text of this length. Raises re.error.

    A repetition has at most `length + 1` ways, a choice two. It counts too many: `\+` and `[+]` repeat nothing. In a
    repeated group, the ways could multiply with each round.
    """
    re.compile(pattern)
    plain = _GROUP.sub("(", pattern)
    repetitions, choices = len(_REPETITION.findall(plain)), plain.count("|")
    if "(?" in plain or (_REPEATED_GROUP.search(plain) and repetitions + choices > 1):
        return _UNLIMITED
    exponent = min(repetitions + (plain[:1] != "^" or choices > 0), 62)
    ways: int = (length + 1) ** exponent << min(choices, 62)
    return min(ways, _UNLIMITED)


@lru_cache(maxsize=4096)
def _compile_linear(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors, options.never_capture = False, True
    try:
        return re2.compile(pattern.replace(_END_OF_TEXT, r"\z"), options)
    except re2.error:
        return None


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


def _make_counting(keyword: str) -> Any:
    """Return the check of `$ref` or `$dynamicRef`, which pays: a few lines can refer to each other 2**30 times."""
    check: Any = Draft202012Validator.VALIDATORS[keyword]

    def follow(validator: Validator, reference: str, value: Any, rules: Any) -> Iterator[ValidationError]:
        nesting = _NESTING.get()
        if nesting >= _MAX_NESTING:
            raise TooMuchWorkError(_ENDLESS)
        _charge(_REFERENCE)
        _NESTING.set(nesting + 1)
        try:
            yield from check(validator, reference, value, rules)
        finally:
            _NESTING.set(nesting)

    return follow


_CHECKS: Final = Draft202012Validator.VALIDATORS | {
    "multipleOf": _check_multiple,
    "pattern": partial(_check_pattern, is_own=False),
    "uniqueItems": _check_unique,
    "$ref": _make_counting("$ref"),
    "$dynamicRef": _make_counting("$dynamicRef"),
}
_Validator: type[Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {keyword: _make_charging(keyword, check) for keyword, check in _CHECKS.items()}
)
_OwnValidator: type[Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": partial(_check_pattern, is_own=True),
        "items": _make_bounded("items", "maxItems"),
        "additionalProperties": _make_bounded("additionalProperties", "maxProperties"),
    },
)


class SchemaValidator:
    """A compiled JSON Schema (draft 2020-12). It never fetches a schema that it refers to.

    `is_own`: the schema is ours, so tests have checked it and its patterns need no bound. Raises InvalidSchemaError if
    `rules` are not a schema.
    """

    def __init__(self, rules: dict[str, Any], *, is_own: bool = False) -> None:
        if not is_own:
            _check_schema(rules)
        self._remaining_work = _MAX_WORK
        self._validator = (_OwnValidator if is_own else _Validator)(rules, registry=Registry())

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


def _check_schema(rules: dict[str, Any]) -> None:
    """Raise InvalidSchemaError; also for a slow pattern of property names, which jsonschema matches by `re`."""
    try:
        _Validator.check_schema(rules)
    except SchemaError as error:
        raise InvalidSchemaError(tuple(error.absolute_path), shorten(error.message, 300)) from error
    pending: list[tuple[KeyPath, Any]] = [((), rules)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, dict):
            patterns = part.get("patternProperties")
            for pattern in patterns if isinstance(patterns, dict) else ():
                if _count_ways(pattern, _MAX_NAME) > _MAX_NAME_WAYS:
                    message = "this pattern may need too much time; write it with ^, and with one repetition"
                    raise InvalidSchemaError((*path, "patternProperties", pattern), message)
            pending += [((*path, key), item) for key, item in part.items()]
        elif isinstance(part, list):
            pending += [((*path, index), item) for index, item in enumerate(part)]


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
