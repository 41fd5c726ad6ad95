"""The chat endpoint: messages and parameters, limits, errors, and the worker that decodes."""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from fastapi.testclient import TestClient
from native_records import picture as noise
from PIL import Image as PILImage
from tiny_runs import untrained

from latent_reason import generate
from latent_reason.decoding.engine import Engine
from latent_reason.model.batch import LATENT, PAD
from latent_reason.serving.answer import Answer, overlap
from latent_reason.serving.app import make_app
from latent_reason.serving.errors import APIError
from latent_reason.serving.limits import Limits
from latent_reason.serving.messages import read_messages
from latent_reason.serving.parameters import read_request
from latent_reason.serving.worker import EndEvent, SketchEvent, TextEvent, Worker
from latent_reason.trace import Image, Message, Sketch, Text

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


def png_of_size(width: int, height: int) -> str:
    """A data URL of a PNG whose header claims a size, without pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def image_url(url) -> dict:
    return ask({"type": "image_url", "image_url": {"url": url}})


# -- messages ----------------------------------------------------------------------------------------------------------
def test_a_chat_becomes_a_trace():
    image = noise(1)
    trace = read_messages(
        [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [picture_part(image), {"type": "text", "text": "Which way?"}]},
            {"role": "assistant", "content": "Left.", "refusal": None, "tool_calls": None},
            {"role": "user", "content": "Sure?", "name": "me"},
        ],
        LIMITS,
    )
    first, second, third, fourth = trace.messages
    assert first == Message("system", (Text("Be short."),)) and third == Message("assistant", (Text("Left."),))
    assert fourth == Message("user", (Text("Sure?"),)) and second.content[1] == Text("Which way?")
    assert isinstance(second.content[0], Image) and second.content[0].image.tobytes() == image.tobytes()


def test_sketches_of_an_answer_stand_where_they_stood():
    sketches = [{"index": n, "position": p, "grid": [2, 2], "image": data_url(noise(n))} for n, p in enumerate((2, 2))]
    answer = {"role": "assistant", "content": "So it is.", "sketches": sketches}
    chat = [{"role": "user", "content": "Go"}, answer, {"role": "user", "content": "On"}]
    parts = read_messages(chat, LIMITS).messages[1].content
    assert [type(part) for part in parts] == [Text, Sketch, Sketch, Text]
    assert parts[0].text + parts[3].text == "So it is." and parts[1].image.tobytes() == noise(0).tobytes()
    for wrong in (
        [*sketches[::-1], {"position": 1}],
        [{"position": 99}],
        [{"position": -1}],
        [3],
        "x",
        [sketches[0]] * 3,
    ):
        answer["sketches"] = wrong
        with pytest.raises(APIError):
            read_messages(chat, LIMITS)
    answer["sketches"] = [sketches[0] | {"image": None}]
    with pytest.raises(APIError, match="has no image, so that it cannot be read again"):
        read_messages(chat, LIMITS)


# -- hostile and wrong requests ----------------------------------------------------------------------------------------
WRONG = {
    "no object": (b"[]", 400, "must be a JSON object"),
    "no JSON": (b"{", 400, "is not JSON"),
    "no UTF-8": (b'{"model": "\xff"}', 400, "is not JSON"),
    "deeply nested": (b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, ""),
    "a number of 10,000 digits": (b'{"seed": ' + b"9" * 10_000 + b"}", 400, "is not JSON"),
    "infinity": (b'{"temperature": Infinity}', 400, "is not JSON"),
    "a large body": (b" " * 200_001, 413, "larger than 200,000 bytes"),
    "no messages": ({"model": NAME}, 400, "messages: must be a list"),
    "another model": (ask(model="gpt-4"), 404, "'tiny' is served"),
    "no model": ({"messages": []}, 404, "no model is asked for"),
    "tools": (ask(tools=[{"type": "function"}]), 400, "tools: not supported. Remove it"),
    "a format": (ask(response_format={"type": "json_object"}), 400, "response_format: not supported"),
    "log-probabilities": (ask(logprobs=True), 400, "logprobs: not supported"),
    "a penalty": (ask(frequency_penalty=1), 400, "frequency_penalty: not supported"),
    "an unknown parameter": (ask(max_token=3), 400, "Did you mean 'max_tokens'?"),
    "too many tokens": (ask(max_tokens=201), 400, "max_tokens: must be an integer from 1 to 200"),
    "no tokens": (ask(max_completion_tokens=0), 400, "from 1 to 200"),
    "tokens as a text": (ask(max_tokens="9"), 400, "must be an integer"),
    "true tokens": (ask(max_tokens=True), 400, "must be an integer"),
    "a hot temperature": (ask(temperature=2.1), 400, "a number from 0 to 2"),
    "no probability": (ask(top_p=0), 400, "top_p: must be above 0"),
    "a large seed": (ask(seed=2**63), 400, "seed: must be an integer"),
    "many choices": (ask(n=4), 400, "n: must be an integer from 1 to 3"),
    "a stream by text": (ask(stream="yes"), 400, "stream: must be true or false"),
    "usage without a stream": (ask(stream_options={"include_usage": True}), 400, "only with stream=true"),
    "five stops": (ask(stop=list("abcde")), 400, "at most 4 texts"),
    "an empty stop": (ask(stop=""), 400, "1 to 200 characters"),
    "a number as a stop": (ask(stop=[3]), 400, "1 to 200 characters"),
    "an unknown mode": (ask(latent_mode="on"), 400, "must be 'learned', 'off' or 'first'"),
    "10^9 latents": (ask(latents_per_span=10**9), 400, "latents_per_span: must be an integer from 0 to 200"),
    "10^9 spans": (ask(max_spans=10**9), 400, "max_spans: must be an integer from 0 to 1000"),
    "no role": (ask(messages=[{"content": "x"}]), 400, "messages[0].role must be one of"),
    "a role of tools": (ask(messages=[{"role": "tool", "content": "x"}]), 400, "messages[0].role must be one of"),
    "an answer at the end": (ask(messages=[{"role": "assistant", "content": "x"}]), 400, "must be of the role user"),
    "a text as a message": (ask(messages=["x"]), 400, "messages[0] must be an object"),
    "no content": (ask(messages=[{"role": "user"}]), 400, "content must be a text or a list"),
    "no parts": (ask(messages=[{"role": "user", "content": []}]), 400, "content must be a text or a list"),
    "calls of tools": (
        ask(messages=[{"role": "assistant", "content": "x", "tool_calls": [{}]}]),
        400,
        "tool_calls is not supported",
    ),
    "sound": (ask({"type": "input_audio", "input_audio": {}}), 400, "must be a part of the type text"),
    "a picture in an answer": (
        ask(messages=[{"role": "assistant", "content": [picture_part()]}]),
        400,
        "must be a part of the type text with its text.",
    ),
    "half of a character": (ask(messages=[{"role": "user", "content": "\ud800"}]), 400, "surrogate"),
    "an address": (image_url("https://example.com/a.png"), 400, "Nothing is downloaded"),
    "a file": (image_url("file:///etc/passwd"), 400, "Nothing is downloaded"),
    "a path": (image_url("/etc/passwd"), 400, "Nothing is downloaded"),
    "an SVG": (image_url("data:image/svg+xml;base64,PHN2Zz4="), 400, "must be a data URL of a PNG"),
    "a number as an address": (image_url(7), 400, "must be a data URL"),
    "low detail": (
        ask({"type": "image_url", "image_url": {"url": data_url(noise(0)), "detail": "low"}}),
        400,
        "no detail but 'auto' or 'high'",
    ),
    "no base64": (image_url("data:image/png;base64,$$$$"), 400, "is not base64"),
    "an empty picture": (image_url("data:image/png;base64,"), 400, "it is empty"),
    "a GIF": (image_url(data_url(noise(0), "GIF").replace("gif", "png")), 400, "not a readable PNG"),
    "half of a picture": (image_url(data_url(noise(0))[:-80]), 400, "cannot be decoded"),
    "a decompression bomb": (image_url(png_of_size(60_000, 60_000)), 400, "is too large"),
    "a large picture": (image_url(data_url(PILImage.new("RGB", (101, 100)))), 400, "0 megapixels are read"),
    "three pictures": (ask(*[picture_part()] * 3), 400, "more than 2 pictures"),
}


@pytest.fixture(scope="module")
def worker():
    reasoner, decoder = untrained()
    worker = Worker(reasoner, decoder, LIMITS)
    worker.start()
    yield worker
    worker.stop()
    worker.join(20)
    assert not worker.is_alive()


@pytest.fixture(scope="module")
def client(worker):
    with TestClient(make_app(worker, NAME), base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def post(client, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"} | headers)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_to_do(client, name):
    body, status, said = WRONG[name]
    reply = post(client, body)
    error = reply.json()["error"]
    assert (reply.status_code, error.keys()) == (status, {"message", "type", "param", "code"})
    assert said in error["message"] and len(error["message"]) < 600
    assert error["message"].endswith((".", "?"))


def test_only_json_for_this_host_is_read(client):
    assert post(client, ask(), **{"Content-Type": "text/plain"}).status_code == 415
    assert post(client, ask(), Host="evil.example:8000").status_code == 403
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/v1/models", headers={"Host": "localhost:1"}).json()["data"][0]["id"] == NAME
    assert client.get(f"/v1/models/{NAME}").json()["object"] == "model"
    assert client.get("/v1/models/x").status_code == 404
    assert "is not served" in client.get("/x").json()["error"]["message"]
    assert client.get("/v1/chat/completions").status_code == 405
    assert client.get("/health").json()["status"] == "ok"


def test_what_changes_nothing_is_taken():
    body = ask(user="me", tools=[], logprobs=False, frequency_penalty=0, n=2, stop="x", top_p=0.5, logit_bias=None)
    request = read_request(body | {"max_tokens": 5, "max_completion_tokens": 7}, NAME, True, LIMITS)
    assert (request.max_tokens, request.choices, request.stop, request.seed) == (7, 2, ("x",), 0)
    assert request.config.top_p == 1, "without a temperature it says nothing"
    seeds = {read_request(ask(temperature=1.0), NAME, True, LIMITS).seed for _ in range(3)}
    assert len(seeds) == 3 and read_request(ask(temperature=1.0, seed=4), NAME, True, LIMITS).seed == 4
    with pytest.raises(APIError, match="no latent head"):
        read_request(ask(latent_mode="first"), NAME, False, LIMITS)


# -- text as it is written ---------------------------------------------------------------------------------------------
def test_text_is_sent_in_whole_characters(worker):
    v = worker.model.vocabulary
    for text in ("Go up. \\boxed{U,D}", "naïve 漢字 \U0001f9dd é", "   spaces\n\n"):
        ids = v.encode_text(text, plain=True)
        answer, pieces = Answer(v), []
        for i in ids:
            answer.add([i])
            pieces.append(answer.send())
            assert "\ufffd" not in pieces[-1]
        answer.finish()
        assert "".join(pieces) + answer.send(is_last=True) == v.decode(ids) == answer.text


def test_a_stop_string_is_never_sent(worker):
    v = worker.model.vocabulary
    ids = [v.open, v.latent, v.latent, v.close, *v.encode_text("one two END three", plain=True)]
    answer, sent = Answer(v, ["END", "nothing"]), ""
    spans = []
    for i in ids:
        spans += answer.add([i])
        sent += answer.send()
    assert sent == answer.text == v.decode(ids).partition("END")[0] and answer.is_stopped
    assert spans == [(1, 2, 0)] and answer.num_latents == 2
    assert answer.num_positions < len(ids), "what comes after it is not read"
    assert [overlap(text, "abab") for text in ("xab", "aba", "b", "")] == [2, 3, 0, 0]


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


def wait(is_done, seconds=30):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.005)


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
