"""`sweeper mcp` as an assistant sees it: through the client of the official SDK, over stdin and stdout."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from sweeper.embedded import EmbeddedServer
from tests.cli.assistant_client import EXPERIMENT, call, make_root, refuse, talk, wait_for_end
from tests.few_classes import pick_classes

if TYPE_CHECKING:
    from mcp import Client

pytestmark = pytest.mark.usefixtures("forked_commands")
SEARCH = """\
name: tiny-search
template: templates/txt2img.json
params: {width: 64, height: 64, prompt: a fox}
search: {maximize: sharpness, trials: 4, space: {cfg: {from: 1, to: 8}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def test_an_assistant_builds_runs_and_reads_a_sweep(root: Path) -> None:
    async def conversation(client: Client) -> None:
        slots = await call(client, "list_slots", workflow="templates/txt2img.json")
        assert "steps" in json.dumps(slots)
        checked = await call(client, "save_experiment", path="tiny.yaml", text=EXPERIMENT)
        assert [report["valid"] for report in checked] == [True]
        plan = await call(client, "plan_run", experiment="tiny.yaml", values={"seed": [1, 2, 3]})
        assert (plan["count"], plan["cost"]) == (6, None)
        assert await call(client, "get_progress") == "no run was started"
        started = await call(client, "start_run", experiment="tiny.yaml")
        assert started == "started; nothing may cost money. Call get_progress."
        state = await wait_for_end(client)
        assert (state["exit_code"], state["summary"]["succeeded"]) == (0, 4)
        rows = await call(client, "get_table", results="tiny.yaml", columns="steps,seed,sharpness", sort="-sharpness")
        assert len(rows) == 4
        assert rows[0]["sharpness"] == max(row["sharpness"] for row in rows)
        effects = await call(client, "get_effects", results="tiny.yaml")
        assert "sharpness" in json.dumps(effects)
        sheet = (await client.call_tool("get_contact_sheet", {"results": "tiny.yaml", "x": "steps"})).content[0]
        with Image.open(io.BytesIO(base64.b64decode(sheet.data))) as picture:
            assert picture.format == "WEBP"
            assert min(picture.size) > 100
        report = await call(client, "make_report", results="tiny.yaml")
        assert (root / "results/tiny/report/index.html").is_file()
        assert "index.html" in json.dumps(report)
        await call(client, "save_experiment", path="search.yaml", text=SEARCH)
        await call(client, "start_search", experiment="search.yaml")
        assert (await wait_for_end(client))["summary"]["trials"] == 4

    talk(root, conversation)


def test_mistakes_come_back_with_the_next_step(root: Path) -> None:
    async def conversation(client: Client) -> None:
        wrong = EXPERIMENT.replace("steps:", "stepz:")
        (report,) = await call(client, "save_experiment", path="tiny.yaml", text=wrong)
        assert not report["valid"]
        assert "did you mean 'steps'?" in report["problems"][0]["message"]
        assert "is not an experiment" in await refuse(client, "save_experiment", path="a.yaml", text="[1, 2]")
        assert "there is no such file" in await refuse(client, "plan_run", experiment="none.yaml")
        await call(client, "save_experiment", path="tiny.yaml", text=EXPERIMENT)
        assert "there are no results" in await refuse(client, "get_table", results="tiny.yaml")

    talk(root, conversation)


def test_paths_stay_in_the_root(root: Path) -> None:
    (root.parent / "outside.yaml").write_text(EXPERIMENT)
    (root / "link").symlink_to(root.parent)

    async def conversation(client: Client) -> None:
        for path in ("../outside.yaml", "/etc/passwd", ".hidden/e.yaml", "link/outside.yaml"):
            for tool, arguments in (
                ("validate", {"path": path}),
                ("plan_run", {"experiment": path}),
                ("start_run", {"experiment": path}),
                ("get_table", {"results": path}),
                ("list_slots", {"workflow": path}),
                ("make_template", {"workflow": "templates/txt2img.json", "output": path}),
                ("save_experiment", {"path": path, "text": EXPERIMENT}),
            ):
                assert "outside of" in await refuse(client, tool, **arguments), (tool, path)

    talk(root, conversation)


def test_an_experiment_cannot_read_outside_of_the_root(root: Path) -> None:
    (root.parent / "secrets.txt").write_text("one\ntwo\n")
    (root.parent / ".git").mkdir()  # the project is larger than the root

    async def conversation(client: Client) -> None:
        text = EXPERIMENT.replace("seed: [1, 2]", "prompt: {lines: ../secrets.txt}").replace(", prompt: a fox", "")
        (root / "tiny.yaml").write_text(text)
        assert "outside of the project" in await refuse(client, "start_run", experiment="tiny.yaml")

    talk(root, conversation)


def test_nothing_may_cost_money_without_a_budget(root: Path) -> None:
    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        (root / "stranger.yaml").write_text(EXPERIMENT + "target: http://198.51.100.7:8188\n")
        text = await refuse(client, "start_run", experiment="tiny.yaml", target="cloud")
        assert "the person who started this server set no budget" in text
        text = await refuse(client, "start_run", experiment="tiny.yaml", target="http://198.51.100.7:8188")
        assert "is not a target that this server may use" in text
        assert "is not a server that this server may use" in await refuse(
            client, "start_run", experiment="stranger.yaml"
        )

    talk(root, conversation)


def test_a_budget_needs_a_price(root: Path) -> None:
    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        text = await refuse(client, "start_run", experiment="tiny.yaml", target="cloud")
        assert "nobody stated what the time of" in text

    talk(root, conversation, "--budget", "5 USD")


def test_runs_cost_no_more_than_the_budget_together(root: Path) -> None:
    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        plan = await call(client, "plan_run", experiment="tiny.yaml", target="box")
        assert plan["cost"]["total"] == {"low": 4.0, "high": 4.0}
        started = await call(client, "start_run", experiment="tiny.yaml", target="box", limit=1)
        assert started == "started; 3.00 USD left of the budget. Call get_progress."
        assert (await wait_for_end(client))["budget"] == "2.00 USD left of the budget"
        await call(client, "start_run", experiment="tiny.yaml", target="box")
        state = await wait_for_end(client)
        assert (state["summary"]["succeeded"], state["summary"]["stopped_by"]) == (3, "budget")
        assert state["budget"] == "0.00 USD left of the budget"
        await call(client, "start_run", experiment="tiny.yaml", target="box")
        assert (await wait_for_end(client))["summary"]["succeeded"] == 3

    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        (root.parent / "targets.yaml").write_text(
            json.dumps({"box": {"url": server.url, "price": {"per_job": "1 USD"}}})
        )
        talk(root, conversation, "--budget", "3 USD")
        assert len(json.load(urllib.request.urlopen(f"{server.url}/history", timeout=30))) == 3


def test_a_run_can_be_stopped(root: Path) -> None:
    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        values = {"seed": list(range(2000))}
        await call(client, "start_run", experiment="tiny.yaml", values=values)
        assert "a run is going on" in await refuse(client, "start_run", experiment="tiny.yaml")
        while "trials to do" not in (await call(client, "get_progress", wait_seconds=1))["messages"]:
            pass
        assert await call(client, "stop_run") == "stopping; call get_progress"
        state = await wait_for_end(client)
        assert (state["exit_code"], state["summary"]["stopped_by"]) == (130, "interrupt")

    talk(root, conversation)
