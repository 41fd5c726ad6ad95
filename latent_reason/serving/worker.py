"""The worker: one thread that owns the model, decodes all requests by continuous batching, and says what they get.

Requests with the same decoding options share an engine. Several engines take their steps in turn, and one without rows
is dropped. An answer depends on its request alone, not on what else is decoded.
"""

from __future__ import annotations

import base64
import io
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

import torch

from ..decoding.config import GenerationConfig
from ..decoding.host_rows import Row
from ..decoding.queue import Finished, Request, RequestQueue
from ..decoding.streaming import Answer, DrawnSpan
from ..errors import is_sentence, sentence
from ..model.batch import PAD
from ..model.reasoner import LatentReasoner
from ..visualization.sketch_decoder import SketchDecoder
from .errors import APIError, bad
from .limits import Limits
from .parameters import ChatRequest

MOST_ENGINES = 4  # each has a cache of its own for all slots
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextEvent:
    """More text of a choice."""

    choice: int
    text: str


@dataclass(frozen=True)
class SketchEvent:
    """A sketch of a choice: its number, the characters of text before it, its latent grid, and its PNG as a data URL (None:
    nothing renders it)."""

    choice: int
    index: int
    position: int
    grid: tuple[int, int]
    image: str | None


@dataclass(frozen=True)
class EndEvent:
    """The end of a choice, and the counts of its usage."""

    choice: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latents: int


Event: TypeAlias = TextEvent | SketchEvent | EndEvent | APIError


@dataclass(eq=False)
class Job:
    """One choice of a request: where its events go, and what is known of its answer."""

    request: ChatRequest
    choice: int
    emit: Callable[[Event], None]
    number: int
    answer: Answer
    prompt_tokens: int = 0
    num_read: int = 0  # positions of its row that were read
    num_sketches: int = 0
    size: tuple[int, int] | None = None  # tokens of the picture that its sketches have the size of
    config: GenerationConfig = field(init=False)

    def __post_init__(self):
        self.config = self.request.config


class Worker(threading.Thread):
    """Decodes in a thread of its own.

    Example:
        >>> worker = Worker(reasoner, decoder, Limits())
        >>> worker.start()
        >>> numbers = worker.submit(request, emit=print)
        >>> worker.stop()

    ``submit``, ``cancel`` and ``stop`` may be called from any thread. ``emit`` is called from the thread of the worker.
    """

    def __init__(self, model: LatentReasoner, decoder: SketchDecoder | None, limits: Limits):
        super().__init__(name="latent_reason-worker", daemon=True)
        self.model, self.limits = model.eval(), limits
        self.decoder = decoder.eval() if decoder is not None and model.is_renderable else None
        self.waiting: deque[Job] = deque()
        self.running: dict[int, tuple[RequestQueue, Job]] = {}
        self.engines: dict[GenerationConfig, RequestQueue] = {}
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._numbers, self._lock = count(), threading.Lock()
        self._num_open = 0  # jobs that were submitted and have not ended
        self.is_closed = self._is_stopping = False

    # -- called from other threads ------------------------------------------------------------------------------------
    def submit(self, request: ChatRequest, emit: Callable[[Event], None]) -> list[int]:
        """Add the choices of a request to the queue, and return their numbers. Each ends with an EndEvent or an APIError.

        Raises:
            APIError: the queue is full, or the worker takes no requests any more.
        """
        jobs = [
            Job(request, choice, emit, next(self._numbers), Answer(self.model.vocabulary, request.stop))
            for choice in range(request.choices)
        ]
        with self._lock:
            if self.is_closed:
                raise APIError(503, "The server is shutting down.", code="shutting_down")
            if self._num_open + len(jobs) > self.limits.slots + self.limits.waiting:
                raise APIError(429, "Too many requests are waiting. Try again later.", code="queue_full")
            self._num_open += len(jobs)
            self._calls.put(lambda: self.waiting.extend(jobs))  # in the lock: not after the call that stops
        return [job.number for job in jobs]

    def cancel(self, numbers: list[int]) -> None:
        """Stop choices whose answer nobody waits for. Those that have ended are left as they are."""
        self._calls.put(lambda: self._cancel(numbers))

    def close(self) -> None:
        """Take no requests any more. Those that were taken are answered."""
        with self._lock:
            self.is_closed = True

    def stop(self) -> None:
        """End the thread. Choices that are open get an error."""
        self.close()
        self._calls.put(self._leave)

    @property
    def num_open(self) -> int:
        """Choices that wait or are decoded."""
        return self._num_open

    # -- the thread ---------------------------------------------------------------------------------------------------
    def run(self) -> None:
        try:
            while not self._is_stopping:
                self._take_calls(wait=not self.waiting and not self.engines)
                admitted = self._admit()
                for config, engine in list(self.engines.items()):
                    self._step(config, engine, [job for job in admitted if job.config == config])
        except Exception as error:  # of no request: nobody may wait for an answer that nobody writes
            log.error("the worker has ended", exc_info=error)
        self.close()
        while not self._calls.empty():
            self._calls.get()()
        for job in [*(job for _, job in self.running.values()), *self.waiting]:
            self._end(job, APIError(503, "The server has shut down.", code="shutting_down"))

    def _take_calls(self, wait: bool) -> None:
        if wait:
            self._calls.get()()
        while not self._calls.empty():
            self._calls.get()()

    def _leave(self) -> None:
        self._is_stopping = True

    def _cancel(self, numbers: list[int]) -> None:
        for job in [job for job in self.waiting if job.number in numbers]:
            self.waiting.remove(job)
            self._end(job)
        for number in numbers:
            if number in self.running:
                engine, job = self.running[number]
                engine.cancel(number)
                self._end(job)

    def _end(self, job: Job, event: Event | None = None) -> None:
        """Forget a choice, and say how it ended."""
        self.running.pop(job.number, None)
        with self._lock:
            self._num_open -= 1
        if event is not None:
            job.emit(event)

    def _admit(self) -> list[Job]:
        """Give free slots to choices, in their order, one to an engine: it computes its prompt in the next step."""
        admitted: list[Job] = []
        while self.waiting and len(self.running) < self.limits.slots:
            job = self.waiting[0]
            if any(other.config == job.config for other in admitted):
                break
            if job.config not in self.engines and len(self.engines) >= MOST_ENGINES:
                break
            self.waiting.popleft()
            try:
                budget = self._measure(job)
                if job.config not in self.engines:
                    self.engines[job.config] = RequestQueue(self.model, job.config, self.limits.slots)
            except Exception as error:
                self._end(job, as_api_error(error))
                continue
            engine = self.engines[job.config]
            seed = job.request.seed
            engine.submit(Request(job.request.trace, job.number, job.choice, max_new_tokens=budget, seed=seed))
            self.running[job.number] = engine, job
            admitted.append(job)
        return admitted

    def _measure(self, job: Job) -> int:
        """Count the prompt of a choice. Returns how many positions its answer may have."""
        backbone, trace = self.model.backbone, job.request.trace
        try:
            job.prompt_tokens = len(self.model.processor.encode(trace, generate=True).ids)
        except ValueError as error:  # of an image processor, too: a picture of another shape is needed
            raise bad("messages", f"the model cannot take them: {str(error)[:300].rstrip('.')}.") from None
        if images := trace.images():
            job.size = backbone.token_grid(images[-1])
        room, asked = backbone.max_length - job.prompt_tokens, job.request.max_tokens
        if room < (asked or 1):
            raise bad(
                "messages",
                f"the prompt has {job.prompt_tokens} positions, and the model takes {backbone.max_length} with the "
                f"{asked or 1} of the answer. Make the prompt shorter, or ask for fewer tokens.",
                "context_length_exceeded",
            )
        return asked or min(self.limits.max_tokens, room)

    def _step(self, config: GenerationConfig, engine: RequestQueue, admitted: list[Job]) -> None:
        """Take one step of an engine and send what is new. An error ends the choices that it concerns, not the
        worker."""
        try:
            finished = engine.step()
            for request, row in engine.running():
                if request.number in self.running:
                    self._read(engine, self.running[request.number][1], row)
            for one in finished:
                if one.request.number in self.running:
                    self._finish(one)
        except Exception as error:
            inside = {request.number for request, _ in engine.running()}
            failed = [job for job in admitted if job.number not in inside]  # its prompt could not be computed
            if not failed:
                failed = [job for other, job in self.running.values() if other is engine]
                del self.engines[config]
            for job in failed:
                self._end(job, as_api_error(error))
            return
        if engine.is_idle:
            del self.engines[config]

    def _read(self, engine: RequestQueue, job: Job, row: Row) -> None:
        """Send what a row has written since the last step. A stop string frees its slot."""
        new, job.num_read = row.ids[job.num_read :], len(row.ids)
        self._send(job, new, row.grid, lambda span: engine.engine.latents_of(row, span.start, span.length))
        if job.answer.is_stopped:
            engine.cancel(job.number)
            self._close(job, "stop")

    def _finish(self, finished: Finished) -> None:
        """Send the rest of an answer."""
        rollout, row = finished.rollout, finished.row
        _, job = self.running[finished.request.number]
        ids = rollout.ids[row][rollout.token_type[row] != PAD].tolist()
        grid = next((span.grid for span in rollout.spans_of(row)), (1, 1))
        latents = rollout.latent_embeds[row]
        self._send(job, ids[job.num_read :], grid, lambda span: latents[span.start : span.start + span.length])
        job.answer.finish()
        is_whole = job.answer.is_stopped or rollout.finish_reasons[row] == "end"
        self._close(job, "stop" if is_whole else "length")

    def _send(self, job: Job, ids: list[int], grid, latents: Callable[[DrawnSpan], torch.Tensor]) -> None:
        answer = job.answer
        for span in answer.add(ids):
            image = None if self.decoder is None else self._render(latents(span), grid, job.size or grid)
            job.emit(SketchEvent(job.choice, job.num_sketches, span.position, grid, image))
            job.num_sketches += 1
        if text := answer.send():
            job.emit(TextEvent(job.choice, text))

    def _close(self, job: Job, finish_reason: str) -> None:
        answer = job.answer
        if text := answer.send(is_last=True):
            job.emit(TextEvent(job.choice, text))
        counts = job.prompt_tokens, answer.num_positions, answer.num_latents
        self._end(job, EndEvent(job.choice, finish_reason, *counts))

    def _render(self, latents: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]) -> str:
        """A sketch as a data URL of a PNG."""
        data = io.BytesIO()
        self.decoder.draw(self.model.unscale_latents(latents), grid, size).save(data, format="PNG")
        return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def as_api_error(error: Exception) -> APIError:
    """What the client is told of an error: the sentence of one of this library, else only that there was one."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, ValueError) and is_sentence(error):
        return bad(None, sentence(error))
    log.error("a request failed", exc_info=error)
    return APIError(500, f"The model could not answer ({type(error).__name__}). See the log of the server.")
