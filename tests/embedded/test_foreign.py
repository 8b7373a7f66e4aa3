"""The requests of clients by other authors, in their order, with everything that each client relies on.

These clients ran unchanged against the server: ComfyUI's three script examples, comfy-api-simplified 1.6.0, comfy-cli
1.23.0 (local and cloud), comfy-ui-client 0.1.2, @stable-canvas/comfyui-client 1.5.9, @saintno/comfyui-sdk 0.3.1, the
documented Python example of Comfy Cloud, and comfy-sdk 0.5.0 through comfy-api-proxy 0.1.6.
"""

from __future__ import annotations

import io
import json
import urllib.parse
import urllib.request
import uuid

import pytest
from PIL import Image
from websockets.sync.client import connect

GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "cfg": 8, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0],
            "positive": ["6", 0], "sampler_name": "euler", "scheduler": "normal", "seed": 5, "steps": 3,
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a fox"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "bad hands"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}  # fmt: skip


@pytest.fixture
def local(serve):
    return serve("comfyui", nodes=None)


def post_form(url: str, data: bytes, kind: str | None = None) -> dict:
    """Send a POST as urllib does: without a content type, it is declared as a form."""
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind} if kind else {})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_client_that_connects_first_and_reads_the_history(local):
    url, client_id, prompt_id = local.server.url, str(uuid.uuid4()), str(uuid.uuid4())
    with connect(f"{url.replace('http', 'ws')}/ws?clientId={client_id}") as socket:
        body = {"prompt": GRAPH, "client_id": client_id, "prompt_id": prompt_id}
        post_form(f"{url}/prompt", json.dumps(body).encode())
        while True:
            frame = socket.recv(timeout=60)
            assert isinstance(frame, str)  # this client would mistake a preview for a result
            message = json.loads(frame)
            if message["type"] == "executing" and message["data"] == {"node": None, "prompt_id": prompt_id}:
                break
    with urllib.request.urlopen(f"{url}/history/{prompt_id}") as answer:
        (file,) = json.loads(answer.read())[prompt_id]["outputs"]["9"]["images"]
    with urllib.request.urlopen(f"{url}/view?{urllib.parse.urlencode(file)}") as answer:
        assert Image.open(io.BytesIO(answer.read())).size == (64, 64)


def test_client_that_submits_and_waits_for_an_empty_queue(local):
    client_id = str(uuid.uuid4())
    prompt_id = post_form(f"{local.server.url}/prompt", json.dumps({"prompt": GRAPH, "client_id": client_id}).encode())[
        "prompt_id"
    ]
    with connect(f"{local.server.url.replace('http', 'ws')}/ws?clientId={client_id}") as socket:
        while True:
            message = json.loads(socket.recv(timeout=60))
            if message["type"] == "status" and message["data"]["status"]["exec_info"]["queue_remaining"] == 0:
                break
    assert local.wait_for_end(prompt_id)["outputs"]["9"]["images"]


def test_cloud_client_that_submits_before_it_connects(serve):
    cloud = serve("cloud", nodes=None, api_key="s3cret")
    for _ in range(2):  # the second job is cached, and ends before the client connects
        prompt_id = cloud.http.post("/api/prompt", json={"prompt": GRAPH}).json()["prompt_id"]
        outputs = {}
        with connect(f"{cloud.server.url.replace('http', 'ws')}/ws?clientId={uuid.uuid4()}&token=s3cret") as socket:
            while True:
                frame = socket.recv(timeout=60)
                message = json.loads(frame) if isinstance(frame, str) else {"data": {}}
                if message["data"].get("prompt_id") != prompt_id:
                    continue
                if message["type"] == "executed":
                    outputs[message["data"]["node"]] = message["data"]["output"]
                elif message["type"] == "execution_success":
                    break
        file = outputs["9"]["images"][0]
        answer = cloud.http.get("/api/view", params=file, follow_redirects=True)
        assert Image.open(io.BytesIO(answer.content)).size == (64, 64)


def test_chunked_form_without_content_length_is_read(local):
    """Form libraries for Node.js send chunked bodies."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, format="PNG")
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    answer = local.http.post(
        "/upload/image",
        content=iter([head, picture.getvalue(), b"\r\n--x--\r\n"]),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.json() == {"name": "a.png", "subfolder": "", "type": "input"}
