"""Requests to the chat endpoint, and a worker that answers them."""

from __future__ import annotations

import base64
import json
import time
from contextlib import contextmanager
from io import BytesIO

from fastapi.testclient import TestClient
from native_records import picture as noise
from PIL import Image as PILImage
from tiny_runs import untrained

from latent_reason.serving.app import make_app
from latent_reason.serving.limits import Limits
from latent_reason.serving.worker import Worker

LIMITS = Limits(slots=3, waiting=2, max_tokens=200, pictures=2, pixels=10_000, body_bytes=200_000)
NAME = "tiny"


def data_url(image: PILImage.Image, kind: str = "PNG") -> str:
    data = BytesIO()
    image.save(data, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def picture_part(image=None) -> dict:
    return {"type": "image_url", "image_url": {"url": data_url(image or noise(0))}}


def ask(*content, **options) -> dict:
    """The body of a request about these parts."""
    return {"model": NAME, "messages": [{"role": "user", "content": list(content) or "Go"}]} | options


@contextmanager
def running_worker():
    """A worker of an untrained model."""
    worker = Worker(*untrained(), LIMITS)
    worker.start()
    yield worker
    worker.stop()
    worker.join(20)
    assert not worker.is_alive()


def client_of(worker) -> TestClient:
    """A client of the application, in this process."""
    return TestClient(make_app(worker, NAME), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def post(client, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"} | headers)


def wait(is_done, seconds=30):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.005)
