"""Check values with jsonschema, and turn its errors into sentences.

Two keywords of our own in a schema: `x-allowed` describes what a pattern allows, and `x-hidden` keeps the value out of
the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from sweeper.did_you_mean import suggest
from sweeper.schemas.values import InvalidSchemaError, KeyPath, format_value, is_multiple

_TYPES: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "nothing",
}


def _check_multiple(validator: Validator, factor: float, value: Any, _rules: object) -> Iterator[ValidationError]:
    """Check `multipleOf` in decimal, because jsonschema divides doubles and says that 0.3 is not a multiple of 0.1."""
    if validator.is_type(value, "number") and not is_multiple(value, factor):
        yield ValidationError(f"{value} is not a multiple of {factor}")


def _is_int(_checker: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Validator: type[Validator] = extend(Draft202012Validator, {"multipleOf": _check_multiple})  # type: ignore[no-untyped-call]
_StrictValidator: type[Validator] = extend(  # type: ignore[no-untyped-call]
    _Validator, type_checker=_Validator.TYPE_CHECKER.redefine("integer", _is_int)
)


class SchemaValidator:
    """A compiled JSON Schema (draft 2020-12). It never fetches a schema that it refers to.

    Raises InvalidSchemaError if `rules` are not a JSON Schema.
    """

    def __init__(self, rules: dict[str, Any]) -> None:
        try:
            _Validator.check_schema(rules)
        except SchemaError as error:
            raise InvalidSchemaError(tuple(error.absolute_path), error.message) from error
        self._rules = rules
        self._validator = _Validator(rules, registry=Registry())

    @cached_property
    def _strict(self) -> Validator:
        """The same schema, but a float is never an integer."""
        return _StrictValidator(self._rules, registry=Registry())

    def is_valid(self, value: Any) -> bool:
        """Whether the schema accepts the value."""
        return self._validator.is_valid(value)

    def find_problems(self, value: Any) -> list[tuple[KeyPath, str]]:
        """Return everything that the schema refuses, as (path, sentence) pairs."""
        return [problem for error in self._validator.iter_errors(value) for problem in _iter_problems(error)]

    def list_reasons(self, value: Any) -> list[str]:
        """Return why the schema refuses the value, one sentence for each reason; an empty list if it is valid."""
        try:
            errors = sorted(self._validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
        except Unresolvable as error:
            return [f"the schema refers to {format_value(error.ref)}, which is not in it"]
        except RecursionError:
            return ["the schema refers to itself without end"]
        return list(dict.fromkeys(_explain(error) for error in errors))

    def find_whole_floats(self, value: Any) -> list[KeyPath]:
        """Return the paths of floats such as 3.0 where the schema demands an integer."""
        return [tuple(error.absolute_path) for error in self._strict.iter_errors(value) if _is_whole_float(error)]


def _is_whole_float(error: ValidationError) -> bool:
    value: Any = error.instance
    types: Any = error.validator_value
    is_integer_wanted = error.validator == "type" and "integer" in ([types] if isinstance(types, str) else types)
    return is_integer_wanted and isinstance(value, float) and value.is_integer()


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
        # jsonschema reports one error for each missing key, each with the whole list: take the key of this error.
        key = next((key for key in missing if f"'{key}'" in error.message), missing[0])
        yield path, f"the key '{key}' is missing"
    elif "propertyNames" in error.schema_path and isinstance(error.instance, str):
        yield (*path, error.instance), _explain(error)  # the key itself is wrong: show its own line
    elif error.validator == "not":  # a known key that is forbidden here; its value may be a secret
        yield path, rules["x-allowed"]
    else:
        yield path, _explain(error)


def _explain(error: ValidationError) -> str:
    """Say what was found and what is allowed."""
    value: Any = error.instance
    allowed: Any = error.validator_value
    found = f"found {_describe_instance(error)}"
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
            return f"{found}, but {relation.get(str(error.validator), 'less than')} {allowed} is needed"
        case "minLength" | "minItems" | "minProperties" if not value:
            return "is empty"
        case "multipleOf":
            return f"{found}, but a multiple of {allowed} is needed"
        case "minLength" | "maxLength" | "minItems" | "maxItems":
            limit = "at least" if str(error.validator).startswith("min") else "at most"
            unit = "characters" if str(error.validator).endswith("Length") else "items"
            return f"{found} of {len(value)} {unit}, but {limit} {allowed} are needed"
        case "pattern":
            description = error.schema.get("x-allowed") if isinstance(error.schema, dict) else None
            return f"{found}; allowed: {description}" if description else f"{found}, which does not match {allowed}"
        case "anyOf" | "oneOf" if error.context:
            return "; or ".join(dict.fromkeys(_explain(part) for part in error.context))
        case _:
            return error.message


def _describe_instance(error: ValidationError) -> str:
    is_hidden = isinstance(error.schema, dict) and error.schema.get("x-hidden")  # the value may contain a key
    return "a text that is not shown here" if is_hidden else format_value(error.instance)
