"""`target`, `targets` and the targets file: all mistakes at once with lines, but only for targets in use."""

from __future__ import annotations

import pytest

PLAIN = "template: t.json\nparams: {prompt: a, seed: 1}\n"
WRONG = """\
template: t.json
parms: {prompt: a}
target: [nope, studoi, "http://me:pass-WORD@x", {url: "http://x", name: Embedded}, "http://localhost:9", lab]
targets:
  studio: {url: "ftp://x", name: other, api_key_env: SECRET-KEY-2}
  Cloud: http://evil.example
  embedded: http://x
"""
SAID = [
    "shop.yaml:2: parms: unknown key 'parms'; did you mean 'params'?",
    "shop.yaml:3: target[0]: unknown name 'nope'; allowed: embedded, cloud, lab, bad, studio, Cloud (a URL has ://)",
    "shop.yaml:3: target[1]: unknown name 'studoi'; did you mean 'studio'? (a URL has ://)",
    "shop.yaml:3: target[2]: 'http://x' was given with a key or password inside the URL; "
    "put the key into an environment variable and use {url: ..., api_key_env: NAME}",
    "shop.yaml:3: target[3].name: the name Embedded is reserved for the embedded server; choose another name",
    "shop.yaml:3: target[5]: lab and http://localhost:9 are the same server (http://127.0.0.1:9); remove one of "
    "them, and set `concurrency` for more jobs at once",
    "shop.yaml:5: targets.studio.api_key_env: give the name of an environment variable (letters, digits and _), not "
    "the key itself",
    "shop.yaml:5: targets.studio.name: its name is already studio; remove `name`",
    "shop.yaml:5: targets.studio.url: 'ftp://x' is not a URL of a server (http://host:port or https://host)",
    "shop.yaml:6: targets.Cloud.url: the name Cloud is reserved for https://cloud.comfy.org; choose another name",
    "shop.yaml:7: targets.embedded: the name embedded is reserved for the embedded server; choose another name",
]


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A targets file with one valid entry, and one with two mistakes."""
    file = tmp_path / "targets.yaml"
    file.write_text("lab: http://127.0.0.1:9\nbad:\n  urk: http://b\n  concurrency: 0\n")
    monkeypatch.setenv("SWEEPER_TARGETS", str(file))
    return file


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_target_mistakes_are_reported_with_all_others(sweeper, write, ours, command):
    outcome = sweeper(command, write(WRONG))
    assert outcome.code == 2
    assert [line.removeprefix("error: ") for line in outcome.err.splitlines()] == SAID


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_wrong_entry_is_reported_even_if_unused(sweeper, write, command):
    outcome = sweeper(command, write(PLAIN + "targets:\n  studio: ftp://x\n"), "--target", "embedded")
    assert outcome.code == 2
    assert outcome.err == (
        "error: shop.yaml:4: targets.studio.url: 'ftp://x' is not a URL of a server (http://host:port or https://host)\n"
    )


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_unknown_target_name_can_be_replaced_by_an_option(sweeper, write, ours, command):
    file = write(PLAIN + "target: colleague\n")
    assert sweeper(command, file, "--target", "embedded").code == 0
    outcome = sweeper(command, file)
    assert outcome.code == 2
    assert outcome.err.startswith("error: shop.yaml:3: target: unknown name 'colleague'; allowed: embedded, cloud, lab")
    outcome = sweeper(command, file, "--target", "labb")
    assert outcome.code == 2
    assert outcome.err.startswith("error: target: unknown name 'labb'; did you mean 'lab'?")


@pytest.mark.parametrize("command", ["validate", "plan", "run", "doctor"])
def test_invalid_targets_entry_is_reported_only_where_used(sweeper, write, ours, command):
    outcome = sweeper(command, write(PLAIN + "target: bad\n"))
    assert outcome.code == 2
    assert f"{ours}:3: bad.urk: unknown key; did you mean 'url'?" in outcome.err
    assert f"{ours}:4: bad.concurrency: 0 is not a whole number of at least 1" in outcome.err
    assert sweeper(command, write(PLAIN)).code == 0
    assert sweeper(command, "shop.yaml", "--target", "embedded").code == 0
    assert sweeper(command, write(PLAIN + "target: bad\ntargets: {bad: 'http://127.0.0.1:9'}\n")).code != 2


def test_doctor_reports_an_invalid_entry_by_its_name(sweeper, ours):
    outcome = sweeper("doctor", "-t", "embedded", "--json")
    assert outcome.code == 0
    assert outcome.json["targets"][0]["ok"]
    assert [warning.split(": ")[1] for warning in outcome.json["warnings"]] == ["bad.url", "bad.urk", "bad.concurrency"]
    every = sweeper("doctor", "--json")
    assert every.code == 3
    reports = [
        (one["target"], one["ok"], "targets.yaml:3: bad.urk" in one.get("problem", "")) for one in every.json["targets"]
    ]
    assert reports == [("embedded", True, False), ("lab", False, False), ("bad", False, True)]


def test_doctor_reports_an_unreadable_targets_file_once(sweeper, ours):
    ours.write_text("lab: [\n")
    outcome = sweeper("doctor", "-t", "embedded", "-t", "http://127.0.0.1:9", "--json")
    assert outcome.code == 3
    assert [one["ok"] for one in outcome.json["targets"]] == [True, False]
    assert "is not YAML" in outcome.json["targets_file"]
    people = sweeper("doctor", "-t", "embedded")
    assert people.code == 2
    assert people.err.count("is not YAML") == 1


def test_python_run_finds_the_same_mistakes_with_lines(write, ours):
    import sweeper
    from sweeper.errors import ExperimentError, UsageError

    file = write(PLAIN + "target: studoi\ntargets: {studio: 'http://127.0.0.1:9'}\n")
    assert sweeper.load(file).targets == ("studoi",)  # the name may be defined later
    with pytest.raises(ExperimentError, match=r"shop\.yaml:3: target: unknown name 'studoi'; did you mean 'studio'"):
        sweeper.run(sweeper.load(file))
    for wrong in (5, 2.5, b"embedded", True):
        with pytest.raises(UsageError, match=r"target: .* is not a target; give `embedded`, `cloud`, a URL, a name"):
            sweeper.run(file, target=wrong)
