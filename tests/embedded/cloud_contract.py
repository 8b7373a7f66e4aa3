"""The answers that Comfy Cloud documents, and a check that an answer conforms to them.

`cloud_contract.yaml` holds the facts of the published specifications in a short notation, for the paths that the
embedded server has: for each method and path the statuses and the type of each answer.
`python tests/embedded/cloud_contract.py OLDER.yaml NEWEST.yaml` writes it again from the published files: paths of the
newest one, and types of both, because only the older one describes the events. A type is a word (`uuid`, `time`, ...),
a list with the type of its items, a mapping from name to type (`name!` is required, `*` means any other name),
`{one of: words}`, `{any of: types}`, or `{both: types}`. `T?` may be null. A capitalised word is a type of the table.

With a published file, schemathesis tests more: run `schemathesis run FILE.yaml --url URL -H "X-API-Key: KEY"` against
`sweeper serve --api-key KEY`. It then reports as rejected some values that have the right type but no meaning.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import yaml

from sweeper.embedded import EmbeddedServer

TABLE = Path(__file__).with_suffix(".yaml")
WORDS: dict[str, Any] = {
    "any": {},
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "uuid": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
    "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
    "uri": {"type": "string", "pattern": "^https?://[^/]+/"},
    "blake3": {"type": "string", "pattern": "^blake3:[a-f0-9]{64}$"},
}
MEDIA = {"text/plain": "text", "application/octet-stream": "bytes", "image/png": "png", "image/webp": "webp"}

# Statuses that any answer may have, even if the document does not list them for its path.
ANYWHERE = {400, 401, 403, 404, 405, 413, 429, 500, 503}


def notation(schema: dict[str, Any]) -> Any:
    """Convert an OpenAPI 3.0 schema to our notation."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[-1]
    for key, ours in (("oneOf", "any of"), ("allOf", "both")):
        if key in schema:
            parts = [notation(part) for part in schema[key]]
            return {ours: parts} if len(parts) > 1 else parts[0]
    if "enum" in schema:
        return {"one of": schema["enum"]}
    kind = schema.get("type", "object" if schema else "any")
    if kind == "array":
        return [notation(schema["items"])]
    if kind == "object" and (schema.get("properties") or isinstance(schema.get("additionalProperties"), dict)):
        required = schema.get("required", [])
        fields = {
            f"{name}{'!' * (name in required)}": notation(part) for name, part in schema.get("properties", {}).items()
        }
        extra = schema.get("additionalProperties")
        return fields | ({"*": notation(extra)} if isinstance(extra, dict) else {})
    word = {"uuid": "uuid", "date-time": "time", "uri": "uri"}.get(schema.get("format", ""), kind)
    word = "blake3" if str(schema.get("pattern", "")).startswith("^blake3") else word
    return word + "?" * bool(schema.get("nullable"))


def read_published(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Read the table from the published documents, oldest first."""
    types: dict[str, Any] = {}
    for document in documents:
        types |= {name: notation(schema) for name, schema in document["components"]["schemas"].items()}
    with EmbeddedServer("cloud") as server, httpx.Client(base_url=server.url) as client:
        answers = read_answers(documents[-1], lambda method, path: is_served(client, method, path))
    used = find_types([answers, *(name for name in types if name.startswith("WebSocket"))], types)
    return {"answers": answers, "types": {name: types[name] for name in sorted(used)}}


def is_served(client: httpx.Client, method: str, path: str) -> bool:
    """Whether the embedded server knows this path and method."""
    answer = client.request(method, re.sub(r"\{\w+\}", "00000000-0000-4000-8000-000000000000", path))
    return answer.status_code != 405 and not (answer.status_code == 404 and '"Not found"' in answer.text)


def find_types(value: Any, types: dict[str, Any]) -> set[str]:
    """The names of all types that a part of the table uses."""
    if isinstance(value, str):
        name = value.rstrip("?")
        return {name} | find_types(types[name], types) if name in types else set()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for part in parts for name in find_types(part, types)}


def read_answers(document: dict[str, Any], is_wanted: Callable[[str, str], bool]) -> dict[str, Any]:
    """`METHOD /path` -> status -> the type of the answer."""
    answers: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not is_wanted(method.upper(), path):
                continue
            statuses = {}
            for status, answer in operation["responses"].items():
                for media, body in (answer.get("content") or {"-": None}).items():
                    json_body = media == "application/json"
                    statuses[int(status)] = notation(body["schema"]) if json_body else MEDIA.get(media, "-")
            answers[f"{method.upper()} {path}"] = dict(sorted(statuses.items()))
    return answers


@cache
def table() -> dict[str, Any]:
    """Load the table, corrected where the service is known to differ from its document."""
    matches: dict[str, Any] = yaml.safe_load(TABLE.read_text("utf-8"))
    types = matches["types"]
    types["JobStatusResponse"]["status!"] = "string"  # raw states, more than are documented
    # The specification of November 2026 adds these.
    reason = {"any of": [{"one of": ["concurrency_limit", "capacity", None]}]}
    types["JobDetailResponse"] |= {"queue_reason!": reason, "queue_position!": "integer?"}
    matches["answers"]["GET /api/features"][200] |= {"max_concurrent_jobs": "integer"}
    matches["answers"]["GET /api/features"][200] |= {"can_run_partner_nodes": "boolean"}
    # Real classes have combos as outputs, and null as a name and as a tooltip.
    types["NodeInfo"] |= {"output": [{"any of": ["string", ["string"]]}], "output_tooltips": ["string?"]}
    types["NodeInfo"] |= {"display_name": "string?"}
    types["WebSocketExecutionErrorMessage"]["data"]["exception_type"] = "string"  # also a Python class
    types["WebSocketExecutingMessage"]["data"] |= {"node": "string?"}  # null in the last one
    return matches


def schema_of(kind: Any) -> dict[str, Any]:
    """Convert a type of the table to a JSON Schema."""
    if isinstance(kind, list):
        return {"type": "array", "items": schema_of(kind[0])}
    if isinstance(kind, dict):
        if "one of" in kind:
            return {"enum": kind["one of"]}
        for ours, theirs in (("any of", "anyOf"), ("both", "allOf")):
            if ours in kind:
                return {theirs: [schema_of(part) for part in kind[ours]]}
        fields = {name.rstrip("!"): schema_of(part) for name, part in kind.items() if name != "*"}
        more = schema_of(kind["*"]) if "*" in kind else True
        required = [name[:-1] for name in kind if name.endswith("!")]
        return {"type": "object", "properties": fields, "required": required, "additionalProperties": more}
    if kind.endswith("?"):
        return {"anyOf": [schema_of(kind[:-1]), {"type": "null"}]}
    return WORDS[kind] if kind in WORDS else schema_of(table()["types"][kind])


@cache
def validator(name: str) -> Any:
    """Make the validator of a type of the table."""
    return jsonschema.Draft202012Validator(schema_of(name))


def operation(method: str, path: str) -> str | None:
    """The documented `METHOD /path/{with}/names` that matches a request; the one with the most text wins."""
    matches = []
    for name in table()["answers"]:
        verb, template = name.split(" ")
        pattern = re.sub(r"\\\{(file|dest)\\\}", ".+", re.escape(template))
        if verb == method and re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", pattern), path):
            matches.append(name)
    return max(matches, key=lambda name: len(re.sub(r"\{\w+\}", "", name)), default=None)


def judge(response: httpx.Response) -> tuple[str, int] | None:
    """Check an answer. Returns (operation, status), or None if it is undocumented. Raises AssertionError."""
    name = operation(response.request.method, response.request.url.path)
    if name is None:
        return None
    documented = table()["answers"][name]
    status = response.status_code
    if status not in documented:
        assert status in ANYWHERE, f"{name}: {status} is not documented"
        if status != 405:
            _judge_body(name, response, "ErrorResponse")
        return name, status
    _judge_body(name, response, documented[status])
    return name, status


def _judge_body(name: str, response: httpx.Response, kind: Any) -> None:
    response.read()
    media = response.headers.get("content-type", "").partition(";")[0]
    if response.request.method == "HEAD" or kind == "-":
        assert response.request.method == "HEAD" or not response.content, f"{name}: a body where none is documented"
    elif kind in MEDIA.values():
        assert MEDIA.get(media) == kind, f"{name}: {media}"
    else:
        assert media == "application/json", f"{name}: {media}"
        problems = list(jsonschema.Draft202012Validator(schema_of(kind)).iter_errors(response.json()))
        assert not problems, f"{name} {response.status_code}: {problems[0].message} at {list(problems[0].path)}"


if __name__ == "__main__":
    facts = read_published([yaml.safe_load(Path(name).read_text("utf-8")) for name in sys.argv[1:]])
    HEAD = "# Facts of Comfy Cloud's published specifications up to August 2026; see cloud_contract.py.\n"
    TABLE.write_text(HEAD + yaml.safe_dump(facts, sort_keys=False, width=120, default_flow_style=None), "utf-8")
