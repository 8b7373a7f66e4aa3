"""The JSON Schemas of the files that users write, and the check of a value against them.

Editors use the schema files too (`# yaml-language-server: $schema=...`), which is why each key has a description. They
mean the same in draft 7, which all editors know, and in draft 2020-12: no rule stands beside a `$ref`. Three keywords
are for editors alone: `defaultSnippets`, `enumDescriptions` and `doNotSuggest`, as VS Code defines them.

Rules that a schema cannot express, such as "give each name once", are checked by the modules that read the files.
jsonschema is loaded at the first check.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.schemas.values import KeyPath

if TYPE_CHECKING:
    from sweeper.schemas.validator import SchemaValidator


def find_schema_file(name: str) -> Path:
    """Return the absolute path of the schema `experiment`, `slots`, `workflow`, `lock` or `scenario`."""
    return Path(__file__).resolve().with_name(f"{name}.schema.json")


def make_editor_line(name: str) -> str:
    """Return the comment with which a YAML file names its schema to editors. They stop at spaces, so it is a URI."""
    return f"# yaml-language-server: $schema={find_schema_file(name).as_uri()}"


@cache
def load_schema(name: str) -> dict[str, Any]:
    """Return the schema of a name as `find_schema_file`. Every call returns the same dict: do not change it."""
    schema: dict[str, Any] = json.loads(find_schema_file(name).read_text("utf-8"))
    return schema


def make_validator(rules: dict[str, Any], *, is_own: bool = False) -> SchemaValidator:
    """Compile a JSON Schema, a user's or one of `load_schema` (`is_own`). Raises InvalidSchemaError."""
    from sweeper.schemas.validator import SchemaValidator

    return SchemaValidator(rules, is_own=is_own)


@cache
def _get_validator(name: str) -> SchemaValidator:
    return make_validator(load_schema(name), is_own=True)


def find_schema_problems(name: str, value: Any) -> list[tuple[KeyPath, str]]:
    """Return everything in `value` that the schema `name` refuses, as (path, sentence) pairs."""
    return _get_validator(name).find_problems(value)
