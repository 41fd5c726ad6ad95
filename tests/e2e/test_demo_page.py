"""``latent-reason demo`` as a process: over HTTP, and as a reader sees it in headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from importlib.util import find_spec

import pytest
from processes import started
from tiny_runs import ROOT

from latent_reason.tasks import make

httpx2 = pytest.importorskip("httpx2")
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: arguments that keep a browser quiet: no GPU, nothing fetched that the page does not ask for
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: the options of the page in their order: latents, other picture, k, steps, temperature, seed, decoding, length
OPTIONS = ["on", None, "", "", 0, 0, "plain", 640]


@pytest.fixture(scope="module")
def url():
    """The address of a demo that runs. At its end Ctrl-C stops it."""
    words = ("-m", "latent_reason", "demo", "checkpoints/frozenlake-tiny", "--port", 0, "--device", "cpu")
    with started(*words, cwd=ROOT) as (process, outputs):
        end = time.monotonic() + 120
        while not (found := outputs[0].exists() and re.search(r"http://127\.0\.0\.1:\d+", outputs[0].read_text())):
            assert process.exitcode is None and time.monotonic() < end, [o.read_text() for o in outputs if o.exists()]
            time.sleep(0.05)
        yield found[0]
        os.kill(process.pid, signal.SIGINT)
        process.join(30)
        assert process.exitcode is not None and "Traceback" not in outputs[1].read_text()


def call(url: str, *data) -> list[tuple[str, object]]:
    """The events of the page's function ``ask``: their names and data."""
    started = httpx2.post(f"{url}/gradio_api/call/ask", json={"data": data}).json()["event_id"]
    text = httpx2.get(f"{url}/gradio_api/call/ask/{started}", timeout=60).text
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(name, json.loads(value)) for name, value in found if name != "heartbeat"]


def test_the_page_answers_saves_and_explains(url, tmp_path):
    page = httpx2.get(url)
    places = re.findall(r"""(?:src|href)=["']([^"']+)|url\(["']?([^"')]+)""", page.text)
    assert page.status_code == 200 and places
    assert not [p for pair in places for p in pair if re.match(r"(https?:)?//(?!127\.0\.0\.1)", p)]
    assert httpx2.get(f"{url}/config").json()["analytics_enabled"] is False
    assert httpx2.get(url, headers={"host": "elsewhere.example"}).status_code == 400

    item = make("frozenlake_plan", split="test", level=5)[0]
    item.images[0].save(tmp_path / "board.png")
    with open(tmp_path / "board.png", "rb") as file:
        [path] = httpx2.post(f"{url}/gradio_api/upload", files={"files": file}).json()
    pictures = [{"image": {"path": path, "meta": {"_type": "gradio.FileData"}}, "caption": None}]
    *first, (name, (timeline, html, pdf)) = call(url, pictures, item.question, *OPTIONS)
    assert name == "complete" and {name for name, _ in first} == {"generating"}
    assert timeline.count("<img") == timeline.count("<figcaption>sketch") >= 1 and r"\boxed" in timeline
    saved = httpx2.get(html["value"]["url"])
    assert item.question in saved.text and saved.text.count("<img") == timeline.count("<img") + 1
    assert httpx2.get(pdf["value"]["url"]).content.startswith(b"%PDF-")
    [(name, error)] = call(url, None, "", *OPTIONS)
    assert name == "error" and error["error"].startswith("there is no question")
    [(name, error)] = call(url, pictures, item.question, "on", None, "", "0", *OPTIONS[4:])
    assert name == "error" and error["error"].startswith("steps '0': must be a whole number")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed")
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 420])
def test_a_reader_asks_and_switches_the_latents_to_noise(url, width):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": width, "height": 900})
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.click("#examples button >> nth=2")
        page.wait_for_selector("#pictures img")
        page.click("text=More options")  # an empty field is as in training
        said = []
        for latents in ("on", "noise"):
            page.click(f"#latents label:has-text('{latents}')")
            page.click("#ask")
            page.wait_for_selector(f"#answer-1 tr:has-text('latents'):has-text('{latents}')")
            said.append(page.inner_text("#answer-1"))
            page.wait_for_selector("#save-pdf:enabled")
        assert "right" in said[0] and "wrong" in said[1], "noise in place of the latents spoils the answer"
        wide = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert not errors and wide <= width, "nothing is cut off at the right"
    assert not [place for place in requests if not place.startswith((url, "data:", "blob:"))]
