"""Run baselines on many problems at once: turns of all of them share the slots of the engine, tools run beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Literal

import torch
from PIL import Image as PILImage

from eval.sandbox import is_available
from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.queue import Cost, Finished, Request, RequestQueue
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import TEXT
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.visualization.storyboard import decode_sketches, split_text

from .baseline import Ask, Baseline, Call, Chat, OutOfBudget, Problem, Read, Reading, Reply, Thinking

MOST_TURNS = 64  # of any baseline: keys of randomness are the number of an episode times this, plus the turn
Ended = Literal["answer", "tokens", "room"]


@dataclass
class Episode:
    """A problem that was answered, or is being.

    Attributes:
        chat: all that was written and shown, the last reply included.
        text: the answer of the policy, which is graded.
        tokens, latents, sketches: that the model wrote, in all turns.
        passes: of the text model one after the other; a prompt counts as one.
        pictures: that the vision encoder read, those of earlier turns again in each turn.
        turns, calls: replies of the model, and runs of tools.
        ended: why: an answer, the budget of tokens (also of the last turn), or a prompt that left no room.
    """

    problem: Problem
    chat: Chat = field(default_factory=Chat)
    text: str = ""
    tokens: int = 0
    latents: int = 0
    sketches: int = 0
    passes: int = 0
    pictures: int = 0
    turns: int = 0
    calls: int = 0
    ended: Ended = "answer"

    @property
    def written(self) -> int:
        """Positions that the model wrote."""
        return self.tokens + self.latents

    def count(self, chat: Chat, cost: Cost) -> None:
        """Add a turn."""
        self.chat, self.turns = chat, self.turns + 1
        self.tokens, self.latents = self.tokens + cost.tokens, self.latents + cost.latents
        self.passes, self.pictures = self.passes + cost.passes, self.pictures + chat.num_encoded()


@dataclass(frozen=True)
class EpisodeLimits:
    """What an episode may use.

    Args:
        new_tokens: positions that the model writes in all turns, text and latents. A turn after which the policy goes on
            may take half of what is left.
        temperature: 0 is greedy decoding.
        seed: of all randomness, which does not depend on what else is answered.
    """

    new_tokens: int = 640
    temperature: float = 0.0
    seed: int = 0


def check_baseline(baseline: Baseline, model: LatentReasoner, decoder, runs_code: bool) -> None:
    """Raises ValueError if a model cannot think this way, or the code that it writes may not or cannot be run."""
    baseline.check(model, decoder)
    check_code(baseline, runs_code)


def check_code(baseline: Baseline, runs_code: bool) -> None:
    """Raises ValueError if a baseline runs code that may not or cannot be run here."""
    if baseline.RUNS_CODE and not runs_code:
        raise ValueError(f"baseline {baseline.name!r} runs code that a model writes. Allow it with --run-code.")
    if baseline.RUNS_CODE and (reason := is_available()):
        raise ValueError(f"baseline {baseline.name!r} runs code that a model writes, but {reason}.")


def run_episodes(
    model: LatentReasoner,
    decoder,
    baseline: Baseline,
    problems: Sequence[Problem],
    limits: EpisodeLimits = EpisodeLimits(),
    num_slots: int = 32,
    keys: Sequence[int] | None = None,
) -> Iterator[tuple[int, Episode]]:
    """The place of each problem and its episode, as they end. An episode does not depend on the others.

    Args:
        keys: of the randomness of each problem; its place among the problems, if None.
    """
    runner = _Runner(model, decoder, baseline, limits, num_slots)
    waiting = [(n, problem, n if keys is None else keys[n]) for n, problem in enumerate(problems)][::-1]
    was_training = model.training
    model.eval()
    try:
        while waiting or runner.running:
            while waiting and len(runner.running) < 2 * num_slots:  # while some wait for tools, others decode
                runner.begin(*waiting.pop())
            runner.step()
            yield from runner.take_ended()
    finally:
        runner.close()
        model.train(was_training)


@dataclass
class _Running:
    """An episode with its policy, and what it waits for."""

    number: int
    key: int
    episode: Episode
    policy: Thinking
    asked: Ask | None = None
    was_cut: bool = False  # whether its last reply ended with the budget


class _Runner:
    """The loop of :func:`run_episodes`: one queue of the engine, one pool of threads for tools."""

    def __init__(self, model, decoder, baseline: Baseline, limits: EpisodeLimits, num_slots: int):
        self.model, self.decoder, self.baseline, self.limits = model, decoder, baseline, limits
        self.running: dict[int, _Running] = {}
        self._ended: list[tuple[int, Episode]] = []
        self._reads: list[tuple[_Running, Read]] = []
        self._calls: dict[Future, _Running] = {}
        self._pool = ThreadPoolExecutor(max_workers=2)
        close = model.vocabulary.close  # one may also stand in a prompt, but never at its end

        def has_sketched(ids: torch.Tensor, _: None) -> torch.Tensor:
            return (ids[:, -2:] == close).any(1)

        config = GenerationConfig(
            temperature=limits.temperature,
            seed=limits.seed,
            latent_mode="learned" if baseline.may_sketch else "off",
            stopping_criteria=has_sketched if baseline.RENDERS else None,
        )
        self._queue = RequestQueue(model, config, num_slots)

    def begin(self, number: int, problem: Problem, key: int) -> None:
        one = _Running(number, key, Episode(problem), self.baseline.think(problem))
        self.running[number] = one
        self._advance(one, None)

    def take_ended(self) -> list[tuple[int, Episode]]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def step(self) -> None:
        """One position of every row that is decoded, and whatever else is ready."""
        reads, self._reads = self._reads, []
        for one, wanted in reads:
            self._advance(one, self._read(one, wanted))
        if not self._queue.is_idle:
            for done in self._queue.step():
                self._finish(done)
        elif self._calls:
            wait(self._calls, return_when=FIRST_COMPLETED)
        for future in [future for future in self._calls if future.done()]:
            self._advance(self._calls.pop(future), future.result())

    def _advance(self, one: _Running, value) -> None:
        """Send a policy what it waited for, and take up what it needs next."""
        try:
            wanted = one.policy.send(value)
        except StopIteration as stop:
            self._end(one, stop.value, "tokens" if one.was_cut else "answer")
            return
        if isinstance(wanted, Call):
            one.episode.calls += 1
            self._calls[self._pool.submit(wanted.function)] = one
        elif not self._has_room(wanted.chat, one):
            self._stop(one, "room")
        elif isinstance(wanted, Read):
            self._reads.append((one, wanted))
        elif one.episode.written >= self.limits.new_tokens:
            self._stop(one, "tokens")
        else:
            self._ask(one, wanted)

    def _stop(self, one: _Running, why: Ended) -> None:
        """End an episode that is out of its budget with the answer that its policy has, if any."""
        try:
            one.policy.throw(OutOfBudget())
        except StopIteration as stop:
            self._end(one, stop.value, why)
        except OutOfBudget:
            self._end(one, "", why)
        else:
            raise RuntimeError(f"baseline {self.baseline.name!r} goes on after OutOfBudget. Return an answer there.")

    def _ask(self, one: _Running, wanted: Ask) -> None:
        one.asked = wanted
        vocabulary, turn = self.model.vocabulary, one.episode.turns
        left = self.limits.new_tokens - one.episode.written
        self._queue.submit(
            Request(
                wanted.chat.to_trace(f"{one.episode.problem.id} turn {turn}"),
                one.number,
                row_id=one.key * MOST_TURNS + turn % MOST_TURNS,
                max_new_tokens=max(left // 2, 1) if wanted.continues else left,
                forced_tokens=[vocabulary.open] if wanted.opens_sketch else None,
            )
        )

    def _finish(self, done: Finished) -> None:
        one = self.running[done.request.number]
        asked, rollout, row = one.asked, done.rollout, done.row
        assert asked is not None  # it was submitted
        text, sketches = rollout.text(row, self.model.vocabulary), []
        if self.baseline.RENDERS:
            text = split_text(rollout, row, self.model.vocabulary)[0]  # rows stop one token after their first sketch
            sketches = self._render(rollout, row, one.episode.problem)
        one.episode.count(asked.chat.with_reply(text), done.cost)
        one.episode.sketches += len(rollout.spans_of(row))
        one.was_cut = rollout.finish_reasons[row] == "budget"
        self._advance(one, Reply(text, tuple(sketches)))

    def _render(self, rollout: Rollout, row: int, problem: Problem) -> list[PILImage.Image]:
        """The sketches of a row, as large as the last picture of its problem, so that they have as many tokens. A sketch
        decoder may have fewer pixels for a token."""
        if not problem.pictures:
            return []
        picture = problem.pictures[-1]
        drawn = decode_sketches(self.model, self.decoder, rollout, row, picture)
        return [sketch.resize(picture.size, PILImage.Resampling.NEAREST) for sketch in drawn]

    def _has_room(self, chat: Chat, one: _Running) -> bool:
        length = len(self.model.processor.encode(chat.to_trace(one.episode.problem.id), generate=True).ids)
        return length < self.model.backbone.max_length

    def _end(self, one: _Running, text: str, why: Ended) -> None:
        one.episode.text, one.episode.ended = text, why
        one.policy.close()
        self._ended.append((one.number, one.episode))
        del self.running[one.number]

    @torch.no_grad()
    def _read(self, one: _Running, wanted: Read) -> Reading:
        """The state at the end of a chat. Chats are read one by one, so that none depends on another."""
        model, backbone, episode = self.model, self.model.backbone, one.episode
        row = model.processor.encode(wanted.chat.to_trace(episode.problem.id), generate=True)
        begun = model.vocabulary.encode_text(wanted.reply, plain=True)
        row.ids, row.token_type = row.ids + begun, row.token_type + [TEXT] * len(begun)
        row.loss_weight += [0.0] * len(begun)
        prompt = model.processor.collate([row]).to(model.device)
        states = backbone.forward_text(
            model.prompt_embeddings(prompt), prompt.mask, backbone.position_ids(prompt), None
        )
        logits = backbone.logits(states[:, -1])
        allowed = model.mask_forbidden_tokens(logits, torch.zeros(1, dtype=torch.bool, device=logits.device))
        first, second = allowed.softmax(-1).topk(2).values[0].tolist()
        episode.passes, episode.pictures = episode.passes + 1, episode.pictures + wanted.chat.num_encoded()
        return Reading(states[0, -1].float().cpu(), first / max(second, 1e-12))
