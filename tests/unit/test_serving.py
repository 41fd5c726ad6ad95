"""The chat endpoint: messages and parameters, wrong and hostile requests, and text as it is written."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from chat_requests import LIMITS, NAME, ask, client_of, data_url, picture_part, post, running_worker
from native_records import picture as noise
from PIL import Image as PILImage

from latent_reason.decoding.streaming import Answer, overlap
from latent_reason.serving.errors import APIError
from latent_reason.serving.messages import read_messages
from latent_reason.serving.parameters import read_request
from latent_reason.trace import Image, Message, Sketch, Text


@pytest.fixture(scope="module")
def worker():
    with running_worker() as worker:
        yield worker


@pytest.fixture(scope="module")
def client(worker):
    with client_of(worker) as client:
        yield client


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
