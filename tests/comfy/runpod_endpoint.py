"""A RunPod serverless endpoint with worker-comfyui 5, made from their documents; `sweeper.comfy.runpod` names these.

Its jobs wait, run and end by a clock that a test can set forward (`age`), and their results expire. What a job makes
follows from its workflow as far as our tests need it: an EmptyImage in its colour, or a picture of `input.images`.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "rpa_TESTKEY0123456789"
KEPT_SECONDS = 1800.0  # "results are available for 30 minutes after completion"
MAX_BYTES = 10_000_000  # "maximum payload size: 10 MB" of /run


@dataclass
class Job:
    input: dict[str, Any]
    submitted: float
    started: float
    ended: float
    output: Any
    error: str | None = None
    status: str = ""  # in place of what the clock says
    polls: int = 0


class Served:
    """An application on a port of its own, in a thread."""

    def __init__(self, *routes: Route) -> None:
        config = uvicorn.Config(Starlette(routes=list(routes)), port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)


class Bucket(Served):
    """The storage to which a worker with BUCKET_ENDPOINT_URL uploads. It knows the headers of each request."""

    def __init__(self) -> None:
        super().__init__(Route("/{name:path}", self._serve))
        self.is_open = True
        self.files: dict[str, bytes] = {}
        self.headers: list[dict[str, str]] = []

    async def _serve(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        content = self.files.get(request.path_params["name"]) if self.is_open else None
        return Response(content, 403 if content is None else 200, media_type="image/png")

    def keep(self, content: bytes) -> str:
        name = f"{uuid4()}.png"
        self.files[name] = content
        return f"{self.root}/{name}"


@dataclass
class Endpoint(Served):
    """`before(operation, request)` may answer in place of the endpoint; `after` replaces an answer that it gave."""

    workers: int = 3
    cold_start: float = 0.0
    seconds: float = 0.0
    max_bytes: int = MAX_BYTES
    bucket: Bucket | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    before: Callable[[str, Request], Response | None] = lambda *_: None
    after: Callable[[str, Request], Response | None] = lambda *_: None
    make_output: Callable[[dict[str, Any]], Any] | None = None  # by the input of a job
    age: float = 0.0  # seconds by which the clock is ahead
    _free_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        Served.__init__(
            self,
            Route("/v2/fox/health", self._handle("health", self._health)),
            Route("/v2/fox/run", self._handle("run", self._run), methods=["POST"]),
            Route("/v2/fox/status/{id}", self._handle("status", self._status)),
            Route("/v2/fox/cancel/{id}", self._handle("cancel", self._cancel), methods=["POST"]),
            Route("/{path:path}", self._handle("unknown", self._refuse), methods=["GET", "POST", "HEAD"]),
        )

    @property
    def url(self) -> str:
        return f"{self.root}/v2/fox"

    def target(self, **settings: Any) -> dict[str, Any]:
        return {"url": self.url, "dialect": "runpod", "api_key_env": "RUNPOD_KEY", "name": "pod", **settings}

    def now(self) -> float:
        return time.monotonic() + self.age

    def _handle(self, operation: str, handler: Callable[[Request], Any]) -> Any:
        async def handle(request: Request) -> Response:
            self.requests.append((operation, dict(request.headers)))
            replaced = self.before(operation, request)
            if replaced is not None:
                return replaced
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return JSONResponse({"error": "Unauthorized"}, 401)
            answer = await handler(request)
            return self.after(operation, request) or answer

        return handle

    async def _refuse(self, _: Request) -> Response:
        return Response("404 page not found", 404)

    async def _health(self, _: Request) -> Response:
        counts = {"completed": 1, "failed": 5, "inProgress": 0, "inQueue": 2, "retried": 0}
        return JSONResponse({"jobs": counts, "workers": {"idle": 0, "running": 0}})

    async def _run(self, request: Request) -> Response:
        body = await request.body()
        if len(body) > self.max_bytes:
            return JSONResponse({"error": f"body: exceeded max body size of {self.max_bytes} bytes"}, 400)
        sent = (await request.json())["input"]
        now = self.now()
        if len(self._free_at) < self.workers:
            self._free_at.append(now + self.cold_start)
        started = max(now, min(self._free_at))
        self._free_at[self._free_at.index(min(self._free_at))] = started + self.seconds
        output = (self.make_output or self.paint)(sent)
        error = output.pop("error", None) if isinstance(output, dict) else None  # as RunPod's package does
        job_id = f"{uuid4()}-u1"
        self.jobs[job_id] = Job(sent, now, started, started + self.seconds, output, error)
        return JSONResponse({"id": job_id, "status": "IN_QUEUE"})

    async def _status(self, request: Request) -> Response:
        job_id = request.path_params["id"]
        job, now = self.jobs.get(job_id), self.now()
        if job is None or now > job.ended + KEPT_SECONDS:
            return JSONResponse({"error": "request does not exist"}, 404)
        job.polls += 1
        if job.status or now < job.ended:
            status = job.status or ("IN_QUEUE" if now < job.started else "IN_PROGRESS")
            return JSONResponse({"id": job_id, "status": status})
        times = {"delayTime": round(1000 * (job.started - job.submitted)), "executionTime": round(1000 * self.seconds)}
        done = {"id": job_id, "status": "FAILED" if job.error else "COMPLETED", "workerId": "w1", **times}
        done |= {"error": job.error} if job.error else {}
        return JSONResponse(done if job.output == {} else done | {"output": job.output})

    async def _cancel(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return JSONResponse({"error": "request does not exist"}, 404)
        if self.now() < job.ended:
            job.status = "CANCELLED"
        return JSONResponse({"id": request.path_params["id"], "status": job.status or "COMPLETED"})

    def paint(self, sent: dict[str, Any]) -> dict[str, Any]:
        """What the worker returns: the files of all save nodes."""
        graph, images = sent["workflow"], []
        uploads = {image["name"]: base64.b64decode(image["image"]) for image in sent.get("images", [])}
        for node in graph.values():
            if node["class_type"] != "SaveImage":
                continue
            source = graph[node["inputs"]["images"][0]]["inputs"]
            content = uploads[source["image"]] if "image" in source else paint_png(source["color"])
            name = node["inputs"]["filename_prefix"].rpartition("/")[2]
            images.append(self.record(f"{name}_00001_.png", content))
        return {"images": images}

    def record(self, filename: str, content: bytes) -> dict[str, Any]:
        if self.bucket is not None:
            return {"filename": filename, "type": "s3_url", "data": self.bucket.keep(content)}
        return {"filename": filename, "type": "base64", "data": base64.b64encode(content).decode()}


def paint_png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (colour >> 16, colour >> 8 & 255, colour & 255)).save(buffer, "PNG")
    return buffer.getvalue()
