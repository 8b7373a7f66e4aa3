"""Small node classes for tests of the embedded server, without Pillow.

The standard workflow (`chain`) is loader -> text encode -> sampler -> fail switch -> save.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from sweeper.embedded.nodes import NodeClass, NodeOutput, make_node_class

MODELS = ["alpha", "beta", "gamma"]
SAMPLERS = ["euler", "heun", "dpmpp_2m"]
SEED_MAX = 2**64 - 1


class Gate:
    """Stops a ProbeWait node: it sets `entered`, then waits until `opened` is set or its job is interrupted."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()


def sample(context: Any, *, model: str, cond: str, seed: int, steps: int, cfg: float, sampler_name: str) -> NodeOutput:
    for step in range(1, steps + 1):
        context.progress(step, steps)
    return NodeOutput((f"{model}|{cond}|{seed}|{steps}|{cfg}|{sampler_name}",))


def switch(context: Any, *, image: str, fail: bool) -> NodeOutput:
    if fail:
        raise ValueError("the switch is on")
    return NodeOutput((image,))


def save(context: Any, *, images: str, filename_prefix: str) -> NodeOutput:
    for number in itertools.count(1):
        name = f"{filename_prefix}_{number:05}_.txt"
        try:
            with (context.output_dir / name).open("x", encoding="utf-8", errors="surrogatepass") as file:
                file.write(images)
        except FileExistsError:
            continue
        return NodeOutput(ui={"images": [{"filename": name, "subfolder": "", "type": "output"}]})
    raise AssertionError


def picture(context: Any) -> NodeOutput:
    from PIL import Image

    context.progress(1, 2, Image.effect_noise((512, 512), 120))
    return NodeOutput(("picture",))


def read(context: Any, file: str) -> str:
    text: str = (context.input_dir / file).read_text(encoding="utf-8")
    return text


SAMPLING = {
    "model": ("PROBE_MODEL", {}),
    "cond": ("PROBE_COND", {}),
    "seed": ("INT", {"default": 0, "min": 0, "max": SEED_MAX, "control_after_generate": True}),
    "steps": ("INT", {"default": 8, "min": 1, "max": 1000}),
    "cfg": ("FLOAT", {"default": 7.0, "min": 0.0, "max": 100.0}),
    "sampler_name": (SAMPLERS, {}),
}
KINDS = {"text": ("STRING", {}), "whole": ("INT", {"min": 0, "max": 9}), "flag": ("BOOLEAN", {})}
SAVING = {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "probe"})}


def probe_nodes(gate: Gate | None = None) -> dict[str, NodeClass]:
    gate = gate or Gate()

    def wait(context: Any, *, image: str) -> NodeOutput:
        gate.entered.set()
        while not gate.opened.wait(0.005):
            context.check()
        return NodeOutput((image,))

    def passes(context: Any, **inputs: Any) -> NodeOutput:
        return NodeOutput((":".join(str(value) for value in inputs.values()),))

    image = {"image": ("IMAGE", {})}
    nodes = [
        _node("ProbeLoader", {"model_name": (MODELS, {})}, "PROBE_MODEL", passes, models=frozenset({"model_name"})),
        _node("ProbeEncode", {"model": ("PROBE_MODEL", {}), "text": ("STRING", {})}, "PROBE_COND", passes),
        _node("ProbeSampler", SAMPLING, "IMAGE", sample),
        _node("ProbeFail", {**image, "fail": ("BOOLEAN", {"default": False})}, "IMAGE", switch),
        _node("ProbeWait", image, "IMAGE", wait),
        _node("ProbePicture", {}, "IMAGE", picture),
        _node("ProbeSave", SAVING, None, save, hidden={"prompt": "PROMPT"}),
        _node(
            "ProbeFile",
            {"file": ([], {"image_upload": True})},
            "IMAGE",
            lambda context, *, file: NodeOutput((read(context, file),)),
            fingerprint=read,
            input_files={"file": "text"},
        ),
        _node(
            "ProbeCombo",
            {"mode": ("COMBO", {"options": ["normal", "screen"]})},
            "IMAGE",
            passes,
            facts={"api_node": False},
        ),
        _node("ProbeKinds", KINDS, "IMAGE", passes),
    ]
    return {node.name: node for node in nodes}


def _node(
    name: str,
    required: dict[str, Any],
    output: str | None,
    run: Any,
    *,
    hidden: Any = None,
    facts: Any = None,
    **more: Any,
) -> NodeClass:
    specs = {key: [kind, options] if options else [kind] for key, (kind, options) in required.items()}
    inputs = {"required": specs, **({"hidden": hidden} if hidden else {})}
    record = {"input": inputs, "output": [output] if output else [], "output_node": not output, "category": "probe"}
    return make_node_class(name, record | (facts or {}), run, **more)


def chain(
    *,
    model: str = "alpha",
    text: str = "a fox",
    seed: int = 0,
    cfg: float = 7.0,
    steps: int = 4,
    fail: bool = False,
    prefix: str = "probe",
    sampler: str = "euler",
) -> dict[str, Any]:
    """The probe workflow: nodes 1, 2, 3, 4, 9."""
    return {
        "1": {"class_type": "ProbeLoader", "inputs": {"model_name": model}},
        "2": {"class_type": "ProbeEncode", "inputs": {"model": ["1", 0], "text": text}},
        "3": {
            "class_type": "ProbeSampler",
            "inputs": {
                "model": ["1", 0],
                "cond": ["2", 0],
                "seed": seed,
                "steps": steps,
                "cfg": cfg,
                "sampler_name": sampler,
            },
        },
        "4": {"class_type": "ProbeFail", "inputs": {"image": ["3", 0], "fail": fail}},
        "9": {"class_type": "ProbeSave", "inputs": {"images": ["4", 0], "filename_prefix": prefix}},
    }


def waiting(seed: int = 0, prefix: str = "wait") -> dict[str, Any]:
    """A workflow whose node 5 waits until its gate is opened."""
    graph = chain(seed=seed, prefix=prefix)
    graph["5"] = {"class_type": "ProbeWait", "inputs": {"image": ["4", 0]}}
    graph["9"]["inputs"]["images"] = ["5", 0]
    return graph
