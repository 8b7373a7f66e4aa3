"""What a stranger's experiment can do without trust, with it, and never."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sweeper.loading.load import load_partial
from sweeper.loading.read_scope import ReadScope, make_scope
from sweeper.loading.trust import find_url_path
from sweeper.model.target_spec import CLOUD_KEYS
from tests import ROOT

PLAIN = "template: t.json\nparams: {prompt: a fox, seed: 1}\n"
SECRET = "s3cr3t-of-the-user-0123456789"
COMMANDS = ("run", "plan", "validate", "check", "calibrate", "doctor")


@pytest.fixture(autouse=True)
def _nothing_is_trusted(monkeypatch):
    monkeypatch.delenv("SWEEPER_TRUST_FILE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("COMFY_CLOUD_API_KEY", SECRET + "-cloud")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_variable_of_the_user_is_not_sent_to_a_strangers_url(sweeper, write, stranger, command, dialect):
    target = {"url": stranger.url, "dialect": dialect, "api_key_env": "AWS_SECRET_ACCESS_KEY"}
    outcome = sweeper(command, write(PLAIN + f"target: {json.dumps(target)}\n"))
    assert outcome.code == 2
    text = outcome.err + outcome.out
    assert "shop.yaml:3: target.api_key_env: sends the value of the environment variable AWS_SECRET_ACCESS_KEY" in text
    assert f"AWS_SECRET_ACCESS_KEY to {stranger.url}" in text
    assert "sweeper trust shop.yaml" in text
    assert stranger.seen == []
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("target: https://app.run.comfy.app", "target"),
        ("target: [{url: 'https://app.run.comfy.app'}]", "target[0]"),
        ("target: mine\ntargets: {mine: 'https://app.run.comfy.app'}", "targets.mine"),
    ],
)
def test_key_of_comfy_cloud_goes_to_a_strangers_deployment_only_with_trust(
    sweeper, write, target, location, monkeypatch
):
    outcome = sweeper("run", write(PLAIN + target + "\n"))
    assert outcome.code == 2
    reason = "sends the value of the environment variable COMFY_CLOUD_API_KEY to https://app.run.comfy.app"
    assert f"{location}: {reason}" in outcome.err
    Path("targets.yaml").write_text("known: https://app.run.comfy.app\n")
    monkeypatch.setenv("SWEEPER_TARGETS", "targets.yaml")
    assert reason not in sweeper("plan", write(PLAIN + target + "\n")).err


def test_partner_key_of_comfy_cloud_never_goes_to_a_deployment(sweeper, write):
    target = "target: {url: 'https://app.run.comfy.app', partner_key_env: COMFY_CLOUD_API_KEY}\n"
    outcome = sweeper("run", write(PLAIN + target), "--trust")
    assert outcome.code == 2
    assert "belongs to https://cloud.comfy.org, and an experiment cannot send it anywhere else" in outcome.err


def test_variable_for_partner_nodes_needs_trust(sweeper, write, stranger):
    outcome = sweeper(
        "run", write(PLAIN + f"target: {{url: '{stranger.url}', partner_key_env: AWS_SECRET_ACCESS_KEY}}\n")
    )
    assert outcome.code == 2
    assert "target.partner_key_env: sends the value of the environment variable AWS_SECRET_ACCESS_KEY" in outcome.err


def test_worker_of_a_cluster_sends_no_variable_in_a_url(process, write, stranger):
    target = {"worker": f"{stranger.url}/${{AWS_SECRET_ACCESS_KEY}}"}
    outcome = process("run", write(PLAIN + f"target: {json.dumps(target)}\n"), "--dask", "local:1")
    assert outcome.code == 3
    assert "this worker does not insert the variable AWS_SECRET_ACCESS_KEY into a URL (allowed: PORT)" in outcome.err
    assert stranger.seen == []
    assert SECRET not in outcome.err


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_trusted_experiment_still_sends_no_key_unless_a_target_is_named(sweeper, write, stranger, command):
    entry = {"url": stranger.url, "api_key_env": "AWS_SECRET_ACCESS_KEY"}
    file = write(PLAIN + f"target: studio\ntargets: {{studio: {json.dumps(entry)}}}\n")
    assert sweeper(command, file, "--trust").code == 0
    assert SECRET not in "".join(stranger.seen)
    sweeper(command, file, "--trust", "--target", "studio")
    assert SECRET in "".join(stranger.seen)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("setting", ["api_key_env", "partner_key_env"])
def test_key_of_comfy_cloud_never_goes_to_a_url_of_an_experiment(sweeper, write, stranger, command, setting):
    file = write(PLAIN + f"target: {{url: '{stranger.url}', dialect: cloud, {setting}: COMFY_CLOUD_API_KEY}}\n")
    outcome = sweeper(command, file, "--trust")
    assert outcome.code == 2
    assert (
        f"shop.yaml:3: target.{setting}: the key in COMFY_CLOUD_API_KEY belongs to https://cloud.comfy.org"
        in outcome.err
    )
    assert stranger.seen == []


@pytest.mark.parametrize("variable", CLOUD_KEYS)
def test_the_library_sends_no_cloud_key_to_an_experiments_url(write, stranger, variable):
    import sweeper as library

    with pytest.raises(library.SweeperError, match=r"belongs to https://cloud\.comfy\.org"):
        library.run(write(PLAIN + f"target: {{url: '{stranger.url}', api_key_env: {variable}}}\n"))
    assert stranger.seen == []


def test_variable_in_the_users_own_targets_file_needs_no_trust(sweeper, write, stranger, tmp_path, monkeypatch):
    (tmp_path / "targets.yaml").write_text(f"studio: {{url: '{stranger.url}', api_key_env: STUDIO_KEY}}\n")
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
    monkeypatch.setenv("STUDIO_KEY", "abc")
    same = PLAIN + f"target: {{url: '{stranger.url}', api_key_env: STUDIO_KEY}}\n"
    assert sweeper("validate", write(same)).code == 0
    assert sweeper("validate", write(PLAIN + "target: studio\n")).code == 0
    assert sweeper("validate", write(same.replace("STUDIO_KEY", "AWS_SECRET_ACCESS_KEY"))).code == 2


def test_unused_target_of_an_experiment_needs_no_trust(sweeper, write):
    entry = "far: {url: 'http://far.invalid', api_key_env: AWS_SECRET_ACCESS_KEY}"
    file = write(PLAIN + f"target: far\ntargets: {{{entry}}}\n")
    assert sweeper("plan", file).code == 2
    assert sweeper("plan", file, "--target", "embedded").code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_code_of_an_experiment_needs_trust(sweeper, write, command):
    Path("evil.py").write_text("open('ran', 'w')\n")
    outcome = sweeper(command, write(PLAIN + "metrics: [brightness, 'evil:f']\n"))
    assert outcome.code == 2
    assert "shop.yaml:3: metrics[1]: imports the module 'evil'" in outcome.err
    assert not Path("ran").exists()


SWEEPS = {
    "lines": ("sweep: {grid: {prompt: {lines: FILE}}}", "sweep.grid.prompt"),
    "csv": ("sweep: [{zip: [{prompt: {csv: FILE, column: text}}]}]", "sweep[0].zip[0].prompt"),
    "files": ("sweep: {grid: {prompt: {files: FILE}}}", "sweep.grid.prompt"),
}


@pytest.mark.parametrize("form", SWEEPS)
@pytest.mark.parametrize("way", ["absolute", "dots", "link"])
def test_lists_outside_of_the_project_need_trust(sweeper, write, tmp_path_factory, form, way):
    secret = tmp_path_factory.mktemp("elsewhere") / "notes" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("text\nvery private\n")
    name = str(secret)
    if way == "dots":
        name = os.path.relpath(secret)
    elif way == "link":
        Path("inside.txt").symlink_to(secret)
        name = "inside.txt"
    text, key = SWEEPS[form]
    file = write("template: t.json\nparams: {seed: 1}\n" + text.replace("FILE", name) + "\n")
    outcome = sweeper("plan", file)
    assert outcome.code == 2
    assert f"shop.yaml:3: {key}: reads '" in outcome.err
    assert "outside of the project" in outcome.err
    assert sweeper("plan", file, "--trust").code == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "sweep",
    [
        "grid: {prompt: {lines: FILE}}, exclude: [{prompt: zz}]",
        "grid: {prompt: {csv: FILE, column: zz}}",
        "grid: {steps: {lines: FILE}}",
        "grid: {prompt: {lines: FILE}}, where: prompt.zz",
        "grid: {prompt: {lines: FILE}, steps: [1]}, include: [{prompt: 5, steps: [2]}]",
        "grid: {prompt: {files: 'FOLDER/*'}}, exclude: [{prompt: zz}]",
        "grid: {prompt: {lines: FOLDER/secre.txt}}",
    ],
)
def test_a_file_elsewhere_is_never_quoted_before_the_question(sweeper, write, tmp_path_factory, command, sweep):
    """A mistake in the experiment would otherwise print what the file holds, or the names of its neighbours."""
    file = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    file.write_text(f"{SECRET}\nsecond {SECRET}\n")
    text = sweep.replace("FILE", str(file)).replace("FOLDER", str(file.parent))
    outcome = sweeper(command, write(f"template: t.json\nparams: {{seed: 1}}\nsweep: {{{text}}}\n"))
    assert outcome.code == 2
    assert "is not trusted" in outcome.err
    assert SECRET not in outcome.err + outcome.out
    assert "secret.txt" not in outcome.err.replace(str(file), "")


@pytest.mark.parametrize("way", ["absolute", "link", "cwd"])
@pytest.mark.parametrize("trust", [(), ("--trust",)])
def test_files_of_a_process_are_never_read(sweeper, write, way, trust):
    name = "/proc/self/environ"
    if way == "link":
        Path("inside.txt").symlink_to(name)
        name = "inside.txt"
    elif way == "cwd":
        name = os.path.relpath(name)
    text = f"sweep: {{grid: {{prompt: {{lines: {name}}}}}, exclude: [{{prompt: zz}}]}}\n"
    outcome = sweeper("run", write("template: t.json\nparams: {seed: 1}\n" + text), *trust)
    assert outcome.code == 2
    assert "is in /proc, where sweeper reads nothing" in outcome.err
    assert SECRET not in outcome.err
    assert not Path("results").exists()


def test_experiment_that_is_a_link_out_of_its_project_is_refused(sweeper, write, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.yaml"
    secret.write_text(f"key: {SECRET}: {SECRET}\n")
    Path("linked.yaml").symlink_to(secret)
    for name, target in (("linked.yaml", str(secret)), ("process.yaml", "/proc/self/environ")):
        if not Path(name).exists():
            Path(name).symlink_to(target)
        outcome = sweeper("validate", name)
        assert outcome.code == 2
        assert SECRET not in outcome.err
    assert "is a link to" in sweeper("validate", "linked.yaml").err


def test_slots_that_are_a_link_out_of_the_project_are_not_read(sweeper, write, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    secret.write_text(f"{SECRET}: [\n")
    write(PLAIN)
    Path("t.slots.yaml").unlink()
    Path("t.slots.yaml").symlink_to(secret)
    for command in (("validate",), ("template", "show")):
        outcome = sweeper(*command, "t.json")
        assert outcome.code == 2
        assert f"t.json: reads '{secret}', outside of the project" in outcome.err
        assert SECRET not in outcome.err


@pytest.mark.parametrize("swapped", ["list.txt", "lists"])
def test_link_that_replaces_a_file_after_the_check_is_not_followed(tmp_path, monkeypatch, swapped):
    secret = tmp_path / "list.txt"
    secret.write_text(f"{SECRET}\n")
    folder = tmp_path / "project"
    (folder / "lists").mkdir(parents=True)
    graph = {"1": {"class_type": "A", "inputs": {"text": "{{ prompt }}"}}}
    (folder / "t.json").write_text(json.dumps(graph))
    name = "list.txt" if swapped == "list.txt" else "lists/list.txt"
    (folder / name).write_text("a fox\n")
    (folder / "x.yaml").write_text(f"template: t.json\nsweep: {{grid: {{prompt: {{lines: {name}}}}}}}\n")
    real = ReadScope.resolve

    def resolve(self, path, name=None, **options):
        resolved = real(self, path, name, **options)
        if path.name == "list.txt":
            (folder / swapped).rename(tmp_path / "away")
            (folder / swapped).symlink_to(secret if swapped == "list.txt" else tmp_path)
        return resolved

    monkeypatch.setattr(ReadScope, "resolve", resolve)
    partial = load_partial(folder / "x.yaml", scope=make_scope(folder / "x.yaml", (), {}))
    assert len(partial.problems) == 1
    assert SECRET not in str(partial)


@pytest.mark.parametrize("axis", ["", "sweep: {grid: {prompt: {models: loras/x-*, none: true}}}\n"])
def test_template_outside_of_the_project_needs_trust(sweeper, write, tmp_path_factory, axis):
    write(PLAIN)
    folder = tmp_path_factory.mktemp("elsewhere") / "deep"
    folder.mkdir()
    Path("t.json").rename(folder / "t.json")
    Path("t.slots.yaml").rename(folder / "t.slots.yaml")
    Path("shop.yaml").write_text(PLAIN.replace("t.json", str(folder / "t.json")) + axis)
    outcome = sweeper("validate", "shop.yaml")
    assert outcome.code == 2
    assert "shop.yaml:1: template: reads" in outcome.err
    assert "sweep.grid" not in outcome.err  # nobody may ask a server, and nobody knows the slots


@pytest.mark.parametrize("way", ["params", "sweep", "derive", "default", "hidden"])
def test_input_files_outside_of_the_project_need_trust(sweeper, tmp_path_factory, way):
    secret = tmp_path_factory.mktemp("elsewhere") / "a" / "b.png"
    secret.parent.mkdir()
    secret.write_bytes((ROOT / "experiments/inputs/hills.png").read_bytes())
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
    }
    Path("t.json").write_text(json.dumps(graph))
    default = f", default: {secret}" if way == "default" else ""
    Path("t.slots.yaml").write_text(f"slots:\n  image: {{at: '1.image', kind: file{default}}}\n")
    if way == "hidden":
        Path(".private").mkdir()
        Path(".private/b.png").write_bytes(secret.read_bytes())
    Path("x.yaml").write_text(
        "template: t.json\n"
        + {
            "params": f"params: {{image: {secret}}}\n",
            "sweep": f"sweep: {{grid: {{image: [{secret}]}}}}\n",
            "derive": f"params: {{who: b}}\nderive: {{image: '{secret.parent}/{{{{ who }}}}.png'}}\n",
            "default": "",
            "hidden": "params: {image: .private/b.png}\n",
        }[way]
    )
    outcome = sweeper("run", "x.yaml")
    assert outcome.code == 2
    assert f"reads '{'' if way == 'hidden' else secret}" in outcome.err
    assert ("hidden in" if way == "hidden" else "outside of") in outcome.err
    assert sweeper("run", "x.yaml", "--trust").code == 0
    if way == "params":
        assert sweeper("plan", "x.yaml", "--set", f"image={secret}").code == 0  # the user's own choice


def test_pictures_written_outside_of_the_project_need_trust(sweeper, write, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere") / "deep"
    file = write(PLAIN + f"run: {{out: 'file://{folder}'}}\n")
    outcome = sweeper("run", file)
    assert outcome.code == 2
    assert f"shop.yaml:3: run.out: writes to file://{folder}, which is outside of the project" in outcome.err
    assert not folder.exists()
    assert sweeper("plan", write(PLAIN + f"run: {{out: 'file://{Path.cwd()}/pictures'}}\n")).code == 0
    for url in ("local:///etc", "simplecache::file:///etc", "file://../x", "s3://bucket/x", "file:/etc"):
        text = sweeper("plan", write(PLAIN + f"run: {{out: '{url}'}}\n"))
        assert text.code == 2, url


def test_url_of_a_folder_on_windows_begins_with_its_drive():
    assert find_url_path("file:///C:/my%20pictures", "win32") == "C:/my pictures"
    assert find_url_path("file:///C:/my%20pictures", "linux") == "/C:/my pictures"
    assert find_url_path("file:///data/x", "win32") == "/data/x"


@pytest.mark.parametrize(
    "text",
    [
        "template: /",
        "template: '.'",
        'template: "a\\0b"',
        "template: t.json\nrun: {out: 'file://[bad/x'}",
        "template: t.json\ntarget: {url: 'http://[bad', api_key_env: AB}",
        "template: t.json\nsweep: {grid: {prompt: {files: /}}}",
        "template: t.json\nsweep: [1, {grid: [2], zip: 3}]\nmetrics: [5, ':']\ntargets: {cloud: 5}",
    ],
)
def test_malformed_experiment_is_reported_without_trust(sweeper, write, text):
    assert sweeper("validate", write(f"{text}\n")).code == 2


def test_project_is_the_own_folder_or_the_repository(sweeper, write, tmp_path):
    """A list in the folder above is a neighbour's; a marker makes the project larger."""
    (tmp_path / "list.txt").write_text("a\nb\n")
    file = write("template: t.json\nparams: {seed: 1}\nsweep: {grid: {prompt: {lines: ../list.txt}}}\n")
    assert sweeper("plan", file).code == 2
    (tmp_path / "pyproject.toml").touch()
    assert sweeper("plan", file).code == 0
    Path(".git").mkdir()
    assert sweeper("plan", file).code == 2


def test_experiments_read_the_templates_beside_their_folder(sweeper, write):
    write(PLAIN)
    for folder in ("experiments", "mine", "templates"):
        Path(folder).mkdir()
    for name in ("t.json", "t.slots.yaml"):
        Path(name).rename(f"templates/{name}")
    for folder, code in (("experiments", 0), ("mine", 2)):
        Path(folder, "x.yaml").write_text(PLAIN.replace("t.json", "../templates/t.json"))
        assert sweeper("plan", f"{folder}/x.yaml").code == code


def test_home_folder_is_never_the_project(sweeper, write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".git").mkdir()
    (tmp_path / "list.txt").write_text("a\nb\n")
    file = write("template: t.json\nparams: {seed: 1}\nsweep: {grid: {prompt: {lines: ../list.txt}}}\n")
    assert sweeper("plan", file).code == 2


def test_all_reasons_are_reported_at_once_with_the_command(sweeper, write):
    file = write(PLAIN + "metrics: ['a:f', 'b:g']\nrun: {out: 'file:///etc'}\nparms: 1\n")
    outcome = sweeper("validate", file)
    lines = outcome.err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("error: shop.yaml: is not trusted to do what the next lines say.")
    assert "`sweeper trust shop.yaml`" in lines[0]


def test_trust_is_remembered_listed_and_revoked(sweeper, write):
    file = write(PLAIN + "metrics: ['math:sqrt']\n")
    reason = "imports the module 'math', from the current folder first, and runs its code"
    assert sweeper("plan", file).code == 2
    assert sweeper("trust", "--list").err.startswith("nothing here needs trust")
    assert sweeper("trust", ".").out == f"{Path.cwd()}\n  {reason}\n"
    assert sweeper("trust", "--list").out == f"{Path.cwd()}\n  {reason}\n"
    assert sweeper("trust", "--list", "--json").json == {"trusted": {str(Path.cwd()): [reason]}}
    assert sweeper("plan", file).code == 0
    assert sweeper("trust", "--revoke").code == 0
    assert sweeper("plan", file).code == 2
    outcome = sweeper("trust", "--revoke")
    assert outcome.code == 2
    assert "is not trusted" in outcome.err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("metrics: ['math:sqrt', 'os:getenv']", "imports the module 'os'"),
        ("metrics: ['math:sqrt']\nrun: {out: 'file:///etc/x'}", "writes to file:///etc/x"),
        ("metrics: ['math:sqrt']\ntarget: {url: 'http://x.invalid', api_key_env: AWS_SECRET_ACCESS_KEY}", "sends the"),
        ("metrics: ['math:sqrt']\nsweep: {grid: {steps: {lines: /etc/hostname}}}", "reads '/etc/hostname'"),
    ],
)
def test_trusted_folder_that_needs_more_is_asked_about_again(sweeper, write, more, reason):
    """A trusted folder can be pulled, or written by an assistant, and only what is new has to be read."""
    write(PLAIN + "metrics: ['math:sqrt']\n")
    assert sweeper("trust", "shop.yaml").code == 0
    assert sweeper("plan", "shop.yaml").code == 0
    outcome = sweeper("plan", write(f"{PLAIN}{more}\n"))
    assert outcome.code == 2
    assert "shop.yaml: needs more trust than its folder has" in outcome.err
    assert reason in outcome.err
    assert "'math'" not in outcome.err


@pytest.mark.parametrize("marker", ["with", "without"])
def test_trusted_folder_does_not_cover_a_clone_in_it(sweeper, write, marker):
    write(PLAIN + "metrics: ['math:sqrt']\n")
    folder = Path("clone")
    if marker == "with":
        (folder / ".git").mkdir(parents=True)
        clone = folder
    else:
        clone = folder / "deep"
    assert sweeper("trust", ".").code == 0
    clone.mkdir(parents=True, exist_ok=True)
    for name in ("shop.yaml", "t.json", "t.slots.yaml"):
        (clone / name).write_bytes(Path(name).read_bytes())
    assert sweeper("plan", clone / "shop.yaml").code == 2
    assert sweeper("trust", ".").out.count("math") == (1 if marker == "with" else 2)
    assert sweeper("plan", clone / "shop.yaml").code == (2 if marker == "with" else 0)


def test_what_is_allowed_can_name_more_files(sweeper, write, tmp_path_factory):
    """The list of files is outside, and so are the files in it: `trust` allows both and says so."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "list.txt").write_text(f"{elsewhere}/a.png\n")
    (elsewhere / "a.png").write_bytes((ROOT / "experiments/inputs/hills.png").read_bytes())
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
    }
    Path("t.json").write_text(json.dumps(graph))
    Path("t.slots.yaml").write_text("slots:\n  image: {at: '1.image', kind: file}\n")
    Path("x.yaml").write_text(f"template: t.json\nsweep: {{grid: {{image: {{lines: {elsewhere}/list.txt}}}}}}\n")
    assert f"{elsewhere}/a.png" not in sweeper("plan", "x.yaml").err
    assert sweeper("trust", "x.yaml").out == f"{Path.cwd()}\n  read {elsewhere}/a.png\n  read {elsewhere}/list.txt\n"
    assert sweeper("plan", "x.yaml").code == 0


@pytest.mark.parametrize("command", ["run", "search", "check", "calibrate"])
@pytest.mark.parametrize("link", ["results", "results/shop", "baselines"])
def test_default_folder_that_leads_elsewhere_needs_trust(sweeper, write, tmp_path_factory, command, link):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "results.csv").write_text("precious")
    Path(link).parent.mkdir(exist_ok=True)
    Path(link).symlink_to(elsewhere)
    search = "search: {maximize: brightness, trials: 2, space: {steps: [1, 2]}}\n"
    file = write(PLAIN + (search if command == "search" else ""))
    outcome = sweeper(command, file)
    assert outcome.code == 2
    assert f"writes to {elsewhere}" in outcome.err
    assert sorted(path.name for path in elsewhere.iterdir()) == ["results.csv"]
    if command == "run":
        assert sweeper("trust", file).code == 0
        assert sweeper("run", file).code == 0


def test_accept_and_report_follow_no_link_out_of_the_project(sweeper, write, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = write(PLAIN)
    assert sweeper("run", file).code == 0
    Path("baselines").symlink_to(elsewhere)
    outcome = sweeper("accept", file, "--yes")
    assert outcome.code == 2
    assert f"writes to {elsewhere}, where the link baselines leads" in outcome.err
    Path("results").rename(elsewhere / "moved")
    Path("results").symlink_to(elsewhere / "moved")
    assert sweeper("report", file).code == 2
    assert sweeper("report", elsewhere / "moved" / "shop").code == 0
    assert not (elsewhere / "shop").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"folders": [1]}', '{"folders": "x"', "[" * 100000])
def test_damaged_trust_file_is_reported(sweeper, write, content, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "broken.json"))
    (tmp_path / "broken.json").write_text(content)
    outcome = sweeper("plan", write(PLAIN + "metrics: ['math:sqrt']\n"))
    assert outcome.code == 2
    assert "broken.json: is not a list of trusted folders" in outcome.err


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_terminal_asks_once(python, write, answer, code):
    file = write(PLAIN + "metrics: ['math:sqrt']\n")
    for _ in range(1 + (code == 0)):  # once trusted, the second command does not ask
        leader, follower = os.openpty()
        done = subprocess.Popen(
            [python, "-m", "sweeper", "plan", file], stdin=follower, stdout=follower, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
        )  # fmt: skip
        os.close(follower)
        os.write(leader, f"{answer}\n".encode())
        error = done.communicate(timeout=60)[1].decode()
        os.close(leader)
        assert done.returncode == code, error
        asked = f"Allow this to the experiments in {Path.cwd()} from now on?" in error
        assert asked == (answer != "")
        answer = ""


def test_shipped_experiments_need_no_trust(sweeper):
    for file in sorted((ROOT / "experiments").glob("*.yaml")):
        assert sweeper("validate", file).code == 0


def test_help_states_the_boundary(sweeper):
    text = sweeper("trust", "--help").out
    for word in ("api_key_env", "module:function", "run.out", "Comfy Cloud", ".git"):
        assert word in text


def test_templates_that_are_a_link_do_not_belong_to_the_project(sweeper, write, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "key").write_text(f"{SECRET}\n")
    write(PLAIN)
    Path("experiments").mkdir()
    for name in ("t.json", "t.slots.yaml"):
        Path(name).rename(f"experiments/{name}")
    Path("templates").symlink_to(elsewhere)
    text = "sweep: {grid: {prompt: {lines: ../templates/key}}, exclude: [{prompt: zz}]}\n"
    Path("experiments/x.yaml").write_text("template: t.json\nparams: {seed: 1}\n" + text)
    outcome = sweeper("validate", "experiments/x.yaml")
    assert outcome.code == 2
    assert SECRET not in outcome.err


def test_link_in_a_pattern_says_nothing_of_what_is_behind_it(sweeper, write, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret").mkdir()
    (elsewhere / "secret/key.txt").touch()
    Path("l1").symlink_to(elsewhere)
    messages = set()
    for name in ("key.txt", "gone.txt"):
        form = f"sweep: {{grid: {{prompt: {{files: 'l*/secret/{name}'}}}}}}\n"
        outcome = sweeper("plan", write("template: t.json\nparams: {seed: 1}\n" + form))
        assert outcome.code == 2
        messages.add(outcome.err.replace(name, ""))
    assert len(messages) == 1


def test_pipe_in_the_place_of_an_experiment_or_a_workflow_is_refused(sweeper):
    os.mkfifo("x.yaml")
    os.mkfifo("t.json")
    for command in (("plan", "x.yaml"), ("validate", "x.yaml"), ("template", "show", "t.json"), ("validate", "t.json")):
        assert sweeper(*command).code == 2


def test_price_that_was_allowed_does_not_stand_for_another(sweeper, write):
    many = ", ".join(f"Class{number}: 1 USD" for number in range(20))

    def make(last):
        price = f"{{nodes: {{{many}, Last: {last} USD}}}}"
        return write(f"{PLAIN}target: {{url: 'http://x.invalid', api_key_env: ABC, price: {price}}}\n")

    sweeper("trust", make(5))
    assert "states what" not in sweeper("plan", make(5)).err
    outcome = sweeper("plan", make(0.001))
    assert outcome.code == 2
    assert "states what http://x.invalid costs" in outcome.err


@pytest.mark.parametrize("link", ["results/shop/artifacts", "results/shop"])
def test_leftovers_behind_a_link_are_neither_deleted_nor_joined(sweeper, write, tmp_path_factory, link):
    """A stranger's store says which files an interrupted run left, and its folder of pictures leads elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    names = ("0000.png", ".download.iso.part")
    for name in names:
        (elsewhere / name).write_text("precious")
    Path(link).parent.mkdir(parents=True)
    Path(link).symlink_to(elsewhere)
    file = write(PLAIN)
    assert sweeper("run", file).code == 2
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(names)
    if link.endswith("artifacts"):
        assert sweeper("run", file, "--trust").code == 0
        assert {*names} < {path.name for path in elsewhere.iterdir()}
