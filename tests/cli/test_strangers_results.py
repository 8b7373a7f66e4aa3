"""A results folder or a baseline that somebody made to reach other files of its user."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeper.model.money import Amount, Charge
from sweeper.store import Store
from sweeper.store.database import connect
from sweeper.store.votes import Mark, Vote

TARGETS = "template: t.json\nparams: {prompt: a fox, seed: 1, steps: 1}\n"
SECRET = "the user's own secret"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
COMMANDS = [
    ("accept", "--yes"),
    ("check",),
    ("results",),
    ("export", "-o", "table.csv"),
    ("export", "--to", "hf-dataset", "-o", "dataset"),
    ("report",),
    ("report", "--sheet", "sheet.png"),
]


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    """The folder in which the experiment of `results` was run."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def results(sweeper, write, _made, tmp_path):
    """A results folder with one trial, whose one artifact the test changes; and a secret file elsewhere."""
    (tmp_path / "secret.png").write_text(SECRET)
    file, folder = write(TARGETS), Path("results/shop")
    if not (_made / "shop").exists():
        assert sweeper("run", file).code == 0
        shutil.copytree(folder, _made / "shop")
    else:
        shutil.copytree(_made / "shop", folder)
        with closing(connect(folder / "sweeper.sqlite", readonly=False)) as store, store:
            store.execute("UPDATE runs SET file = ?", (str(Path(file).resolve()),))
    return folder


def rename_artifact(results, path, sha256=None):
    with closing(connect(results / "sweeper.sqlite", readonly=False)) as store, store:
        store.execute("UPDATE artifacts SET path = ?, sha256 = coalesce(?, sha256)", (path, sha256))


def find_leaks(folder):
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("way", ["dots", "absolute", "link", "linked folder"])
def test_artifact_outside_of_the_results_folder_is_refused(sweeper, recorded, tmp_path, command, way):
    results = recorded
    (tmp_path / "secret.png").write_text(SECRET)
    (results / "artifacts").mkdir()
    name = {
        "dots": "artifacts/../../../../secret.png",
        "absolute": str(tmp_path / "secret.png"),
        "link": "artifacts/link.png",
        "linked folder": "elsewhere/secret.png",
    }[way]
    (results / "artifacts/link.png").symlink_to(tmp_path / "secret.png")
    (results / "elsewhere").symlink_to(tmp_path)
    rename_artifact(results, name)
    outcome = sweeper(command[0], results, *command[1:])
    assert outcome.code == 2
    assert f"'{name[:40]}" in outcome.err
    assert "it leads outside" in outcome.err
    (results / "artifacts/link.png").unlink()
    (results / "elsewhere").unlink()
    assert find_leaks(Path.cwd()) == []


def test_run_does_not_touch_a_file_outside(sweeper, results, tmp_path):
    rename_artifact(results, "../../../secret.png")
    for command in (("run", "shop.yaml"), ("run", "shop.yaml", "--fresh"), ("report", results)):
        sweeper(*command)
    assert (tmp_path / "secret.png").read_text() == SECRET


def test_artifact_at_a_url_cannot_be_downloaded_elsewhere(sweeper, results, tmp_path):
    rename_artifact(results, f"file://{tmp_path}/secret.png", "../../../../x")
    outcome = sweeper("report", results)
    assert outcome.code == 2
    assert "SHA-256" in outcome.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "url", ["{}/a.png", "reference::{}/a.json", "simplecache::{}/a.png", "s3://me:pass@host/a.png"]
)
def test_artifact_at_a_url_where_no_run_writes_is_not_requested(sweeper, recorded, stranger, command, url):
    rename_artifact(recorded, url.format(stranger.url))
    outcome = sweeper(command[0], recorded, *command[1:])
    assert outcome.code == 2
    assert "where no run can have put it" in outcome.err
    assert "pass" not in outcome.err
    assert stranger.seen == []


@pytest.fixture
def listener(monkeypatch):
    """A server of a stranger: its `url`, and how many `connections` came. It closes each. S3 is there, too."""
    server = SimpleNamespace(connections=0)

    def accept_all():
        with contextlib.suppress(OSError):
            while True:
                listening.accept()[0].close()
                server.connections += 1

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.url = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.url}")
        thread = threading.Thread(target=accept_all)
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


SHOWN = [command for command in COMMANDS if command not in (("results",), ("export", "-o", "table.csv"))]


@pytest.mark.parametrize("command", [*SHOWN, ("run",)], ids=" ".join)
@pytest.mark.parametrize("url", ["ftp://{}/pictures", "webhdfs://{}/pictures", "s3://bucket/pictures"])
def test_storage_of_a_strangers_choice_is_not_opened(sweeper, results, listener, command, url):
    pytest.importorskip("fsspec", reason="the extra `s3` is not installed")
    assert sweeper("accept", results).code == 0
    url = url.format(listener.url)
    rename_artifact(results, f"{url}/a.png", "0" * 64)
    outcome = sweeper(command[0], "shop.yaml" if command == ("run",) else results, *command[1:])
    assert listener.connections == 0
    assert outcome.code == 2
    assert f"add the line `{url}` to " in outcome.err + outcome.out


def test_storage_that_the_user_lists_is_opened(sweeper, recorded, tmp_path):
    pytest.importorskip("fsspec", reason="the extra `s3` is not installed")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/a.png").write_text(SECRET)
    url = (tmp_path / "shared").as_uri()
    rename_artifact(recorded, f"{url}/a.png", hashlib.sha256(SECRET.encode()).hexdigest())
    outcome = sweeper("report", recorded)
    assert outcome.code == 2
    line, path = re.search("add the line `(.*)` to (.*)", outcome.err).groups()
    Path(path).parent.mkdir(parents=True)
    for listed in (f"{line}-of-others", f"{line}/below", line[:-1], f"{line}/../other"):
        Path(path).write_text(listed)
        assert sweeper("report", recorded).code == 2
    Path(path).write_text(f"# of my team\n{line}/")
    assert sweeper("report", recorded).code == 0
    rename_artifact(recorded, f"{url}/../secret.png")
    (recorded / "fetched").rename(recorded / "old")
    assert sweeper("report", recorded).code == 2


def test_storage_where_a_run_wrote_is_opened_in_a_later_session(sweeper, write, process, tmp_path):
    pytest.importorskip("fsspec", reason="the extra `s3` is not installed")
    assert sweeper("run", write(TARGETS), "--out", (tmp_path / "shared").as_uri()).code == 0
    outcome = process("report", "shop.yaml")
    assert (outcome.code, outcome.err) == (0, "")
    shutil.rmtree("results/shop/fetched")
    outcome = process("report", "shop.yaml", env={"SWEEPER_STORAGES_FILE": str(tmp_path / "another-user")})
    assert outcome.code == 2


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_postscript_in_place_of_a_picture_starts_no_program(sweeper, results, tmp_path, monkeypatch, command):
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow remembers that it found none
    assert sweeper("accept", results).code == 0
    (picture,) = (results / "artifacts").iterdir()
    picture.write_bytes(POSTSCRIPT)
    rename_artifact(results, f"artifacts/{picture.name}", hashlib.sha256(POSTSCRIPT).hexdigest())
    outcome = sweeper(command[0], results, *command[1:])
    assert outcome.code in (0, 1, 2)
    Path("shop.yaml").write_text(f"{TARGETS}metrics: [sharpness]\n")
    assert sweeper("run", "shop.yaml").code in (0, 1)
    assert not (tmp_path / "started").exists()


def test_artifacts_on_another_disk_still_work(sweeper, results, tmp_path):
    shutil.move(results / "artifacts", tmp_path / "disk")
    (results / "artifacts").symlink_to(tmp_path / "disk")
    outcome = sweeper("report", results)
    assert (outcome.code, "missing" in outcome.err) == (0, False)
    assert list(Path(results, "report/files").iterdir())
    assert sweeper("accept", results).code == 0
    assert len(list(Path("baselines/shop").iterdir())) == 2


def test_files_behind_a_linked_live_folder_stay(sweeper, results, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/thesis.txt").write_text(SECRET)
    (results / "live").symlink_to(tmp_path / "documents")
    assert sweeper("run", "shop.yaml", "--fresh").code == 0
    assert (tmp_path / "documents/thesis.txt").read_text() == SECRET


@pytest.mark.parametrize("name", ["../../secret.png", "..", "", "link.png", "a:b", "a\\b", "NUL", "con.png"])
def test_accepted_file_outside_of_the_baseline_is_refused(sweeper, results, tmp_path, name):
    assert sweeper("accept", results).code == 0
    manifest = Path("baselines/shop/manifest.json")
    manifest.with_name("link.png").symlink_to(tmp_path / "secret.png")
    value = json.loads(manifest.read_text())
    value["cases"][0]["accepted"][0]["file"] = name
    manifest.write_text(json.dumps(value))
    for command in (("check", results), ("accept", results, "--yes"), ("check", "shop.yaml")):
        outcome = sweeper(*command)
        assert outcome.code == 2
        assert "not a file name in" in outcome.err
    assert (tmp_path / "secret.png").read_text() == SECRET


def test_name_of_an_experiment_leads_to_no_other_folder(sweeper, results, tmp_path):
    with closing(connect(results / "sweeper.sqlite", readonly=False)) as store, store:
        store.execute("UPDATE runs SET experiment = '../../../secrets'")
        store.execute("UPDATE runs SET layout = json_set(layout, '$.experiment', '../../../secrets')")
    outcome = sweeper("accept", results, "--yes")
    assert outcome.code == 2
    assert "an experiment named '../../../secrets', which leads out" in outcome.err
    assert not (tmp_path.parent / "secrets").exists()


def test_accept_writes_into_no_other_project_unless_told(sweeper, results, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "pyproject.toml").touch()
    (other / "mine.yaml").write_text(TARGETS)
    with closing(connect(results / "sweeper.sqlite", readonly=False)) as store, store:
        store.execute("UPDATE runs SET file = ?", (str(other / "mine.yaml"),))
    outcome = sweeper("accept", results, "--yes")
    assert outcome.code == 2
    assert f"accept them with `--baseline {other}/baselines/shop`" in outcome.err
    assert not (other / "baselines").exists()
    assert sweeper("accept", results, "--baseline", other / "baselines/shop").code == 0


ENDLESS = "WITH RECURSIVE endless(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM endless)"
SCHEMAS = {
    "view": ("DROP TABLE metrics", f"CREATE VIEW metrics AS {ENDLESS} SELECT x AS sha256, 'm' AS metric, x AS value "
             "FROM endless"),
    "trigger": (f"CREATE TRIGGER t AFTER INSERT ON runs BEGIN INSERT INTO node_times {ENDLESS} SELECT x, x, x, x FROM "
                "endless; END",),
    "changed trigger": ("DROP TRIGGER runs_insert",
                        "CREATE TRIGGER runs_insert AFTER INSERT ON runs BEGIN SELECT 1; END"),
    "generated column": ("ALTER TABLE runs ADD COLUMN more TEXT AS (hex(zeroblob(200000000)))",),
    "index": ("CREATE INDEX more ON runs(hex(zeroblob(2)))",),
    "table": ("CREATE TABLE more(x)",),
    "lost trigger": ("DROP TRIGGER runs_insert",),
    "lost table": ("DROP TABLE node_times",),
}  # fmt: skip


@pytest.mark.parametrize("statements", SCHEMAS.values(), ids=SCHEMAS)
def test_store_with_another_schema_is_refused_before_it_is_read(sweeper, results, statements):
    with closing(connect(results / "sweeper.sqlite", readonly=False)) as store, store:
        for statement in statements:
            store.execute(statement)
    for command in (("report", results), ("plan", "shop.yaml"), ("run", "shop.yaml"), ("accept", results)):
        outcome = sweeper(*command)
        assert outcome.code == 2
        assert "or somebody made this folder to harm you" in outcome.err


def test_table_whose_rows_never_end_is_refused(sweeper, results):
    """Interior pages of a table that name the same page hundreds of times, in several levels."""
    path, page_size = results / "sweeper.sqlite", 4096
    with closing(connect(path, readonly=False)) as store:
        store.execute("PRAGMA journal_mode = DELETE")
        ((root,),) = store.execute("SELECT rootpage FROM sqlite_master WHERE name = 'runs'").fetchall()
    content = bytearray(path.read_bytes())
    leaf, count = content[(root - 1) * page_size : root * page_size], len(content) // page_size

    def make_page(child):
        cells = [struct.pack(">IB", child, number) for number in range(1, 120)]
        start = page_size - 5 * len(cells)
        head = struct.pack(">BHHHBI", 5, 0, len(cells), start, 0, child)
        pointers = b"".join(struct.pack(">H", start + 5 * index) for index in range(len(cells)))
        return (head + pointers).ljust(start, b"\0") + b"".join(cells)

    content[(root - 1) * page_size : root * page_size] = make_page(count + 1)
    for level in range(1, 6):
        content += make_page(count + level + 1)
    content += leaf
    content[28:32] = struct.pack(">I", len(content) // page_size)
    content[92:96] = content[24:28]
    path.write_bytes(content)
    outcome = sweeper("report", results)
    assert (outcome.code, "is damaged: " in outcome.err) == (2, True)


def test_journal_of_a_strangers_store_deletes_no_file(sweeper, results, tmp_path):
    """SQLite deletes the file that a rollback journal names at its end as the journal of several databases."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(tmp_path / "secret.png").encode()
    head = magic + struct.pack(">5I", 0, 0, (results / "sweeper.sqlite").stat().st_size // 4096, 512, 4096)
    tail = name + struct.pack(">II", len(name), sum(name)) + magic
    journal = results / "sweeper.sqlite-journal"
    for command in (("run", "shop.yaml"), ("report", results), ("accept", results)):
        journal.write_bytes(head.ljust(512, b"\0") + struct.pack(">I", 2**30 // 4096 + 1) + tail)
        outcome = sweeper(*command)
        assert (outcome.code, "names another file to delete" in outcome.err) == (2, True)
    assert (tmp_path / "secret.png").read_text() == SECRET


@pytest.mark.parametrize("column", ["path", "sha256"])
def test_artifact_of_another_type_is_reported(sweeper, recorded, column):
    with closing(connect(recorded / "sweeper.sqlite", readonly=False)) as store, store:
        store.execute(f"UPDATE artifacts SET {column} = x'35'")
    outcome = sweeper("report", recorded)
    assert outcome.code == 2
    assert f"the column '{column}' of the table 'artifacts' has a value that sweeper does not write" in outcome.err


READERS = [
    *COMMANDS, ("effects",), ("compare", "results/shop"), ("votes",), ("costs",), ("runs",), ("plan",), ("run",),
    ("results", "--by", "style"),
]  # fmt: skip
WRONG_VALUES = [
    "runs SET layout = '[]'",
    "runs SET layout = json_set(layout, '$.axis_columns', 5)",
    "runs SET layout = json_set(layout, '$.together', json('[[1]]'))",
    "runs SET layout = json_set(layout, '$.slot_names', json('[\"trial\"]'))",
    "runs SET targets = '{}'",
    "runs SET started = 9e999",
    "trials SET params = '[1]'",
    "trials SET params = '{\"seed\": 1e999}'",
    "trials SET params = '{\"seed\": ' || printf('%.*c', 5000, '9') || '}'",
    "trials SET params = printf('%.*c', 100000, '[')",
    "trials SET columns = '{\"seed\": NaN}'",
    "trials SET columns = '{'",
    "trials SET digest = x'00'",
    "jobs SET state = 'paid'",
    "jobs SET attempt = -1",
    "jobs SET ended = 'soon'",
    "metrics SET value = 'NaN'",
    "metrics SET value = CAST(x'ff' AS TEXT)",
    "charges SET kind = 'guessed'",
    "votes SET answer = 'both'",
    "marks SET stars = 6",
]


@pytest.mark.parametrize("change", WRONG_VALUES)
def test_value_that_sweeper_does_not_write_is_reported(sweeper, recorded, write, change):
    write(TARGETS)
    with Store.open(recorded) as store, store.transaction():
        store.cache_metrics([("f" * 64, "brightness", 1.0)])
        store.charges.replace("job0", [Charge("9", "KSampler", Amount.between(0.1, 0.2), "priced")])
        store.votes.add(Vote("v", "me", "seed", "0" * 64, "f" * 64, "1" * 64, "e" * 64, 1.0, 2.0, "left"))
        store.marks.add([Mark("0" * 64, "keep", 3)])
    with closing(connect(recorded / "sweeper.sqlite", readonly=False)) as store, store:
        store.execute(f"UPDATE {change}")
    assert sweeper("report", recorded).code == 2
    for command in READERS:
        outcome = sweeper(command[0], "shop.yaml" if command in (("plan",), ("run",)) else recorded, *command[1:])
        assert outcome.code in (0, 1, 2), outcome.err


def test_report_of_a_run_with_a_made_up_axis_is_written(sweeper, results):
    with closing(connect(results / "sweeper.sqlite", readonly=False)) as store, store:
        store.execute("UPDATE runs SET layout = json_set(layout, '$.axis_columns', json('[\"made up\"]'))")
    assert sweeper("report", results).code == 0


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((), []), (("cases",), {}), (("cases", 0), "x"), (("cases", 0, "cells"), []), (("cases", 0, "position"), "x"),
        (("cases", 0, "accepted", 0, "params"), [1]), (("cases", 0, "accepted", 0, "models"), [[]]),
        (("cases", 0, "accepted", 0, "sha256"), 5), (("cases", 0, "accepted", 0, "changes"), {"99.x": 5}),
        (("workflows",), []), (("workflows", "x"), {"1": []}), (("servers",), {"x": 1}), (("sweeper_baseline",), [1]),
        (("cases", 0, "cells", "x"), float("nan")), (("cases", 0, "accepted", 0, "inputs"), {"6.text": "x"}),
    ],
)  # fmt: skip
def test_manifest_of_another_shape_is_reported(sweeper, results, keys, value):
    assert sweeper("accept", results).code == 0
    manifest = Path("baselines/shop/manifest.json")
    content = {"": json.loads(manifest.read_text())}
    part, key = content, ""
    for next_key in keys:
        part, key = part[key], next_key
    part[key] = value
    for text in (json.dumps(content[""]), json.dumps(content[""])[:-9], "[" * 100_000):
        manifest.write_text(text)
        for command in (("check", results), ("check", "shop.yaml"), ("accept", results, "--yes")):
            outcome = sweeper(*command)
            assert outcome.code in (0, 1, 2), outcome.err


def test_accept_does_not_write_through_a_link(sweeper, results, tmp_path):
    sweeper("accept", results)
    (picture,) = Path("baselines/shop").glob("*.png")
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.png")
    Path("baselines/shop/manifest.json").unlink()
    assert sweeper("accept", results).code == 0
    assert (tmp_path / "secret.png").read_text() == SECRET


def test_nothing_is_written_through_links_in_a_results_folder(sweeper, results, tmp_path):
    (picture,) = (results / "artifacts").iterdir()
    sha = hashlib.sha256(picture.read_bytes()).hexdigest()
    report = results / "report"
    names = [
        *("index.html", "data.json", "data.js", "thumbs/index.json", f"thumbs/{sha}.webp", f"thumbs/{sha}-96.webp"),
        *(f"files/{picture.name}", "../results.csv", "../live/progress.json"),
    ]  # fmt: skip
    for name in names:
        (report / name).parent.mkdir(parents=True, exist_ok=True)
        (report / name).unlink(missing_ok=True)
        (report / name).symlink_to(tmp_path / "new" if name.startswith("files") else tmp_path / "secret.png")
    assert sweeper("report", results).code == 0
    assert sweeper("run", "shop.yaml").code == 0
    assert sweeper("export", results, "-o", results / "results.csv").code == 0
    assert (tmp_path / "secret.png").read_text() == SECRET
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_store_that_is_a_link_is_refused(sweeper, results, tmp_path, suffix):
    store = results / f"sweeper.sqlite{suffix}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(store.read_bytes() if store.exists() else b"")
    content = elsewhere.read_bytes()
    store.unlink(missing_ok=True)
    store.symlink_to(elsewhere)
    for command in (("run", "shop.yaml", "--fresh"), ("report", results), ("accept", results)):
        outcome = sweeper(*command)
        assert outcome.code == 2
        assert f"{store}: is a link" in outcome.err
    assert elsewhere.read_bytes() == content


def test_lock_file_that_is_a_link_or_a_pipe_is_refused(sweeper, results, tmp_path):
    lock = results / ".lock"
    for make in (lambda: lock.symlink_to(tmp_path / "secret.png"), lambda: os.mkfifo(lock)):
        lock.unlink()
        make()
        assert sweeper("report", results).code == 0  # reads nothing of it
        outcome = sweeper("run", "shop.yaml", "--fresh")
        assert outcome.code == 2
        assert f"{lock}: is " in outcome.err
    assert (tmp_path / "secret.png").read_text() == SECRET


@pytest.mark.parametrize("name", ["report", "report/files", "report/thumbs"])
def test_report_is_not_written_into_a_linked_folder(sweeper, results, tmp_path, name):
    """Its pictures have names that the store gives, so they could replace files of the user."""
    site = tmp_path / "site"
    site.mkdir()
    (results / name).parent.mkdir(exist_ok=True)
    (results / name).symlink_to(site)
    outcome = sweeper("report", results)
    assert outcome.code == 2
    assert f"{results / name}: is a link" in outcome.err
    assert list(site.iterdir()) == []


@pytest.mark.parametrize("command", ["check", "report", "accept"])
def test_experiment_of_another_project_is_not_read(sweeper, write, tmp_path, monkeypatch, command):
    """The store names the file of its experiment, which would be read, and quoted if it is something else."""
    assert sweeper("run", write("template: t.json\nparams: {prompt: a fox, seed: 1}\n")).code == 0
    secret = "s3cr3t-0123456789"
    Path("shop.yaml").write_text(f"key: *{secret}\n")
    moved = tmp_path / "other" / "shop"
    moved.parent.mkdir()
    Path("results/shop").rename(moved)
    monkeypatch.chdir(moved.parent)
    outcome = sweeper(command, moved, *(["--baseline", "b", "--yes"] if command == "accept" else []))
    assert outcome.code != 70
    assert secret not in outcome.err + outcome.out
    for page in (moved / "report").rglob("*.js*"):
        assert secret not in page.read_text()
