"""Requests in a queue, decoded by continuous batching: a row that has ended leaves its slot to the next request.

Evaluation, rollouts of many items and serving go through it. A result does not depend on what else is decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from ..model.batch import LATENT, TEXT, MixedBatch
from ..model.reasoner import LatentReasoner
from ..trace import Trace
from .config import GenerationConfig
from .engine import Engine
from .host_rows import Group, Row
from .prompt_store import PromptStore, join_prompts
from .prompts import ComputedPrompts, compute_prompts
from .rollout import Rollout


@dataclass
class Request:
    """A prompt to be continued.

    Args:
        trace: what is continued; see :class:`~latent_reason.Processor`. Requests with one trace object that begin
            together share its computation.
        number: its name among the requests, which keys its randomness and which a latent hook gets.
        row_id: another key of its randomness.
        max_new_tokens, forced_tokens, seed: those of the configuration, if None.
        prompts: where its computed prompt is kept, and taken from if it is there.
    """

    trace: Trace
    number: int
    row_id: int | None = None
    max_new_tokens: int | None = None
    forced_tokens: Sequence[int] | None = None
    seed: int | None = None
    prompts: PromptStore | None = None


#: prompts of requests that begin together
MakePrompt = Callable[[list[Request]], MixedBatch]


class Finished(NamedTuple):
    """A request and its answer: row ``row`` of ``rollout``, whose other rows are other requests. ``cost`` counts what
    was computed for it."""

    request: Request
    rollout: Rollout
    row: int
    cost: Cost


class Cost(NamedTuple):
    """Text tokens and latents that were generated for an answer, those that were thrown away included, and ``passes``
    of the text model that were needed one after the other."""

    tokens: int
    latents: int
    passes: int

    @classmethod
    def of(cls, rollout: Rollout, row: int, draws_spans: bool = False) -> Cost:
        """The cost of one row that was decoded once: one pass for the prompt and one for each position; with
        ``draws_spans`` one for all latents of a span and its end."""
        kinds = rollout.token_type[row]
        tokens, latents = int((kinds == TEXT).sum()), int((kinds == LATENT).sum())
        return cls(tokens, latents, 1 + tokens + (0 if draws_spans else latents))


class RequestQueue:
    """Decodes requests in ``num_slots`` slots under one configuration. ``make_prompt`` gives the prompts of requests that
    begin together, on the model's device; by default the processor encodes their traces.

    Example:
        >>> queue = RequestQueue(reasoner, GenerationConfig(max_new_tokens=256), num_slots=16)
        >>> for number, trace in enumerate(traces):
        ...     queue.submit(Request(trace, number))
        >>> while not queue.is_idle:
        ...     for done in queue.step():
        ...         print(done.request.number, done.rollout.text(done.row, reasoner.vocabulary))
    """

    def __init__(
        self, model: LatentReasoner, config: GenerationConfig, num_slots: int, make_prompt: MakePrompt | None = None
    ):
        self.engine, self.make_prompt = Engine(model, config, num_slots), make_prompt or self._encode
        self.waiting: deque[Request] = deque()
        self.groups: list[tuple[list[Request], Group]] = []

    def submit(self, request: Request) -> None:
        """Add a request at the end of the queue."""
        self.waiting.append(request)

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.groups

    def running(self) -> Iterator[tuple[Request, Row]]:
        """The requests in slots, each with what the host knows of its row."""
        for requests, group in self.groups:
            yield from zip(requests, group.rows, strict=True)

    def cancel(self, number: int) -> None:
        """Stop a request. Its answer ends where it is, and is returned as finished if it had begun."""
        self.waiting = deque(request for request in self.waiting if request.number != number)
        self.engine.stop([row for request, row in self.running() if request.number == number])

    @torch.no_grad()
    def step(self, last: bool = False) -> list[Finished]:
        """Fill free slots, generate one position of every row, and return what has finished. ``last``: no request will
        be submitted any more, so that free slots may be dropped."""
        free = len(self.engine.free_slots)
        if self.waiting and free:
            self._admit([self.waiting.popleft() for _ in range(min(free, len(self.waiting)))])
        if self.engine.num_active:
            self.engine.step()
        if last and not self.waiting:
            self.engine.compact()
        done = [(requests, group) for requests, group in self.groups if group.is_done]
        self.groups = [pair for pair in self.groups if not pair[1].is_done]
        return [
            Finished(request, rollout, row, Cost.of(rollout, row, self.engine.draws_spans))
            for requests, group in done
            for rollout in [self.engine.collect(group)]
            for row, request in enumerate(requests)
        ]

    def _admit(self, requests: list[Request]) -> None:
        engine, config = self.engine, self.engine.config
        given, forced = config.max_new_tokens, config.forced_tokens
        prompt, same_prompt = self.make_prompt(requests), first_of_each([request.trace for request in requests])
        group = engine.admit(
            prompt,
            same_prompt=same_prompt,
            computed=self._computed(requests, prompt, same_prompt),
            numbers=[request.number for request in requests],
            row_ids=[request.number if request.row_id is None else request.row_id for request in requests],
            max_new_tokens=[given if r.max_new_tokens is None else r.max_new_tokens for r in requests],
            forced_tokens=[(forced or ()) if r.forced_tokens is None else r.forced_tokens for r in requests],
            seeds=[config.seed if r.seed is None else r.seed for r in requests],
        )
        self.groups.append((requests, group))

    def _computed(self, requests: list[Request], prompt: MixedBatch, same_prompt: list[int]) -> ComputedPrompts | None:
        """The computed prompts of requests that share a store, which keeps them; None for others."""
        store, traces = requests[0].prompts, [request.trace for request in requests]
        if store is None or any(request.prompts is not store for request in requests):
            return None
        if (stored := store.find(traces)) is not None:
            return join_prompts(self.engine.model, stored)
        computed = compute_prompts(self.engine.model, prompt, None, same_prompt)
        store.add(traces, computed)
        return computed

    def _encode(self, requests: list[Request]) -> MixedBatch:
        traces = [request.trace for request in requests]
        return self.engine.model.processor(traces, generate=True).to(self.engine.device)


def first_of_each(traces: Sequence[Trace]) -> list[int]:
    """For each trace the place of the first that is the same object."""
    ids = [id(trace) for trace in traces]
    return [ids.index(i) for i in ids]


def decode_requests(
    model: LatentReasoner,
    requests: Iterable[Request],
    config: GenerationConfig,
    num_slots: int,
    make_prompt: MakePrompt | None = None,
) -> Iterator[Finished]:
    """Decode requests, with the model in evaluation mode, and yield each as it finishes. They are taken from
    ``requests`` as slots become free; ``make_prompt`` as in :class:`RequestQueue`."""
    queue, source = RequestQueue(model, config, num_slots, make_prompt), iter(requests)
    was_training = model.training
    model.eval()
    try:
        while True:
            arrived = list(islice(source, len(queue.engine.free_slots)))
            for request in arrived:
                queue.submit(request)
            if queue.is_idle:
                return
            yield from queue.step(last=len(arrived) == 0 and bool(queue.engine.free_slots))
    finally:
        model.train(was_training)
