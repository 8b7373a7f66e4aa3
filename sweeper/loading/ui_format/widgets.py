"""Read the saved values of a node's widgets as ComfyUI's page reads them, and convert them as the page sends them.

A file has the values of a node as a list without names. When ComfyUI's page opens it, the page makes the widgets of the
*server's* class and gives them the values in that order, whatever they are (ComfyUI_frontend 1.49, litegraph's
`LGraphNode.configure`). Widgets of the page itself take part: "control after generate" after a seed, the buttons of a
3D viewer. Values in excess are those of previews and upload buttons, which come last, or of removed widgets; the page
ignores them. Widgets without a value keep the default of the class.

Newer files have the values by name too (`widgets_values_named`). The page ignores them unless an experimental setting
is on, and so does this module.

So there is only one reading, and no guess. A reading that cannot be right, such as a text for a number, is refused,
because the class has changed since the file was saved. Scripts of custom nodes may add widgets of their own; a list
with more values than their class has widgets is refused too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

from sweeper.loading.ui_format.graph import Node
from sweeper.model.node_classes.spec import DYNAMIC_COMBO, InputSpec, NodeSpec
from sweeper.model.template import MISSING
from sweeper.schemas.values import is_number
from sweeper.wording import suggest

# The values of "control after generate". The first editors saved booleans.
CONTROL_WORDS: Final = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
# The page adds the control to these integers even if the class does not declare it.
SEED_INPUTS: Final = frozenset({"seed", "noise_seed"})
RECORDING: Final = "AUDIO_RECORD"
# Types that the page has a widget for (scripts/widgets.ts), and its defaults where the class declares none.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False, "COLOR": "#000000", "COLORS": [], "BOUNDING_BOXES": [],
    "BOUNDING_BOX": {"x": 0, "y": 0, "width": 512, "height": 512}, "RANGE": {"min": 0.0, "max": 1.0}, "PAINTER": "",
    "MARKDOWN": "", "TEXTAREA": "", "IMAGECOMPARE": ["", ""], "LOAD_3D": "", RECORDING: "", "WEBCAM": "",
}  # fmt: skip
_WIDGET_TYPES: Final = frozenset(
    {*_DEFAULTS, "COMBO", DYNAMIC_COMBO, "CHART", "COMPOSITOR", "CURVE", "GALLERIA", "VIDEO_EDIT"}
)
_UNSAVED: Final = "IMAGECOMPARE"
# Widgets whose value the page makes when it queues: it draws a scene, or takes a picture. Of a viewer without such
# pictures, `viewport_state` is only the place of the camera. Of a microphone that records nothing, it sends "".
_LIVE_TYPES: Final = frozenset({"LOAD_3D", "WEBCAM"})
_CAMERA: Final = "viewport_state"
_OWN_LIMITS: Final = frozenset({"PrimitiveInt", "PrimitiveFloat"})  # their nodes have min, max, step in `properties`
_CUSTOM_COMBO: Final = "CustomCombo"  # its options are the user's own; it sends the index of the choice among them
BUTTON_TEXTS: Final = ("", "image", "video", "audio", "file", None)  # saved values of upload buttons and previews
_MAX_BRACES: Final = 50
_COMMENT: Final = re.compile(r"/\*[\s\S]*?\*/|//.*")
_PROMPT_PIECE: Final = re.compile(r"\\[\s\S]?|[{}|]|[^\\{}|]+")
# Custom classes whose script on ComfyUI's page replaces the saved values when it queues a workflow.
_SCRIPTED_CLASSES: Final = frozenset({"ImpactWildcardProcessor", "ImpactWildcardEncode"})


class WidgetMismatchError(Exception):
    """The values of a node cannot be assigned with certainty. The message is the end of a sentence about the node."""


@dataclass(frozen=True, slots=True)
class Widget:
    """A widget of a node with its value, MISSING if it has none. `is_saved`: the value is the file's."""

    spec: InputSpec
    value: Any
    is_saved: bool = True
    doubt: str = ""  # why the value may not be the widget's, as the end of a sentence about the node


def read_widgets(node: Node, spec: NodeSpec, *, is_custom: bool = False) -> dict[str, Widget]:
    """Return the widgets of a node by the name of their input, in the order of the page, with their values."""
    doubt = ""
    if isinstance(node.values, Mapping):
        widgets = _read_named(node.values, spec.inputs.values())
    else:
        values = node.values if isinstance(node.values, list) else []
        reader = _ListReader(_drop_forced_values(values, spec))
        widgets = reader.read(spec.inputs.values())
        if is_custom and any(value not in BUTTON_TEXTS for value in reader.remaining):
            names = f"the {len(widgets)} widgets of the server's class ({', '.join(widgets)})"
            doubt = f"has {len(values)} values for {names}"
    for name, widget in widgets.items() if is_custom else ():
        if name in SEED_INPUTS and is_number(widget.value) and widget.value < 0:
            doubt = f"has {widget.value} for its '{name}', which its page replaces by a random one; write a number"
    return {name: replace(widget, doubt=widget.doubt or doubt) for name, widget in widgets.items()}


class _ListReader:
    """Gives the values of a list to the widgets of a class in order."""

    def __init__(self, values: list[Any]) -> None:
        self.remaining = list(values)
        self.widgets: dict[str, Widget] = {}

    def read(self, inputs: Iterable[InputSpec]) -> dict[str, Widget]:
        for spec in inputs:
            kind = get_widget_type(spec)
            if kind is None:
                continue
            if kind == "LOAD_3D" and spec.name != _CAMERA and "model_file" in self.widgets:
                del self.remaining[:3]  # the buttons "upload 3d model", "upload extra resources" and "clear"
            if not self.remaining or kind == _UNSAVED:
                widget = Widget(spec, _get_default(spec, kind), is_saved=kind == _UNSAVED)
            else:
                widget = Widget(spec, self.remaining.pop(0))
            self.widgets[spec.name] = replace(widget, doubt=self.skip_page_widgets(spec, kind))
            self.read(_get_branch(spec, widget.value))
        return self.widgets

    def skip_page_widgets(self, spec: InputSpec, kind: str) -> str:
        """Skip the values of the page's own widgets that follow an input. Return why they cannot be such values."""
        if kind == "BOUNDING_BOX":
            del self.remaining[:4]  # x, y, width and height once more
        control = spec.options.get("control_after_generate")
        if control is None and kind == "INT":
            control = spec.name in SEED_INPUTS
        if not control or kind not in ("INT", "FLOAT", "COMBO") or not self.remaining:
            return ""
        value = self.remaining.pop(0)
        if kind == "COMBO":
            del self.remaining[:1]  # the filter of the control
        if value is None or isinstance(value, bool) or (isinstance(value, str) and value in CONTROL_WORDS):
            return ""
        return f"has {format_json(value)} for the control of its input '{spec.name}'"


def _read_named(values: Mapping[str, Any], inputs: Iterable[InputSpec]) -> dict[str, Widget]:
    widgets: dict[str, Widget] = {}
    for spec in inputs:
        if get_widget_type(spec) is not None:
            doubt = "" if spec.name in values else f"has no value for its input '{spec.name}'"
            widgets[spec.name] = Widget(spec, values.get(spec.name, MISSING), doubt=doubt)
            widgets.update(_read_named(values, _get_branch(spec, widgets[spec.name].value)))
    return widgets


def get_widget_type(spec: InputSpec) -> str | None:
    """Return the type of the widget that the page makes for an input, None if it makes a socket without a widget."""
    kind = str(spec.options.get("widgetType") or spec.type)
    return None if spec.options.get("forceInput") or kind not in _WIDGET_TYPES else kind


def _get_branch(spec: InputSpec, value: Any) -> Iterable[InputSpec]:
    return spec.branches[value].values() if isinstance(value, str) and value in spec.branches else ()


def _get_default(spec: InputSpec, kind: str) -> Any:
    if kind == DYNAMIC_COMBO or (kind == "COMBO" and spec.default in (MISSING, None, "")):
        return spec.choices[0] if spec.choices else MISSING
    return _DEFAULTS.get(kind, MISSING) if spec.default is MISSING else spec.default


def _drop_forced_values(values: list[Any], spec: NodeSpec) -> list[Any]:
    """Remove values of inputs that are sockets only, which editors before 1.16 saved.

    As the page (`migrateWidgetsValues`), do so if the list has exactly the length of such a list.
    """
    is_forced: list[bool] = []
    for input_spec in spec.inputs.values():
        forced = bool(input_spec.options.get("forceInput"))
        if forced or get_widget_type(input_spec) is not None:
            is_forced += [forced, False] if input_spec.options.get("control_after_generate") else [forced]
    if len(is_forced) != len(values):
        return values
    return [value for value, forced in zip(values, is_forced, strict=True) if not forced]


# --- what is sent


def convert_widgets(node: Node, spec: NodeSpec, widgets: Mapping[str, Widget], linked: Iterable[str]) -> dict[str, Any]:
    """Return the values as the page sends them; of linked inputs unchecked. Raises WidgetMismatchError."""
    if spec.class_type in _SCRIPTED_CLASSES:
        raise WidgetMismatchError("gets its values from a script of ComfyUI's page when it queues")
    is_linked = frozenset(linked)
    values: dict[str, Any] = {}
    for name, widget in widgets.items():
        if widget.value is MISSING and not widget.doubt:
            continue  # a combo without options: the page sends nothing
        values[name] = widget.value if name in is_linked else _convert_own_widget(widget)
    if spec.class_type == _CUSTOM_COMBO and isinstance(node.values, list):
        options = list(takewhile(bool, node.values[2:]))  # an empty one ends the list
        values["index"] = options.index(values["choice"]) if values.get("choice") in options else -1
    return values


def _convert_own_widget(widget: Widget) -> Any:
    spec = widget.spec
    if widget.doubt:
        raise WidgetMismatchError(widget.doubt)
    if get_widget_type(spec) == RECORDING:
        return ""
    if get_widget_type(spec) in _LIVE_TYPES and spec.name != _CAMERA:
        raise WidgetMismatchError(f"gets its '{spec.name}' from ComfyUI's page when it queues")
    return convert_value(spec, widget.value)


def convert_value(spec: InputSpec, value: Any, *, is_host_value: bool = False) -> Any:
    """Convert the value of a widget as the page sends it. Raises WidgetMismatchError if it cannot be the widget's.

    The page does not resolve `{choices}` in the values of subgraphs.
    """
    if value is None and not spec.branches:  # the page leaves it, except in a combo, and in a text of several lines
        is_text = spec.type == "STRING" and bool(spec.options.get("multiline"))
        return spec.choices[0] if spec.type == "COMBO" and spec.choices else "" if is_text else None
    if spec.type == "BOOLEAN" and is_number(value) and value in (0, 1):
        return bool(value)  # as the server reads it
    if not is_possible(spec, value):
        found = f"has {format_json(value)} for its input '{spec.name}'"
        if spec.branches:
            raise WidgetMismatchError(f"{found}, which the server does not offer{suggest(value, spec.branches)}")
        raise WidgetMismatchError(f"{found} ({spec.type}); the file was saved with another version of the class")
    if spec.type == "INT" and isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, list):
        # The server unwraps this; a bare list would be a link.
        return {"__type__": "CURVE", "__value__": value} if spec.type == "CURVE" else {"__value__": value}
    if isinstance(value, str) and spec.options.get("dynamicPrompts") and not is_host_value:
        return resolve_dynamic_prompt(value)
    return value


def round_as_page(spec: InputSpec, node: Node, value: Any) -> Any:
    """Round a number as its widget does when a primitive sets it: to `step`, or to the digits of `step`.

    Raises WidgetMismatchError if the limits are not numbers; some nodes have limits of their own.
    """
    if not is_number(value) or spec.type not in ("INT", "FLOAT"):
        return value
    try:
        return _round(spec, node, value)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise WidgetMismatchError(
            f"cannot round {format_json(value)} for its input '{spec.name}' by its limits"
        ) from error


def _round(spec: InputSpec, node: Node, value: float) -> float:
    options = {**spec.options, **((node.properties or {}) if node.type in _OWN_LIMITS else {})}
    if spec.type == "INT":
        step = options.get("step") or 1
        offset = (options.get("min") or 0) % step
        return math.floor((value - offset) / step + 0.5) * step + offset
    digits = options.get("precision", max(0, -math.floor(math.log10(options.get("step") or 0.5))))
    unit = options.get("round") or (10.0**-digits if digits or node.type in _OWN_LIMITS else None)
    if not unit:
        return value
    rounded = round(math.floor(value / unit + 0.5) * unit, digits)
    limited: float = min(max(rounded, options.get("min", 0)), options.get("max", 2048))
    return limited


def is_possible(spec: InputSpec, value: Any) -> bool:
    if value is MISSING:
        return False
    if spec.type == "INT":
        return is_number(value) and value == int(value)
    if spec.type == "FLOAT":
        return is_number(value)
    if spec.type == "BOOLEAN":
        return isinstance(value, bool)
    if spec.type == DYNAMIC_COMBO:
        return isinstance(value, str) and (value in spec.branches or not spec.branches)
    if spec.type == "COMBO":
        may_be_list = spec.options.get("multiselect") or spec.options.get("multi_select")
        return isinstance(value, (str, int, float)) or (bool(may_be_list) and isinstance(value, list))
    return isinstance(value, str) if spec.type in ("STRING", "COLOR") else True


def resolve_dynamic_prompt(text: str) -> str:
    """Return the text that the editor sends for a prompt: without comments, and without braces around a single choice.

    Raises WidgetMismatchError if the editor would choose at random (`{a|b}`); see its `processDynamicPrompt`.
    """
    pieces: list[str] = []
    depth = 0  # of open braces
    for piece in _PROMPT_PIECE.findall(_COMMENT.sub("", text)):
        if piece == "|" and depth:
            raise WidgetMismatchError(
                f"has the text {format_json(text)}, and ComfyUI's page picks one of the {{choices|like these}} at "
                "random when it queues; write one of them (a sweep can try all of them: `choices`)"
            )
        if piece == "{":
            depth += 1
        elif piece == "}" and depth:
            depth -= 1
        else:
            pieces.append(piece[1:] if piece in (r"\{", r"\|", r"\}") else piece)
        if depth > _MAX_BRACES:
            raise WidgetMismatchError(f"has a text with more than {_MAX_BRACES} nested braces")
    return "".join(pieces)


def format_json(value: Any) -> str:
    """Return a value as JSON of at most 40 characters, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."
