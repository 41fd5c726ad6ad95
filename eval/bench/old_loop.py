"""The decoding loop before slots, kept only to be measured against.

It is the Decoder of commit 2774897 with its keyed sampling, without the options that the bench does not set. Its model
and head are those of today, so that a difference is the loop's alone. A stock cache grows by a column a step, in which
every row has the same length; rows that have ended leave it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.engine import planned_grids
from latent_reason.decoding.rollout import Span
from latent_reason.model.batch import LATENT, PAD, TEXT, MixedBatch
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.model.switching import DONE, DRAWING, WRITING, Switch, SwitchState


class OldLoop:
    """One batch of prompts: the state of its rows as tensors (B,), records as lists over steps. ``num_steps`` counts
    these."""

    RECORDS = (
        "ids token_type latent_embeds positions log_prob sampled_log_prob stop_log_prob text_decisions stop_decisions "
        "open_allowed"
    ).split()

    def __init__(self, model: LatentReasoner, prompt: MixedBatch, config: GenerationConfig):
        self.model, self.prompt, self.config, self.device = model, prompt, config, prompt.ids.device
        self.b, self.num_steps = len(prompt.ids), 0
        self.budget = torch.as_tensor(config.max_new_tokens, device=self.device).expand(self.b).clone()
        self.queue = [list(q) for q in config.forced_tokens]
        self.grids = torch.tensor(planned_grids(model, prompt), device=self.device)
        switch = Switch(start=model.switch.start, max_spans=config.max_spans)
        self.state = SwitchState(switch, torch.full((self.b,), config.latents_per_span, device=self.device))
        self.record: dict[str, list[torch.Tensor]] = {name: [] for name in self.RECORDS}
        self.spans: list[Span] = []
        self.finish_reasons = ["budget"] * self.b
        self.written: list[list[int]] = [[] for _ in range(self.b)]
        self._prefill()

    def _prefill(self) -> None:
        backbone, prompt = self.model.backbone, self.prompt
        self.cache, self.mask, positions = backbone.new_cache(), prompt.mask, backbone.position_ids(prompt)
        self.h = backbone.forward_text(self.model.prompt_embeddings(prompt), self.mask, positions, self.cache)[:, -1]
        self.next = positions.masked_fill(~self.mask, -1).amax((0, 2)) + 1  # (B,) the position of the next text token
        self.span_start = self.next.clone()
        self.in_cache = torch.arange(self.b, device=self.device)  # a row that has ended leaves the cache

    def step(self) -> None:
        """One position of every row."""
        embeds, positions, active = self.decide(self.num_steps, self.h)
        self.num_steps += 1
        if not active.any():
            return
        if not active[self.in_cache].all():
            self.cache.batch_select_indices(active[self.in_cache].nonzero()[:, 0])
            self.in_cache = active.nonzero()[:, 0]
        self.mask = torch.cat([self.mask, active[:, None]], 1)
        rows = self.in_cache
        new = self.model.backbone.forward_text(
            embeds[rows, None], self.mask[rows], positions[:, rows, None], self.cache
        )
        self.h = torch.zeros_like(self.h).index_copy(0, rows, new[:, -1])

    def decide(self, step: int, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decide what every row does now and record it. Returns inputs (B, D), positions (axes, B), active (B,)."""
        v, s = self.model.vocabulary, self.state
        self.end_rows(step)
        active = s.mode != DONE
        ids = torch.full((self.b,), v.pad, device=self.device)
        token_type = torch.where(active, TEXT, PAD)
        log_prob, sampled, stop = torch.zeros(3, self.b, device=self.device)
        # text
        queued = torch.tensor([bool(q) for q in self.queue], device=self.device)
        open_allowed = s.may_open()
        choosing, forced = (s.mode == WRITING) & ~queued, (s.mode == WRITING) & queued
        if choosing.any():
            logits = self.model.backbone.logits(h[choosing])
            logits = self.model.mask_forbidden_tokens(logits, open_allowed[choosing])
            ids[choosing], log_prob[choosing], sampled[choosing] = self.choose_tokens(logits, choosing, step)
        for row in forced.nonzero()[:, 0].tolist():
            ids[row] = self.queue[row].pop(0)
        # latents
        closing, deciding = self.close_spans(step)
        drawing = (s.mode == DRAWING) & ~closing
        ids[closing], ids[drawing] = v.close, v.latent
        token_type[drawing] = LATENT
        latents = h.new_zeros(self.b, h.shape[-1])
        if drawing.any():
            latents[drawing] = self.sample_latents(h, drawing, step)
        # records
        self.record_spans(step, closing, deciding)
        opened, ended = (s.mode == WRITING) & (ids == v.open), (s.mode == WRITING) & (ids == v.end)
        for row in ended.nonzero()[:, 0].tolist():
            self.finish_reasons[row] = "end"
        positions = self.position_ids(drawing, opened, closing, active)
        kept = ids, token_type, latents, positions, log_prob, sampled, stop, choosing & active, deciding, open_allowed
        for name, value in zip(self.RECORDS, kept, strict=True):
            self.record[name].append(value)
        for row in active.nonzero()[:, 0].tolist():
            self.written[row].append(int(ids[row]))
        s.update(opened=opened, drew=drawing, closed=closing, wrote=(choosing | forced) & ~opened, ended=ended)
        embeds = torch.where(drawing[:, None], latents, self.model.backbone.embed(ids).to(latents.dtype))
        return embeds, positions, active

    def end_rows(self, step: int) -> None:
        """End rows whose budget is used up."""
        ended = (step >= self.budget) & (self.state.mode == WRITING)
        none = torch.zeros(self.b, dtype=torch.bool, device=self.device)
        self.state.update(opened=none, drew=none, closed=none, wrote=none, ended=ended)

    def row_keys(self, rows: torch.Tensor) -> list[int]:
        return rows.nonzero()[:, 0].tolist()

    def choose_tokens(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
        """Text tokens of ``rows``, their log-probability at temperature 1 and as sampled."""
        config, plain = self.config, logits.log_softmax(-1)
        if config.temperature == 0:
            ids = logits.argmax(-1)
            return ids, plain.gather(-1, ids[:, None])[:, 0], torch.zeros(len(ids), device=logits.device)
        scores = (logits / config.temperature).log_softmax(-1)
        uniform = keyed_uniform(config.seed, self.row_keys(rows), step, "word", logits.shape[-1]).to(logits.device)
        ids = gumbel_argmax(scores, uniform)
        return ids, plain.gather(-1, ids[:, None])[:, 0], scores.gather(-1, ids[:, None])[:, 0]

    def close_spans(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (B,) that close their span now, and rows whose own decision counted."""
        s = self.state
        closing = s.must_close() | ((s.mode == DRAWING) & (step >= self.budget - 1))
        deciding = s.may_close() & ~closing
        near = deciding & (s.switch.stop == "distance")
        if near.any() or deciding.any():
            raise ValueError("the old loop of the bench closes spans by their count alone.")
        return closing, deciding

    def sample_latents(self, h: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """(n, D) latents of ``rows``, as they are fed back."""
        noise = keyed_normal(self.config.seed, self.row_keys(rows), step, "latent", 1, self.model.head.latent_width)
        return self.model.sample_latents(h[rows], self.grids[rows], self.state.slot[rows], noise[:, 0].to(h.device))

    def position_ids(self, drawing, opened, closing, active) -> torch.Tensor:
        """Positions (axes, B) of this step. Moves the position of the next text token."""
        backbone, slot = self.model.backbone, self.state.slot
        positions = torch.where(
            drawing, backbone.latent_position_ids(self.span_start, slot, self.grids), self.next.expand(3, -1)
        )
        after = backbone.position_after_span(self.span_start, slot, self.grids)
        positions = torch.where(closing, after, positions)
        self.next = torch.where(closing, after, self.next) + (active & ~drawing).long()
        self.span_start = torch.where(opened, self.next, self.span_start)
        return positions

    def record_spans(self, step: int, closing: torch.Tensor, own_close: torch.Tensor) -> None:
        full = self.state.must_close()
        for row in closing.nonzero()[:, 0].tolist():
            length = int(self.state.slot[row])
            cause = "close" if own_close[row] else "count" if full[row] else "budget"
            self.spans.append(Span(row, step - length, length, tuple(self.grids[row].tolist()), cause))


# -- keyed sampling: a generator of its own for every row and position -------------------------------------------------
def keyed_generator(seed: int, row: int, position: int, purpose: str) -> torch.Generator:
    """A generator that depends on its key only."""
    key = hashlib.blake2b(f"{seed}/{row}/{position}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)


def keyed_uniform(seed: int, rows: Sequence[int], position: int, purpose: str, size: int) -> torch.Tensor:
    """(n, size) uniform numbers, one key a row, on the CPU."""
    return torch.stack([torch.rand(size, generator=keyed_generator(seed, row, position, purpose)) for row in rows])


def keyed_normal(seed: int, rows: Sequence[int], position: int, purpose: str, *size: int) -> torch.Tensor:
    """(n, *size) standard normal numbers, one key a row, on the CPU."""
    return torch.stack([torch.randn(*size, generator=keyed_generator(seed, row, position, purpose)) for row in rows])


def gumbel_argmax(log_probs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Ids (n,) sampled from (n, V) with uniform numbers of the same shape."""
    return (log_probs - (-uniform.clamp_min(1e-20).log()).log()).argmax(-1)
