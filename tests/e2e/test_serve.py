"""``latent-reason serve`` as a process, and the official client of OpenAI."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO

import openai
import pytest
from native_records import picture as noise
from PIL import Image as PILImage
from processes import started
from tiny_runs import ROOT, tiny_checkpoint, tiny_reasoner

from latent_reason import Image, Message, Text, Trace, generate

OPTIONS = {"max_tokens": 48, "temperature": 0.8, "top_p": 0.9, "seed": 3}
EXTRA = {"latent_mode": "first", "latents_per_span": 3, "max_spans": 2}
LONG = {"max_tokens": 4000, "temperature": 0, "extra_body": {"latent_mode": "off"}}


class Served:
    """A server process, and a client of it."""

    def __init__(self, process, outputs):
        self.process, self.outputs = process, outputs
        end = time.monotonic() + 60
        while not (found := re.search(r"(http://127\.0\.0\.1:\d+)/v1", self.said(0))):
            assert process.exitcode is None and time.monotonic() < end, self.said(1)
            time.sleep(0.05)
        self.url = found[1]
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def said(self, stream: int) -> str:
        return self.outputs[stream].read_text() if self.outputs[stream].exists() else ""

    def ask(self, content="Which way?", **options):
        model = self.client.models.list().data[0].id
        return self.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": content}], **options
        )

    def health(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/health", timeout=10) as reply:
            return json.load(reply)

    def wait(self, number: int) -> None:
        """Until so many answers are decoded."""
        end = time.monotonic() + 30
        while self.health()["running"] != number:
            assert time.monotonic() < end, self.health()
            time.sleep(0.02)

    def end(self, number: int) -> None:
        os.kill(self.process.pid, number)
        self.process.join(60)


@contextmanager
def serving(*words):
    with started(
        "-m", "latent_reason", "serve", tiny_checkpoint(), "--port", 0, "--max-tokens", 4000, *words, cwd=ROOT
    ) as running:
        served = Served(*running)
        yield served
        served.client.close()


@pytest.fixture(scope="module")
def served():
    with serving() as one:
        yield one
        assert one.said(1) == "", "no warning and no traceback"


def part_of(image) -> dict:
    data = BytesIO()
    image.save(data, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


CONTENT = [part_of(noise(3)), {"type": "text", "text": "Which way?"}]


@pytest.fixture(scope="module")
def rollout():
    """What generate() says to the same question."""
    reasoner = tiny_reasoner()
    trace = Trace("question", (Message("user", (Image(noise(3)), Text("Which way?"))),))
    options = EXTRA | {"max_new_tokens": 48, "temperature": 0.8, "top_p": 0.9, "seed": 3}
    rollout = generate(reasoner, reasoner.processor([trace], generate=True), **options)
    return rollout, rollout.text(0, reasoner.vocabulary)


def test_an_answer_is_that_of_generate(served, rollout):
    spans, text = rollout[0].spans, rollout[1]
    reply = served.ask(CONTENT, **OPTIONS, extra_body=EXTRA)
    message = reply.choices[0].message
    assert message.content == text and reply.choices[0].finish_reason == "length"
    assert [sketch["grid"] for sketch in message.sketches] == [list(span.grid) for span in spans]
    assert reply.usage.completion_tokens == 48 and reply.usage.latents == sum(span.length for span in spans) >= 3
    image = PILImage.open(BytesIO(base64.b64decode(message.sketches[0]["image"].partition(",")[2])))
    assert image.format == "PNG" and image.mode == "RGB"
    question = {"role": "user", "content": CONTENT}
    again = served.client.chat.completions.create(
        model=reply.model,
        messages=[question, message.model_dump(exclude_none=True), {"role": "user", "content": "And then?"}],
        max_tokens=4,
    )
    assert again.usage.prompt_tokens > reply.usage.prompt_tokens + 40, "the answer with its sketches was read"


def test_a_stream_gives_the_same_text(served, rollout):
    text, sketches, reasons = "", [], []
    for chunk in served.ask(CONTENT, **OPTIONS, extra_body=EXTRA, stream=True):
        [choice] = chunk.choices
        text += choice.delta.content or ""
        sketches += [choice.delta.sketch] if hasattr(choice.delta, "sketch") else []
        reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text == rollout[1] and reasons == ["length"]
    assert sketches == served.ask(CONTENT, **OPTIONS, extra_body=EXTRA).choices[0].message.sketches


def test_two_clients_are_decoded_together_and_get_what_they_get_alone(served):
    questions = ["Which way?", "Where is the elf?"]
    alone = [served.ask(q, **LONG | {"max_tokens": 300}).choices[0].message.content for q in questions]
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(served.ask, q, **LONG | {"max_tokens": 300}) for q in questions]
        served.wait(2)
        assert [reply.result().choices[0].message.content for reply in replies] == alone
    served.wait(0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(served, stream):
    if stream:
        reply = served.ask(**LONG, stream=True)
        next(iter(reply))
        served.wait(1)
        reply.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            served.ask(**LONG, timeout=0.5)
    served.wait(0)


def test_errors_are_those_of_the_client(served):
    with pytest.raises(openai.BadRequestError, match="tools: not supported") as caught:
        served.ask(tools=[{"type": "function", "function": {"name": "f"}}])
    assert (caught.value.param, caught.value.code) == ("tools", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError, match="Nothing is downloaded"):
        served.ask([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}])
    with pytest.raises(openai.NotFoundError):
        served.client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_its_answers(number):
    with serving("--grace", "60") as one, ThreadPoolExecutor(1) as pool:
        reply = pool.submit(one.ask, **LONG | {"max_tokens": 600})
        one.wait(1)
        one.end(number)
        assert reply.result().usage.completion_tokens == 600
        assert one.process.exitcode == 0 and one.said(1) == ""


def test_answers_that_take_longer_are_told_so():
    with serving("--grace", "0") as one:
        stream = one.ask(**LONG, stream=True)
        next(iter(stream))
        with pytest.raises(openai.APIError, match="shut down"):
            one.end(signal.SIGTERM)
            list(stream)
        assert one.process.exitcode == 0 and one.said(1) == ""


def test_a_port_that_is_taken_is_an_error(served):
    port = served.url.rpartition(":")[2]
    with started("-m", "latent_reason", "serve", tiny_checkpoint(), "--port", port, cwd=ROOT) as (process, outputs):
        process.join(60)
        assert process.exitcode == 1 and re.fullmatch(r"error: .*[Aa]ddress already in use.*\n", outputs[1].read_text())
