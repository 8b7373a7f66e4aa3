"""Films on the page: the first frame as poster if PyAV is installed, otherwise only a player."""

from __future__ import annotations

import hashlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from sweeper.reporting.contact_sheet import write_sheets
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from sweeper.store.records import INTENT, SUCCEEDED, Artifact, JobEnd, JobRecord, TableLayout
from tests.reporting.made_up_sweeps import Sweep, picture
from tests.reporting.page_actions import change_address

av = pytest.importorskip("av")


def film(kind, codec, colours, size=(96, 64)):
    """A film with one frame for each colour."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=8, width=size[0], height=size[1], pix_fmt="yuv420p")
        for colour in colours:
            pixels = np.full((size[1], size[0], 3), colour, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


RED_THEN_BLUE = [(220, 20, 20), (20, 20, 220), (20, 20, 220)]


def read(folder):
    (file,) = json.loads((folder / "data.json").read_text())["files"]
    return file


@pytest.mark.parametrize(("suffix", "kind", "codec"), [("webm", "webm", "libvpx"), ("mp4", "mp4", "mpeg4")])
def test_film_shows_its_first_frame_without_loading(made, opened, suffix, kind, codec):
    folder = made(Sweep({"steps": [1]}, suffix=suffix, content=film(kind, codec, RED_THEN_BLUE)))
    file = read(folder)
    assert (file["kind"], file["width"], file["height"]) == ("video", 96, 64)
    with Image.open(folder / file["thumb"]) as poster:
        red, _, blue = poster.convert("RGB").getpixel((48, 32))
    assert red > 150
    assert blue < 100
    page = opened(folder)
    shown = page.locator("[data-trial='0'] video")
    assert shown.get_attribute("preload") == "none"
    loaded = (
        "new Promise(done => { const i = new Image(); i.onload = () => done(i.naturalWidth); i.src = film.poster; })"
    )
    assert shown.evaluate(f"film => {loaded}") > 0
    page.locator("[data-trial='0']").click()
    whole = page.locator("dialog[open] video")
    whole.wait_for()
    assert whole.get_attribute("poster") is None
    assert page.get_by_role("dialog").get_by_role("button", name="Play").is_visible()


def test_film_without_pyav_is_a_player_until_it_is_installed(tmp_path, opened, monkeypatch):
    content = film("webm", "libvpx", RED_THEN_BLUE)
    out = Sweep({"steps": [1]}, suffix="webm", content=content).write(tmp_path / "results")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "av", None)
        folder = write_report(out).page.parent
        assert "thumb" not in read(folder)
        shown = opened(folder).locator("[data-trial='0'] video")
        assert shown.get_attribute("preload") == "metadata"
        assert shown.get_attribute("poster") is None
    assert "thumb" in read(write_report(out).page.parent)


def store_films(out, trials, content):
    """A report of trials that made these files: (node, position, suffix) of each."""
    (out / "artifacts").mkdir(parents=True)
    numbers = range(len(trials))
    with Store.open(out) as store, store.transaction():
        run = store.create_run(TableLayout("batches", ("batch",), ("batch",)), file="gone.yaml", targets=["x"], now=1.0)
        store.add_trials(run, [(n, f"{n}" * 64, {"batch": n}, {"batch": n}) for n in numbers])
        for trial, made in enumerate(trials):
            store.record_intent(JobRecord(f"j{trial}", run, "x", f"{trial}" * 64, "", 1, None, INTENT, 1.0))
            files = []
            for node, place, suffix in made:
                path = out / "artifacts" / f"{trial}-{node}-{place}.{suffix}"
                path.write_bytes(content[suffix] + bytes([trial, place]))
                sha = hashlib.sha256(path.read_bytes()).hexdigest()
                files.append(Artifact(node, "images", place, f"artifacts/{path.name}", sha, 9, path.name))
            store.record_finished(f"j{trial}", JobEnd(SUCCEEDED, artifacts=files))
    return write_report(out).page.parent


@pytest.fixture
def batches(tmp_path):
    """Two trials: one with six pictures, a film and a sound, the other with three, a film and a sound."""
    content = {"png": picture(3), "mp4": film("mp4", "mpeg4", RED_THEN_BLUE), "flac": b"fLaC"}
    trials = [[("9", n, "png") for n in range(size)] + [("20", 0, "mp4"), ("21", 0, "flac")] for size in (6, 3)]
    return store_films(tmp_path / "results", trials, content)


@pytest.fixture
def mixed(tmp_path):
    """A trial with three stills, an animated picture and two sounds."""
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    moving = io.BytesIO()
    frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:], duration=200, lossless=True)
    content = {"png": picture(3), "webp": moving.getvalue(), "flac": b"fLaC"}
    files = [("9", n, "png") for n in range(3)] + [("20", 0, "webp"), ("21", 0, "flac"), ("21", 1, "flac")]
    return store_films(tmp_path / "results", [files], content)


def test_files_of_one_origin_and_kind_are_compared_and_opened(batches, opened):
    """Eight files against five: matching by number would put a film beside a sound."""
    page = opened(batches, "#trial=0&with=1&mode=side")
    pairs = []
    for button in page.get_by_role("group", name="Files of this trial").get_by_role("button").all():
        button.click()
        figures = page.locator("#zoom figure")
        shown = "figure => figure.querySelector('[src]')?.getAttribute('src').split('/').pop() ?? figure.innerText"
        pairs.append([figure.evaluate(shown) for figure in figures.all()])
    assert pairs[:3] == [[f"1-9-{place}.png", f"0-9-{place}.png"] for place in range(3)]
    assert [reference.split("\n")[0] for reference, _ in pairs[3:6]] == ["no such file"] * 3
    assert pairs[6:] == [["1-20-0.mp4", "0-20-0.mp4"], ["1-21-0.flac", "0-21-0.flac"]]
    for file, name in ((6, "0-20-0.mp4"), (7, "0-21-0.flac")):
        change_address(page, f"#trial=0&file={file}")
        assert page.get_by_role("link", name="Open the file").get_attribute("href") == f"files/{name}"


def test_cell_shows_one_file_of_each_kind_with_signs(batches, opened):
    page = opened(batches)
    cell = page.locator('[data-trial="0"]')
    assert [cell.locator(tag).count() for tag in ("img, .sprite", "video")] == [2, 1]
    assert cell.locator(".sign").all_inner_texts() == ["▶", "♪"]
    assert "6 pictures, 1 film, 1 sound" in cell.get_attribute("aria-label")
    change_address(page, "#size=64")
    assert cell.locator("img, .sprite, video, audio").count() == 1
    assert cell.locator(".badge").inner_text() == "8 ▶ ♪"


def test_animated_picture_counts_as_a_film_in_a_cell(mixed, opened):
    page = opened(mixed)
    cell = page.locator('[data-trial="0"]')
    assert cell.locator(".sign").all_inner_texts() == ["▶", "♪"]
    assert cell.locator(".badge").inner_text() == "6 ♪"  # one of the two sounds is not shown
    change_address(page, "#size=80")
    assert cell.locator(".badge").inner_text() == "6 ▶ ♪"


def test_players_side_by_side_do_not_overlap(batches, opened):
    page = opened(batches, "#trial=0&with=1&mode=side&file=7", viewport={"width": 1000, "height": 700})
    one, other = [player.bounding_box() for player in page.locator("#zoom .sound").all()]
    stage = page.locator(".stage").first.bounding_box()
    assert one["x"] + one["width"] + 8 <= other["x"]
    assert other["x"] + other["width"] <= stage["x"] + stage["width"]


def test_film_has_a_sign_and_loads_only_when_the_pointer_plays_it(made, opened):
    still = opened(made(Sweep({"steps": [1]}), "stills")).locator('[data-trial="0"]')
    still.and_(still.page.locator("[aria-label]")).wait_for()
    assert still.locator(".sign").count() == 0
    assert "film" not in still.get_attribute("aria-label")
    page = opened(made(Sweep({"steps": [1]}, suffix="webm", content=film("webm", "libvpx", RED_THEN_BLUE)), "films"))
    moving = page.locator('[data-trial="0"]')
    assert moving.locator(".sign").inner_text() == "▶"
    assert "film" in moving.get_attribute("aria-label")
    moving.locator("video").hover()
    page.wait_for_function("() => document.querySelector('#view video').currentTime > 0")


def test_contact_sheet_shows_the_first_frame_of_a_film(tmp_path):
    out = Sweep({"steps": [1, 2]}, suffix="mp4", content=film("mp4", "mpeg4", RED_THEN_BLUE)).write(tmp_path / "r")
    (file,) = write_sheets(out, tmp_path / "s.png")
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1:] < 100).all(axis=2)
    assert red.sum() == pytest.approx(2 * 96 * 64, rel=0.02)


def test_contact_sheet_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.reporting.contact_sheet.find_spec", lambda _: None)
    said = []
    monkeypatch.setattr("sweeper.reporting.contact_sheet.draw_pages", lambda sheet, *_: said.append(sheet) or ())
    out = Sweep({"steps": [1]}, suffix="mp4", content=film("mp4", "mpeg4", RED_THEN_BLUE)).write(tmp_path / "r")
    write_sheets(out, tmp_path / "s.png")
    (cell,) = said[0].sections[0].cells.values()
    assert cell.reason == "no picture, but picture-0.mp4; the extra media shows the first frame of a film"
