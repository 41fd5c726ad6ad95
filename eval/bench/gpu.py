"""Speed on one GPU: text tokens and latents a second against the bandwidth of its memory, and training against its
arithmetic. Parts are apart: one that fails or takes too long leaves its error, and the others go on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from latent_reason.model.reasoner import LatentReasoner
from train.planning.devices import device_by_name

from .clock import measure_seconds
from .findings import Finding, at_least
from .models import build, never_end
from .steps import start_engine, weight_bytes
from .training import train_once, training_batch

SECONDS = 450  # of all parts; the script that runs them ends them after eight minutes
BATCHES = (1, 16, 64)
STEPS = 32  # that are timed at once
EXAMPLES = 64  # of a training step; half as many where they do not fit
REPEATS = 3


@dataclass
class Models:
    """Models by size, each built when it is first needed. ``is_tiny``: the tiny one stands for all of them."""

    is_tiny: bool
    built: dict[str, LatentReasoner] = field(default_factory=dict)

    def get(self, size: str) -> LatentReasoner:
        size = "tiny" if self.is_tiny else size
        if size not in self.built:
            self.built[size] = never_end(build(size)[0])
        return self.built[size]


@dataclass(frozen=True)
class Part:
    """What is measured at once, in at most so many seconds."""

    name: str
    run: Callable[[Models], Iterator[Finding]]
    seconds: float


# -- limits of the device ----------------------------------------------------------------------------------------------
def memory_bandwidth(device: torch.device) -> float:
    """Bytes a second: by the data sheet, or else of a copy."""
    known = device_by_name(torch.cuda.get_device_name()) if device.type == "cuda" else None
    if known is not None:
        return known.bandwidth
    x = torch.ones(2**28 if device.type == "cuda" else 2**24, device=device)
    y = torch.empty_like(x)
    y.copy_(x)
    seconds = min(measure_seconds(partial(y.copy_, x), device) for _ in range(5))
    return 2 * x.nbytes / seconds


@contextmanager
def limit_seconds(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds."""

    def stop(*given):
        raise TimeoutError(f"it took more than {seconds:.0f} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- parts -------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def measure_decoding(models: Models, size: str, batches: tuple[int, ...], compiled: bool) -> Iterator[Finding]:
    """The share of the time of a step that reading its weights takes, for steps of text and of latents."""
    reasoner = models.get(size)
    steps, bandwidth = 4 if models.is_tiny else STEPS, memory_bandwidth(reasoner.device)
    read = {kind: weight_bytes(reasoner, start_engine(reasoner, kind, 1, 1)) for kind in ("text", "latent")}
    for rows in batches:
        for kind in ("text", "latent"):
            engine = start_engine(reasoner, kind, rows, (REPEATS + 1) * steps, compile=compiled)
            taken = partial(take_steps, engine, steps)
            taken()  # a CUDA graph is recorded in its first steps
            seconds = min(measure_seconds(taken, reasoner.device) for _ in range(REPEATS)) / steps
            what = f"{size}, batch {rows}, {kind}{', compiled' if compiled else ''}: share of the bandwidth"
            rate = {"per_second": round(rows / seconds, 1), "step_ms": round(1e3 * seconds, 3)}
            rate |= {"weight_bytes": read[kind], "bandwidth": bandwidth}
            yield Finding(what, read[kind] / bandwidth / seconds, at_least(0.5), True, rate)


def take_steps(engine, steps: int) -> None:
    for _ in range(steps):
        engine.step()


def measure_training(models: Models, size: str) -> Iterator[Finding]:
    """Model FLOPs utilization of a training step with its optimizer, and tokens a second."""
    reasoner, examples = models.get(size), 4 if models.is_tiny else EXAMPLES
    weights = [p for p in reasoner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=reasoner.device.type == "cuda")
    try:
        tokens, examples, seconds = time_training(reasoner.train(), optimizer, examples)
    finally:  # the next part needs the memory
        reasoner.zero_grad(set_to_none=True)
        reasoner.eval()
    arithmetic = 6 * sum(p.numel() for p in reasoner.backbone.text_model.parameters()) * tokens / seconds
    rate = {"tokens_per_second": round(tokens / seconds), "examples": examples, "flops": arithmetic}
    if reasoner.device.type == "cuda":
        rate["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    device = device_by_name(torch.cuda.get_device_name()) if reasoner.device.type == "cuda" else None
    if device is None:
        yield Finding(f"{size}: trained tokens a second", tokens / seconds, None, True, rate)
    else:
        yield Finding(f"{size}: MFU of training", arithmetic / device.flops, at_least(0.45), True, rate)


def time_training(reasoner: LatentReasoner, optimizer: torch.optim.Optimizer, examples: int) -> tuple[int, int, float]:
    """Tokens, examples and seconds of the fastest step. Where the device has no memory for so many examples, of half as
    many."""
    batch = training_batch(reasoner, examples)

    def step():
        train_once(reasoner, batch)
        optimizer.step()

    try:
        step()
        seconds = min(measure_seconds(step, reasoner.device) for _ in range(REPEATS))
    except torch.cuda.OutOfMemoryError:
        if examples == 1:
            raise
        seconds = None  # the next try begins outside of this block, which holds the tensors of this one
    if seconds is None:
        reasoner.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return time_training(reasoner, optimizer, examples // 2)
    return int(batch.mask.sum()), examples, seconds


def decoding_part(size: str, batches: tuple[int, ...], compiled: bool, seconds: float) -> Part:
    name = f"{size} {'compiled' if compiled else 'decoding'} {','.join(map(str, batches))}"
    return Part(name, partial(measure_decoding, size=size, batches=batches, compiled=compiled), seconds)


#: what matters most comes first
PARTS = (
    decoding_part("0.5b", BATCHES, False, 60),
    decoding_part("3b", BATCHES, False, 100),
    Part("3b training", partial(measure_training, size="3b"), 80),
    decoding_part("3b", (1,), True, 100),
    Part("0.5b training", partial(measure_training, size="0.5b"), 40),
    decoding_part("0.5b", BATCHES, True, 120),
    decoding_part("3b", BATCHES[1:], True, 120),
)
TINY_PARTS = (
    decoding_part("tiny", (1, 2), False, 60),
    Part("tiny training", partial(measure_training, size="tiny"), 60),
    decoding_part("tiny", (1,), True, 120),
)


def run_parts(is_tiny: bool, seconds: float = SECONDS) -> Iterator[tuple[str, list[Finding], str | None]]:
    """Each part by name: what it found, and what went wrong (None: nothing)."""
    models, started = Models(is_tiny), time.monotonic()
    for part in TINY_PARTS if is_tiny else PARTS:
        found: list[Finding] = []
        left, error = started + seconds - time.monotonic(), None
        if left < 5:
            yield part.name, found, f"no time was left of {seconds:.0f} seconds"
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            with limit_seconds(min(part.seconds, left)):
                for one in part.run(models):
                    found.append(one)
        except Exception as failed:  # the other parts are wanted
            error = f"{type(failed).__name__}: {failed}"
        yield part.name, found, error
