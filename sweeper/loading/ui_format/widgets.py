"""Which of a node's saved values belongs to which input.

The editor saves the values of a node's widgets as a bare list, in the order of the class's inputs, with those of its
own widgets among them: "control after generate" behind a seed, upload buttons, previews. So a list is taken only where
it fits the class in exactly one way; anything else is a MisfitError, never a guess. Texts are treated as the editor
treats them on their way to the server (its extension `dynamicPrompts.ts`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeper.loading.ui_format.graph import Node
from sweeper.model.node_classes.spec import InputSpec, NodeSpec
from sweeper.model.template import MISSING

# What "control after generate" says, and the booleans that the first editors saved there.
_CONTROL_VALUES: Final = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
_SEED_INPUTS: Final = frozenset(
    {"seed", "noise_seed"}
)  # the editor gives these the control whatever the class declares
_UPLOAD_OPTIONS: Final = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload")
_BUTTON_TEXTS: Final = frozenset({"", "image", "video", "audio", "file"})  # what upload buttons leave as their value
_WIDGET_TYPES: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
# Core classes whose page shows a player or a text that is saved behind their values and never sent.
_PREVIEW_CLASSES: Final = frozenset(
    {"LoadAudio", "PreviewAny", "PreviewAudio", "RecordAudio", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus"}
)
_FILE_SUFFIX: Final = re.compile(r"\.[A-Za-z]\w{1,11}$")
_MAX_BRACES: Final = 50
_MAX_MATCHES: Final = 1000  # of reading one list; real ones have two or three
_COMMENT: Final = re.compile(r"/\*[\s\S]*?\*/|//.*")
# Custom classes whose script on ComfyUI's page writes other values than the saved ones when it queues.
_SCRIPTED_CLASSES: Final = frozenset({"ImpactWildcardProcessor", "ImpactWildcardEncode"})


class WidgetMismatchError(Exception):
    """A node's values cannot be told apart for sure; the message says why, as the end of a sentence about the node."""


@dataclass(frozen=True, slots=True)
class WidgetValues:
    """The values of a node's widgets by input name, and which of them are the server's defaults, not the file's."""

    values: Mapping[str, Any]
    defaults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _SavedValue:
    """One place in the saved list. `spec` is None for a widget of the page's own."""

    accepts: Callable[[Any], bool]
    spec: InputSpec | None = None
    is_optional: bool = False


def widget_values(node: Node, spec: NodeSpec) -> WidgetValues:
    """The value of every widget of a node. Raises MisfitError.

    The saved value of an input that a link decides may be anything. Where a list ends before the class's inputs do,
    and all that is there fits, the rest were added to the class after the file was saved: they take the server's
    defaults, as they do on ComfyUI's page.
    """
    if spec.class_type in _SCRIPTED_CLASSES:
        raise WidgetMismatchError("is filled in by a script of ComfyUI's page when it queues")
    values = node.values
    sockets = frozenset(one.name for one in node.inputs if one.widget is None)
    linked = frozenset(one.widget or one.name for one in node.inputs if one.link is not None)
    wanted = [one for one in spec.inputs.values() if _is_widget(one, is_socket=one.name in sockets)]
    if isinstance(values, Mapping):
        found = _match_by_name(values, wanted, linked)
    else:
        found = _match_by_position(values if isinstance(values, list) else [], spec, wanted, linked, sockets)
    missing = [one for one in wanted if one.name not in found and one.name not in linked]
    found.update((one.name, _get_default(one)) for one in missing)
    named = {
        one.name: found[one.name] if one.name in linked else _convert_value(one, found[one.name])
        for one in wanted
        if one.name in found
    }
    return WidgetValues(named, tuple(one.name for one in missing))


def _is_widget(spec: InputSpec, *, is_socket: bool) -> bool:
    if spec.kind == "link":
        if spec.type.startswith("COMFY_"):
            raise WidgetMismatchError(f"has the input '{spec.name}', which grows with what is linked to it")
        return False
    if spec.branches or spec.type.startswith("COMFY_"):
        raise WidgetMismatchError(f"has the input '{spec.name}', whose value decides which other inputs there are")
    if spec.type in _WIDGET_TYPES:
        return True
    if spec.required and not is_socket:
        raise WidgetMismatchError(f"has the input '{spec.name}' ({spec.type}), whose widget only ComfyUI's page knows")
    return False  # a socket after all, or an optional input that the file does not know yet


def _match_by_name(values: Mapping[str, Any], wanted: list[InputSpec], linked: Collection[str]) -> dict[str, Any]:
    for one in wanted:
        if one.name not in linked:
            if one.name not in values:
                raise WidgetMismatchError(f"holds no value for its input '{one.name}'")
            convert_own_value(one, values[one.name])
    return {one.name: values[one.name] for one in wanted if one.name in values}


def _match_by_position(
    values: list[Any], spec: NodeSpec, wanted: list[InputSpec], linked: frozenset[str], sockets: frozenset[str]
) -> dict[str, Any]:
    # The linked ones mostly hold values of their type, and only where that fits nowhere anything else.
    for linked_hold, others_hold, lacking in (
        (_make_nullable_check, _make_check, False),
        (_make_lenient_check, _make_check, False),
        (_make_lenient_check, _make_strict_check, True),
    ):
        holds = {one.name: (linked_hold if one.name in linked else others_hold)(one) for one in wanted}
        places = list(_iter_expected(spec, holds, optional=linked & sockets))
        fits = {_to_key(fit): fit for fit in _iter_matches(values, places, may_end_early=lacking)}
        if len(fits) > 1:
            raise WidgetMismatchError("holds values that fit its inputs in more than one way")
        if fits:
            return next(iter(fits.values()))
    names = [one.name for one in wanted]
    raise WidgetMismatchError(
        f"holds {len(values)} values ({', '.join(map(_format_value, values)) or 'none'}), which do not fit the "
        f"{len(names)} inputs that the server's class shows as widgets ({', '.join(names) or 'none'})"
    )


def _iter_matches(values: list[Any], expected: list[_SavedValue], *, may_end_early: bool) -> Iterator[dict[str, Any]]:
    """Every way in which the values fill the places, in order. With `lacking` the values may end early."""
    ways: list[tuple[int, dict[str, Any]]] = [(0, {})]  # the next value, and the names so far
    for place in expected:
        following: list[tuple[int, dict[str, Any]]] = []
        for at, named in ways:
            if at < len(values) and place.accepts(values[at]):
                following.append((at + 1, named if place.spec is None else {**named, place.spec.name: values[at]}))
            if place.is_optional or (may_end_early and at == len(values) and place.spec and _has_default(place.spec)):
                following.append((at, named))
        ways = following
        if len(ways) > _MAX_MATCHES:
            raise WidgetMismatchError("holds values that fit its inputs in too many ways")
    for at, named in ways:
        if at == len(values):
            yield named


def _iter_expected(
    spec: NodeSpec, checks: Mapping[str, Callable[[Any], bool]], optional: Collection[str]
) -> Iterator[_SavedValue]:
    """`holds` are the widgets with what they accept. `may_lack` are linked plain sockets: where the class once had no
    widget for one, no value was saved.
    """
    for one in spec.inputs.values():
        if one.name in checks:
            yield _SavedValue(checks[one.name], one, is_optional=one.name in optional)
            control = one.options.get("control_after_generate")
            if one.type == "INT" and (control or one.name in _SEED_INPUTS):
                yield _SavedValue(is_control_value, is_optional=True)
            elif one.type == "COMBO" and control:
                yield _SavedValue(is_control_value, is_optional=True)
                yield _SavedValue(lambda value: value is None or isinstance(value, str), is_optional=True)
        elif one.options.get("forceInput") and one.type in _WIDGET_TYPES:
            # Editors before 1.16 saved a value for these too (litegraphUtil.ts, migrateWidgetsValues).
            yield _SavedValue(_accept_all, is_optional=True)
    # Behind the inputs: upload buttons, and previews, which are saved as "" or null.
    if any(one.options.get(upload) for one in spec.inputs.values() for upload in _UPLOAD_OPTIONS):
        yield _SavedValue(lambda value: value in _BUTTON_TEXTS, is_optional=True)
    for _ in range(3):
        yield _SavedValue(
            _accept_all if spec.class_type in _PREVIEW_CLASSES else lambda value: value is None or value == "",
            is_optional=True,
        )


def _has_default(spec: InputSpec) -> bool:
    if spec.type != "COMBO":
        return spec.default is not MISSING
    # The page takes a combo's first option; where those are files of the server's, that would be a guess.
    return (
        bool(spec.choices)
        and not spec.is_upload
        and not any(_FILE_SUFFIX.search(str(one)) for one in spec.choices or ())
    )


def _get_default(spec: InputSpec) -> Any:
    if spec.type == "COMBO" and spec.default is MISSING and spec.choices:
        return spec.choices[0]
    return spec.default


def _make_check(spec: InputSpec) -> Callable[[Any], bool]:
    if spec.type == "INT":
        return lambda value: _is_number(value) and value == int(value)
    if spec.type == "FLOAT":
        return _is_number
    if spec.type == "STRING":
        return lambda value: isinstance(value, str)
    if spec.type == "BOOLEAN":
        return lambda value: isinstance(value, bool)
    if spec.options.get("multiselect") or spec.options.get("multi_select"):
        return lambda value: isinstance(value, (str, list))
    return lambda value: isinstance(value, (str, int, float))  # which names there are, each server knows for itself


def _make_nullable_check(spec: InputSpec) -> Callable[[Any], bool]:
    accepts = _make_check(spec)
    return lambda value: value is None or accepts(value)


def _make_lenient_check(spec: InputSpec) -> Callable[[Any], bool]:  # noqa: ARG001 - beside the other two
    return _accept_all


def _make_strict_check(spec: InputSpec) -> Callable[[Any], bool]:
    """As `_accepts`, within the limits that the class declares: for lists that may belong to an older class."""
    accepts = _make_check(spec)
    if spec.type in ("INT", "FLOAT"):
        low, high = spec.options.get("min", -math.inf), spec.options.get("max", math.inf)
        return lambda value: accepts(value) and low <= value <= high
    if spec.type == "COMBO" and _has_default(spec):
        return lambda value: value in (spec.choices or ())
    return accepts


def _is_number(value: Any) -> bool:
    # JSON of JavaScript's knows no infinity and no NaN, but Python's reader does.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_control_value(value: Any) -> bool:
    """Whether a value is one that "control after generate" leaves."""
    return isinstance(value, bool) or (isinstance(value, str) and value in _CONTROL_VALUES)


def _accept_all(value: Any) -> bool:  # noqa: ARG001 - one of the `accepts`
    return True


# --- what is sent


def convert_host_value(spec: InputSpec, value: Any) -> Any:
    """What the editor sends of a value that a subgraph's node holds for a widget inside. Raises MisfitError."""
    if not _make_check(spec)(value):
        raise WidgetMismatchError(
            f"gets {_format_value(value)} from its subgraph for its input '{spec.name}' ({spec.type})"
        )
    return {"__value__": value} if isinstance(value, list) else value  # the page picks no {choices} in these


def convert_own_value(spec: InputSpec, value: Any) -> Any:
    """What the editor sends of a widget's value: of its own where its link leads nowhere, or of a primitive's, which
    it copies there. Raises MisfitError.
    """
    if not _make_check(spec)(value):
        raise WidgetMismatchError(f"holds {_format_value(value)} for its input '{spec.name}' ({spec.type})")
    return _convert_value(spec, value)


def _convert_value(spec: InputSpec, value: Any) -> Any:
    if spec.name in _SEED_INPUTS and _is_number(value) and value < 0:
        raise WidgetMismatchError(
            f"holds {value} for its '{spec.name}', for which its page draws a random one; write a number"
        )
    if spec.type == "INT" and isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, list):
        return {"__value__": value}  # a bare list would be a link; the server unwraps this
    if isinstance(value, str) and spec.options.get("dynamicPrompts"):
        return resolve_dynamic_prompt(value)
    return value


def resolve_dynamic_prompt(text: str, depth: int = 0) -> str:
    """The text that the editor sends for a prompt: comments taken out, braces around a single choice too.

    Raises MisfitError where it would choose at random (`{a|b}`), as `processDynamicPrompt` of the editor does.
    """
    if depth > _MAX_BRACES:
        raise WidgetMismatchError(f"holds a text with more than {_MAX_BRACES} braces inside one another")
    text = _COMMENT.sub("", text)
    result = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            result += text[at : at + 2]
            at += 2
        elif char == "{":
            end, inside = _parse_block(text, at + 1)
            result += resolve_dynamic_prompt(inside, depth + 1)
            at = end
        else:
            result += char
            at += 1
    return re.sub(r"\\([{}|])", r"\1", result)


def _parse_block(text: str, position: int) -> tuple[int, str]:
    """Where the block of braces that begins at `at` ends, and what is in it."""
    start, depth = position, 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
            continue
        if char == "}" and depth == 0:
            return position + 1, text[start:position]
        if char == "|" and depth == 0:
            raise WidgetMismatchError(
                f"holds the text {_format_value(text)}, out of whose {{choices|like these}} ComfyUI's page picks "
                "one at random when it queues; write one of them there (a sweep can then go through all: `choices`)"
            )
        depth += {"{": 1, "}": -1}.get(char, 0)
        position += 1
    return position, text[start:]


def _to_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _format_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."
