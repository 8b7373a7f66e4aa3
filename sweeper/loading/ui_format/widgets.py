"""Assign the saved values of a node's widgets to its inputs.

The editor saves the values as a list without names, in the order of the inputs of the class. Values of its own widgets
are among them: "control after generate" after a seed, upload buttons, previews. So a list is accepted only if it fits
the class in exactly one way; otherwise it is a WidgetMismatchError, never a guess. Texts are converted as the editor
does before it sends them (its extension `dynamicPrompts.ts`).
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

# The values of "control after generate". The first editors saved booleans.
_CONTROL_VALUES: Final = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
SEED_INPUTS: Final = frozenset(
    {"seed", "noise_seed"}
)  # the editor adds the control to these even if the class does not declare it
_UPLOAD_OPTIONS: Final = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload")
_BUTTON_TEXTS: Final = frozenset({"", "image", "video", "audio", "file"})  # the saved values of upload buttons
_WIDGET_TYPES: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
# Core classes for which the editor shows a player or a text, saves its value after the others, and never sends it.
_PREVIEW_CLASSES: Final = frozenset(
    {"LoadAudio", "PreviewAny", "PreviewAudio", "RecordAudio", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus"}
)
_FILE_SUFFIX: Final = re.compile(r"\.[A-Za-z]\w{1,11}$")
_MAX_BRACES: Final = 50
_MAX_MATCHES: Final = 1000  # of one list; real lists have two or three
_COMMENT: Final = re.compile(r"/\*[\s\S]*?\*/|//.*")
# Custom classes whose script on ComfyUI's page replaces the saved values when it queues a workflow.
_SCRIPTED_CLASSES: Final = frozenset({"ImpactWildcardProcessor", "ImpactWildcardEncode"})


class WidgetMismatchError(Exception):
    """The values of a node cannot be assigned with certainty. The message is the end of a sentence about the node."""


@dataclass(frozen=True, slots=True)
class WidgetValues:
    """The values of a node's widgets by input name. `defaults` names those that are the server's, not the file's."""

    values: Mapping[str, Any]
    defaults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _SavedValue:
    """One expected value of the saved list. `spec` is None for a widget of the editor itself."""

    accepts: Callable[[Any], bool]
    spec: InputSpec | None = None
    is_optional: bool = False


def assign_widget_values(node: Node, spec: NodeSpec) -> WidgetValues:
    """Return the value of every widget of a node. Raises WidgetMismatchError.

    The saved value of a linked input may be anything. If a list fits but ends before the inputs of the class, the other
    inputs were added to the class after the file was saved. They get the server's defaults, as on ComfyUI's page.
    """
    if spec.class_type in _SCRIPTED_CLASSES:
        raise WidgetMismatchError("gets its values from a script of ComfyUI's page when it queues")
    sockets = frozenset(socket.name for socket in node.inputs if socket.widget is None)
    linked = frozenset(socket.widget or socket.name for socket in node.inputs if socket.link is not None)
    wanted = [widget for widget in spec.inputs.values() if _is_widget(widget, is_socket=widget.name in sockets)]
    if isinstance(node.values, Mapping):
        saved = _match_by_name(node.values, wanted, linked)
    else:
        saved = _match_by_position(node.values if isinstance(node.values, list) else [], spec, wanted, linked, sockets)
    missing = [widget for widget in wanted if widget.name not in saved and widget.name not in linked]
    saved.update((widget.name, _get_default(widget)) for widget in missing)
    values = {
        widget.name: saved[widget.name] if widget.name in linked else _convert_value(widget, saved[widget.name])
        for widget in wanted
        if widget.name in saved
    }
    return WidgetValues(values, tuple(widget.name for widget in missing))


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
    return False  # a socket, or an optional input that is newer than the file


def _match_by_name(values: Mapping[str, Any], wanted: list[InputSpec], linked: Collection[str]) -> dict[str, Any]:
    for widget in wanted:
        if widget.name not in linked:
            if widget.name not in values:
                raise WidgetMismatchError(f"has no value for its input '{widget.name}'")
            convert_own_value(widget, values[widget.name])
    return {widget.name: values[widget.name] for widget in wanted if widget.name in values}


def _match_by_position(
    values: list[Any], spec: NodeSpec, wanted: list[InputSpec], linked: frozenset[str], sockets: frozenset[str]
) -> dict[str, Any]:
    # Linked inputs mostly have values of their type. Other values are considered only if nothing fits.
    for make_linked_check, make_check, may_end_early in (
        (_make_nullable_check, _make_check, False),
        (_make_lenient_check, _make_check, False),
        (_make_lenient_check, _make_strict_check, True),
    ):
        checks = {
            widget.name: (make_linked_check if widget.name in linked else make_check)(widget) for widget in wanted
        }
        expected = list(_iter_expected(spec, checks, optional=linked & sockets))
        matches = {_to_key(match): match for match in _iter_matches(values, expected, may_end_early=may_end_early)}
        if len(matches) > 1:
            raise WidgetMismatchError("has values that fit its inputs in more than one way")
        if matches:
            return next(iter(matches.values()))
    names = [widget.name for widget in wanted]
    raise WidgetMismatchError(
        f"has {len(values)} values ({', '.join(map(_format_value, values)) or 'none'}), which do not fit the "
        f"{len(names)} inputs that the server's class shows as widgets ({', '.join(names) or 'none'})"
    )


def _iter_matches(values: list[Any], expected: list[_SavedValue], *, may_end_early: bool) -> Iterator[dict[str, Any]]:
    """Yield every way in which the values match the expected ones in order, perhaps only the first of them."""
    matches: list[tuple[int, dict[str, Any]]] = [
        (0, {})
    ]  # the position of the next value, and the values by name so far
    for expected_value in expected:
        next_matches: list[tuple[int, dict[str, Any]]] = []
        for position, values_by_name in matches:
            if position < len(values) and expected_value.accepts(values[position]):
                next_matches.append(
                    (
                        position + 1,
                        values_by_name
                        if expected_value.spec is None
                        else {**values_by_name, expected_value.spec.name: values[position]},
                    )
                )
            if expected_value.is_optional or (
                may_end_early and position == len(values) and expected_value.spec and _has_default(expected_value.spec)
            ):
                next_matches.append((position, values_by_name))
        matches = next_matches
        if len(matches) > _MAX_MATCHES:
            raise WidgetMismatchError("has values that fit its inputs in too many ways")
    for position, values_by_name in matches:
        if position == len(values):
            yield values_by_name


def _iter_expected(
    spec: NodeSpec, checks: Mapping[str, Callable[[Any], bool]], optional: Collection[str]
) -> Iterator[_SavedValue]:
    """Yield the expected values. `checks` has a check for each widget by name.

    `optional` are linked sockets without a widget: no value was saved if the class had no widget for them then.
    """
    for input_spec in spec.inputs.values():
        if input_spec.name in checks:
            yield _SavedValue(checks[input_spec.name], input_spec, is_optional=input_spec.name in optional)
            control = input_spec.options.get("control_after_generate")
            if input_spec.type == "INT" and (control or input_spec.name in SEED_INPUTS):
                yield _SavedValue(is_control_value, is_optional=True)
            elif input_spec.type == "COMBO" and control:
                yield _SavedValue(is_control_value, is_optional=True)
                yield _SavedValue(lambda value: value is None or isinstance(value, str), is_optional=True)
        elif input_spec.options.get("forceInput") and input_spec.type in _WIDGET_TYPES:
            # Editors before version 1.16 saved a value for these too (litegraphUtil.ts, migrateWidgetsValues).
            yield _SavedValue(_accept_all, is_optional=True)
    # After the inputs follow upload buttons and previews, which are saved as "" or null.
    if any(input_spec.options.get(upload) for input_spec in spec.inputs.values() for upload in _UPLOAD_OPTIONS):
        yield _SavedValue(lambda value: value in _BUTTON_TEXTS, is_optional=True)
    for _ in range(3):
        yield _SavedValue(
            _accept_all if spec.class_type in _PREVIEW_CLASSES else lambda value: value is None or value == "",
            is_optional=True,
        )


def _has_default(spec: InputSpec) -> bool:
    if spec.type != "COMBO":
        return spec.default is not MISSING
    # The editor takes the first option of a combo. If the options are files of the server, that would be a guess.
    return (
        bool(spec.choices)
        and not spec.is_upload
        and not any(_FILE_SUFFIX.search(str(choice)) for choice in spec.choices or ())
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
    return lambda value: isinstance(value, (str, int, float))  # only the server knows the names


def _make_nullable_check(spec: InputSpec) -> Callable[[Any], bool]:
    accepts = _make_check(spec)
    return lambda value: value is None or accepts(value)


def _make_lenient_check(_spec: InputSpec) -> Callable[[Any], bool]:
    return _accept_all


def _make_strict_check(spec: InputSpec) -> Callable[[Any], bool]:
    """As `_make_check`, but within the limits of the class, for lists that an older class may have saved."""
    accepts = _make_check(spec)
    if spec.type in ("INT", "FLOAT"):
        low, high = spec.options.get("min", -math.inf), spec.options.get("max", math.inf)
        return lambda value: accepts(value) and low <= value <= high
    if spec.type == "COMBO" and _has_default(spec):
        return lambda value: value in (spec.choices or ())
    return accepts


def _is_number(value: Any) -> bool:
    # JSON has no infinity and no NaN, but Python's parser accepts them.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_control_value(value: Any) -> bool:
    """Whether a value may be that of "control after generate"."""
    return isinstance(value, bool) or (isinstance(value, str) and value in _CONTROL_VALUES)


def _accept_all(_value: Any) -> bool:
    return True


# --- what is sent


def convert_host_value(spec: InputSpec, value: Any) -> Any:
    """Convert the value of a subgraph's host for a widget inside as the editor sends it. Raises WidgetMismatchError."""
    if not _make_check(spec)(value):
        raise WidgetMismatchError(
            f"gets {_format_value(value)} from its subgraph for its input '{spec.name}' ({spec.type})"
        )
    return {"__value__": value} if isinstance(value, list) else value  # the editor does not resolve {choices} in these


def convert_own_value(spec: InputSpec, value: Any) -> Any:
    """Convert the value of a widget, or of the primitive linked to it, as the editor sends it.

    Raises WidgetMismatchError.
    """
    if not _make_check(spec)(value):
        raise WidgetMismatchError(f"has {_format_value(value)} for its input '{spec.name}' ({spec.type})")
    return _convert_value(spec, value)


def _convert_value(spec: InputSpec, value: Any) -> Any:
    if spec.name in SEED_INPUTS and _is_number(value) and value < 0:
        raise WidgetMismatchError(
            f"has {value} for its '{spec.name}', which its page replaces by a random one; write a number"
        )
    if spec.type == "INT" and isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, list):
        return {"__value__": value}  # the server unwraps this; a bare list would be a link
    if isinstance(value, str) and spec.options.get("dynamicPrompts"):
        return resolve_dynamic_prompt(value)
    return value


def resolve_dynamic_prompt(text: str, depth: int = 0) -> str:
    """Return the text that the editor sends for a prompt: without comments, and without braces around a single choice.

    Raises WidgetMismatchError if the editor would choose at random (`{a|b}`); see its `processDynamicPrompt`.
    """
    if depth > _MAX_BRACES:
        raise WidgetMismatchError(f"has a text with more than {_MAX_BRACES} nested braces")
    text = _COMMENT.sub("", text)
    result = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            result += text[position : position + 2]
            position += 2
        elif char == "{":
            end, block = _parse_block(text, position + 1)
            result += resolve_dynamic_prompt(block, depth + 1)
            position = end
        else:
            result += char
            position += 1
    return re.sub(r"\\([{}|])", r"\1", result)


def _parse_block(text: str, position: int) -> tuple[int, str]:
    """Return the end of the block of braces that begins at `position`, and its content."""
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
                f"has the text {_format_value(text)}, and ComfyUI's page picks one of the {{choices|like these}} at "
                "random when it queues; write one of them (a sweep can try all of them: `choices`)"
            )
        depth += {"{": 1, "}": -1}.get(char, 0)
        position += 1
    return position, text[start:]


def _to_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _format_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."
