"""generate(): batched, cached decoding of text and latents. Each row has its own mode, budget and end.

Every active row feeds exactly one position a step, text or latent, so one cache serves rows in different modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from ..model.batch import IMAGE, LATENT, PAD, TEXT, MixedBatch
from ..model.reasoner import LatentReasoner
from ..model.switching import DONE, DRAWING, WRITING, Switch, SwitchState
from .config import GenerationConfig
from .rollout import Rollout, Span
from .sampling import gumbel_argmax, keyed_normal, keyed_uniform, sampling_log_probs


@torch.no_grad()
def generate(
    model: LatentReasoner,
    prompt: MixedBatch,
    config: GenerationConfig | None = None,
    *,
    row_ids: Sequence[int] | None = None,
    **overrides: Any,
) -> Rollout:
    """Continue a batch of prompts in text and latents.

    Example:
        >>> prompt = reasoner.processor([trace], generate=True).to(reasoner.device)
        >>> rollout = generate(reasoner, prompt, max_new_tokens=128)
        >>> print(rollout.text(0, reasoner.vocabulary))

    Args:
        prompt: left-padded prompts on the model's device.
        config: how to decode; ``overrides`` replace single fields of it.
        row_ids: keys of each row's randomness (default: its number in the batch).

    Returns:
        A Rollout. Its row r equals the same prompt decoded alone with the same ``row_ids[r]``.

    Raises:
        ValueError: an option that this model cannot follow.
        TypeError: an unknown option.
    """
    config = replace(config or GenerationConfig(), **overrides)
    was_training = model.training
    model.eval()
    try:
        decoder = Decoder if config.latent_policy is None else config.latent_policy.decoder
        return decoder(model, prompt, config, row_ids).run()
    finally:
        model.train(was_training)


def planned_grids(model: LatentReasoner, prompt: MixedBatch) -> torch.Tensor:
    """(B, 2) the latent grid of each row's sketches: the switch's count, or the grid for the row's last image."""
    grids = torch.tensor(model.latent_grid_for(None)).repeat(len(prompt.ids), 1)
    if prompt.images is not None:
        sizes = model.backbone.token_grids(prompt.images)
        for row, size in zip(prompt.image_rows, sizes, strict=True):
            grids[row] = torch.tensor(model.latent_grid_for(size))
    return grids.to(prompt.ids.device)


class Decoder:
    """One call of generate(): row state as tensors (B,), records as lists over steps."""

    RECORDS = (
        "ids token_type latent_embeds positions log_prob sampled_log_prob stop_log_prob text_decisions stop_decisions "
        "open_allowed"
    ).split()

    def __init__(self, model, prompt, config: GenerationConfig, row_ids):
        self.model, self.prompt, self.config, self.device = model, prompt, config, prompt.ids.device
        self.b = len(prompt.ids)
        self.budget = torch.as_tensor(config.max_new_tokens, device=self.device).expand(self.b).clone()
        self.row_ids = list(row_ids) if row_ids is not None else list(range(self.b))
        self.can_sketch = config.latent_mode != "off" and model.can_sketch
        self.queue = self.forced_tokens()
        self.grids = planned_grids(model, prompt)
        self.context = model.head_context(prompt)
        self.state = SwitchState(self.switch(), self.planned_lengths())
        self.states_so_far: list[torch.Tensor] = []  # for heads that need context
        self.text_mask: list[torch.Tensor] = []  # and which of these belong to the text since the last span
        self.record: dict[str, list[torch.Tensor]] = {name: [] for name in self.RECORDS}
        self.spans: list[Span] = []
        self.finish_reasons = ["budget"] * self.b
        self.forced_answer = [False] * self.b
        self.written: list[list[int]] = [[] for _ in range(self.b)]

    # -- set-up -------------------------------------------------------------------------------------------------------
    def forced_tokens(self) -> list[list[int]]:
        """The ids each row is forced to write first, an opening token included where spans open at once."""
        config, model = self.config, self.model
        queue = [list(q) for q in config.forced_tokens] if config.forced_tokens is not None else [[]] * self.b
        queue, opening = [list(q) for q in queue], model.vocabulary.open
        at_once = config.latent_mode == "learned" and model.switch.start == "first" and model.can_sketch
        if at_once or config.latent_mode == "first":
            queue = [q if q[:1] == [opening] else [opening, *q] for q in queue]
        if not self.can_sketch and any(opening in q for q in queue):
            raise ValueError(
                "a span is forced open, but the model has no latent head or latent_mode is 'off'. Remove the open "
                "token, or use latent_mode='learned' with a method that sketches."
            )
        return queue

    def switch(self) -> Switch:
        switch = self.model.switch
        if self.config.latents_per_span is not None:  # a fixed count replaces the model's own stop
            switch = Switch(start=switch.start, max_spans=switch.max_spans)
        return switch if self.config.max_spans is None else replace(switch, max_spans=self.config.max_spans)

    def planned_lengths(self) -> torch.Tensor:
        lengths = self.grids.prod(-1)
        count = self.config.latents_per_span
        return lengths if count is None else torch.full_like(lengths, count)

    # -- the loop -----------------------------------------------------------------------------------------------------
    def run(self) -> Rollout:
        backbone, prompt = self.model.backbone, self.prompt
        cache, mask, positions = backbone.new_cache(), prompt.mask, backbone.position_ids(prompt)
        h = backbone.forward_text(self.model.prompt_embeddings(prompt), mask, positions, cache)[:, -1]
        self.next = positions.masked_fill(~mask, -1).amax((0, 2)) + 1  # (B,) the position of the next text token
        self.span_start = self.next.clone()
        in_cache = torch.arange(self.b, device=self.device)  # a row that has ended leaves the cache
        prefix = len(self.config.answer_prefix)
        extra = prefix + self.config.answer_budget if prefix else 0
        for step in range(int(self.budget.max()) + extra + 2):  # an open span is still closed
            embeds, positions, active = self.step(step, h)
            if not active.any():
                break
            if not active[in_cache].all():
                cache.batch_select_indices(active[in_cache].nonzero()[:, 0])
                in_cache = active.nonzero()[:, 0]
            mask = torch.cat([mask, active[:, None]], 1)
            new = backbone.forward_text(
                embeds[in_cache, None], self.visible(mask)[in_cache], positions[:, in_cache, None], cache
            )
            h = torch.zeros_like(h).index_copy(0, in_cache, new[:, -1])
        return self.finish()

    def visible(self, mask: torch.Tensor) -> torch.Tensor:
        """(B, past + 1) what the position of this step may attend to, of all positions ``mask`` so far."""
        if not self.config.hide_images:
            return mask
        after_sketch = (self.state.mode == WRITING) & (self.state.spans > 0)
        hidden = after_sketch[:, None] & (self.prompt.token_type == IMAGE)
        return mask & ~F.pad(hidden, (0, mask.shape[1] - hidden.shape[1]))

    def step(self, step: int, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decide what every row does now and record it. Returns inputs (B, D), positions (axes, B), active (B,)."""
        v, s = self.model.vocabulary, self.state
        self.end_rows(step)
        active = s.mode != DONE
        ids = torch.full((self.b,), v.pad, device=self.device)
        token_type = torch.where(active, TEXT, PAD)
        log_prob, sampled, stop = torch.zeros(3, self.b, device=self.device)
        if s.switch.start == "rule" and self.can_sketch:
            self.open_after_sentences()
        # text
        queued = torch.tensor([bool(q) for q in self.queue], device=self.device)
        open_allowed = s.may_open() & self.can_sketch
        choosing, forced = (s.mode == WRITING) & ~queued, (s.mode == WRITING) & queued
        if choosing.any():
            logits = self.model.backbone.logits(h[choosing])
            logits = self.model.mask_forbidden_tokens(logits, open_allowed[choosing])
            ids[choosing], log_prob[choosing], sampled[choosing] = self.choose_tokens(logits, choosing, step)
        for row in forced.nonzero()[:, 0].tolist():
            ids[row] = self.queue[row].pop(0)
        # latents
        closing, deciding, own_close = self.close_spans(h, step, sampled, stop)
        drawing = (s.mode == DRAWING) & ~closing
        ids[closing], ids[drawing] = v.close, v.latent
        token_type[drawing] = LATENT
        if self.context is not None:
            self.states_so_far.append(h)
            is_text = active & ((s.mode == WRITING) | (s.slot == 0))
            self.text_mask = [mask & ~closing for mask in (*self.text_mask, is_text)]
        latents = h.new_zeros(self.b, h.shape[-1])
        if drawing.any():
            latents[drawing] = self.sample_latents(h, drawing, step)
        # records
        self.record_spans(step, closing, own_close)
        opened, ended = (s.mode == WRITING) & (ids == v.open), (s.mode == WRITING) & (ids == v.end)
        for row in ended.nonzero()[:, 0].tolist():
            self.finish_reasons[row] = "end"
        positions = self.position_ids(drawing, opened, closing, active)
        self.append(
            ids=ids,
            token_type=token_type,
            latent_embeds=latents,
            positions=positions,
            log_prob=log_prob,
            sampled_log_prob=sampled,
            stop_log_prob=stop,
            text_decisions=choosing & active,
            stop_decisions=deciding,
            open_allowed=open_allowed,
        )
        for row in active.nonzero()[:, 0].tolist():
            self.written[row].append(int(ids[row]))
        s.update(opened, drawing, closing, (choosing | forced) & ~opened, ended)
        embeds = torch.where(drawing[:, None], latents, self.model.backbone.embed(ids).to(latents.dtype))
        return embeds, positions, active

    def append(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            self.record[name].append(value)

    # -- ends ---------------------------------------------------------------------------------------------------------
    def end_rows(self, step: int) -> None:
        """End rows whose budget is used up; with ``answer_prefix``, rows are forced to answer first."""
        ended = (step >= self.budget) & (self.state.mode == WRITING)
        if self.config.answer_prefix and ended.any():
            ended = self.force_answers(ended, step)
        none = torch.zeros(self.b, dtype=torch.bool, device=self.device)
        self.state.update(none, none, none, none, ended=ended)

    def force_answers(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Force ``rows`` (B,) to answer that were not forced before. Returns the rows (B,) that were."""
        ended, prefix = rows.clone(), list(self.config.answer_prefix)
        for row in rows.nonzero()[:, 0].tolist():
            if not self.forced_answer[row]:
                self.forced_answer[row], self.queue[row], ended[row] = True, list(prefix), False
                self.budget[row] = step + len(prefix) + self.config.answer_budget
        return ended

    def open_after_sentences(self) -> None:
        """Force a span open in rows that have just ended a sentence (Latent Sketchpad 2510.24514)."""
        v, s = self.model.vocabulary, self.state
        for row in ((s.mode == WRITING) & s.has_room()).nonzero()[:, 0].tolist():
            if v.decode(self.written[row][-1:]).rstrip().endswith(".") and self.queue[row][:1] != [v.open]:
                self.queue[row].insert(0, v.open)

    # -- decisions ----------------------------------------------------------------------------------------------------
    def row_keys(self, rows: torch.Tensor) -> list[int]:
        return [self.row_ids[row] for row in rows.nonzero()[:, 0].tolist()]

    def choose_tokens(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
        """Text tokens of ``rows``, their log-probability at temperature 1 and as sampled."""
        config, plain = self.config, logits.log_softmax(-1)
        if config.temperature == 0:
            ids = logits.argmax(-1)
            return ids, plain.gather(-1, ids[:, None])[:, 0], torch.zeros(len(ids), device=logits.device)
        scores = sampling_log_probs(logits, config.temperature, config.top_p)
        uniform = keyed_uniform(config.seed, self.row_keys(rows), step, "word", logits.shape[-1]).to(logits.device)
        ids = gumbel_argmax(scores, uniform)
        return ids, plain.gather(-1, ids[:, None])[:, 0], scores.gather(-1, ids[:, None])[:, 0]

    def close_spans(
        self, h: torch.Tensor, step: int, sampled: torch.Tensor, stop: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (B,) that close their span now, rows whose own decision counted, and rows that closed by themselves (by
        a decision or by distance). Fills the log-probabilities of decisions in ``sampled`` and ``stop`` (B,)."""
        s, model = self.state, self.model
        closing = s.must_close() | ((s.mode == DRAWING) & (step >= self.budget - 1))
        deciding = s.may_close() & ~closing
        near = deciding & (s.switch.stop == "distance")
        if near.any():
            close = model.backbone.embed(torch.tensor(model.vocabulary.close, device=self.device))
            near = near & ((h - close).float().square().mean(-1) < s.switch.near)
            return closing | near, torch.zeros_like(deciding), near  # nothing is drawn, so nothing to replay
        if deciding.any():
            scores = model.stop_log_probs(h[deciding])
            stops, sampled[deciding] = self.choose_stops(scores, deciding, step)
            stop[deciding] = torch.where(stops, scores[:, 1], scores[:, 0])
            closing = closing.masked_scatter(deciding, stops)
        return closing, deciding, deciding

    def choose_stops(self, scores: torch.Tensor, rows: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether each of ``rows`` closes, and the log-probability of that as sampled."""
        if self.config.temperature == 0:
            return scores[:, 1] > scores[:, 0], torch.zeros(len(scores), device=scores.device)
        scores = (scores / self.config.temperature).log_softmax(-1)
        uniform = keyed_uniform(self.config.seed, self.row_keys(rows), step, "stop", 1)[:, 0].to(scores.device)
        stops = uniform < scores[:, 1].exp()
        return stops, torch.where(stops, scores[:, 1], scores[:, 0])

    # -- latents ------------------------------------------------------------------------------------------------------
    def sample_latents(self, h: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """(n, D) latents of ``rows``, as they are fed back."""
        index, slot, context = rows.nonzero()[:, 0], self.state.slot[rows], None
        noise = self.latent_noise(rows, step, int(self.model.head.is_stochastic))
        if self.context is not None:
            states, text_mask = torch.stack(self.states_so_far, 1), torch.stack(self.text_mask, 1)
            context = self.context.for_rows(index, slot, states, text_mask)
        noise = noise[:, 0].to(h.device) if noise.shape[1] else None
        latents = self.model.sample_latents(h[rows], self.grids[rows], slot, noise, context)
        if self.config.latent_hook is not None:
            spans = self.state.spans[rows] - 1
            latents = self.config.latent_hook(index, spans, slot, latents, self.written).to(latents.dtype)
        return latents

    def latent_noise(self, rows: torch.Tensor, step: int, draws: int) -> torch.Tensor:
        """(n, draws, Z) standard normal noise for the latents of ``rows``, on the CPU."""
        size = draws, self.model.head.latent_width
        return keyed_normal(self.config.seed, self.row_keys(rows), step, "latent", *size)

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

    # -- the result ---------------------------------------------------------------------------------------------------
    def record_spans(self, step: int, closing: torch.Tensor, own_close: torch.Tensor) -> None:
        full, limit = self.state.must_close(), "count" if self.state.switch.stop == "count" else "cap"
        for row in closing.nonzero()[:, 0].tolist():
            length = int(self.state.slot[row])
            cause = "close" if own_close[row] else limit if full[row] else "budget"
            self.spans.append(Span(row, step - length, length, tuple(self.grids[row].tolist()), cause))

    def finish(self) -> Rollout:
        stacked = {name: torch.stack(x, 2 if name == "positions" else 1) for name, x in self.record.items()}
        used = int((stacked["token_type"] != PAD).any(0).sum())
        stacked = {name: x[:, :, :used] if name == "positions" else x[:, :used] for name, x in stacked.items()}
        return Rollout(
            self.prompt,
            **stacked,
            spans=sorted(self.spans, key=lambda s: (s.row, s.start)),
            finish_reasons=self.finish_reasons,
            forced_answer=self.forced_answer,
        )
