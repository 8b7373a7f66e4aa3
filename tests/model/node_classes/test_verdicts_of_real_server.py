"""`find_graph_problems` refuses what a real ComfyUI refuses, and more only where a job fails or changes a value.

SWEEPER_REAL_COMFYUI is the URL of a ComfyUI, SWEEPER_REAL_PROMPTS a folder with workflows in API format, and
SWEEPER_MUTATIONS the number of mutations (4000), which SWEEPER_SEED chooses. Put files with the names of models into
the server's folders, so that its lists have choices. Accepted jobs are cancelled at once; some mutations may end the
server's worker.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from sweeper.model.node_classes import NodeInfo, find_graph_problems
from sweeper.schemas.values import KeyPath
from tests.model.node_classes.prompt_mutations import Mutator

REAL: Final = os.environ.get("SWEEPER_REAL_COMFYUI", "")
PROMPTS: Final = os.environ.get("SWEEPER_REAL_PROMPTS", "")
COUNT: Final = int(os.environ.get("SWEEPER_MUTATIONS", "4000"))
SEED: Final = int(os.environ.get("SWEEPER_SEED", "20"))  # the tests' own environment has no such variables
# What we refuse on purpose although the server accepts it, with what happens then (ComfyUI 0.33.0). The first group is
# for dynamic combos, which the server does not check.
OF_COMBOS: Final = {
    r"; did you mean|; allowed|a list of \d+, which|needed$": "an unknown option of a dynamic combo: the node fails",
    r"found a link, but the server needs": "a link in place of an option of a dynamic combo: the node fails",
    r"which is not in the workflow": "a link in place of an option of a dynamic combo: the node fails",
    r": the required input '.*' is missing": "no option for a dynamic combo: the node fails",
}
STRICTER: Final = {
    r"but a link to .* output is needed$": "a literal in place of a link: the node fails",
    r", so its link makes the node fail": "an undeclared input that is linked: the node fails",
    r"which is not in the workflow; .*that stops the server": "an undeclared link to a missing node",
    r"these nodes link in a cycle": "a cycle through an undeclared input or a dynamic combo: the job fails",
    r"links to output -1": "an output from the end, which no tool writes",
    r"which is .*; .* is needed$": "a link of a type that the match template cannot have: the node fails",
    r"but (text|true or false|a number|an integer( or .*)?) is needed": "a value that the server changes",
    r"image: is empty$": "the name of a folder in place of a file: the node fails",
}
# What the server refuses and `object_info` does not show.
UNSEEN: Final = frozenset({"custom_validation_failed"})

pytestmark = pytest.mark.skipif(
    not (REAL and PROMPTS), reason="SWEEPER_REAL_COMFYUI or SWEEPER_REAL_PROMPTS is not set"
)


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with httpx.Client(base_url=REAL, timeout=120, trust_env=False) as client:
        yield client


def ask_server(server: httpx.Client, graph: dict[str, Any]) -> list[str]:
    """Return the server's reasons to refuse a graph, empty if it accepts; an accepted job is cancelled."""
    response = server.post("/prompt", json={"prompt": graph})
    if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        return ["internal error"]
    answer = response.json()
    if response.status_code == httpx.codes.OK:
        server.post(f"/api/jobs/{answer['prompt_id']}/cancel", json={}).raise_for_status()
    reasons = [
        f"{error['type']}: {node['class_type']} {error['details']}"
        for node in answer.get("node_errors", {}).values()
        for error in node["errors"]
    ]
    return reasons or ([answer["error"]["type"]] if "error" in answer else [])


def explain_strictness(problem: tuple[KeyPath, str], graph: dict[str, Any], info: NodeInfo) -> str | None:
    """Return why we refuse what the server accepts; None if it is a false refusal."""
    path, message = problem
    kinds = STRICTER
    if len(path) > 1 and (spec := info.classes.get(graph[str(path[0])]["class_type"])) is not None:
        missing = re.search(r"the required input '(.*?)' is missing", message)
        name = missing[1] if missing else str(path[-1])
        resolved = spec.resolve_inputs(graph[str(path[0])]["inputs"]).get(name)
        if resolved is not None and resolved.branches:
            kinds = {**OF_COMBOS, **STRICTER}
    return next((reason for kind, reason in kinds.items() if re.search(kind, message)), None)


def load_prompts(server: httpx.Client, info: NodeInfo) -> list[dict[str, Any]]:
    """The prompts of the folder that the server accepts, so that each mutation is the only change."""
    prompts = [json.loads(path.read_text("utf-8")) for path in sorted(Path(PROMPTS).rglob("*.json"))]
    prompts = [prompt for prompt in prompts if not ask_server(server, prompt)]
    return [prompt for prompt in prompts if not find_graph_problems(prompt, info)]


def test_verdicts_agree_with_the_server(server: httpx.Client) -> None:
    info = NodeInfo.from_object_info(server.get("/object_info").raise_for_status().json())
    prompts = load_prompts(server, info)
    verdicts: Counter[str] = Counter()
    false_refusals: list[str] = []
    wrongly_accepted: Counter[str] = Counter()
    choose = random.Random(SEED)
    for _ in range(COUNT):
        mutator = Mutator(choose.choice(prompts), info, choose)
        change = mutator.mutate()
        problems = find_graph_problems(mutator.graph, info)
        reasons = ask_server(server, mutator.graph)
        verdict = f"{'refused' if reasons else 'accepted'} by the server, {'refused' if problems else 'accepted'} by us"
        verdicts[verdict] += 1
        if problems and not reasons:
            for problem in problems:
                why = explain_strictness(problem, mutator.graph, info)
                verdicts[f"stricter: {why}"] += 1
                false_refusals += [f"{change}: {problem[1]}"] if why is None else []
        elif reasons and not problems:
            wrongly_accepted.update(f"{change}: {reason}" for reason in reasons)
    sys.stdout.write("\n".join([json.dumps(verdicts, indent=1), *false_refusals, *wrongly_accepted]))
    assert false_refusals == []
    assert [reason for reason in wrongly_accepted if reason.split(": ")[1] not in UNSEEN] == []
