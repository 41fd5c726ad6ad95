"""generate(): batched, cached decoding of words and latents, each row with its own mode, budget and stop.

Every active row feeds exactly one position a step, a word or a latent, so one cache serves rows in different modes.
Randomness is counter-based: noise is keyed by (seed, row id, position), so a batch cannot change a row's draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F

from ..model.batch import IMAGE, LATENT, PAD, TEXT, MixedBatch
from ..model.switching import DONE, DRAWING, WRITING, Switch, SwitchState
from ..objectives.latent_policies import LatentPolicy
from ..objectives.losses import stop_logprob


@dataclass
class Span:
    """One drawn span: where it starts in the rollout, its latents, its grid, and why it ended."""

    row: int
    start: int
    length: int
    grid: tuple[int, int]
    cause: str  # count | close | cap | budget


@dataclass
class Rollout:
    """What was generated, position by position. B rows, T steps."""

    prompt: MixedBatch
    ids: torch.Tensor  # (B, T) latent positions carry the latent id
    kind: torch.Tensor  # (B, T) TEXT LATENT, PAD after the end
    vectors: torch.Tensor  # (B, T, D) the latents exactly as they were fed, zero elsewhere
    positions: torch.Tensor  # (axes, B, T)
    logprob: torch.Tensor  # (B, T) of chosen words at temperature 1
    sampled_logprob: torch.Tensor  # (B, T) of words and stop decisions as sampled: temperature and top_p applied
    stop_logprob: torch.Tensor  # (B, T) of the model's own stop decisions
    chosen: torch.Tensor  # (B, T) words the model chose itself (forced ones are no choice)
    decided: torch.Tensor  # (B, T) positions where the model itself decided to go on or to close
    may_open: torch.Tensor  # (B, T) whether a span could have been opened there
    spans: list[Span] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # end | budget, one a row
    hurried: list[bool] = field(default_factory=list)  # whether a row was made to answer when its budget was gone
    records: torch.Tensor | None = None  # (n, J, Z) what a policy noted of each of the n latents, row by row

    def spans_of(self, row: int) -> list[Span]:
        return [s for s in self.spans if s.row == row]

    def latents(self, span: Span) -> torch.Tensor:
        """(K, D) the latents of a span."""
        return self.vectors[span.row, span.start : span.start + span.length]

    def part(self, rows: Sequence[int], prompt: MixedBatch) -> Rollout:
        """Some of its rows, no longer than they are. ``prompt`` holds theirs and may be padded otherwise."""
        at = torch.as_tensor(rows, device=self.ids.device)
        longest = int((self.kind[at] != PAD).sum(1).max())
        cut = {
            name: getattr(self, name)[at, :longest]
            for name in (
                "ids",
                "kind",
                "vectors",
                "logprob",
                "sampled_logprob",
                "stop_logprob",
                "chosen",
                "decided",
                "may_open",
            )
        }
        spans = [replace(span, row=new) for new, row in enumerate(rows) for span in self.spans_of(row)]
        records = None
        if self.records is not None:
            by_row = self.records.split((self.kind == LATENT).sum(1).tolist())
            records = torch.cat([by_row[row] for row in rows])
        return Rollout(
            prompt,
            **cut,
            positions=self.positions[:, at, :longest],
            spans=spans,
            records=records,
            reasons=[self.reasons[row] for row in rows],
            hurried=[self.hurried[row] for row in rows],
        )

    def pieces(self, row: int, vocabulary) -> list[str | Span]:
        """A row as a person reads it: texts and spans in order."""
        out, spans, at = [], self.spans_of(row), 0
        for span in [*spans, None]:
            stop = span.start if span else int((self.kind[row] != PAD).sum())
            text = vocabulary.text(self.ids[row, at:stop][self.kind[row, at:stop] == TEXT].tolist())
            out += [text] if text else []
            if span:
                out.append(span)
                at = span.start + span.length
        return out

    def text(self, row: int, vocabulary) -> str:
        return vocabulary.text(self.ids[row][self.kind[row] == TEXT].tolist())


def keyed(seed: int, row: int, position: int, what: str) -> torch.Generator:
    key = hashlib.blake2b(f"{seed}/{row}/{position}/{what}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)


def planned_grids(reasoner, prompt: MixedBatch) -> torch.Tensor:
    """(B, 2) the latent grid of each row's sketches: the switch's count, or as large as the row's last picture."""
    grids = torch.tensor(reasoner.plan(None)).repeat(len(prompt.ids), 1)
    if prompt.images is not None:
        merged = reasoner.backbone.merged(prompt.images).tolist()
        for row, seen in zip(prompt.image_rows.tolist(), merged, strict=True):
            grids[row] = torch.tensor(reasoner.plan(tuple(seen)))
    return grids.to(prompt.ids.device)


@torch.no_grad()
def generate(
    reasoner,
    prompt: MixedBatch,
    *,
    max_new: int | Sequence[int] = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    row_ids: Sequence[int] | None = None,
    sketching: str = "learned",
    latents_per_span: int | None = None,
    queue: Sequence[Sequence[int]] | None = None,
    intervene: Callable | None = None,
    hide_pictures: bool = False,
    policy: LatentPolicy | None = None,
    max_spans: int | None = None,
    answer_with: Sequence[int] = (),
    answer_room: int = 32,
) -> Rollout:
    """Continue a batch of prompts.

    Args:
        max_new: budget of new positions, one for all or one a row. A span open when it runs out is closed.
        temperature: 0 is greedy; ``top_p`` filters otherwise.
        sketching: ``learned`` (as the reasoner's switch says), ``off`` (a span cannot be opened) or ``first`` (a span
            is opened at once).
        latents_per_span: overrides the planned number; 0 leaves only the markers.
        queue: forced token ids a row writes first; they are no choice of the model's. An open token in it opens a
            span, and the queue waits until that span is closed.
        intervene: ``f(rows, spans, slots, vectors, written) -> vectors`` replaces drawn latents (n, D) before they
            are fed; ``written`` are the ids of every row so far.
        hide_pictures: words after a sketch cannot attend to the prompt's pictures. The question, which has seen them,
            stays in sight, and latents and the token that opens them may look at all.
        policy: draws the latents in place of the head, and notes in ``records`` what :meth:`replay` needs; one that
            scores none leaves them to the head.
        max_spans: the most spans a row may open, in place of the switch's own limit.
        answer_with: token ids that a row is made to write where its budget is gone, once, with ``answer_room`` more
            positions to answer in (GLM-4.1V-Thinking 2507.01006); an open span is closed before.

    Returns:
        Rollout; row r of it equals the same prompt decoded alone with the same ``row_ids[r]``. With ``hide_pictures``
        it is no rollout to replay: a parallel pass would let its words look.
    """
    if policy is not None and (intervene is not None or reasoner.head is None):
        raise ValueError(
            "a policy draws the latents of a method that sketches, and nothing may replace them: leave intervene out."
        )
    if sketching not in ("learned", "off", "first"):
        raise ValueError(f"sketching={sketching!r}: 'learned', 'off' or 'first'.")
    was_training = reasoner.training
    reasoner.eval()
    try:
        return _Decoder(
            reasoner,
            prompt,
            max_new,
            temperature,
            top_p,
            seed,
            row_ids,
            sketching,
            latents_per_span,
            queue,
            intervene,
            hide_pictures,
            policy,
            max_spans,
            answer_with,
            answer_room,
        ).run()
    finally:
        reasoner.train(was_training)


class _Decoder:
    """One call of generate(): row state as tensors of B, records as lists over steps."""

    def __init__(
        self,
        reasoner,
        prompt,
        max_new,
        temperature,
        top_p,
        seed,
        row_ids,
        sketching,
        latents_per_span,
        queue,
        intervene,
        hide_pictures,
        policy,
        max_spans,
        answer_with,
        answer_room,
    ):
        self.reasoner, self.prompt, self.device = reasoner, prompt, prompt.ids.device
        self.b = len(prompt.ids)
        self.budget = torch.as_tensor(max_new, device=self.device).expand(self.b).clone()
        self.answer_with, self.answer_room = list(answer_with), answer_room
        self.hurried = [False] * self.b
        self.temperature, self.top_p, self.seed, self.intervene = temperature, top_p, seed, intervene
        self.hide_pictures, self.policy, self.records = hide_pictures, policy, {}
        self.row_ids = list(row_ids) if row_ids is not None else list(range(self.b))
        self.queue = [list(q) for q in queue] if queue is not None else [[] for _ in range(self.b)]
        first = sketching == "first" or (sketching == "learned" and reasoner.switch.start == "first")
        if first and (sketching == "first" or reasoner.sketches):
            opening = reasoner.vocabulary.open
            self.queue = [q if q[:1] == [opening] else [opening, *q] for q in self.queue]
        self.grids = planned_grids(reasoner, prompt)
        self.scene = reasoner.scene(prompt)
        self.trail: list[torch.Tensor] = []  # states so far, and whether they belong to words since the last span
        self.said: list[torch.Tensor] = []
        plan = self.grids.prod(-1)
        if latents_per_span is not None:
            plan = torch.full_like(plan, latents_per_span)
        switch = reasoner.switch
        if latents_per_span is not None:
            switch = Switch(start=switch.start, max_spans=switch.max_spans)
        if max_spans is not None:
            switch = replace(switch, max_spans=max_spans)
        self.state = SwitchState(switch, plan)
        self.can_sketch = sketching != "off" and reasoner.sketches
        if not self.can_sketch and any(reasoner.vocabulary.open in q for q in self.queue):
            raise ValueError(
                "a span is forced open, but this method does not sketch or sketching is 'off'. "
                "Leave the open token out, or use sketching='learned' with a method that sketches."
            )
        self.record = {
            n: []
            for n in (
                "ids",
                "kind",
                "vectors",
                "positions",
                "logprob",
                "sampled_logprob",
                "stop_logprob",
                "chosen",
                "decided",
                "may_open",
            )
        }
        self.spans: list[Span] = []
        self.reasons = ["budget"] * self.b
        self.written: list[list[int]] = [[] for _ in range(self.b)]

    def run(self) -> Rollout:
        r, prompt = self.reasoner, self.prompt
        cache, mask, placed = r.backbone.new_cache(), prompt.mask, r.backbone.place(prompt)
        h = r.backbone.trunk(r.context(prompt), mask, placed, cache)[:, -1]
        self.next = placed.masked_fill(~mask, -1).amax((0, 2)) + 1  # (B,)
        self.base = self.next.clone()
        held = torch.arange(self.b, device=self.device)  # rows still in the cache: one that has ended leaves it
        more = len(self.answer_with) + self.answer_room if self.answer_with else 0
        for step in range(int(self.budget.max()) + more + 2):  # an open span is still closed
            embeds, positions, active = self.step(step, h)
            if not active.any():
                break
            if not active[held].all():
                cache.batch_select_indices(active[held].nonzero()[:, 0])
                held = active.nonzero()[:, 0]
            mask = torch.cat([mask, active[:, None]], 1)
            h = torch.zeros_like(h).index_copy(
                0,
                held,
                r.backbone.trunk(embeds[held, None], self.in_sight(mask)[held], positions[:, held, None], cache)[:, -1],
            )
        return self.finish()

    def in_sight(self, mask: torch.Tensor) -> torch.Tensor:
        """(B, past + 1) what the position fed now may attend to, of all that is there."""
        if not self.hide_pictures:
            return mask
        told = (self.state.mode == WRITING) & (self.state.spans > 0)  # an open span may look
        hidden = told[:, None] & (self.prompt.kind == IMAGE)
        return mask & ~F.pad(hidden, (0, mask.shape[1] - hidden.shape[1]))

    def step(self, step: int, h: torch.Tensor):
        """Decide what every row does now, record it, and return what is fed: (B, D), (axes, B), (B,)."""
        r, v, s = self.reasoner, self.reasoner.vocabulary, self.state
        out_of_budget = (step >= self.budget) & (s.mode == WRITING)
        if self.answer_with and out_of_budget.any():
            out_of_budget = self.hurry(out_of_budget, step)
        s.update(*self._none(4), ended=out_of_budget)
        active = s.mode != DONE
        ids = torch.full((self.b,), v.pad, device=self.device)
        kind = torch.where(active, TEXT, PAD)
        logprob, sampled, stop = torch.zeros(3, self.b, device=self.device)
        if s.switch.start == "rule" and self.can_sketch:
            self.follow_rule()
        queued = torch.tensor([bool(q) for q in self.queue], device=self.device)
        # words
        may_open = s.may_open() & self.can_sketch
        choosing = (s.mode == WRITING) & ~queued
        forced = (s.mode == WRITING) & queued
        if choosing.any():
            logits = r.masked(r.backbone.logits(h[choosing]), may_open[choosing])
            ids[choosing], logprob[choosing], sampled[choosing] = self.pick(logits, choosing, step)
        for row in forced.nonzero()[:, 0].tolist():
            ids[row] = self.queue[row].pop(0)
        # latents
        closing = s.must_close() | ((s.mode == DRAWING) & (step >= self.budget - 1))
        deciding = s.may_close() & ~closing
        near = deciding & (s.switch.stop == "distance")
        if near.any():
            end = r.backbone.embed(torch.tensor(v.close, device=self.device))
            near = near & ((h - end).float().square().mean(-1) < s.switch.near)
            closing, deciding = closing | near, torch.zeros_like(deciding)  # not drawn, so nothing to replay
        if deciding.any():
            two = stop_logprob(r.backbone.logits(h[deciding]), v.latent, v.close)
            stops, sampled[deciding] = self.choose_stop(two, deciding, step)
            stop[deciding] = torch.where(stops, two[:, 1], two[:, 0])
            closing = closing.masked_scatter(deciding, stops)
        drawing = (s.mode == DRAWING) & ~closing
        ids[closing], ids[drawing] = v.close, v.latent
        kind[drawing] = LATENT
        if self.scene is not None:
            self.trail.append(h)
            self.said = [said & ~closing for said in (*self.said, active & ((s.mode == WRITING) | (s.slot == 0)))]
        vectors = h.new_zeros(self.b, h.shape[-1])
        if drawing.any():
            vectors[drawing] = self.draw(h, drawing, step)
        # what really happened
        self.log_spans(step, closing, deciding | near)
        opened = (s.mode == WRITING) & (ids == v.open)
        ended = (s.mode == WRITING) & (ids == v.end)
        for row in ended.nonzero()[:, 0].tolist():
            self.reasons[row] = "end"
        positions = self.place(drawing, opened, closing, active)
        wrote = (choosing | forced) & ~opened
        self.keep(
            ids=ids,
            kind=kind,
            vectors=vectors,
            positions=positions,
            logprob=logprob,
            sampled_logprob=sampled,
            stop_logprob=stop,
            chosen=choosing & active,
            decided=deciding,
            may_open=may_open,
        )
        for row in active.nonzero()[:, 0].tolist():
            self.written[row].append(int(ids[row]))
        s.update(opened, drawing, closing, wrote, ended)
        embeds = torch.where(drawing[:, None], vectors, r.backbone.embed(ids).to(vectors.dtype))
        return embeds, positions, active

    def hurry(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Make rows answer that have not been made to yet; returns those (B,) that have."""
        gone = rows.clone()
        for row in rows.nonzero()[:, 0].tolist():
            if not self.hurried[row]:
                self.hurried[row], self.queue[row], gone[row] = True, list(self.answer_with), False
                self.budget[row] = step + len(self.answer_with) + self.answer_room
        return gone

    def follow_rule(self):
        """Force a span open in rows that have just ended a sentence."""
        v, s = self.reasoner.vocabulary, self.state
        for row in ((s.mode == WRITING) & s.has_room()).nonzero()[:, 0].tolist():
            if v.text(self.written[row][-1:]).rstrip().endswith(".") and self.queue[row][:1] != [v.open]:
                self.queue[row].insert(0, v.open)

    def _none(self, n):
        return (torch.zeros(self.b, dtype=torch.bool, device=self.device) for _ in range(n))

    def keep(self, **values):
        for name, value in values.items():
            self.record[name].append(value)

    def pick(self, logits, rows, step):
        """Words of the choosing rows, their log-probability at temperature 1 and as sampled."""
        plain = logits.log_softmax(-1)
        if self.temperature == 0:
            ids = logits.argmax(-1)
            return ids, plain.gather(-1, ids[:, None])[:, 0], torch.zeros(len(ids), device=logits.device)
        shaped = (logits / self.temperature).log_softmax(-1)
        if self.top_p < 1:
            order = shaped.argsort(-1, descending=True)
            mass = shaped.gather(-1, order).exp().cumsum(-1) - shaped.gather(-1, order).exp()
            drop = torch.zeros_like(mass, dtype=torch.bool).scatter(-1, order, mass >= self.top_p)
            shaped = shaped.masked_fill(drop, float("-inf")).log_softmax(-1)
        uniform = torch.stack(
            [
                torch.rand(logits.shape[-1], generator=keyed(self.seed, self.row_ids[row], step, "word"))
                for row in rows.nonzero()[:, 0].tolist()
            ]
        ).to(logits.device)
        ids = (shaped - (-uniform.clamp_min(1e-20).log()).log()).argmax(-1)  # Gumbel
        return ids, plain.gather(-1, ids[:, None])[:, 0], shaped.gather(-1, ids[:, None])[:, 0]

    def choose_stop(self, two, rows, step):
        """Whether each deciding row closes, and the log-probability of that as sampled."""
        if self.temperature == 0:
            return two[:, 1] > two[:, 0], torch.zeros(len(two), device=two.device)
        two = (two / self.temperature).log_softmax(-1)
        uniform = torch.cat(
            [
                torch.rand(1, generator=keyed(self.seed, self.row_ids[row], step, "stop"))
                for row in rows.nonzero()[:, 0].tolist()
            ]
        ).to(two.device)
        stops = uniform < two[:, 1].exp()
        return stops, torch.where(stops, two[:, 1], two[:, 0])

    def draw(self, h, rows, step):
        """(n, D) latents of the drawing rows, as they are fed."""
        index = rows.nonzero()[:, 0]
        noise, draws = None, self.policy.draws if self.policy else int(self.reasoner.head.noise)
        if draws:
            noise = torch.stack(
                [
                    torch.randn(
                        draws, self.reasoner.head.latent, generator=keyed(self.seed, self.row_ids[row], step, "latent")
                    )
                    for row in index.tolist()
                ]
            ).to(h.device)
        slot = self.state.slot[rows]
        if self.policy is not None and self.policy.scored:
            return self.act(h[rows], noise, index, slot, step)
        noise = None if noise is None else noise[:, 0]
        context = self.scene and self.scene.at(index, slot)
        if context is not None:
            context.states, context.said = torch.stack(self.trail, 1), torch.stack(self.said, 1)
        vectors = self.reasoner.draw(h[rows], noise, self.grids[rows], slot, context)
        if self.intervene is not None:
            vectors = self.intervene(index, self.state.spans[rows] - 1, slot, vectors, self.written).to(vectors.dtype)
        return vectors

    def act(self, h, noise, index, slot, step):
        """(n, D) latents of the rows ``index`` as the policy draws them, which are noted."""
        head = self.reasoner.head
        states, _ = head.taken(h, None)
        noise = states.new_zeros(len(h), 0, head.latent) if noise is None else noise.to(states.dtype)
        z, record = self.policy.sample(head, states, noise)
        self.records |= {(row, step): one for row, one in zip(index.tolist(), record, strict=True)}
        return self.reasoner.fed(z, self.grids[index], slot).to(h.dtype)

    def place(self, drawing, opened, closing, active):
        """Positions (axes, B) of this step, and where the next one stands."""
        at = self.next.expand(3, -1).clone()
        if self.reasoner.backbone.positions == "grid":
            j, width = self.state.slot, self.grids[:, 1]
            at = torch.where(drawing, torch.stack([self.base, self.base + j // width, self.base + j % width]), at)
            jump = self.base + torch.where(self.state.slot > 0, self.grids.amax(-1), 0)
            at = torch.where(closing, jump, at)
            self.next = torch.where(closing, jump, self.next)
        step = active & ~drawing if self.reasoner.backbone.positions == "grid" else active
        self.next = self.next + step.long()
        self.base = torch.where(opened, self.next, self.base)
        return at

    def log_spans(self, step, closing, by_itself):
        full, limit = self.state.must_close(), "count" if self.state.switch.stop == "count" else "cap"
        for row in closing.nonzero()[:, 0].tolist():
            length = int(self.state.slot[row])
            cause = "close" if by_itself[row] else limit if full[row] else "budget"
            self.spans.append(Span(row, step - length, length, tuple(self.grids[row].tolist()), cause))

    def finish(self) -> Rollout:
        stacked = {n: torch.stack(x, 2 if n == "positions" else 1) for n, x in self.record.items()}
        used = int((stacked["kind"] != PAD).any(0).sum())
        stacked = {n: x[:, :, :used] if n == "positions" else x[:, :used] for n, x in stacked.items()}
        records = [self.records[place] for place in sorted(self.records)]
        return Rollout(
            self.prompt,
            **stacked,
            spans=sorted(self.spans, key=lambda s: (s.row, s.start)),
            reasons=self.reasons,
            hurried=self.hurried,
            records=torch.stack(records) if records else None,
        )
