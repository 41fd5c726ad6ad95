"""The worker of the chat endpoint: answers, limits and faults."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from chat_requests import LIMITS, NAME, ask, client_of, picture_part, post, running_worker, wait
from native_records import picture as noise
from PIL import Image as PILImage
from tiny_runs import untrained

from latent_reason import generate
from latent_reason.decoding.engine import Engine
from latent_reason.model.batch import LATENT, PAD
from latent_reason.serving.errors import APIError
from latent_reason.serving.parameters import read_request
from latent_reason.serving.worker import EndEvent, SketchEvent, TextEvent, Worker


@pytest.fixture(scope="module")
def worker():
    with running_worker() as worker:
        yield worker


@pytest.fixture(scope="module")
def client(worker):
    with client_of(worker) as client:
        yield client


# -- answers -----------------------------------------------------------------------------------------------------------
SAMPLED = {"temperature": 1.0, "seed": 5, "latent_mode": "first", "max_tokens": 40}


def alone(worker, request, choice=0):
    """What generate() says for a choice of a request: its text, latents and positions."""
    prompt = worker.model.processor([request.trace], generate=True)
    config = replace(request.config, seed=request.seed, max_new_tokens=request.max_tokens)
    rollout = generate(worker.model, prompt, config, row_ids=[choice])
    kind = rollout.token_type[0]
    return rollout.text(0, worker.model.vocabulary), int((kind == LATENT).sum()), int((kind != PAD).sum())


def events_of(worker, *requests):
    """All events of some requests, which are submitted at once."""
    found = [[] for _ in requests]
    for request, events in zip(requests, found, strict=True):
        worker.submit(request, events.append)
    wait(
        lambda: all(
            sum(isinstance(e, EndEvent | APIError) for e in events) >= r.choices
            for r, events in zip(requests, found, strict=True)
        )
    )
    return found


def test_an_answer_does_not_depend_on_the_others(worker, monkeypatch):
    bodies = [
        ask(picture_part(), {"type": "text", "text": "Go"}, **SAMPLED),
        ask(**SAMPLED | {"max_tokens": 60}),
        ask(picture_part(noise(2)), **SAMPLED | {"seed": 6, "max_tokens": 9}),
        ask(temperature=0, max_tokens=30),
    ]
    requests = [read_request(body, NAME, True, LIMITS) for body in bodies]
    wanted, steps, step = [alone(worker, request) for request in requests], [], Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: (steps.append(engine.num_active), step(engine)))
    for events, (text, latents, positions) in zip(events_of(worker, *requests), wanted, strict=True):
        end = events[-1]
        assert "".join(event.text for event in events if isinstance(event, TextEvent)) == text
        assert (end.latents, end.completion_tokens) == (latents, positions)
        assert end.finish_reason == "length"
    assert max(steps) == 3, "decoded together"
    assert sum(steps) == sum(positions for *_, positions in wanted)
    wait(lambda: not worker.engines and not worker.num_open)


def test_choices_are_rows_of_one_seed(client, worker):
    body = ask(picture_part(), **SAMPLED, n=3)
    request = read_request(body, NAME, True, LIMITS)
    reply = post(client, body).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    wanted = [alone(worker, request, choice) for choice in range(3)]
    assert reply["usage"]["completion_tokens"] == sum(positions for *_, positions in wanted) == 120
    assert reply["usage"]["latents"] == sum(latents for _, latents, _ in wanted) > 0
    assert [choice["message"]["content"] for choice in reply["choices"]] == [text for text, *_ in wanted]
    assert len({text for text, *_ in wanted}) == 3


def test_a_sketch_is_the_picture_of_its_latents(client, worker):
    body = ask(picture_part(PILImage.new("RGB", (96, 64))), **SAMPLED)
    request = read_request(body, NAME, True, LIMITS)
    rollout = generate(
        worker.model,
        worker.model.processor([request.trace], generate=True),
        replace(request.config, seed=5, max_new_tokens=40),
    )
    [span] = rollout.spans
    size = worker.model.backbone.token_grid(request.trace.images()[-1])
    drawn = worker.decoder.draw(rollout.latents(span), span.grid, size)
    reply = post(client, body).json()
    [sketch] = reply["choices"][0]["message"]["sketches"]
    assert (sketch["index"], sketch["position"], sketch["grid"]) == (0, 0, list(span.grid))
    image = PILImage.open(BytesIO(base64.b64decode(sketch["image"].partition(",")[2])))
    assert image.size == drawn.size and PILImage.Image.tobytes(image) == drawn.tobytes()


def test_a_stream_says_the_same(client):
    body = ask(picture_part(), **SAMPLED, n=2)
    whole = post(client, body).json()
    lines = post(client, body | {"stream": True, "stream_options": {"include_usage": True}}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert chunks[-1]["usage"] == whole["usage"] and chunks[-1]["choices"] == []
    for wanted in whole["choices"]:
        own = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == wanted["index"]]
        deltas = [chunk["delta"] for chunk in own]
        assert deltas[0]["role"] == "assistant" and own[-1]["finish_reason"] == wanted["finish_reason"]
        assert "".join(delta.get("content", "") for delta in deltas) == wanted["message"]["content"]
        assert [delta["sketch"] for delta in deltas if "sketch" in delta] == wanted["message"]["sketches"]


def test_a_stop_string_ends_the_row(client, worker):
    body = ask(temperature=0, max_tokens=60, latent_mode="off")
    text = post(client, body).json()["choices"][0]["message"]["content"]
    stop = text[10:13]
    reply = post(client, body | {"stop": [stop, "nowhere"]}).json()
    assert reply["choices"][0]["message"]["content"] == text.partition(stop)[0]
    assert reply["choices"][0]["finish_reason"] == "stop" and reply["usage"]["completion_tokens"] < 60
    wait(lambda: not worker.engines)


def test_without_a_decoder_a_sketch_has_no_image():
    reasoner, _ = untrained()
    worker = Worker(reasoner, None, LIMITS)
    worker.start()
    [events] = events_of(worker, read_request(ask(**SAMPLED), NAME, True, LIMITS))
    worker.stop()
    assert [event.image for event in events if isinstance(event, SketchEvent)] == [None]


# -- limits and faults -------------------------------------------------------------------------------------------------
LONG = {"temperature": 0, "latent_mode": "off", "max_tokens": 200}


def test_a_full_queue_refuses(worker):
    found, request = [], read_request(ask(**LONG), NAME, True, LIMITS)
    numbers = [worker.submit(request, found.append) for _ in range(5)]
    with pytest.raises(APIError) as caught:
        worker.submit(request, found.append)
    assert caught.value.status == 429
    wait(lambda: len(worker.running) == 3)
    for number in numbers:
        worker.cancel(number)
    wait(lambda: not worker.num_open and not worker.engines)
    assert not any(isinstance(event, EndEvent) for event in found)


def test_many_ways_to_decode_share_few_engines(worker):
    requests = [read_request(ask(**SAMPLED | {"temperature": t / 5}), NAME, True, LIMITS) for t in range(1, 6)]
    for events, request in zip(events_of(worker, *requests), requests, strict=True):
        text = "".join(event.text for event in events if isinstance(event, TextEvent))
        assert (text, events[-1].completion_tokens) == alone(worker, request)[::2]


def test_a_fault_ends_its_request_alone(worker, monkeypatch, caplog):
    good, evil = (
        read_request(ask(text, **LONG), NAME, True, LIMITS)
        for text in ({"type": "text", "text": t} for t in ("go", "evil"))
    )
    model_of, embed = worker.model, worker.model.prompt_embeddings
    word = model_of.vocabulary.encode_text("evil")[0]

    def broken(prompt):
        if (prompt.ids == word).any():
            raise RuntimeError("the device is on fire")
        return embed(prompt)

    monkeypatch.setattr(worker.model, "prompt_embeddings", broken)
    first, failed = events_of(worker, good, evil)
    assert failed[0].status == 500 and "fire" not in failed[0].message and "RuntimeError" in failed[0].message
    assert first[-1].completion_tokens == 200 and "the device is on fire" in caplog.text
    monkeypatch.setattr(worker.model, "prompt_embeddings", embed)
    monkeypatch.setattr(Engine, "step", lambda engine: 1 / 0)
    assert [events[-1].status for events in events_of(worker, good, good)] == [500, 500]
    monkeypatch.undo()
    assert events_of(worker, good)[0][-1].finish_reason == "length"


def test_a_prompt_that_is_too_long_is_refused(client, monkeypatch, worker):
    monkeypatch.setattr(type(worker.model.backbone), "max_length", 30)
    error = post(client, ask({"type": "text", "text": "go " * 40})).json()["error"]
    assert error["code"] == "context_length_exceeded" and "Make the prompt shorter" in error["message"]
    assert post(client, ask()).json()["choices"][0]["finish_reason"] == "length", "as much as there is room"


def test_a_picture_that_the_model_cannot_take_is_refused(client):
    reply = post(client, ask(picture_part(PILImage.new("RGB", (9000, 1)))))
    assert reply.status_code == 400 and "cannot take them: absolute aspect ratio" in reply.json()["error"]["message"]


def test_the_end_is_told_to_those_who_wait():
    worker = Worker(*untrained(), LIMITS)
    worker.start()
    request, found = read_request(ask(**LONG), NAME, True, LIMITS), []
    for _ in range(4):
        worker.submit(request, found.append)
    wait(lambda: len(worker.running) == 3)
    worker.stop()
    worker.join(20)
    assert [event.status for event in found if isinstance(event, APIError)] == [503] * 4
    with pytest.raises(APIError, match="shutting down"):
        worker.submit(request, found.append)


def test_many_clients_at_once(client):
    bodies = [ask(**SAMPLED | {"seed": seed, "max_tokens": 20}) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda body: post(client, body).json(), bodies))
    one_by_one = [post(client, body).json() for body in bodies]
    assert [r["choices"] for r in together] == [r["choices"] for r in one_by_one]


def test_seeds_of_rows_are_those_of_runs(worker):
    """Rows of one engine with seeds of their own draw what they draw alone with these seeds."""
    request = read_request(ask(**SAMPLED), NAME, True, LIMITS)
    prompt = worker.model.processor([request.trace] * 2, generate=True)
    engine = Engine(worker.model, replace(request.config, max_new_tokens=12), 2)
    group = engine.admit(prompt, row_ids=[0, 0], seeds=[5, 9])
    while engine.num_active:
        engine.step()
        early = [engine.latents_of(row, 1, 4) for row in group.rows] if engine.num_steps == 6 else []
        if early:
            kept = early
    both = engine.collect(group)
    for row, seed in enumerate((5, 9)):
        one = generate(
            worker.model,
            worker.model.processor([request.trace], generate=True),
            request.config,
            max_new_tokens=12,
            seed=seed,
        )
        assert torch.equal(both.ids[row], one.ids[0])
        assert torch.equal(kept[row], both.latents(both.spans_of(row)[0]))
