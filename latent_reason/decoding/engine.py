"""generate(): batched, cached decoding of text and latents, and the engine under it.

Every active row feeds one position a step, text or latent, or the whole of a span that its head has drawn at once. So one
cache serves rows in different modes. The state of all rows lies in tensors. The host reads their modes and ids once a
step, and not at all while every row is in a span whose length is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..model.batch import PAD, MixedBatch, to_device
from ..model.reasoner import LatentReasoner
from ..model.switching import DONE, DRAWING, WRITING, Switch
from .compiled import compile_steps
from .config import GenerationConfig
from .host_rows import Group, Row
from .prompts import ComputedPrompts, compute_prompts, forced_queues, planned_grids, within_limit
from .rollout import Rollout, stack_steps
from .rows import Rows
from .sampling import row_keys
from .slots import Slots
from .steps import Kind, Stepper, StepRecord


@torch.no_grad()
def generate(
    model: LatentReasoner,
    prompt: MixedBatch,
    config: GenerationConfig | None = None,
    *,
    row_ids: Sequence[int] | None = None,
    group_size: int = 1,
    prompt_embeds: torch.Tensor | None = None,
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
        group_size: so many rows one after the other have the same prompt, which is computed once for them.
        prompt_embeds: (B, N, D + extra_width) inputs of the text model at the prompt's positions, in place of those
            that :meth:`.LatentReasoner.prompt_embeddings` gives.

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
        if len(prompt.ids) % group_size:
            raise ValueError(f"{len(prompt.ids)} rows are no groups of {group_size}.")
        same = [row - row % group_size for row in range(len(prompt.ids))]
        engine = Engine(model, config, len(prompt.ids))
        group = engine.admit(prompt, row_ids=row_ids, same_prompt=same, prompt_embeds=prompt_embeds)
        while engine.num_active:
            engine.step()
            engine.compact()
        return engine.collect(group)
    finally:
        model.train(was_training)


class Engine:
    """Decodes rows in ``num_slots`` slots. A row that has ended leaves its slot to another.

    Example:
        >>> engine = Engine(reasoner, GenerationConfig(max_new_tokens=64), num_slots=8)
        >>> group = engine.admit(prompt)
        >>> while engine.num_active:
        ...     engine.step()
        >>> rollout = engine.collect(group)

    Attributes:
        num_passes, num_reads: passes of the text model so far, prompts left out, and reads from the device.
        num_row_steps: rows in these passes; over ``num_passes * num_slots``, the share of slots in use.
        num_steps: positions for which there are records; a pass that feeds whole spans has several.
    """

    def __init__(self, model: LatentReasoner, config: GenerationConfig, num_slots: int):
        if config.latent_policy is not None and not model.can_sketch:
            raise ValueError("latent_policy: this model has no latent head. Remove the option.")
        config = config.for_model(model.hides_images)
        self.model, self.config, self.num_slots, self.device = model, config, num_slots, model.device
        self.can_sketch = config.latent_mode != "off" and model.can_sketch
        self.switch = self._switch()
        # what changes latents one by one, or reads text position by position, keeps spans from being drawn at once
        single = (
            config.has_text_hooks
            or config.hide_images
            or config.latent_hook is not None
            or config.latent_policy is not None
        )
        counted = self.switch.stop == "count" and not single
        self.draws_spans = self.can_sketch and counted and model.head.draws_whole_span
        self.occupants: list[Row | None] = [None] * num_slots
        self.groups: list[Group] = []
        self.slots = Slots(model, config, num_slots, reads_states=not self.draws_spans)
        self._set_stepper()
        self.records: list[StepRecord] = []
        self.num_steps = self.num_passes = self.num_reads = self.num_rows = self.num_row_steps = self.num_dropped = 0

    def _switch(self) -> Switch:
        switch = self.model.switch
        if self.config.latents_per_span is not None:  # a fixed count replaces the model's own stop
            switch = Switch(start=switch.start, max_spans=switch.max_spans)
        return switch if self.config.max_spans is None else replace(switch, max_spans=self.config.max_spans)

    @property
    def num_active(self) -> int:
        return sum(row is not None for row in self.occupants)

    @property
    def free_slots(self) -> list[int]:
        return [slot for slot, row in enumerate(self.occupants) if row is None]

    # -- admission ----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def admit(
        self,
        prompt: MixedBatch,
        *,
        row_ids: Sequence[int] | None = None,
        numbers: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
        forced_tokens: Sequence[Sequence[int]] | None = None,
        seeds: Sequence[int] | None = None,
        same_prompt: Sequence[int] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        computed: ComputedPrompts | None = None,
    ) -> Group:
        """Take rows into free slots: compute their prompts and what they do first. ``max_new_tokens``,
        ``forced_tokens`` and ``seeds`` are those of each row (None: of the configuration), ``numbers`` name the rows for
        a latent hook (default: in the order of admission), ``same_prompt`` says for each row the first row with the same
        prompt, and ``computed`` are the prompts where somebody has computed them; the others are as in :func:`generate`.

        Raises:
            ValueError: there are fewer free slots than rows, or an option that this model cannot follow.
        """
        n, config = len(prompt.ids), self.config
        if n > len(self.free_slots):
            raise ValueError(f"{n} rows for {len(self.free_slots)} free slots.")
        budget = config.max_new_tokens if max_new_tokens is None else max_new_tokens
        budgets = [budget] * n if isinstance(budget, int) else [int(x) for x in budget]
        budgets = within_limit(self.model, prompt, budgets)
        queue = forced_queues(self.model, config, config.forced_tokens if forced_tokens is None else forced_tokens, n)
        grids, count = planned_grids(self.model, prompt), config.latents_per_span
        plan = torch.tensor([h * w if count is None else count for h, w in grids])
        limits, slots = self.switch.limit_of(plan).tolist(), self.free_slots[:n]
        longest = getattr(self.model.head, "longest", None)
        if self.can_sketch and longest is not None and max(limits) > longest:
            raise ValueError(f"a span of {max(limits)} latents, but the head was built for longest={longest}.")
        if computed is None:
            computed = compute_prompts(self.model, prompt, prompt_embeds, same_prompt or range(n))
        keys = row_keys(config.seed if seeds is None else seeds, range(n) if row_ids is None else row_ids)
        rows = self._first_rows(computed, queue, budgets, grids, plan, keys, max(limits))
        self.slots.place_prompts(slots, rows, computed, prompt, max(budgets))
        lengths = (prompt.layout.token_type != PAD).sum(1).tolist()
        group = Group(prompt, [], self.num_steps)
        for at, slot in enumerate(slots):
            number = self.num_rows + at if numbers is None else numbers[at]
            row = Row(number, lengths[at], budgets[at], grids[at], limits[at], len(queue[at]))
            if row.budget <= 0 and config.answer_prefix:
                row.force_answer(len(config.answer_prefix), config.answer_budget)
            elif row.budget <= 0:
                row.mode = DONE
            self.occupants[slot] = row
            group.rows.append(row)
        self.num_rows += n
        self.groups.append(group)
        self._free_ended()
        return group

    def _first_rows(self, computed: ComputedPrompts, queue, budgets, grids, plan, keys, longest: int) -> Rows:
        """The state of rows that begin after computed prompts. ``longest`` is the most latents of their spans."""
        plan, grids, budget, keys = (to_device(torch.as_tensor(x), self.device) for x in (plan, grids, budgets, keys))
        mixer = self.stepper.mixer
        rows = Rows(
            self.switch,
            plan,
            grids=grids,
            budget=budget,
            keys=keys,
            position=computed.next,
            length=computed.length - 1,
            embeds=computed.embeds,
            positions=computed.positions,
            queue=queue,
            images=computed.images if self.config.hide_images else computed.images[:, :0],
            last=torch.full_like(plan, self.model.vocabulary.pad),
            strategy={} if mixer is None else mixer.first_state(len(plan)),
            means=self.model.latent_means(grids, longest + 1) if self.can_sketch else None,
        )
        rows.end_spent(self.stepper.answer_prefix, self.config.answer_budget)
        return rows

    # -- steps --------------------------------------------------------------------------------------------------------
    @property
    def kind(self) -> Kind:
        """What kind of step comes next."""
        rows = [row for row in self.occupants if row is not None]
        if all(row.mode == WRITING for row in rows):
            return "text"
        if self.draws_spans:
            return "spans"
        is_counted = self.switch.stop == "count" and self.config.latent_hook is None
        return "latent" if is_counted and all(row.sure_latents > 0 for row in rows) else "mixed"

    @torch.no_grad()
    def step(self) -> None:
        """Generate one position of every active row, or a whole span where the head draws it at once."""
        kind, rows, cache = self.kind, self.slots.rows, self.slots.cache
        extent = max(row.prompt_length + len(row.ids) for row in self.occupants if row is not None)
        cache.set_extent(extent, 1 if rows.block is None else rows.block.embeds.shape[1])
        always = self.config.compile or self.config.mixture is not None  # a rule may force tokens on the device
        has_queue = always or any(row is not None and row.num_forced for row in self.occupants)
        before = rows.mode
        if kind == "spans":
            h = self.stepper.forward(rows, cache)
            lengths = {slot: row.sure_latents for slot, row in enumerate(self.occupants) if row and row.mode == DRAWING}
            slots = to_device(torch.tensor(list(lengths)), self.device)
            records = self.stepper.step_spans(rows, h, has_queue, lengths, self.slots.context.for_rows(slots))
        elif self.slots.history is None and self.config.latent_hook is None and self.slots.written is None:
            lengths, records = {}, [self.take_step(kind, rows, cache, has_queue)]
        else:
            lengths, records = {}, [self._step_in_context(kind, has_queue)]
        if self.slots.written is not None:
            self._apply_hooks(kind, records[0], before)
        self.num_passes += 1
        self.num_row_steps += self.num_active
        self._note(kind, records, lengths)
        self._free_ended()

    def _step_in_context(self, kind: Kind, has_queue: bool) -> StepRecord:
        """A step with a head that reads the states so far, or with hooks."""
        rows = self.slots.rows
        h = self.stepper.forward(rows, self.slots.cache)
        states = None if self.slots.history is None else self.slots.history.add(h, rows)
        context = None
        if states is not None and kind != "text":
            places = self._drawing()
            slots = to_device(torch.tensor([slot for slot, _ in places], dtype=torch.long), self.device)
            context = self.slots.context.for_rows(slots, None, *states, places)
        replaced = None if self.config.latent_hook is None else self._replace_latents
        record = self.stepper.decide(kind, rows, h, has_queue, context, replaced)
        if self.slots.history is not None and record.cause is not None:
            self.slots.history.end_spans(record.cause > 0)
        return record

    def _drawing(self) -> list[tuple[int, int]]:
        """Slots of rows that may draw a latent now, each with the latent's place in its span. Where spans have a counted
        length, they all do."""
        counted = self.switch.stop == "count"
        rows = [(slot, row) for slot, row in enumerate(self.occupants) if row is not None and row.mode == DRAWING]
        return [(slot, row.latents) for slot, row in rows if not counted or row.sure_latents > 0]

    def _replace_latents(self, drawing: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """What the hook of the configuration makes of the latents (S, D) of rows that are ``drawing`` (S,)."""
        slots = drawing.nonzero()[:, 0]
        if not len(slots):
            return latents
        numbers = torch.tensor([self.occupants[slot].number for slot in slots.tolist()], device=self.device)
        written = {row.number: row.ids for row in self.occupants if row is not None}
        spans = self.slots.rows.spans[slots] - 1
        assert self.config.latent_hook is not None  # as the caller has seen
        new = self.config.latent_hook(numbers, spans, self.slots.rows.slot[slots], latents[slots], written)
        return latents.index_copy(0, slots, new.to(latents.dtype))

    def _apply_hooks(self, kind: Kind, record: StepRecord, before: torch.Tensor) -> None:
        """Keep the ids of a step, and end rows whose text meets the stopping criteria. ``before`` (S,) were their modes."""
        self.slots.written.add(record.ids.masked_fill(before == DONE, self.slots.written.pad))
        if self.config.stopping_criteria is not None and kind != "latent":
            stopped = self.config.stopping_criteria(self.slots.written.ids, None)
            writing = (before == WRITING) & (self.slots.rows.mode == WRITING)  # not where a span has just been opened
            self.slots.rows.mode = self.slots.rows.mode.masked_fill(stopped & writing, DONE)

    def _note(self, kind: Kind, records: list[StepRecord], lengths: dict[int, int]) -> None:
        """Bring what the host knows of the rows up to date, by one read; after a step of latents by none. ``lengths``
        are those of the spans that rows have drawn as a whole."""
        active = [(slot, row) for slot, row in enumerate(self.occupants) if row is not None]
        for slot, row in active:
            row.places += [(self.num_steps + at, slot) for at in range(1 + lengths.get(slot, 0))]
        self.records += records
        self.num_steps += len(records)
        latent, close = self.model.vocabulary.latent, self.model.vocabulary.close
        if kind == "latent":
            for _, row in active:
                row.ids.append(latent)
                row.latents += 1
            return
        self.num_reads += 1
        fields = [self.slots.rows.mode, records[0].ids, self.slots.rows.answering.long()][
            : 3 if self.config.answer_prefix else 2
        ]
        modes, ids, *answering = torch.stack(fields).tolist()
        for slot, row in active:
            row.num_forced -= row.mode == WRITING and row.num_forced > 0
            row.latents = row.latents + 1 if modes[slot] == row.mode == DRAWING else 0
            row.mode = modes[slot]
            row.ids += [latent] * lengths[slot] + [close] if slot in lengths else [ids[slot]]
            if answering and answering[0][slot] and not row.answering:
                row.force_answer(len(self.config.answer_prefix), self.config.answer_budget)

    def _set_stepper(self) -> None:
        self.stepper = Stepper(self.model, self.config, self.num_slots, self.slots.written)
        self.take_step = (
            compile_steps(self.stepper) if self.config.compile and not self.draws_spans else self.stepper.take_step
        )

    def stop(self, rows: list[Row]) -> None:
        """End these rows where they are."""
        slots = [slot for slot, row in enumerate(self.occupants) if row is not None and row in rows]
        for slot in slots:
            self.occupants[slot].mode = DONE
        index = to_device(torch.tensor(slots, dtype=torch.long), self.device)
        self.slots.rows.mode = self.slots.rows.mode.index_fill(0, index, DONE)
        self._free_ended()

    def _free_ended(self) -> None:
        self.occupants = [row if row is not None and row.mode != DONE else None for row in self.occupants]
        if self.slots.rows.block is not None:  # the next row of a slot must not take what its last one has left
            self.slots.rows.block = self.slots.rows.block.keep(
                {slot for slot, row in enumerate(self.occupants) if row is not None}
            )

    def compact(self) -> None:
        """Drop the free slots, once half of them are, for the last rows of a run. They take no other rows any more."""
        kept = [slot for slot, row in enumerate(self.occupants) if row is not None]
        fixed = (
            self.slots.context is not None
            or self.config.compile
            or self.slots.is_new
            or self.slots.rows.block is not None
        )
        if fixed or self.slots.written is not None or not 0 < len(kept) <= self.num_slots // 2:
            return
        index = to_device(torch.tensor(kept), self.device)
        self.slots.select(index)
        self.occupants = [self.occupants[slot] for slot in kept]
        self.num_slots = len(kept)
        self._set_stepper()

    # -- results ------------------------------------------------------------------------------------------------------
    def latents_of(self, row: Row, start: int, length: int) -> torch.Tensor:
        """(length, D) the latents of a row from its position ``start`` on, while its group is not collected. They must
        have been drawn."""
        places = row.places[start : start + length]
        return torch.stack([self.records[step - self.num_dropped].latent_embeds[slot] for step, slot in places])

    def collect(self, group: Group) -> Rollout:
        """The rollout of a group whose rows have all ended. Forgets the group, and the steps that no other needs."""
        rollout = self.rollout_of(group)
        self.groups.remove(group)
        first = min((other.start for other in self.groups), default=self.num_steps)
        del self.records[: first - self.num_dropped]
        active = [row for row in self.occupants if row is not None]
        width = max((row.prompt_length + len(row.ids) for row in active), default=0)
        self.slots.forget(first - self.num_dropped, width)
        self.num_dropped = first
        return rollout

    def rollout_of(self, group: Group) -> Rollout:
        """The rollout of a group as far as its rows are."""
        v, rows = self.model.vocabulary, group.rows
        first = group.start - self.num_dropped
        records = self.records[
            first : first + max((row.places[-1][0] + 1 - group.start for row in rows if row.ids), default=0)
        ]
        positions = [
            [(step - group.start, slot, token) for (step, slot), token in zip(row.places, row.ids, strict=True)]
            for row in rows
        ]
        empty = self.model.backbone.embed(group.prompt.ids[0, 0])
        fields, spans = stack_steps(records, positions, [row.grid for row in rows], v.latent, empty)
        return Rollout(
            group.prompt,
            **fields,
            spans=spans,
            finish_reasons=[
                "end" if row.ids[-1:] == [v.end] else "budget" if len(row.ids) >= row.budget else "stopped"
                for row in rows
            ],
            forced_answer=[row.answering for row in rows],
            hides_images=bool(self.config.hide_images),
        )
