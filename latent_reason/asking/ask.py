"""Ask a model about pictures: one trace in, its answer out, at once or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from PIL import Image as PILImage

from ..decoding.config import GenerationConfig, LatentHook
from ..decoding.queue import Finished, Request, RequestQueue
from ..decoding.replacements import NoiseOfSameNorm, StoredLatents, Zero
from ..decoding.strategies import make_decoding
from ..decoding.streaming import Answer
from ..model.batch import PAD
from ..model.reasoner import LatentReasoner
from ..trace import Image, Message, Sketch, Text, Trace
from ..visualization.storyboard import DecodedTrace

#: on: as the model draws them. off: no sketch can be opened. The others replace each latent before it is fed back.
Latents = Literal["on", "off", "zero", "noise", "foreign"]


@dataclass(frozen=True)
class AskOptions:
    """How a question is answered.

    Example:
        >>> ask(reasoner, question([image], "Which way is safe?"), AskOptions(latents="noise"))

    Args:
        latents: see ``Latents``. ``noise`` has the norm of what the model draws.
        foreign: the latents (K, D) of each span of another answer, for ``latents="foreign"``.
        latents_per_span: a fixed number of latents of a sketch; None: as the model was trained.
        steps: denoising steps of the head; None: as the model was trained.
        decoding: the name of a method of :mod:`latent_reason.decoding.strategies`, with options as in ``lead:window=8``.

    Raises:
        ValueError: an unknown method of decoding; latents are replaced under another one than plain decoding, or foreign
            ones are missing.
    """

    max_new_tokens: int = 640
    temperature: float = 0.0
    seed: int = 0
    latents: Latents = "on"
    foreign: Sequence[torch.Tensor] | None = None
    latents_per_span: int | None = None
    steps: int | None = None
    decoding: str = "plain"

    def __post_init__(self):
        if self.latents not in get_args(Latents):
            raise ValueError(f"latents={self.latents!r}: must be one of {', '.join(get_args(Latents))}.")
        if self.latents == "foreign" and not self.foreign:
            raise ValueError("latents='foreign' needs the latents of another answer that has a sketch. Give foreign.")
        make_decoding(self.decoding)  # a mistake is told before anything is loaded
        if not self.is_plain and self.latents not in ("on", "off"):
            raise ValueError(f"latents={self.latents!r} is for plain decoding. Leave the other method out.")

    @property
    def is_plain(self) -> bool:
        """Whether the answer comes position by position."""
        return self.decoding == "plain"

    @property
    def config(self) -> GenerationConfig:
        """The configuration of the engine."""
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            latent_mode="off" if self.latents == "off" else "learned",
            latents_per_span=self.latents_per_span,
            latent_hook=self._hook(),
        )

    def _hook(self) -> LatentHook | None:
        if self.latents == "zero":
            return Zero()
        if self.latents == "noise":
            return NoiseOfSameNorm(self.seed)
        return StoredLatents({0: self.foreign or ()}) if self.latents == "foreign" else None


@dataclass(frozen=True)
class DrawnSketch:
    """A sketch as soon as it is complete: latents (K, D) as they were fed back, and their grid."""

    latents: torch.Tensor
    grid: tuple[int, int]


def question(images: Sequence[PILImage.Image], text: str, earlier: Trace | None = None) -> Trace:
    """A trace that asks about pictures. ``earlier`` is a chat with its answer, which it continues."""
    message = Message("user", (*(Image(image) for image in images), Text(text)))
    if earlier is not None:
        return replace(earlier, messages=(*earlier.messages, message))
    return Trace("question", (message,), split="test")


@contextmanager
def sampling_steps(model: LatentReasoner, steps: int | None):
    """Let the head of a model sample in so many steps for a while.

    Raises:
        ValueError: the head has no steps.
    """
    if steps is None:
        yield
        return
    before = getattr(model.head, "steps", 0)
    if not before:
        kind = "no head" if model.head is None else f"a {type(model.head).__name__}"
        raise ValueError(f"the model has {kind}, which draws a latent in one pass. Leave the number of steps out.")
    model.head.set_steps(steps)
    try:
        yield
    finally:
        model.head.set_steps(before)


def ask(model: LatentReasoner, trace: Trace, options: AskOptions | None = None) -> DecodedTrace:
    """Answer the last question of a trace. Errors as of :func:`ask_each`.

    Example:
        >>> reasoner, decoder = load("checkpoints/frozenlake-tiny")
        >>> decoded = ask(reasoner, question([Image.open("board.png")], "Which way is safe?"))
        >>> print(decoded.rollout.text(decoded.row, reasoner.vocabulary))
    """
    [decoded] = ask_each(model, [trace], options)
    return decoded


def ask_each(model: LatentReasoner, traces: Sequence[Trace], options: AskOptions | None = None) -> list[DecodedTrace]:
    """Answer the last question of each trace, all in one batch.

    Raises:
        ValueError: the model has no steps to set, or a prompt is too long.
    """
    options = options or AskOptions()
    for trace in traces:
        check_room(model, trace)
    answer = make_decoding(options.decoding)
    with sampling_steps(model, options.steps):
        requests = [Request(trace, number) for number, trace in enumerate(traces)]
        done = {one.request.number: one for one in answer(model, requests, options.config, len(requests))}
    return [DecodedTrace(trace, done[n].rollout, done[n].row) for n, trace in enumerate(traces)]


def check_room(model: LatentReasoner, trace: Trace) -> None:
    """Raises ValueError if a model has no room for an answer."""
    length = len(model.processor.encode(trace, generate=True).ids)
    if length >= model.backbone.max_length:
        raise ValueError(
            f"the question takes {length} positions, and the model has {model.backbone.max_length}. Ask with smaller or "
            "fewer pictures, or a shorter text."
        )


@torch.no_grad()
def stream_answer(
    model: LatentReasoner, trace: Trace, options: AskOptions | None = None
) -> Iterator[str | DrawnSketch | DecodedTrace]:
    """The answer of :func:`ask` piece by piece: texts, sketches, and at the end the whole. A method other than plain
    decoding yields nothing before its end.

    Errors as of :func:`ask`. Closing the iterator stops the model.
    """
    options = options or AskOptions()
    if not options.is_plain:
        decoded = ask(model, trace, options)
        for piece in decoded.rollout.segments(decoded.row, model.vocabulary):
            if isinstance(piece, str):
                yield piece
            else:
                yield DrawnSketch(decoded.rollout.latents(piece), piece.grid)
        yield decoded
        return
    check_room(model, trace)
    with sampling_steps(model, options.steps):
        model.eval()
        queue, answer = RequestQueue(model, options.config, 1), Answer(model.vocabulary)
        queue.submit(Request(trace, 0))
        while not queue.is_idle:
            finished = queue.step(last=True)
            for _, row in queue.running():
                new = row.ids[answer.num_positions :]
                yield from _pieces(
                    answer, new, row.grid, lambda start, n, row=row: queue.engine.latents_of(row, start, n)
                )
            for done in finished:
                yield from _last_pieces(answer, done)
                yield DecodedTrace(trace, done.rollout, done.row)


def _pieces(answer: Answer, ids: Sequence[int], grid, latents_of) -> Iterator[str | DrawnSketch]:
    """What new ids of a row say. ``latents_of(start, length)`` gives the latents from a position of the answer on."""
    for i in ids:
        for span in answer.add([i]):
            yield DrawnSketch(latents_of(span.start, span.length), grid)
        if text := answer.send():
            yield text


def _last_pieces(answer: Answer, done: Finished) -> Iterator[str | DrawnSketch]:
    rollout, row = done.rollout, done.row
    ids = rollout.ids[row][rollout.token_type[row] != PAD].tolist()
    grid = next((span.grid for span in rollout.spans_of(row)), (1, 1))
    vectors = rollout.latent_embeds[row]
    yield from _pieces(answer, ids[answer.num_positions :], grid, lambda start, n: vectors[start : start + n])
    answer.finish()
    if text := answer.send(is_last=True):
        yield text


def latents_about(
    model: LatentReasoner, picture: PILImage.Image, text: str, options: AskOptions | None = None
) -> list[torch.Tensor]:
    """The latents (K, D) of each sketch of the answer about another picture, for ``AskOptions.foreign``.

    Raises:
        ValueError: the answer has no sketch.
    """
    other = ask(model, question([picture], text), options)
    latents = [other.rollout.latents(span) for span in other.rollout.spans_of(other.row)]
    if not latents:
        raise ValueError("the answer about the other picture has no sketch. Name another picture.")
    return latents


def answered(decoded: DecodedTrace, model: LatentReasoner, pictures: Sequence[PILImage.Image] = ()) -> Trace:
    """The chat with the answer of the model, which a further question can continue. ``pictures`` are its sketches, one
    for each span; without them the sketches are left out."""
    parts: list[Text | Sketch] = []
    sketches = iter(pictures)
    for piece in decoded.rollout.segments(decoded.row, model.vocabulary):
        if isinstance(piece, str):
            parts.append(Text(piece))
        elif (picture := next(sketches, None)) is not None:
            parts.append(Sketch(picture))
    trace = decoded.trace.prompt()
    return replace(trace, messages=(*trace.messages, Message("assistant", tuple(parts))))
