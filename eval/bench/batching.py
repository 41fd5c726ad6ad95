"""What batching gives: next to transformers, many rows against one, and slots that take the next request at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.engine import Engine, generate
from latent_reason.decoding.queue import Request, RequestQueue
from latent_reason.model.batch import MixedBatch
from latent_reason.model.reasoner import LatentReasoner

from .clock import Ratio, measure_seconds, ratio_of, time_in_turns
from .counting import count_operations
from .findings import Finding, at_least, at_most, timed
from .models import board_prompts, board_traces, build, never_end, text_prompts
from .settings import Setting

SPREAD = 10  # the longest request over the shortest


# -- next to transformers ----------------------------------------------------------------------------------------------
def generate_text(reasoner: LatentReasoner, prompt: MixedBatch, steps: int) -> torch.Tensor:
    """(B, steps) ids that this library generates greedily after prompts of text."""
    return generate(reasoner, prompt, max_new_tokens=steps).ids


def generate_stock(reasoner: LatentReasoner, prompt: MixedBatch, steps: int) -> torch.Tensor:
    """(B, steps) ids that transformers generates greedily with the same weights after the same prompts."""
    out = reasoner.backbone.model.generate(
        input_ids=prompt.ids,
        attention_mask=prompt.mask.long(),
        max_new_tokens=steps,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=reasoner.vocabulary.pad,
    )
    return out[:, prompt.ids.shape[1] :]


def operations_a_step(decode: Callable[[int], object]) -> float:
    """Operations of one more step: those of the prompt and of the result are left out."""
    return (count_operations(partial(decode, 12)) - count_operations(partial(decode, 4))) / 8


@torch.no_grad()
def compare_with_transformers(setting: Setting) -> Iterator[Finding]:
    """Text tokens a second of this library over those of ``generate`` of transformers: the same weights, prompts and
    number of tokens."""
    reasoner = never_end(build(setting.size, method="direct")[0])
    for rows in setting.batches:
        prompt = text_prompts(reasoner, rows)
        runs: dict[str, Any] = {
            "ours": partial(generate_text, reasoner, prompt, setting.steps),
            "theirs": partial(generate_stock, reasoner, prompt, setting.steps),
        }
        same = float((runs["ours"]() == runs["theirs"]()).float().mean())
        yield Finding(f"share of equal tokens, batch {rows}", same)
        ours, theirs = (operations_a_step(partial(run, reasoner, prompt)) for run in (generate_text, generate_stock))
        details = {"ours": ours, "transformers": theirs}
        yield Finding(f"operations a token, batch {rows}", ours / theirs, at_most(1), details=details)
        if setting.is_timed:
            turns = {name: partial(measure_seconds, run, reasoner.device) for name, run in runs.items()}
            seconds = time_in_turns(turns, setting.repeats)
            rate = round(rows * setting.steps / min(seconds["ours"]), 1)
            ratio = ratio_of(seconds["theirs"], seconds["ours"])
            yield timed(f"tokens a second, batch {rows}", ratio, at_least(1), best_tokens_per_second=rate)


# -- many rows against one ---------------------------------------------------------------------------------------------
@torch.no_grad()
def compare_batches(setting: Setting) -> Iterator[Finding]:
    """Rows a second of a large batch over those of single rows: every row opens a sketch. Beside it ``generate`` of
    transformers on text, which says what a batch can give on this device."""
    if not setting.is_timed:
        return
    reasoner, many, steps = never_end(build(setting.size)[0]), setting.many, setting.steps
    options = {"max_new_tokens": steps, "latent_mode": "first"}
    ours = {rows: partial(generate, reasoner, board_prompts(reasoner, rows), **options) for rows in (1, many)}
    yield timed(f"rows a second, batch {many} over 1", batch_ratio(reasoner, ours, setting), at_least(12))
    stock = {rows: partial(generate_stock, reasoner, text_prompts(reasoner, rows), steps) for rows in (1, many)}
    yield timed(f"the same of transformers on text, batch {many} over 1", batch_ratio(reasoner, stock, setting))


def batch_ratio(reasoner: LatentReasoner, runs: dict[int, Callable[[], Any]], setting: Setting) -> Ratio:
    """Rows a second of ``setting.many`` rows over those of one row."""
    turns = {str(rows): partial(measure_seconds, run, reasoner.device) for rows, run in runs.items()}
    seconds = time_in_turns(turns, setting.repeats)
    return ratio_of([setting.many * x for x in seconds["1"]], seconds[str(setting.many)])


# -- slots that are never empty ----------------------------------------------------------------------------------------
def requests_of(reasoner: LatentReasoner, setting: Setting) -> list[Request]:
    """Requests of text whose lengths are spread evenly on a logarithmic scale, in random order."""
    n = setting.requests
    lengths = [round(setting.shortest * SPREAD ** (i / max(n - 1, 1))) for i in range(n)]
    random.Random(0).shuffle(lengths)
    traces = board_traces(min(n, 8))
    return [Request(traces[i % len(traces)], i, max_new_tokens=lengths[i]) for i in range(n)]


def decode_static(reasoner: LatentReasoner, requests: list[Request], slots: int) -> int:
    """Decode batches of so many requests, in order, each to the end of its longest. Returns passes of the text model."""
    passes = 0
    for first in range(0, len(requests), slots):
        batch = requests[first : first + slots]
        engine = Engine(reasoner, GenerationConfig(latent_mode="off"), len(batch))
        prompt = reasoner.processor([request.trace for request in batch], generate=True).to(reasoner.device)
        engine.admit(prompt, max_new_tokens=[request.max_new_tokens for request in batch])
        while engine.num_active:
            engine.step()
        passes += engine.num_passes
    return passes


def decode_continuously(reasoner: LatentReasoner, requests: list[Request], slots: int) -> int:
    """Decode the same in slots that take the next request at once. Returns passes of the text model."""
    queue = RequestQueue(reasoner, GenerationConfig(latent_mode="off"), slots)
    for request in requests:
        queue.submit(request)
    while not queue.is_idle:
        queue.step()
    return queue.engine.num_passes


@torch.no_grad()
def compare_continuous_with_static(setting: Setting) -> Iterator[Finding]:
    """Static over continuous batching of requests whose lengths are spread over a factor of ten."""
    reasoner = never_end(build(setting.size)[0])
    given = reasoner, requests_of(reasoner, setting), setting.slots
    static, continuous = decode_static(*given), decode_continuously(*given)
    details = {"static": static, "continuous": continuous, "requests": setting.requests, "slots": setting.slots}
    yield Finding("passes", static / continuous, at_least(1.8), details=details)
    if setting.is_timed:
        runs = {"static": partial(decode_static, *given), "continuous": partial(decode_continuously, *given)}
        turns = {name: partial(measure_seconds, run, reasoner.device) for name, run in runs.items()}
        seconds = time_in_turns(turns, setting.repeats)
        yield timed("time", ratio_of(seconds["static"], seconds["continuous"]), at_least(1.8))
