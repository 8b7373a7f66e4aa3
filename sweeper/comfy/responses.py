"""Read the JSON that ComfyUI and Comfy Cloud write alike: outputs, errors, charges, versions. Sans-IO.

Servers are not trusted: these readers ignore a part that does not have the expected shape, and no amount is negative
or beyond all reason. What is known of charges, as of ComfyUI 0.33.0 and its frontend of November 2026:

- A partner node of a ComfyUI shows a text with a line such as `Price: 6.33 credits`: what Comfy's proxy says in its
  header `X-Comfy-Credits-Used`, else what the node computes (comfy_api_nodes/util/client.py). Older ones wrote dollars:
  `Price: $0.0300`. The text is replaced, so the last one counts. A price of nothing is not shown.
- No answer of Comfy Cloud about a job has a documented amount. Should one have that header, or a `credits_used` beside
  the documented times in its `metrics`, it is the price of the job. Its absence does not mean that the job was free.
- `GET /api/billing/balance` of Comfy Cloud says what is left. Its fields are named `_micros` and contain cents
  (https://docs.comfy.org/api-reference/cloud/billing/get-workspace-usage-over-time).

`/system_stats` has the versions that a picture depends on. The list of node packs comes from ComfyUI-Manager, where it
is installed: `{folder: {ver, cnr_id, aux_id, enabled}}`, below `/v2` since its version 4. These facts are never a
reason for a run to fail. `sweeper.regression.baseline` compares those of two servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from typing import Any, Final, NamedTuple

from sweeper.comfy.protocol import (
    Flow,
    JobOutput,
    JobState,
    ReportedCharges,
    ServerRequest,
    ServerResponse,
    is_id,
    to_text,
)
from sweeper.errors import EXECUTION_ERROR, MAX_MESSAGE_LENGTH
from sweeper.model.money import COMFY_CREDITS_PER_USD, CURRENCY, MICROS, to_fraction, to_micros
from sweeper.schemas.values import is_number
from sweeper.wording import shorten, to_one_line

# Files of one job that sweeper downloads. A film of ten minutes saved as single pictures has 15,000.
MAX_OUTPUTS: Final = 20_000
_MAX_PATH_LENGTH: Final = 4096  # characters of a file's name or folder; Linux allows no longer path
_MAX_TIMESTAMP: Final = 1e14  # milliseconds: the year 5138; Python has dates up to the year 9999
_MAX_NODES: Final = 10_000  # of one job; a list of more says nothing
_MAX_NAME_LENGTH: Final = 200  # characters of a node's id, an output's kind and an error's type


def read_outputs(outputs_json: Any) -> tuple[JobOutput, ...]:
    """Every file that a job lists: each record with a `filename`, whatever its kind; see `sort_outputs`."""
    if not isinstance(outputs_json, Mapping):
        return ()
    return sort_outputs(
        output for node, kinds in outputs_json.items() for output in _read_node_outputs(str(node), kinds)
    )


def sort_outputs(outputs: Iterable[JobOutput]) -> tuple[JobOutput, ...]:
    """Outputs by node (numbers numerically), kind and position; at most `MAX_OUTPUTS` + 1 of them.

    The order in which nodes ran depends on the server's cache.
    """
    return tuple(
        sorted(
            islice(outputs, MAX_OUTPUTS + 1),
            key=lambda output: (natural_sort_key(output.node), output.kind, output.position),
        )
    )


def make_succeeded_state(outputs: tuple[JobOutput, ...], **rest: Any) -> JobState:
    """The state of a job that succeeded. One with more outputs than `MAX_OUTPUTS` counts as failed."""
    if len(outputs) <= MAX_OUTPUTS:
        return JobState("succeeded", outputs, **rest)
    error = (
        f"the job succeeded, but the server lists more than {MAX_OUTPUTS:,} output files; "
        "sweeper downloads none of them, so let the workflow save fewer files"
    )
    return JobState("failed", error_type="TooManyOutputs", error=error, **rest)


def _read_node_outputs(node: str, kinds: Any) -> Iterator[JobOutput]:
    if not isinstance(kinds, Mapping):
        return
    for kind, records in kinds.items():
        if not isinstance(records, list):
            continue
        for position, record in enumerate(records):
            filename = _read_path(record.get("filename")) if isinstance(record, Mapping) else ""
            if filename:
                yield JobOutput(
                    node=node[:_MAX_NAME_LENGTH],
                    kind=str(kind)[:_MAX_NAME_LENGTH],
                    position=position,
                    filename=filename,
                    subfolder=_read_path(record.get("subfolder")),
                    type=_read_path(record.get("type")) or "output",
                )


def _read_path(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_PATH_LENGTH else ""


def natural_sort_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers by value: by length, then digits, because Python refuses to convert long ones."""
    parts = [part.lstrip("0") if part.isdigit() else part for part in re.split(r"([0-9]+)", text) if part]
    return tuple((0, len(part), part) if not part or part[0] in "123456789" else (1, 0, part) for part in parts)


def rejection_message(answer: Mapping[str, Any], graph: Mapping[str, Any]) -> str | None:
    """Why the server rejected a submission, in words for the user; None if the answer holds no error.

    Uses `node_errors`, because ComfyUI leaves `error.details` empty unless an output node itself is invalid.
    """
    lines = list(_node_error_lines(answer.get("node_errors"), graph))
    if lines:
        return shorten("; ".join(lines), MAX_MESSAGE_LENGTH)
    error = answer.get("error")
    if isinstance(error, Mapping):
        parts = [to_text(error[name]).strip() for name in ("message", "details") if error.get(name)]
        return shorten(" ".join(parts) or to_text(error.get("type") or "rejected without a reason"), MAX_MESSAGE_LENGTH)
    if error:
        return shorten(to_text(error), MAX_MESSAGE_LENGTH)
    return None


def _node_error_lines(node_errors: Any, graph: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(node_errors, Mapping):
        if node_errors:
            yield to_text(node_errors)
        return
    for node, entry in sorted(node_errors.items(), key=lambda item: natural_sort_key(str(item[0]))):
        kind = entry.get("class_type") if isinstance(entry, Mapping) else None
        kind = to_text(kind or (graph.get(node) or {}).get("class_type") or "?")
        errors = entry.get("errors") if isinstance(entry, Mapping) else None
        errors = errors if isinstance(errors, list) else None
        # The server iterates over a set, so the order varies. Sorted, the same mistake always reads the same.
        for line in sorted(_format_error(error) for error in errors or [{}]):
            yield f"node {node} ({kind}) {line}"


def _format_error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return to_text(error)
    details, message = to_text(error.get("details") or "").strip(), to_text(error.get("message") or "").strip()
    extra = error.get("extra_info")
    name = to_text(extra.get("input_name") or "") if isinstance(extra, Mapping) else ""
    if name and details.startswith(f"{name}:"):
        return details  # "sampler_name: 'nope' not in ['euler', ...]" says it all
    text = f"{message} ({details})" if message and details and details != name else message or details or "is not valid"
    return f"{name}: {text}" if name else text


def make_failed_state(error: Any, **rest: Any) -> JobState:
    """The state of a job whose node failed, from its `execution_error`."""
    details = error if isinstance(error, Mapping) else {"exception_message": error}
    kind = shorten(to_text(details.get("exception_type") or EXECUTION_ERROR), _MAX_NAME_LENGTH)
    message = to_text(details.get("exception_message") or "failed without a reason").strip()
    node, node_type = (shorten(to_text(details.get(name)), _MAX_NAME_LENGTH) for name in ("node_id", "node_type"))
    prefix = f"node {node} ({node_type}): " if details.get("node_id") not in (None, "") else ""
    failed_node = details.get("node_id") if is_id(details.get("node_id")) else None
    text = shorten(f"{prefix}{message}", MAX_MESSAGE_LENGTH)
    return JobState("failed", error_type=kind, error=text, failed_node=failed_node, **rest)


def to_seconds(value: Any) -> float | None:
    """A server's timestamp, in seconds or milliseconds, as seconds since 1970; None if it is not a time."""
    if not is_number(value) or not 0 < value < _MAX_TIMESTAMP:
        return None
    return value / 1000 if value > 1e11 else float(value)  # 1e11 s is the year 5138; 1e11 ms was in 1973


def read_messages(status: Any) -> tuple[str | None, dict[str, Any], float | None, float | None]:
    """Read ComfyUI's `status.messages`: (type of the last message, its data, start, end), times in seconds.

    The last message tells how a job ended. `status_str` does not: it is `error` for an interrupted job too, and may
    still have the value of the previous job if this one failed before any node ran.
    """
    pairs = _list_messages(status)
    if not pairs:
        return None, {}, None, None
    kind, data = pairs[-1]
    return kind, data, to_seconds(pairs[0][1].get("timestamp")), to_seconds(data.get("timestamp"))


def read_node_runs(status: Any) -> dict[str, frozenset[str] | None]:
    """What ComfyUI's `status.messages` say about the nodes of an ended job: `cached` and `executed` of a `JobState`.

    `execution_cached` lists the nodes whose results were in the cache. The message of a job that did not succeed lists
    those that ran to their end, and names the one that was running.
    """
    pairs = _list_messages(status)
    cached = next((_read_ids(data.get("nodes")) for kind, data in pairs if kind == "execution_cached"), None)
    _, last = pairs[-1] if pairs else ("", {})
    executed = _read_ids(last.get("executed"))
    if executed is not None and is_id(last.get("node_id")):
        executed |= {last["node_id"]}
    return {"cached": cached, "executed": executed}


def _list_messages(status: Any) -> list[tuple[str, dict[str, Any]]]:
    messages = status.get("messages") if isinstance(status, Mapping) else None
    return [
        (str(message[0]), message[1])
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict)
    ]


def _read_ids(value: Any) -> frozenset[str] | None:
    return frozenset(filter(is_id, value)) if isinstance(value, list) and len(value) <= _MAX_NODES else None


CREDITS_HEADER: Final = "x-comfy-credits-used"
_CENTS_PER_USD: Final = 100.0
_MAX_AMOUNT: Final = 1e9  # credits, cents or dollars
_MAX_DIGITS: Final = 32
_PRICE_LINE: Final = re.compile(r"^Price: (?:\$([0-9][0-9,.]{0,30})|([0-9][0-9,.]{0,30}) credits)$", re.MULTILINE)


def read_price_text(text: str, credits_per_usd: int | Fraction = COMFY_CREDITS_PER_USD) -> int | None:
    """The price in the text that a partner node shows, in micro-dollars; None if it names none."""
    match = _PRICE_LINE.search(text)
    if match is None:
        return None
    amount = _read_amount((match[1] or match[2]).replace(",", ""))
    return None if amount is None else to_micros(to_fraction(amount) / (1 if match[1] else credits_per_usd))


def read_charged(details: Mapping[str, Any], headers: Mapping[str, str]) -> ReportedCharges | None:
    """What the answer about a job says that the whole job was charged; None if it does not say that."""
    metrics = details.get("metrics")
    amounts = (headers.get(CREDITS_HEADER), metrics.get("credits_used") if isinstance(metrics, Mapping) else None)
    credit_count = next((amount for value in amounts if (amount := _read_amount(value)) is not None), None)
    if credit_count is None:
        return None
    return ReportedCharges(whole=to_fraction(credit_count) * MICROS / COMFY_CREDITS_PER_USD)


def query_balance() -> Flow[float | None]:
    """What is left on the account, in USD, which is negative for a debt; None if the server does not say that."""
    response = yield ServerRequest("GET", "/api/billing/balance")
    balance = _read_mapping(response)
    if str(balance.get("currency", CURRENCY)).upper() != CURRENCY:
        return None
    for name in ("effective_balance_micros", "amount_micros"):  # as the frontend reads them
        cents = _read_amount(balance.get(name), lowest=-_MAX_AMOUNT)
        if cents is not None:
            return round(cents / _CENTS_PER_USD, 6)
    return None


def _read_amount(value: Any, lowest: float = 0.0) -> float | None:
    """A number, or a text that is one, from `lowest` to `_MAX_AMOUNT`; None for anything else."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_number(value) and lowest <= value <= _MAX_AMOUNT else None


_MAX_LENGTH: Final = 200  # characters of one fact
_MAX_FACTS: Final = 2000  # of one kind, such as node packs
_SECRET: Final = re.compile("key|token|secret|pass|auth|cred|cert", re.IGNORECASE)
_HARMLESS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?|[a-z][a-z0-9_]{0,15}")  # a number or a word, not a path or host
# Where a server listens and writes, which no picture depends on, and which differs with each start by sweeper.
_PLACES: Final = (
    "--listen", "--port", "--output-directory", "--temp-directory", "--database-url", "--disable-auto-launch",
)  # fmt: skip
_REPOSITORY: Final = re.compile(r"[\w.-]+/[\w.-]+")


class NodePack(NamedTuple):
    """A node pack as ComfyUI-Manager lists it; "" for what it does not tell.

    `version` is that of the registry, or the commit of a checkout. `registry_id` is its id in Comfy's registry.
    """

    version: str = ""
    registry_id: str = ""
    repository: str = ""


def query_server_info(dialect: str) -> Flow[dict[str, Any]]:
    """Ask for `comfyui`, `python`, `pytorch`, `server`, `devices`, `argv` and `nodes`; return the known ones, as JSON.

    Raises only the errors of sending a request.
    """
    if dialect == "runpod":  # it has no such call
        return {}
    path = "/system_stats" if dialect == "comfyui" else "/api/system_stats"
    stats = _read_mapping((yield ServerRequest("GET", path)))
    system = stats.get("system")
    facts: dict[str, Any] = _read_system(system) if isinstance(system, Mapping) else {}
    devices = stats.get("devices")
    if isinstance(devices, list):
        names = [
            _to_line(device["name"])
            for device in devices[:_MAX_FACTS]
            if isinstance(device, Mapping) and device.get("name")
        ]
        facts |= {"devices": names} if names else {}
    if dialect == "comfyui":
        packs = yield from query_node_packs()
        facts |= {"nodes": {name: pack.version or "unknown" for name, pack in packs.items()}} if packs else {}
    return facts


def query_node_packs() -> Flow[dict[str, NodePack]]:
    """Ask a ComfyUI for its enabled node packs, by their folder; empty without ComfyUI-Manager."""
    for path in ("/v2/customnode/installed", "/customnode/installed"):
        packs = _read_node_packs(_read_mapping((yield ServerRequest("GET", path))))
        if packs:
            return packs
    return {}


def read_memory(system: Mapping[str, Any]) -> tuple[int, int]:
    """The total and free bytes of memory in the `system` of `/system_stats`; 0 for a number that is not there."""
    total, free = (value if isinstance(value := system.get(f"ram_{name}"), int) else 0 for name in ("total", "free"))
    return total, free


def _read_mapping(response: ServerResponse) -> Mapping[str, Any]:
    return response.read_object() if response.status == 200 else {}


def _read_system(system: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        "comfyui": system.get("comfyui_version"),
        "python": to_text(system.get("python_version") or "").partition(" ")[0],
        "pytorch": system.get("pytorch_version"),
        # "name version: description". No picture depends on the description.
        "server": to_text(system.get("embedded_server") or "").partition(":")[0],
    }
    facts: dict[str, Any] = {name: _to_line(value) for name, value in values.items() if value and value != "none"}
    arguments = system.get("argv")
    if isinstance(arguments, list):
        facts["argv"] = redact_arguments(to_text(argument) for argument in arguments[:_MAX_FACTS])
    return facts


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """The options of a command line, safe to publish.

    Of their values only numbers and plain words remain, and none of an option that sounds like a secret. Options that
    say where the server listens or writes are left out.
    """
    safe: list[str] = []
    is_secret = True  # arguments before the first option are the program's path
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            is_secret = bool(_SECRET.search(name)) or name in _PLACES
            if name in _PLACES:
                continue
            is_shown = not is_secret and bool(_HARMLESS.fullmatch(value))
            safe.append(_to_line(f"{name}={value if is_shown else '...'}" if equals else name))
        elif not is_secret and _HARMLESS.fullmatch(argument):
            safe.append(argument)
    return safe


def _read_node_packs(installed: Mapping[str, Any]) -> dict[str, NodePack]:
    return {
        _to_line(name): NodePack(
            _to_line(pack.get("ver") or ""), _to_line(pack.get("cnr_id") or ""), _make_repository(pack.get("aux_id"))
        )
        for name, pack in islice(sorted(installed.items()), _MAX_FACTS)
        if isinstance(pack, Mapping) and "ver" in pack and pack.get("enabled", True)
    }


def _make_repository(github_id: Any) -> str:
    """The URL of `owner/name`; "" for anything else, such as the address of a server that is not GitHub."""
    is_id = isinstance(github_id, str) and len(github_id) <= _MAX_LENGTH and _REPOSITORY.fullmatch(github_id)
    return f"https://github.com/{github_id}" if is_id else ""


def _to_line(value: Any) -> str:
    """One line of bounded length in valid UTF-8, because the facts end up in a file that is committed."""
    plain = to_text(value)[: 10 * _MAX_LENGTH].encode("utf-8", "replace").decode()
    return to_one_line(plain)[:_MAX_LENGTH]
