"""What a step of the engine costs: against the plain loop, a latent against a text token, and against the old loop."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch

from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.engine import Engine
from latent_reason.model.reasoner import LatentReasoner

from .clock import measure_seconds, ratio_of, time_in_turns
from .counting import HostReads, WeightBytes, count_operations
from .findings import Finding, at_most, timed
from .models import board_prompts, build, never_end, plain_step
from .old_loop import OldLoop
from .settings import Setting

Kind = Literal["text", "latent", "mixed"]
KINDS: tuple[Kind, ...] = ("text", "latent", "mixed")
#: operations of a step over those of the plain loop. A mixed step does what both others do
MOST_OPERATIONS = {"text": 1.25, "latent": 1.5, "mixed": 1.75}
MOST_READS = {"text": 1, "latent": 0, "mixed": 1}
LATENT_SIZES = ("30m", "100m")  # a head is no small part of a smaller model
WARM = 3  # steps before the first that is measured


class StepCounts(NamedTuple):
    """Operations of the median step, and reads of the mean one."""

    operations: float
    reads: float


def count_steps(step: Callable[[], object], steps: int) -> StepCounts:
    """Counts of ``2 * steps`` steps: operations of one half, reads of the other."""
    operations = [count_operations(step) for _ in range(steps)]
    with HostReads() as reads:
        for _ in range(steps):
            step()
    return StepCounts(statistics.median(operations), reads.total / steps)


def config_of(reasoner: LatentReasoner, kind: Kind, rows: int, steps: int, temperature: float) -> GenerationConfig:
    """Options under which ``rows`` rows write (text), are in a span (latent), or every second one is (mixed)."""
    budget = steps + WARM + 4  # more than are taken, so that no row ends
    forced = {"text": [[]], "latent": [[reasoner.vocabulary.open]], "mixed": [[reasoner.vocabulary.open], []]}[kind]
    return GenerationConfig(
        max_new_tokens=budget,
        temperature=temperature,
        latents_per_span=budget,
        max_spans=0,  # none besides those that are forced open
        forced_tokens=[forced[row % len(forced)] for row in range(rows)],
    )


def start_engine(
    reasoner: LatentReasoner, kind: Kind, rows: int, steps: int, temperature: float = 0.0, **options: Any
) -> Engine:
    """An engine whose next ``steps`` steps are of one kind. ``options`` are more of the configuration."""
    config = replace(config_of(reasoner, kind, rows, steps, temperature), **options)
    engine = Engine(reasoner, config, rows)
    engine.admit(board_prompts(reasoner, rows))
    for _ in range(WARM):
        engine.step()
    if engine.kind != kind:
        raise RuntimeError(f"the next step is of kind {engine.kind!r}, expected {kind!r}.")
    return engine


def start_old_loop(reasoner: LatentReasoner, kind: Kind, rows: int, steps: int, temperature: float = 0.0) -> OldLoop:
    """The old loop in the same place."""
    loop = OldLoop(reasoner, board_prompts(reasoner, rows), config_of(reasoner, kind, rows, steps, temperature))
    for _ in range(WARM):
        loop.step()
    return loop


Start = Callable[..., Engine | OldLoop]


def seconds_of_steps(
    start: Start, reasoner: LatentReasoner, kind: Kind, rows: int, steps: int, temperature: float = 0.0
) -> float:
    """Seconds of ``steps`` steps of what ``start`` gives. The start is not timed."""
    decoder = start(reasoner, kind, rows, steps, temperature)
    return measure_seconds(lambda: [decoder.step() for _ in range(steps)], reasoner.device)


def weight_bytes(reasoner: LatentReasoner, engine: Engine) -> int:
    """Bytes of weights that the next step reads."""
    with WeightBytes(chain(reasoner.parameters(), reasoner.buffers())) as weights:
        engine.step()
    return weights.total


# -- measures ----------------------------------------------------------------------------------------------------------
@torch.no_grad()
def count_against_plain(setting: Setting) -> Iterator[Finding]:
    """Operations and host reads of a step, against the plainest loop over the same model."""
    reasoner = never_end(build(setting.size)[0])
    plain = count_steps(plain_step(reasoner, board_prompts(reasoner, setting.rows)), setting.counted)
    for kind in KINDS:
        engine = start_engine(reasoner, kind, setting.rows, 2 * setting.counted)
        found = count_steps(engine.step, setting.counted)
        counts = {"operations": found.operations, "plain_operations": plain.operations, "rows": setting.rows}
        ratio = found.operations / plain.operations
        yield Finding(f"{kind}: operations over the plain loop", ratio, at_most(MOST_OPERATIONS[kind]), details=counts)
        yield Finding(f"{kind}: host reads a step", found.reads, at_most(MOST_READS[kind]))


@torch.no_grad()
def compare_latent_with_text(setting: Setting) -> Iterator[Finding]:
    """A step that draws a latent by four Euler steps of the flow head, over a step that writes a token, for two sizes
    of the model."""
    for model_size in LATENT_SIZES:
        reasoner = never_end(build(model_size)[0])
        text, latent = (weight_bytes(reasoner, start_engine(reasoner, kind, 1, 1)) for kind in ("text", "latent"))
        size = sum(p.numel() for p in reasoner.backbone.text_model.parameters())
        details = {"text": text, "latent": latent, "language_parameters": size}
        yield Finding(f"bytes of weights read, {model_size}", latent / text, at_most(1.15), details=details)
        for rows in (1, setting.rows):
            yield from compare_latent_of(reasoner, model_size, rows, setting)


def compare_latent_of(reasoner: LatentReasoner, size: str, rows: int, setting: Setting) -> Iterator[Finding]:
    """The same for one model and one number of rows."""
    text, latent = (
        count_steps(start_engine(reasoner, kind, rows, 2 * setting.counted).step, setting.counted)
        for kind in ("text", "latent")
    )
    details, name = {"text": text.operations, "latent": latent.operations}, f"{size}, batch {rows}"
    yield Finding(f"operations, {name}", latent.operations / text.operations, at_most(1.5), details=details)
    if setting.is_timed:
        runs = {
            kind: partial(seconds_of_steps, start_engine, reasoner, kind, rows, setting.steps)
            for kind in ("text", "latent")
        }
        seconds = time_in_turns(runs, setting.repeats)
        yield timed(f"time, {name}", ratio_of(seconds["latent"], seconds["text"]), at_most(1.15))


@torch.no_grad()
def compare_with_old_loop(setting: Setting) -> Iterator[Finding]:
    """A step of the engine over one of the loop before slots, sampling at temperature 1."""
    reasoner, rows = never_end(build(setting.size)[0]), setting.rows
    for kind in KINDS:
        new, old = (
            count_steps(start(reasoner, kind, rows, 2 * setting.counted, 1.0).step, setting.counted)
            for start in (start_engine, start_old_loop)
        )
        details = {"engine": new.operations, "old_loop": old.operations}
        yield Finding(f"{kind}: operations", new.operations / old.operations, at_most(1), details=details)
        details = {"engine": new.reads, "old_loop": old.reads}
        yield Finding(f"{kind}: host reads", new.reads / old.reads, at_most(1), details=details)
        if setting.is_timed:
            runs = {
                name: partial(seconds_of_steps, start, reasoner, kind, rows, setting.steps, 1.0)
                for name, start in (("engine", start_engine), ("old loop", start_old_loop))
            }
            seconds = time_in_turns(runs, setting.repeats)
            yield timed(f"{kind}: time", ratio_of(seconds["engine"], seconds["old loop"]), at_most(1))
