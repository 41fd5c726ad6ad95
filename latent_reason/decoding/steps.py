"""One decoding step in tensor operations: what every row does with the state before it. Nothing is read by the host.

A step is of one kind, which the host knows before it: ``text`` (no row is in a span), ``latent`` (every row is, and
will stay in it), ``mixed``, or ``spans`` (rows that have opened a span draw all of it). The kind says what is computed
at all: logits, latents or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from ..model.backbones.cache import SlotCache
from ..model.batch import to_device
from ..model.heads.base import HeadContext
from ..model.reasoner import LatentReasoner, stop_log_probs
from ..model.switching import DONE, DRAWING, WRITING
from .config import GenerationConfig
from .rows import Block, Rows
from .sampling import STOP, TOKEN, noise_counters, normal, sample_tokens, sampling_log_probs, uniform
from .written import WrittenIds

Kind = Literal["text", "latent", "mixed", "spans"]
#: why a span ended, by the code in a StepRecord; 0: no span ended there
CAUSES = ("", "count", "cap", "close", "budget")
#: (drawing (S,), latents (S, D)) -> latents (S, D), as they are fed back
ReplaceLatents = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class StepRecord(NamedTuple):
    """What S rows did in one step; the fields are those of a Rollout at one position. None: no row did such a thing.
    Log-probabilities hold where their decision was the model's own."""

    ids: torch.Tensor  # the latent id where a latent was drawn, and nowhere else
    positions: torch.Tensor  # (axes, S)
    open_allowed: torch.Tensor
    log_prob: torch.Tensor | None = None
    sampled_log_prob: torch.Tensor | None = None  # of text tokens
    text_decisions: torch.Tensor | None = None
    stop_log_prob: torch.Tensor | None = None
    sampled_stop_log_prob: torch.Tensor | None = None
    stop_decisions: torch.Tensor | None = None
    cause: torch.Tensor | None = None  # a code of CAUSES
    latent_embeds: torch.Tensor | None = None  # (S, D) zero where none was drawn
    policy_records: torch.Tensor | None = None  # (S, J, Z)
    mixed: torch.Tensor | None = None  # whether a mixture of tokens was fed
    mixed_embeds: torch.Tensor | None = None  # (S, D)


class Choice(NamedTuple):
    """What rows (S,) chose, its log-probability at temperature 1 and as sampled, and whether it was theirs to choose."""

    chosen: torch.Tensor
    log_prob: torch.Tensor | None
    sampled: torch.Tensor | None
    decided: torch.Tensor


class Stepper:
    """How a model continues S rows under one configuration. Each of its steps moves the rows on, and sets the inputs
    of the next. ``written`` are the ids that a logits processor reads; the engine keeps them."""

    def __init__(
        self, model: LatentReasoner, config: GenerationConfig, num_slots: int, written: WrittenIds | None = None
    ):
        self.model, self.config = model, config
        self.can_sketch = config.latent_mode != "off" and model.can_sketch
        self.written = written
        self.answer_prefix = torch.tensor(list(config.answer_prefix), dtype=torch.long, device=model.device)
        self.mixer = None if config.mixture is None else config.mixture.bind(model)
        v, device = model.vocabulary, model.device
        self.forbidden = model.forbidden_tokens()
        self.no, self.slots = (
            torch.zeros(num_slots, dtype=torch.bool, device=device),
            torch.arange(num_slots).to(device),
        )
        self.latent_ids = torch.full((num_slots,), v.latent, device=device)
        by_rule = self.can_sketch and model.switch.start == "rule"
        self.ends_sentence = torch.tensor(v.ends_sentence, device=device) if by_rule else None
        self.counters, self.constants = self.no[:0], None
        if self.can_sketch:
            policy = config.latent_policy if config.latent_policy and config.latent_policy.has_record else None
            draws = policy.num_draws if policy else int(model.head.is_stochastic)
            self.counters = noise_counters(draws * model.head.latent_width, device)
            self.constants = None if policy else model.head.sampling_constants()

    def forward(self, rows: Rows, cache: SlotCache) -> torch.Tensor:
        """(S, D) states after the inputs of this step."""
        backbone = self.model.backbone
        if rows.block is not None:
            return self.forward_block(rows, cache)
        columns = cache.set_columns(rows.length[:, None])
        if len(self.slots) == 1 and not (cache.static or self.config.hide_images or backbone.has_bidirectional_images):
            # a single row has written every column, so it needs no mask
            return backbone.forward_text(rows.embeds[:, None], None, rows.positions[..., None], cache)[:, 0]
        visible = columns <= rows.length[:, None]
        if self.config.hide_images:  # from text after a sketch
            hidden = rows.images & ((rows.mode == WRITING) & (rows.spans > 0))[:, None]
            visible = visible & ~F.pad(hidden, (0, len(columns) - hidden.shape[1]))
        if backbone.attn_implementation in ("sdpa", "eager"):  # then it is not made anew from a mask of positions
            visible = visible[:, None]
        return backbone.forward_text(rows.embeds[:, None], visible, rows.positions[..., None], cache)[:, 0]

    def forward_block(self, rows: Rows, cache: SlotCache) -> torch.Tensor:
        """The same where some rows take the inputs of a whole span at once. Other rows take one, and what fills up
        theirs is written to columns that they write later."""
        block, rows.block = rows.block, None
        size, width = block.embeds.shape[1], rows.embeds.shape[1]
        embeds = rows.embeds.new_zeros(len(rows.embeds), size, width)
        embeds[:, 0] = rows.embeds
        positions = rows.positions[..., None].repeat(1, 1, size)
        embeds[block.slots], positions[:, block.slots] = block.embeds.to(embeds.dtype), block.positions
        last = torch.zeros_like(rows.length).index_copy(0, block.slots, block.lengths - 1)
        at = rows.length[:, None] - last[:, None] + torch.arange(size, device=last.device)  # (S, Q)
        columns = cache.set_columns(at)
        states = self.model.backbone.forward_text(embeds, columns <= at[..., None], positions, cache)
        return states[self.slots, last]

    def take_step(self, kind: Kind, rows: Rows, cache: SlotCache, has_queue: bool) -> StepRecord:
        """One step of all rows. ``has_queue``: some are forced to write tokens."""
        return self.decide(kind, rows, self.forward(rows, cache), has_queue)

    def decide(
        self,
        kind: Kind,
        rows: Rows,
        h: torch.Tensor,
        has_queue: bool,
        context: HeadContext | None = None,
        replace_latents: ReplaceLatents | None = None,
    ) -> StepRecord:
        """What the rows do after states h (S, D). ``context`` is for a head that reads one, and names the rows that may
        draw now; ``replace_latents`` says what is fed in place of the latents."""
        if kind == "text":
            return self.write_text(rows, h, has_queue)
        if kind == "latent":
            return self.draw_latents(rows, h, context)
        return self.step_mixed(rows, h, has_queue, context, replace_latents)

    # -- the kinds of step --------------------------------------------------------------------------------------
    def write_text(self, rows: Rows, h: torch.Tensor, has_queue: bool) -> StepRecord:
        """Every active row writes a text token."""
        active, position = rows.mode != DONE, rows.next.expand(3, -1)
        open_allowed = rows.may_open() if self.can_sketch else self.no
        logits = self.model.backbone.logits(h).float()
        text = self.choose_tokens(rows, logits, active, open_allowed, has_queue)
        text, mixed, embeds = self.embed_text(rows, logits, text, active)
        ids = text.chosen
        rows.next = rows.next + active
        self.end_text(rows, ids, active)
        self.feed(rows, ids, position, active, embeds)
        rows.end_spent(self.answer_prefix, self.config.answer_budget)
        decided = text.log_prob, text.sampled, text.decided
        return StepRecord(
            ids, position, open_allowed, *decided, mixed=mixed, mixed_embeds=None if mixed is None else embeds
        )

    def draw_latents(self, rows: Rows, h: torch.Tensor, context: HeadContext | None = None) -> StepRecord:
        """Every active row draws a latent."""
        active = rows.mode != DONE
        position = self.model.backbone.latent_position_ids(rows.span_start, rows.slot, rows.grids)
        latents, records = self.sample_latents(rows, h, active, context)
        ids = self.latent_ids
        rows.update(drew=active)
        self.feed(rows, ids, position, active, latents)
        return StepRecord(ids, position, self.no, latent_embeds=latents, policy_records=records)

    def step_mixed(
        self,
        rows: Rows,
        h: torch.Tensor,
        has_queue: bool,
        context: HeadContext | None = None,
        replace_latents: ReplaceLatents | None = None,
    ) -> StepRecord:
        """Every active row writes a token, draws a latent or closes its span."""
        model, v = self.model, self.model.vocabulary
        active, writing = rows.mode != DONE, rows.mode == WRITING
        open_allowed = rows.may_open() if self.can_sketch else self.no
        logits = model.backbone.logits(h).float()
        text = self.choose_tokens(rows, logits, writing, open_allowed, has_queue)
        text, mixed, text_embeds = self.embed_text(rows, logits, text, writing)
        stop, closing, cause = self.close_spans(rows, h, logits)
        drawing = (rows.mode == DRAWING) & ~closing
        latents, records = self.sample_latents(rows, h, drawing, context)
        if replace_latents is not None:
            latents = replace_latents(drawing, latents)
        latents = torch.where(drawing[:, None], latents, 0)
        ids = torch.where(writing, text.chosen, v.close).masked_fill(drawing, v.latent)
        position = self.move(rows, active, drawing, closing)
        rows.update(drew=drawing, closed=closing)
        self.end_text(rows, ids, writing)
        embeds = torch.where(closing[:, None], model.backbone.embed(ids), text_embeds)
        embeds = torch.where(drawing[:, None], latents, embeds.to(latents.dtype))
        self.feed(rows, ids, position, active, embeds)
        rows.end_spent(self.answer_prefix, self.config.answer_budget)
        return StepRecord(
            ids,
            position,
            open_allowed,
            text.log_prob,
            text.sampled,
            text.decided,
            stop and stop.log_prob,
            stop and stop.sampled,
            stop and stop.decided,
            cause,
            latents,
            records,
            mixed,
            None if mixed is None else embeds,
        )

    def step_spans(
        self, rows: Rows, h: torch.Tensor, has_queue: bool, lengths: dict[int, int], context: HeadContext
    ) -> list[StepRecord]:
        """Rows that have just opened a span draw all of it and close it; every other active row writes a token.

        Args:
            lengths: slot -> how many latents its row draws.
            context: of these rows, in order.

        Returns:
            A record of every position that some row takes. Rows without a span take the first one.
        """
        backbone, v, writing = self.model.backbone, self.model.vocabulary, rows.mode == WRITING
        open_allowed = rows.may_open()
        logits = backbone.logits(h).float()
        text = self.choose_tokens(rows, logits, writing, open_allowed, has_queue)
        text, mixed, text_embeds = self.embed_text(rows, logits, text, writing)
        block, latents, ids = self.draw_spans(rows, h, lengths, context)
        in_span = torch.zeros_like(writing).index_fill(0, block.slots, True)
        full = block.lengths - 1 >= rows.limit[block.slots]
        causes = torch.where(full, CAUSES.index("count"), CAUSES.index("budget"))
        records = []
        for at in range(ids.shape[1]):
            here = torch.where(writing & (at == 0), text.chosen, v.pad).index_copy(0, block.slots, ids[:, at])
            position = rows.next.expand(3, -1).index_copy(1, block.slots, block.positions[:, :, at])
            fed = torch.zeros_like(h).index_copy(0, block.slots, latents[:, at])
            cause = torch.zeros_like(here).index_copy(0, block.slots, causes * (at == block.lengths - 1))
            record = StepRecord(here, position, open_allowed, cause=cause, latent_embeds=fed)
            if at == 0:
                kept = {"mixed": mixed, "mixed_embeds": None if mixed is None else text_embeds}
                record = record._replace(
                    log_prob=text.log_prob, sampled_log_prob=text.sampled, text_decisions=text.decided, **kept
                )
            records.append(record)
        position = rows.next.expand(3, -1)
        after = block.positions[0].gather(1, block.lengths[:, None] - 1)[:, 0] + 1
        rows.next = (rows.next + writing).index_copy(0, block.slots, after)
        rows.update(closed=in_span)
        last = torch.where(writing, text.chosen, v.close)
        self.end_text(rows, last, writing)
        self.feed(rows, last, position, writing, text_embeds)
        rows.length = rows.length.index_add(0, block.slots, block.lengths)
        rows.block = block
        rows.end_spent(self.answer_prefix, self.config.answer_budget)
        return records

    def draw_spans(
        self, rows: Rows, h: torch.Tensor, lengths: dict[int, int], context: HeadContext
    ) -> tuple[Block, torch.Tensor, torch.Tensor]:
        """The inputs of whole spans, of which the last is the close token; the latents (m, Q, D) among them, zero after
        the end of a span; and the ids (m, Q)."""
        backbone, v, longest = self.model.backbone, self.model.vocabulary, max(lengths.values())
        slots, length = (to_device(torch.tensor(list(x)), h.device) for x in (lengths, lengths.values()))
        at = torch.arange(longest + 1, device=h.device)
        grids, start = rows.grids[slots], rows.span_start[slots]
        z = self.model.draw_spans(h[slots], grids, max(longest, 1), context)
        is_latent = at < length[:, None]
        latents = F.pad(z[:, :longest], (0, 0, 0, 1)) * is_latent[..., None]
        ids = torch.where(is_latent, v.latent, v.close)
        embeds = torch.where(is_latent[..., None], latents, backbone.embed(ids).to(latents.dtype))
        flat = start.repeat_interleave(longest + 1), at.repeat(len(slots)), grids.repeat_interleave(longest + 1, 0)
        positions = backbone.latent_position_ids(*flat).unflatten(1, (len(slots), -1))
        after = backbone.position_after_span(start, length, grids)
        positions = torch.where(is_latent, positions, after[:, None])
        return Block(list(lengths), slots, embeds, positions, length + 1), latents, ids

    def embed_text(
        self, rows: Rows, logits: torch.Tensor, text: Choice, writing: torch.Tensor
    ) -> tuple[Choice, torch.Tensor | None, torch.Tensor]:
        """What rows that are ``writing`` (S,) show, which of them are fed a mixture (None: there is no such rule), and
        the inputs (S, D) for all of them."""
        if self.mixer is None:
            return text, None, self.model.backbone.embed(text.chosen)
        mixed, ids, vectors = self.mixer.mix(rows, logits, text.chosen, writing, writing & ~text.decided)
        embeds = torch.where(mixed[:, None], vectors, self.model.backbone.embed(ids))
        return text._replace(chosen=ids, decided=text.decided & ~mixed), mixed, embeds

    def end_text(self, rows: Rows, ids: torch.Tensor, writing: torch.Tensor) -> None:
        """Apply the text that rows that were ``writing`` (S,) wrote, spans that they opened included."""
        ended, opened, wrote = writing & (ids == self.model.vocabulary.end), None, None
        if self.can_sketch:
            opened = writing & (ids == self.model.vocabulary.open)
            wrote = writing & ~opened
            rows.span_start = torch.where(opened, rows.next, rows.span_start)
        rows.update(wrote=wrote, opened=opened, ended=ended)

    def feed(self, rows: Rows, ids: torch.Tensor, position: torch.Tensor, active: torch.Tensor, embeds: torch.Tensor):
        """Make ``embeds`` (S, D) of ``ids`` (S,) at ``position`` (axes, S) the inputs of the next step, and count this
        one."""
        rows.length = rows.length + active
        rows.last, rows.embeds, rows.positions = ids, embeds, position

    # -- text ---------------------------------------------------------------------------------------------------------
    def choose_tokens(
        self, rows: Rows, logits: torch.Tensor, writing: torch.Tensor, open_allowed: torch.Tensor, has_queue: bool
    ) -> Choice:
        """The text tokens of rows that are ``writing`` (S,): those of their queue, or chosen by the logits (S, V)."""
        config, v, forbidden = self.config, self.model.vocabulary, self.forbidden[open_allowed.long()]
        logits = logits.masked_fill(forbidden, float("-inf"))
        if config.logits_processor is not None:
            logits = config.logits_processor(self.written.ids, logits).masked_fill(forbidden, float("-inf"))
        plain = logits.log_softmax(-1)  # as a replay computes it, to the bit
        if config.temperature == 0:
            ids, sampled = logits.argmax(-1), None
        else:
            scores = sampling_log_probs(logits, config.temperature, config.top_p, config.top_k)
            ids = sample_tokens(scores, uniform(rows.keys, rows.length, TOKEN))
            sampled = scores.gather(-1, ids[:, None])[:, 0]
        log_prob = plain.gather(-1, ids[:, None])[:, 0]
        if not has_queue and self.ends_sentence is None:
            return Choice(ids, log_prob, sampled, writing)
        queued, token = rows.queued(), rows.next_in_queue()
        forced, pops = queued, queued
        if self.ends_sentence is not None:  # a span opens after a sentence, before what is in the queue
            opens = self.ends_sentence[rows.last] & rows.has_room()
            pops = queued & (~opens | (token == v.open))
            token, forced = torch.where(opens, v.open, token), queued | opens
        rows.queue_at = rows.queue_at + (writing & pops)
        return Choice(torch.where(forced, token, ids), log_prob, sampled, writing & ~forced)

    # -- spans --------------------------------------------------------------------------------------------------------
    def close_spans(
        self, rows: Rows, h: torch.Tensor, logits: torch.Tensor
    ) -> tuple[Choice | None, torch.Tensor, torch.Tensor]:
        """The decisions to close, rows (S,) that close their span now, and the cause as a code of CAUSES."""
        model, switch = self.model, rows.switch
        full = rows.must_close()
        closing = full | ((rows.mode == DRAWING) & rows.must_end_span())
        cause = torch.where(full, CAUSES.index("count" if switch.stop == "count" else "cap"), CAUSES.index("budget"))
        cause, stop = cause * closing, None
        if switch.stop == "count":
            return None, closing, cause
        deciding = rows.may_close() & ~closing
        if switch.stop == "distance":  # nothing is drawn at random, so there is nothing to replay
            close = model.backbone.embed(torch.full((1,), model.vocabulary.close, device=h.device))
            own = deciding & ((h - close).float().square().mean(-1) < switch.near)
        else:
            stop = self.choose_stops(rows, logits, deciding)
            own = deciding & stop.chosen
        return stop, closing | own, cause.masked_fill(own, CAUSES.index("close"))

    def choose_stops(self, rows: Rows, logits: torch.Tensor, deciding: torch.Tensor) -> Choice:
        """Whether each row closes, by the logits (S, V) of continuing and of closing alone."""
        v, config = self.model.vocabulary, self.config
        scores = stop_log_probs(logits, v.latent, v.close)
        shaped = scores if config.temperature == 0 else (scores / config.temperature).log_softmax(-1)
        if config.temperature == 0:
            stops = scores[:, 1] > scores[:, 0]
        else:
            stops = uniform(rows.keys, rows.length, STOP) < shaped[:, 1].exp()
        log_prob, sampled = (torch.where(stops, x[:, 1], x[:, 0]) for x in (scores, shaped))
        return Choice(stops, log_prob, None if config.temperature == 0 else sampled, deciding)

    def move(self, rows: Rows, active: torch.Tensor, drawing: torch.Tensor, closing: torch.Tensor) -> torch.Tensor:
        """Positions (axes, S) of this step. Moves the position of the next text token."""
        backbone = self.model.backbone
        latents = backbone.latent_position_ids(rows.span_start, rows.slot, rows.grids)
        after = backbone.position_after_span(rows.span_start, rows.slot, rows.grids)
        following = torch.where(closing, after, rows.next)
        rows.next = following + (active & ~drawing)
        return torch.where(drawing, latents, following)

    # -- latents ------------------------------------------------------------------------------------------------------
    def sample_latents(
        self, rows: Rows, h: torch.Tensor, drawing: torch.Tensor, context: HeadContext | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(S, D) latents for rows that are ``drawing`` (S,), as they are fed back, and what a policy records of them
        (S, J, Z). Other rows get anything."""
        model, policy, slot = self.model, self.config.latent_policy, rows.slot
        means = None if rows.means is None else rows.means[self.slots, slot]
        noise = normal(rows.keys, rows.length, self.counters) if len(self.counters) else None
        if context is not None:
            return self.sample_in_context(rows, h, noise, means, context), None
        if policy is None or not policy.has_record:
            return model.sample_latents(h, rows.grids, slot, noise, None, means, self.constants), None
        states, _ = model.head.cast_inputs(h, None)
        size = len(h), policy.num_draws, model.head.latent_width
        noise = states.new_zeros(size) if noise is None else noise.view(size).to(states)
        z, record = policy.sample(model.head, states, noise)
        return model.to_embeddings(z, rows.grids, slot, means).to(h.dtype), record

    def sample_in_context(self, rows: Rows, h, noise, means, context: HeadContext) -> torch.Tensor:
        """(S, D) latents of the rows that the context of a head names, zero elsewhere."""
        part = context.rows
        assert part is not None  # the engine names them
        if not len(part):
            return torch.zeros_like(h)
        noise, means = (None if x is None else x[part] for x in (noise, means))
        slot = torch.minimum(rows.slot, rows.limit - 1)[part]  # a row whose span is full closes it now
        context = replace(context, slot=slot)
        drawn = self.model.sample_latents(h[part], rows.grids[part], slot, noise, context, means)
        return torch.zeros_like(h).index_copy(0, part, drawn)
