"""GET /view and uploads in both dialects, and file names that lead out of their folder."""

from __future__ import annotations

import io
import json

import httpx
import pytest
from blake3 import blake3
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def png(colour=(10, 20, 30), size=(8, 4), mode="RGB", text=None):
    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


@pytest.fixture
def full(comfy):
    """A server whose output folder holds a.png and sub/b.png, with a secret file one level up."""
    output = comfy.server.folders.output_dir
    (output / "sub").mkdir()
    (output / "a.png").write_bytes(png(text={"prompt": "{}"}))
    (output / "sub" / "b.png").write_bytes(png((1, 2, 3, 128), mode="RGBA"))
    (output.parent / "secret.png").write_bytes(png())
    (output / "a..b.png").write_bytes(png())
    (comfy.server.folders.temp_dir / "t.png").write_bytes(png((9, 9, 9)))
    return comfy


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("filename=a.png&subfolder=&type=output", 200),
        ("filename=a.png", 200),
        ("filename=b.png&subfolder=sub", 200),
        ("filename=t.png&type=temp", 200),
        ("filename=t.png%20%5Btemp%5D", 200),
        ("filename=t.png%5Btemp%5D", 404),
        ("filename=some/dir/a.png", 200),
        ("", 404),
        ("subfolder=sub", 404),
        ("filename=none.png", 404),
        ("filename=a.png&subfolder=none", 404),
        ("filename=a.png&type=temp", 404),
        ("filename=", 400),
        ("filename=/etc/passwd", 400),
        ("filename=a..b.png", 400),
        ("filename=a.png&type=models", 400),
        ("filename=secret.png&subfolder=..", 403),
        ("filename=passwd&subfolder=/etc", 403),
        ("filename=secret.png&subfolder=sub/../..", 403),
        ("filename=a.png&subfolder=%00", 403),
    ],
)
def test_view_answers_with_comfyuis_statuses(full, query, status):
    assert full.http.get(f"/view?{query}").status_code == status


def test_view_refuses_a_symbolic_link_out_of_the_folder(full):
    output = full.server.folders.output_dir
    (output / "link.png").symlink_to(output.parent / "secret.png")
    assert full.http.get("/view?filename=link.png").status_code == 403


def test_view_supports_etag_ranges_and_head(full):
    whole = full.http.get("/view?filename=a.png")
    data = whole.content
    assert whole.headers["content-type"] == "image/png"
    assert "last-modified" in whole.headers
    head = full.http.head("/view?filename=a.png")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
    for asked, expected in {
        "bytes=0-3": data[:4],
        "bytes=5-": data[5:],
        "bytes=-4": data[-4:],
        "bytes=4-99999": data[4:],
    }.items():
        part = full.http.get("/view?filename=a.png", headers={"range": asked})
        assert (part.status_code, part.content) == (206, expected), asked
        assert part.headers["content-range"].endswith(f"/{len(data)}")
    assert full.http.get("/view?filename=a.png", headers={"range": "bytes=99999-"}).status_code == 416
    same = full.http.get("/view?filename=a.png", headers={"range": "bytes=4-", "if-range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, data[4:])
    other = full.http.get("/view?filename=a.png", headers={"range": "bytes=4-", "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, data)
    for odd in ("pages=1-2", "bytes=a-b", "bytes=-", "nonsense", "bytes=abc"):
        assert full.http.get("/view?filename=a.png", headers={"range": odd}).status_code == 400, odd


def test_html_is_never_served_as_html(full):
    (full.server.folders.output_dir / "x.html").write_text("<script>")
    assert full.http.get("/view?filename=x.html").headers["content-type"] == "application/octet-stream"


def upload(client, data, name="a.png", path="/upload/image", **fields):
    return client.http.post(path, files={"image": (name, data)}, data=fields)


def test_upload_keeps_its_name_unless_another_file_has_it(comfy):
    names = [upload(comfy, data).json()["name"] for data in (b"one", b"two", b"one", b"two", b"three")]
    assert names == ["a.png", "a (1).png", "a.png", "a (1).png", "a (2).png"]
    assert comfy.server.seen.written == 3
    assert upload(comfy, b"four", overwrite="True").json()["name"] == "a (3).png"
    assert upload(comfy, b"five", overwrite="true").json()["name"] == "a.png"
    assert (comfy.server.folders.input_dir / "a.png").read_bytes() == b"five"
    assert sorted(path.name for path in comfy.server.folders.input_dir.iterdir()) == [
        "a (1).png", "a (2).png", "a (3).png", "a.png",
    ]  # fmt: skip


def test_upload_is_stored_in_the_requested_folder(comfy):
    answer = upload(comfy, b"x", subfolder="deep/er", type="temp")
    assert answer.json() == {"name": "a.png", "subfolder": "deep/er", "type": "temp"}
    assert (comfy.server.folders.temp_dir / "deep/er/a.png").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("a.png", {"subfolder": "../.."}),
        ("a.png", {"subfolder": "/tmp"}),
        ("a.png", {"type": "models"}),
        ("../a.png", {}),
        ("..\\a.png", {}),
        ("sub/a.png", {}),
        ("n" * 300 + ".png", {}),
    ],
)
def test_uploads_out_of_the_folder_are_refused(comfy, name, fields):
    before = {path for path in comfy.server.folders.base.rglob("*") if path.is_file()}
    assert upload(comfy, b"x", name, **fields).status_code == 400
    assert {path for path in comfy.server.folders.base.rglob("*") if path.is_file()} == before


def test_malformed_uploads_are_refused(comfy):
    assert comfy.http.post("/upload/image", json={"image": "x"}).status_code == 400
    assert comfy.http.post("/upload/image", data={"image": "x"}).status_code == 400
    assert comfy.http.post("/upload/image", files={"other": ("a.png", b"x")}).status_code == 400
    broken = comfy.http.post(
        "/upload/image", content=b"--x\r\nnonsense", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code == 400


def test_mask_replaces_alpha_and_keeps_text_chunks(comfy):
    upload(comfy, png(text={"prompt": "kept"}), "original.png")
    reference = json.dumps({"filename": "original.png", "type": "input"})
    mask = png((0, 0, 0, 77), mode="RGBA")
    answer = upload(comfy, mask, "masked.png", "/upload/mask", original_ref=reference)
    assert answer.json()["name"] == "masked.png"
    merged = Image.open(comfy.server.folders.input_dir / "masked.png")
    assert merged.getpixel((0, 0)) == (10, 20, 30, 77)
    assert merged.info["prompt"] == "kept"
    for bad in (None, "not json", "[]", json.dumps({"filename": "none.png"}), json.dumps({"filename": "../jobs"})):
        fields = {} if bad is None else {"original_ref": bad}
        assert upload(comfy, mask, "m.png", "/upload/mask", **fields).status_code == 400, bad
    other_size = png((0, 0, 0, 77), (3, 3), "RGBA")
    assert upload(comfy, other_size, "m.png", "/upload/mask", original_ref=reference).status_code == 400


def test_cloud_stores_uploads_under_a_hash_of_their_content(cloud):
    data = png()
    name = f"{blake3(data).hexdigest()}.jpeg"
    first = upload(cloud, data, "fox.JPEG", "/api/upload/image", subfolder="mine", type="input", overwrite="true")
    assert first.json() == {"name": name, "subfolder": "mine", "type": "input"}
    assert upload(cloud, data, "other name.png", "/api/upload/image").json()["name"] == name
    assert [path.name for path in cloud.server.folders.input_dir.iterdir()] == [name]
    assert (cloud.server.seen.uploads, cloud.server.seen.written) == ([name, name], 1)
    location = cloud.http.get("/api/view", params={"filename": name, "type": "input"}).headers["location"]
    assert httpx.get(location).content == data


def test_cloud_refuses_an_upload_of_more_bytes_than_it_takes(cloud):
    answer = upload(cloud, png() + b"\0" * (50 * 1024 * 1024), "x.png", "/api/upload/image")
    assert answer.status_code == 400
    assert "at most 52428800 bytes" in answer.json()["message"]


@pytest.mark.parametrize("name", ["fox", "a.b-c", "a.\u00e9", "a." + "x" * 300])
def test_cloud_names_an_upload_by_its_type_if_its_suffix_is_odd(cloud, name):
    stored = upload(cloud, png(), name, "/api/upload/image").json()["name"]
    assert stored.partition(".")[0] == blake3(png()).hexdigest()
    assert [path.name for path in cloud.server.folders.input_dir.iterdir()] == [stored]


def test_cloud_stores_a_masked_picture_as_new_content(cloud):
    name = upload(cloud, png(), "o.png", "/api/upload/image").json()["name"]
    reference = json.dumps({"filename": name, "type": "input"})
    mask = png((0, 0, 0, 5), mode="RGBA")
    masked = upload(cloud, mask, "m.png", "/api/upload/mask", original_ref=reference).json()["name"]
    assert masked not in {name, "m.png"}
    assert Image.open(cloud.server.folders.input_dir / masked).getpixel((0, 0)) == (10, 20, 30, 5)


@pytest.mark.parametrize("name", ["with space.png", "ünï-✓.png", "per%cent.png", "a#b?c.png", "a+b&c.png"])
def test_signed_urls_work_for_any_file_name(cloud, name):
    folder = cloud.server.folders.output_dir / "sub dir"
    folder.mkdir()
    (folder / name).write_bytes(b"content")
    answer = cloud.http.get("/api/view", params={"filename": name, "subfolder": "sub dir"})
    assert httpx.get(answer.headers["location"]).content == b"content"
