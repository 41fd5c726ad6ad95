"""Search over the steps of an answer: several next steps for each kept path, of which the best are kept (after AtomThink
2411.11930, 2503.06252).

A step ends where a span of latents is closed; for a model without spans, where a line ends. A path's sketches are part
of it: they are never drawn again. Paths go on from the cache, so that no prompt and no step is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ...model.reasoner import LatentReasoner
from ...model.switching import DONE
from ..branches import Branch, restore_branches, save_branch
from ..config import GenerationConfig
from ..engine import Engine
from ..host_rows import Group, Row
from ..queue import Cost, Finished, Request
from .voting import STRIDE


@dataclass(eq=False)
class Path:
    """One way to answer: its row, the key of its randomness, where it may go on from (None: it has ended), and its
    score."""

    row: Row
    row_id: int
    branch: Branch | None
    score: float = float("-inf")


@dataclass(eq=False)
class Search:
    """The paths that are kept for one request, and what has been computed for it."""

    request: Request
    paths: list[Path]
    num_ids: int = 1  # keys that its paths have taken
    tokens: int = 0
    latents: int = 0

    def new_row_id(self) -> int:
        """A key that no path of this request has."""
        self.num_ids += 1
        return key_of(self.request) + STRIDE * (self.num_ids - 1)

    def count(self, ids: Sequence[int], latent: int) -> None:
        """Add positions that were generated."""
        self.latents += sum(token == latent for token in ids)
        self.tokens += sum(token != latent for token in ids)


#: (model, request, ids so far) -> score of a path, in place of the probability of its answer
Verifier = Callable[[LatentReasoner, Request, list[int]], float]


def key_of(request: Request) -> int:
    return request.number if request.row_id is None else request.row_id


@dataclass(frozen=True)
class StepSearch:
    """Beam search over steps.

    Args:
        beams: paths that are kept.
        candidates: next steps that are sampled for each path. The first of them has the path's own random numbers.
        max_steps: steps of an answer; the paths then go on to their end.
        temperature: of the samples, where the configuration is greedy and there are several candidates.
        answer_prefix: text that a path is forced to write to be judged.
        answer_tokens: how many tokens of the forced answer are read at most. The score is their mean log-probability at
            temperature 1, written greedily.
        verifier: judges a path instead.

    Raises:
        ValueError: a number below 1.
    """

    beams: int = 2
    candidates: int = 3
    max_steps: int = 12
    temperature: float = 0.7
    answer_prefix: str = "\\boxed{"
    answer_tokens: int = 16
    verifier: Verifier | None = None

    def __post_init__(self):
        for name in ("beams", "candidates", "max_steps", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1.")

    def __call__(
        self, model: LatentReasoner, requests: Iterable[Request], config: GenerationConfig, num_slots: int
    ) -> Iterator[Finished]:
        """Answer requests, as many at a time as have their candidates in ``num_slots`` slots, and at least one."""
        if self.candidates > 1 and config.temperature == 0:
            config = replace(config, temperature=self.temperature)
        width, source, was_training = self.beams * self.candidates, iter(requests), model.training
        model.eval()
        try:
            while batch := list(islice(source, max(1, num_slots // width))):
                yield from Wave(self, model, config, batch, width * len(batch)).run()
        finally:
            model.train(was_training)


class Wave:
    """Requests that are searched side by side. Paths are judged by a second engine, which decodes greedily."""

    def __init__(self, options: StepSearch, model: LatentReasoner, config: GenerationConfig, requests, num_slots: int):
        self.options, self.model, self.v = options, model, model.vocabulary
        self.config, self.num_slots = config, num_slots
        self.engine = Engine(model, config, num_slots)
        self.judge = Engine(
            model,
            replace(config, temperature=0.0, latent_mode="off", forced_tokens=None, answer_prefix=(), mixture=None),
            num_slots,
        )
        self.prefix = self.v.encode_text(options.answer_prefix)
        self.by_spans = self.engine.can_sketch
        prompt = model.processor([request.trace for request in requests], generate=True).to(model.device)
        self.group = self.engine.admit(
            prompt,
            row_ids=[key_of(request) for request in requests],
            max_new_tokens=[config.max_new_tokens if r.max_new_tokens is None else r.max_new_tokens for r in requests],
            forced_tokens=[r.forced_tokens or () for r in requests],
            seeds=[config.seed if r.seed is None else r.seed for r in requests],
        )
        self.searches = [
            Search(request, [Path(row, key_of(request), None if row.mode == DONE else save_branch(self.engine, row))])
            for request, row in zip(requests, self.group.rows, strict=True)
        ]
        self.engine.stop(self.group.rows)

    def run(self) -> Iterator[Finished]:
        """Search all requests to their end."""
        for step in range(self.options.max_steps + 1):
            if not any(path.branch for search in self.searches for path in search.paths):
                break
            is_last = step == self.options.max_steps
            self.extend(1 if is_last else self.options.candidates, until_end=is_last)
        passes = 1 + self.engine.num_passes + self.judge.num_passes
        for search in self.searches:
            best = max(search.paths, key=lambda path: path.score)
            prompt = self.model.processor([search.request.trace], generate=True).to(self.model.device)
            rollout = self.engine.rollout_of(Group(prompt, [best.row], self.group.start))
            yield Finished(search.request, rollout, 0, Cost(search.tokens, search.latents, passes))

    def extend(self, candidates: int, until_end: bool) -> None:
        """Continue every open path by one step, in several ways, and keep the best paths of each request."""
        ended, fresh = list[tuple[Search, Path]](), list[tuple[Search, Path]]()
        for search in self.searches:
            for parent in search.paths:
                if parent.branch is None:
                    ended.append((search, parent))
                    continue
                ids = [parent.row_id, *(search.new_row_id() for _ in range(candidates - 1))]
                seeds = [self.seed_of(search.request)] * candidates
                rows = restore_branches(self.engine, [parent.branch] * candidates, ids, seeds=seeds)
                fresh += [(search, Path(row, row_id, None)) for row, row_id in zip(rows, ids, strict=True)]
        lengths = [len(path.row.ids) for _, path in fresh]
        self.write_step([path for _, path in fresh], until_end)
        for (search, path), length in zip(fresh, lengths, strict=True):
            search.count(path.row.ids[length:], self.v.latent)
        self.score(fresh)
        for search in self.searches:
            paths = [path for its, path in (*ended, *fresh) if its is search]
            search.paths = sorted(paths, key=lambda path: -path.score)[: self.options.beams]

    def write_step(self, paths: list[Path], until_end: bool) -> None:
        """Generate until every path has ended, or has ended a step."""
        running = {path.row: path for path in paths}
        while running:
            self.engine.step()
            for row in list(running):
                if row.mode != DONE and not until_end and self.ends_step(row.ids[-1]):
                    running[row].branch = save_branch(self.engine, row)
                    self.engine.stop([row])
                if row not in self.engine.occupants:
                    del running[row]

    def seed_of(self, request: Request) -> int:
        return self.config.seed if request.seed is None else request.seed

    def ends_step(self, token: int) -> bool:
        return token == self.v.close if self.by_spans else "\n" in self.v.decode([token])

    # -- scores -------------------------------------------------------------------------------------------------------
    def score(self, found: list[tuple[Search, Path]]) -> None:
        """Judge paths: by the verifier, or by how sure the model is of the answer it gives or would give now."""
        if self.options.verifier is not None:
            for search, path in found:
                path.score = self.options.verifier(self.model, search.request, path.row.ids)
            return
        waiting = [(search, path) for search, path in found if path.branch is not None]
        rows = []
        if waiting:
            branches = [path.branch.as_prompt() for _, path in waiting]
            room = len(self.prefix) + self.options.answer_tokens
            rows = restore_branches(
                self.judge, branches, [path.row_id for _, path in waiting], self.prefix, max_new_tokens=room
            )
            while self.judge.num_active:
                self.judge.step()
        for (search, path), row in zip(waiting, rows, strict=True):
            path.score = self.sureness(self.judge, row)
            search.count(row.ids, self.v.latent)
        for _, path in found:
            if path.branch is None:
                path.score = self.sureness(self.engine, path.row)

    def sureness(self, engine: Engine, row: Row) -> float:
        """Mean log-probability of the tokens of a row's answer, from its last ``answer_prefix`` to the brace that closes
        it. Without an answer -1000, less than any."""
        ids, n = row.ids, len(self.prefix)
        at = next((i + n for i in range(len(ids) - n, -1, -1) if ids[i : i + n] == self.prefix), None)
        if at is None or at == len(ids):
            return -1000.0
        end = next((i + 1 for i in range(at, len(ids)) if "}" in self.v.decode([ids[i]])), len(ids))
        places = row.places[at:end]
        values = [engine.records[step - engine.num_dropped].log_prob[slot] for step, slot in places]
        return float(sum(values)) / len(values)
