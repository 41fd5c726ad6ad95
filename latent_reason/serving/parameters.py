"""The body of a chat request -> ChatRequest. What is not supported and would change the answer is refused by name."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..decoding.config import GenerationConfig
from ..errors import did_you_mean
from ..trace import Trace
from .errors import APIError, bad
from .limits import Limits
from .messages import read_messages

KNOWN = (
    "model messages max_tokens max_completion_tokens temperature top_p seed n stream stream_options stop "
    "latent_mode latents_per_span max_spans"
).split()
#: parameters that say nothing about the answer
SILENT = {"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "parallel_tool_calls"}
#: parameters that are not supported, and the values with which they ask for nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
}
MOST_SPANS, MOST_STOPS, LONGEST_STOP = 1000, 4, 200


@dataclass(frozen=True)
class ChatRequest:
    """What is asked: a chat, how it is decoded, and how the answer is sent.

    Args:
        trace: the chat.
        config: decoding options. Requests with equal ones are decoded together.
        seed: of the randomness; choice i of ``choices`` is row i.
        max_tokens: positions of an answer; None: as many as there may be.
        stop: texts before which an answer is cut.
    """

    trace: Trace
    config: GenerationConfig
    seed: int
    max_tokens: int | None
    choices: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def read_json(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises APIError: it is none."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no number of JSON")

    try:
        found = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise bad(None, f"The body is not JSON: {str(error)[:200]}.") from None
    if not isinstance(found, dict):
        raise bad(None, "The body must be a JSON object.")
    return found


def read_request(body: Mapping[str, Any], model: str, can_sketch: bool, limits: Limits) -> ChatRequest:
    """The request in a body. ``model`` is the name that is served.

    Raises:
        APIError: a parameter is missing, wrong or not supported, or there is no such model.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name not in KNOWN and name not in SILENT and not is_neutral(name, value):
            hint = "Remove it." if name in NEUTRAL else f"Remove it. {did_you_mean(name[:80], KNOWN)}"
            raise bad(name[:80], f"not supported. {hint}", "unsupported_parameter")
    if given.get("model") != model:
        asked = repr(given["model"])[:100] if "model" in given else "no model"
        raise APIError(404, f"model: {asked} is asked for, and {model!r} is served.", "model", "model_not_found")
    max_tokens = [integer(given, name, 1, limits.max_tokens) for name in ("max_tokens", "max_completion_tokens")]
    stream = flag(given, "stream")
    seed, temperature = integer(given, "seed", -(2**63), 2**63 - 1), number_or(given, "temperature", 0.0, 0.0, 2.0)
    if seed is None:
        seed = secrets.randbits(31) if temperature else 0
    return ChatRequest(
        trace=read_messages(given.get("messages"), limits),
        config=read_config(given, temperature, can_sketch, limits),
        seed=seed,
        max_tokens=max_tokens[0] if max_tokens[1] is None else max_tokens[1],
        choices=integer(given, "n", 1, limits.slots) or 1,
        stop=read_stop(given.get("stop", [])),
        stream=stream,
        include_usage=read_usage(given.get("stream_options"), stream),
    )


def read_config(given: Mapping[str, Any], temperature: float, can_sketch: bool, limits: Limits) -> GenerationConfig:
    mode, top_p = given.get("latent_mode", "learned"), number_or(given, "top_p", 1.0, 0.0, 1.0)
    if mode not in ("learned", "off", "first"):
        raise bad("latent_mode", "must be 'learned', 'off' or 'first'.")
    if mode == "first" and not can_sketch:
        raise bad("latent_mode", "this model has no latent head. Use 'learned' or 'off'.")
    if top_p == 0:
        raise bad("top_p", "must be above 0. Use temperature=0 for the most probable tokens.")
    return GenerationConfig(
        temperature=temperature,
        top_p=top_p if temperature else 1.0,
        latent_mode=mode,
        latents_per_span=integer(given, "latents_per_span", 0, limits.max_tokens),
        max_spans=integer(given, "max_spans", 0, MOST_SPANS),
    )


def read_stop(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise bad("stop", f"must be a text or a list of at most {MOST_STOPS} texts.")
    if not all(isinstance(one, str) and 0 < len(one) <= LONGEST_STOP for one in stops):
        raise bad("stop", f"each must be a text of 1 to {LONGEST_STOP} characters.")
    return tuple(stops)


def read_usage(options: Any, stream: bool) -> bool:
    """Whether a stream ends with its usage."""
    if options is None:
        return False
    if not stream or not isinstance(options, dict) or options.keys() - {"include_usage"}:
        raise bad("stream_options", "may only say include_usage, and only with stream=true.")
    return flag(options, "include_usage")


def is_neutral(name: str, value: Any) -> bool:
    """Whether a parameter that is not supported asks for nothing. (False == 0 in Python, and True == 1.)"""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in NEUTRAL.get(name, ()))


def flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise bad(name, "must be true or false.")
    return value


def integer(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """An integer from ``low`` to ``high``; None if it is not given."""
    value = given.get(name)
    if value is not None and (type(value) is not int or not low <= value <= high):
        raise bad(name, f"must be an integer from {low} to {high}.")
    return value


def number_or(given: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise bad(name, f"must be a number from {low:g} to {high:g}.")
    return float(value)
