"""What the vote server accepts, and which bytes of a picture it sends."""

from __future__ import annotations

import io
import json
import shutil

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sweeper.errors import ImageError
from sweeper.tables.vote_tally import rank_votes
from sweeper.voting import ballot
from sweeper.voting.vote_server import VoteServer, read_plain_picture
from tests.voting.folders import load, make_folder


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, headers={"origin": server.url.rstrip("/")}) as client:
        yield client


def test_another_site_cannot_vote(server, client):
    for headers, body in (
        ({"origin": "https://evil.example"}, {"json": {"voter": "eve"}}),
        ({"content-type": "text/plain"}, {"content": json.dumps({"voter": "eve"})}),
    ):
        assert client.post("/next", headers=headers, **body).status_code == 403
    assert client.options("/next").status_code == 405
    assert client.post("/start", json={}).status_code == 405
    assert client.post("/next", json={"voter": "eve"}, headers={"host": "evil.example"}).status_code == 421


def test_other_machines_need_the_token(folder):
    with VoteServer(folder, host="0.0.0.0", token="sesame") as server:
        url = f"http://127.0.0.1:{server.url.rpartition(':')[2].partition('/')[0]}"
        assert httpx.post(f"{url}/next", json={"voter": "eve"}).status_code == 401
        assert httpx.get(f"{url}/start").status_code == 401
        key = {"authorization": "Bearer sesame"}
        assert httpx.post(f"{url}/next", json={"voter": "eve"}, headers=key).status_code == 200


def test_ranking_is_computed_once_for_the_same_votes(tmp_path, monkeypatch):
    computed = []
    monkeypatch.setattr(ballot, "rank_votes", lambda results: computed.append(1) or rank_votes(results))
    with VoteServer(make_folder(tmp_path / "results")) as server:
        for count in (1, 2):
            pair = httpx.post(f"{server.url}next", json={"voter": "ana"}).json()["pair"]["id"]
            httpx.post(f"{server.url}next", json={"voter": "ana", "vote": pair, "answer": "left"})
            for _ in range(3):
                assert httpx.post(f"{server.url}ranking", json={"voter": "ana"}).status_code == 200
            assert len(computed) == count


def test_ranking_is_only_for_who_has_voted_and_never_if_it_is_hidden(tmp_path):
    folder = make_folder(tmp_path / "results")
    with VoteServer(folder) as server, httpx.Client(base_url=server.url) as client:
        pair = client.post("/next", json={"voter": "ana"}).json()["pair"]["id"]
        client.post("/next", json={"voter": "ana", "vote": pair, "answer": "left"})
        assert client.get("/ranking").status_code in (404, 405)
        refused = client.post("/ranking", json={"voter": "bo"})
        assert (refused.status_code, "answer a pair first" in refused.json()["problem"]) == (400, True)
        foreign = client.post("/ranking", json={"voter": "ana"}, headers={"origin": "http://127.0.0.1:1"})
        assert foreign.status_code == 403
        shown = client.post("/ranking", json={"voter": "ana"}).json()
        assert [ranking["axis"] for ranking in shown["rankings"]] == ["sampler"]
    with VoteServer(folder, hides_ranking=True) as server:
        assert httpx.post(f"{server.url}ranking", json={"voter": "ana"}).status_code == 404


def test_vote_for_a_deleted_folder_is_not_called_stored(tmp_path):
    folder = make_folder(tmp_path / "results")
    with VoteServer(folder) as server, httpx.Client(base_url=server.url) as client:
        pair = client.post("/next", json={"voter": "ana"}).json()["pair"]["id"]
        vote = {"voter": "ana", "vote": pair, "answer": "left"}
        folder.rename(tmp_path / "moved")
        refused = client.post("/next", json=vote)
        assert (refused.status_code, "put the folder back" in refused.json()["problem"]) == (503, True)
        assert not folder.exists()
        (tmp_path / "moved").rename(folder)
        assert client.post("/next", json=vote).json()["own"] == 1
    assert next(each.answer for each in load(folder)[1] if each.id == pair) == "left"


def test_ranking_that_cannot_be_read_is_refused_in_words(tmp_path):
    folder = make_folder(tmp_path / "results")
    with VoteServer(folder) as server:
        pair = httpx.post(f"{server.url}next", json={"voter": "ana"}).json()["pair"]["id"]
        httpx.post(f"{server.url}next", json={"voter": "ana", "vote": pair, "answer": "left"})
        shutil.move(folder, tmp_path / "elsewhere")
        answer = httpx.post(f"{server.url}ranking", json={"voter": "ana"})
    assert (answer.status_code, "no such results folder" in answer.json()["problem"]) == (503, True)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "the request does not have what this page sends"),
        ({"voter": " "}, "a voter's name has 1 to 60 printable characters"),
        ({"voter": "x" * 61}, "a voter's name has 1 to 60 printable characters"),
        ({"voter": "eve", "vote": "nothing", "answer": "left"}, "this folder knows no such vote of yours"),
        ({"voter": "x" * 5000}, "the request has more than 4,096 bytes; send less"),
    ],
)
def test_wrong_requests_are_refused(client, body, problem):
    answer = client.post("/next", json=body)
    assert answer.status_code == 400
    assert problem in answer.json()["problem"]


@pytest.mark.parametrize("body", ["[" * 4000, '{"voter":' * 400, '{"voter": NaN}', '{"voter": ' + "9" * 4350 + "}"])
def test_hostile_requests_are_refused(client, body):
    for path in ("/next", "/undo"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["problem"][:12]) == (400, "the request ")


def test_invented_names_cannot_fill_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.voting.ballot.MAX_VOTERS", 3)
    folder = make_folder(tmp_path / "results")
    with VoteServer(folder) as server, httpx.Client(base_url=server.url) as client:
        shown = [client.post("/next", json={"voter": f"v{number}"}) for number in range(9)]
        assert [answer.status_code for answer in shown] == [200] * 3 + [400] * 6
        assert "votes of 3 names, which is the limit" in shown[-1].json()["problem"]
        vote = shown[0].json()["pair"]["id"]
        assert client.post("/next", json={"voter": "v0", "vote": vote, "answer": "left"}).json()["own"] == 1
    assert len(load(folder)[1]) == 4


def test_votes_cannot_fill_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.voting.ballot.MAX_VOTES", 5)
    folder = make_folder(tmp_path / "results")
    with VoteServer(folder) as server, httpx.Client(base_url=server.url) as client:
        pair = client.post("/next", json={"voter": "ana"}).json()["pair"]
        while pair is not None:  # the last answer is stored too
            body = {"voter": "ana", "vote": pair["id"], "answer": "left", "again": True}
            answer = client.post("/next", json=body).json()
            last, pair = pair, answer["pair"]
        assert answer["own"] == 5
        refused = client.post("/next", json={"voter": "ana"})
        assert (refused.status_code, "5 votes, which is the limit" in refused.json()["problem"]) == (400, True)
        assert client.post("/undo", json={"voter": "ana", "vote": last["id"]}).status_code == 400
    assert [vote.counts for vote in load(folder)[1]] == [True] * 5


def test_nobody_answers_for_somebody_else_or_twice(folder, client):
    pair = client.post("/next", json={"voter": "ana"}).json()["pair"]["id"]
    assert client.post("/next", json={"voter": "eve", "vote": pair, "answer": "left"}).status_code == 400
    assert client.post("/next", json={"voter": "ana", "vote": pair, "answer": "maybe"}).status_code == 400
    for answer in ("left", "right"):
        assert client.post("/next", json={"voter": "ana", "vote": pair, "answer": answer}).json()["own"] == 1
    assert next(vote.answer for vote in load(folder)[1] if vote.id == pair) == "left"
    assert client.post("/undo", json={"voter": "eve", "vote": pair}).status_code == 400


def test_pair_waits_for_its_voter_and_is_skipped_if_it_cannot_be_shown(client):
    first = client.post("/next", json={"voter": "cy"}).json()["pair"]["id"]
    assert client.post("/next", json={"voter": "cy"}).json()["pair"]["id"] == first
    assert client.post("/next", json={"voter": "cy", "broken": first}).json()["pair"]["id"] != first
    for path in (f"{first}/middle", "nothing/left"):
        assert client.get(f"/picture/{path}").status_code == 404


def save(path, kind, **more):
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    Image.fromarray(pixels).save(path, kind, **more)
    return path


def test_png_is_sent_without_its_texts(tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("prompt", '{"sampler": "euler"}')
    texts.add_itxt("workflow", "euler", zip=True)
    path = save(tmp_path / "a.png", "PNG", pnginfo=texts, exif=b"Exif\0\0euler", icc_profile=b"profile")
    path.write_bytes(path.read_bytes() + b"euler behind the end")
    content, kind = read_plain_picture(path)
    assert kind == "image/png"
    assert b"euler" not in content
    assert b"iCCP" in content
    assert not any(name in content for name in (b"tEXt", b"iTXt", b"eXIf", b"prompt"))
    with Image.open(io.BytesIO(content)) as plain, Image.open(path) as whole:
        assert plain.tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP"])
def test_other_pictures_are_sent_without_data_about_them(tmp_path, kind):
    exif = Image.Exif()
    exif[0x010E] = "euler"
    more = {"exif": exif} if kind in ("JPEG", "WEBP") else {"comment": b"euler"} if kind == "GIF" else {}
    path = save(tmp_path / "a", kind, **more)
    content, media = read_plain_picture(path)
    assert media == "image/png"
    assert b"euler" not in content
    with Image.open(io.BytesIO(content)) as plain, Image.open(path) as whole:
        assert plain.convert("RGB").tobytes() == whole.convert("RGB").tobytes()


def test_animation_keeps_its_frames(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    exif = Image.Exif()
    exif[0x010E] = "euler"
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], exif=exif, lossless=True)
    content, media = read_plain_picture(tmp_path / "a.webp")
    assert media == "image/webp"
    assert b"euler" not in content
    with Image.open(io.BytesIO(content)) as plain:
        assert plain.n_frames == 3


@pytest.mark.parametrize("cut", [20, 4000])
def test_cut_or_foreign_file_is_refused(tmp_path, cut):
    whole = save(tmp_path / "a.png", "PNG").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:cut] if cut < len(whole) else b"no picture")
    with pytest.raises(ImageError, match=r"b\.png"):
        read_plain_picture(tmp_path / "b.png")
