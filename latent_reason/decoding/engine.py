"""generate(): batched, cached decoding of text and latents, and the engine under it.

Every active row feeds exactly one position a step, text or latent, so one cache serves rows in different modes. The
state of all rows lies in tensors. The host reads their modes and ids once a step, and not at all while every row is in
a span whose length is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from ..model.backbones.cache import SlotCache
from ..model.batch import IMAGE, PAD, Grid, MixedBatch, to_device
from ..model.heads.base import HeadContext
from ..model.reasoner import LatentReasoner
from ..model.switching import DONE, DRAWING, WRITING, Switch
from .config import GenerationConfig
from .rollout import Rollout, stack_steps
from .rows import Rows
from .sampling import row_keys, shift_keys
from .steps import Kind, Stepper, StepRecord, compile_steps
from .written import WrittenIds


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


def planned_grids(model: LatentReasoner, prompt: MixedBatch) -> list[Grid]:
    """The latent grid of each row's sketches: the switch's count, or the grid for the row's last image."""
    grids = [model.latent_grid_for(None)] * len(prompt.ids)
    if prompt.images is not None:
        for row, size in zip(prompt.image_rows, model.backbone.token_grids(prompt.images), strict=True):
            grids[row] = model.latent_grid_for(size)
    return grids


@dataclass(eq=False)
class Row:
    """What the host knows of one row: its ``number`` among all rows, the columns of its prompt, its budget, the most
    latents of its spans, what it has written, the step and slot of each of these positions, and its mode."""

    number: int
    prompt_length: int
    budget: int
    grid: Grid
    limit: int
    num_forced: int  # tokens that it is still forced to write
    ids: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    mode: int = WRITING
    latents: int = 0  # of its open span
    answering: bool = False

    @property
    def sure_latents(self) -> int:
        """How many latents it will draw before anything else can happen, in a span of a counted length."""
        if self.mode != DRAWING:
            return 0
        return max(0, min(self.limit - self.latents, self.budget - 1 - len(self.ids)))


@dataclass(eq=False)
class Group:
    """Rows that were admitted together: their prompt, and the step at which they began."""

    prompt: MixedBatch
    rows: list[Row]
    start: int

    @property
    def is_done(self) -> bool:
        return all(row.mode == DONE for row in self.rows)


@dataclass(eq=False)
class Branch:
    """A row at one moment: what the host knows of it, its state, keys and values (heads, C, d) of each layer, and the
    column at which its answer starts."""

    row: Row
    rows: Rows
    cache: list[tuple[torch.Tensor, torch.Tensor]]
    start: int

    def copy(self) -> tuple[Row, Rows]:
        """The row and its state, to be moved on."""
        row = replace(self.row, ids=[*self.row.ids], places=[*self.row.places])
        return row, self.rows.select(torch.zeros(1, dtype=torch.long, device=self.rows.mode.device))

    def as_prompt(self) -> Branch:
        """The same branch, whose answer so far counts as part of its prompt."""
        row = self.row
        prompt_length, budget = row.prompt_length + len(row.ids), row.budget - len(row.ids)
        return replace(self, row=replace(row, prompt_length=prompt_length, budget=budget, ids=[], places=[]))


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
        num_steps: positions of the longest row so far.
    """

    def __init__(self, model: LatentReasoner, config: GenerationConfig, num_slots: int):
        if config.latent_policy is not None and not model.can_sketch:
            raise ValueError("latent_policy: this model has no latent head. Remove the option.")
        self.model, self.config, self.num_slots, self.device = model, config, num_slots, model.device
        self.can_sketch = config.latent_mode != "off" and model.can_sketch
        self.switch = self._switch()
        plain = config.latent_hook is None and config.latent_policy is None and self.switch.stop == "count"
        self.draws_spans = self.can_sketch and plain and model.head.draws_whole_span
        self.occupants: list[Row | None] = [None] * num_slots
        self.groups: list[Group] = []
        self.rows: Rows | None = None
        self.cache: SlotCache | None = None
        self.context: HeadContext | None = None
        self.stepper: Stepper | None = None
        self.history: History | None = None
        hooks = config.logits_processor, config.stopping_criteria
        has_hooks = any(hook is not None for hook in hooks)
        self.written = WrittenIds(num_slots, model.vocabulary.pad, model.device) if has_hooks else None
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
    ) -> Group:
        """Take rows into free slots: compute their prompts and what they do first. ``max_new_tokens``,
        ``forced_tokens`` and ``seeds`` are those of each row (None: of the configuration), ``numbers`` name the rows for
        a latent hook (default: in the order of admission), ``same_prompt`` says for each row the first row with the same
        prompt; the others are as in :func:`generate`.

        Raises:
            ValueError: there are fewer free slots than rows, or an option that this model cannot follow.
        """
        n, config = len(prompt.ids), self.config
        if n > len(self.free_slots):
            raise ValueError(f"{n} rows for {len(self.free_slots)} free slots.")
        budget = config.max_new_tokens if max_new_tokens is None else max_new_tokens
        budgets = [budget] * n if isinstance(budget, int) else [int(x) for x in budget]
        queue = self._forced_tokens(config.forced_tokens if forced_tokens is None else forced_tokens, n)
        grids = planned_grids(self.model, prompt)
        count = config.latents_per_span
        plan = torch.tensor([h * w if count is None else count for h, w in grids])
        if self.stepper is None:
            self._set_stepper()
        slots = self.free_slots[:n]
        keys = row_keys(config.seed if seeds is None else seeds, range(n) if row_ids is None else row_ids)
        keys = to_device(keys, self.device)
        self._prefill(
            prompt,
            prompt_embeds,
            slots,
            same_prompt or list(range(n)),
            queue=queue,
            budgets=budgets,
            grids=grids,
            plan=plan,
            keys=keys,
        )
        limits = self.switch.limit_of(plan).tolist()
        pads = (prompt.layout.token_type == PAD).sum(1).tolist()
        group = Group(prompt, [], self.num_steps)
        for at, slot in enumerate(slots):
            length = prompt.ids.shape[1] - pads[at]
            number = self.num_rows + at if numbers is None else numbers[at]
            row = Row(number, length, budgets[at], grids[at], limits[at], len(queue[at]))
            self.occupants[slot] = row
            group.rows.append(row)
        self.num_rows += n
        self.groups.append(group)
        for row in group.rows:
            if row.budget <= 0:
                self._spend(row)
        self._free_ended()
        return group

    def _spend(self, row: Row) -> None:
        """End a row whose budget was nothing; with ``answer_prefix`` it is forced to answer."""
        if self.config.answer_prefix:
            self._force_answer(row)
        else:
            row.mode = DONE

    def _force_answer(self, row: Row) -> None:
        row.answering, row.num_forced = True, len(self.config.answer_prefix)
        row.budget = len(row.ids) + row.num_forced + self.config.answer_budget

    def _forced_tokens(self, given: Sequence[Sequence[int]] | None, n: int) -> list[list[int]]:
        """The ids each row is forced to write first, an opening token included where spans open at once."""
        config, model = self.config, self.model
        queue, opening = (
            [list(q) for q in given] if given is not None else [[] for _ in range(n)],
            model.vocabulary.open,
        )
        if any(model.vocabulary.latent in q for q in queue):
            raise ValueError(
                "forced_tokens hold the placeholder of a latent. Leave it out: an open token draws a span."
            )
        at_once = config.latent_mode == "learned" and model.switch.start == "first" and model.can_sketch
        if at_once or config.latent_mode == "first":
            queue = [q if q[:1] == [opening] else [opening, *q] for q in queue]
        if not self.can_sketch and any(opening in q for q in queue):
            raise ValueError(
                "a span is forced open, but the model has no latent head or latent_mode is 'off'. Remove the open "
                "token, or use latent_mode='learned' with a method that sketches."
            )
        return queue

    def _prefill(
        self,
        prompt: MixedBatch,
        embeds: torch.Tensor | None,
        slots: list[int],
        same_prompt: Sequence[int],
        *,
        queue,
        budgets,
        grids,
        plan,
        keys,
    ):
        """Compute all of the prompts but their last position, which is the input of the first step, and put the rows
        into their slots."""
        backbone, n, device = self.model.backbone, len(prompt.ids), self.device
        positions, length = prompt.positions, prompt.ids.shape[1]
        positions = backbone.position_ids(prompt) if positions is None else positions
        embeds, mask = self.model.prompt_embeddings(prompt) if embeds is None else embeds, prompt.mask
        prefix, end = backbone.new_cache(), max(length - 1, 1)
        distinct = sorted(set(same_prompt))
        first, rows_of_prefix = (
            to_device(torch.tensor(x), device) for x in (distinct, [distinct.index(row) for row in same_prompt])
        )
        backbone.forward_text(embeds[first, :end], mask[first, :end], positions[:, first, :end], prefix)
        pads = to_device(torch.tensor((prompt.layout.token_type == PAD).sum(1)), device)
        index = to_device(torch.tensor(slots), device)
        if self.cache is None:
            sizes = [(layer.keys, layer.values) for layer in prefix.layers]
            self.cache = SlotCache(sizes, self.num_slots, self.config.cache_implementation == "static")
        room = max(budgets) + len(self.config.answer_prefix) + self.config.answer_budget + 2
        self.cache.reserve(length + (room if self.cache.static else 0))
        self.cache.fill(index, prefix, rows_of_prefix, pads)
        columns = (pads[:, None] + torch.arange(length, device=device)).clamp_max(length - 1)
        limits = self.switch.limit_of(plan)
        images = (prompt.token_type == IMAGE).gather(1, columns) & (columns < length - 1)
        plan, grids, budget = (to_device(torch.as_tensor(x), device) for x in (plan, grids, budgets))
        rows = Rows(
            self.switch,
            plan,
            grids=grids,
            budget=budget,
            keys=keys,
            position=positions.masked_fill(~mask, -1).amax((0, 2)) + 1,
            length=length - 1 - pads,
            embeds=embeds[:, -1, : backbone.width],  # text, which has no features besides its embedding
            positions=positions[:, :, -1],
            queue=queue,
            images=images if self.config.hide_images else images[:, :0],
            last=torch.full_like(plan, self.model.vocabulary.pad),
            strategy=self.stepper.mixer.first_state(n) if self.stepper.mixer is not None else {},
            means=self.model.latent_means(grids, int(limits.max()) + 1) if self.can_sketch else None,
        )
        rows.end_spent(list(self.config.answer_prefix), self.config.answer_budget)
        context = self.model.head_context(prompt)
        if self.written is not None:
            self.written.admit(index, prompt.ids)
        if self.rows is None:  # every slot needs some row; those without one of their own have ended
            every = torch.tensor([slots.index(s) if s in slots else 0 for s in range(self.num_slots)], device=device)
            self.rows = rows.select(every)
            empty = torch.tensor([s not in slots for s in range(self.num_slots)], device=device)
            self.rows.mode = self.rows.mode.masked_fill(empty, DONE)
            self.context = context and context.select(every)
            reads_states = context is not None and not self.draws_spans
            self.history = History(self.num_slots, device) if reads_states else None
        else:
            self.rows.put(index, rows)
            if self.context is not None:
                self.context.put(index, context)
            if self.history is not None:
                self.history.forget(slots)

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
        """Generate one position of every active row."""
        kind, rows, cache = self.kind, self.rows, self.cache
        extent = max(row.prompt_length + len(row.ids) for row in self.occupants if row is not None)
        cache.set_extent(extent, 1 if rows.block is None else rows.block.embeds.shape[1])
        always = self.config.compile or self.config.mixture is not None  # a rule may force tokens on the device
        has_queue = always or any(row is not None and row.num_forced for row in self.occupants)
        before = rows.mode
        if kind == "spans":
            h = self.stepper.forward(rows, cache)
            lengths = {slot: row.sure_latents for slot, row in enumerate(self.occupants) if row and row.mode == DRAWING}
            slots = to_device(torch.tensor(list(lengths)), self.device)
            records = self.stepper.step_spans(rows, h, has_queue, lengths, self.context.for_rows(slots))
        elif self.history is None and self.config.latent_hook is None and self.written is None:
            lengths, records = {}, [self.take_step(kind, rows, cache, has_queue)]
        else:
            lengths, records = {}, [self._step_in_context(kind, has_queue)]
        if self.written is not None:
            self._apply_hooks(kind, records, lengths, before)
        self.num_passes += 1
        self.num_row_steps += self.num_active
        self._note(kind, records, lengths)
        self._free_ended()

    def _step_in_context(self, kind: Kind, has_queue: bool) -> StepRecord:
        """A step with a head that reads the states so far, or with hooks."""
        rows = self.rows
        h = self.stepper.forward(rows, self.cache)
        states = None if self.history is None else self.history.add(h, rows)
        context = None
        if states is not None and kind != "text":
            places = self._drawing()
            slots = to_device(torch.tensor([slot for slot, _ in places], dtype=torch.long), self.device)
            context = self.context.for_rows(slots, None, *states, places)
        replaced = None if self.config.latent_hook is None else self._replace_latents
        record = self.stepper.decide(kind, rows, h, has_queue, context, replaced)
        if self.history is not None and record.cause is not None:
            self.history.end_spans(record.cause > 0)
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
        spans = self.rows.spans[slots] - 1
        new = self.config.latent_hook(numbers, spans, self.rows.slot[slots], latents[slots], written)
        return latents.index_copy(0, slots, new.to(latents.dtype))

    def _apply_hooks(
        self, kind: Kind, records: list[StepRecord], lengths: dict[int, int], before: torch.Tensor
    ) -> None:
        """Keep the ids of a step, and end rows whose text meets the stopping criteria. ``before`` (S,) were their modes."""
        ids = torch.stack([record.ids for record in records], 1)
        counts = [1 + lengths.get(slot, 0) for slot in range(self.num_slots)]
        self.written.add(ids.masked_fill((before == DONE)[:, None], self.written.pad), counts)
        if self.config.stopping_criteria is not None and kind != "latent":
            stopped = self.config.stopping_criteria(self.written.ids, None)
            self.rows.mode = self.rows.mode.masked_fill(stopped & (before == WRITING), DONE)

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
        fields = [self.rows.mode, records[0].ids, self.rows.answering.long()][: 3 if self.config.answer_prefix else 2]
        modes, ids, *answering = torch.stack(fields).tolist()
        for slot, row in active:
            row.num_forced -= row.mode == WRITING and row.num_forced > 0
            row.latents = row.latents + 1 if modes[slot] == row.mode == DRAWING else 0
            row.mode = modes[slot]
            row.ids += [latent] * lengths[slot] + [close] if slot in lengths else [ids[slot]]
            if answering and answering[0][slot] and not row.answering:
                self._force_answer(row)

    def _set_stepper(self) -> None:
        self.stepper = Stepper(self.model, self.config, self.num_slots)
        self.stepper.written = self.written
        self.take_step = compile_steps(self.stepper) if self.config.compile else self.stepper.take_step

    def stop(self, rows: list[Row]) -> None:
        """End these rows where they are."""
        slots = [slot for slot, row in enumerate(self.occupants) if row is not None and row in rows]
        for slot in slots:
            self.occupants[slot].mode = DONE
        index = to_device(torch.tensor(slots, dtype=torch.long), self.device)
        self.rows.mode = self.rows.mode.index_fill(0, index, DONE)
        self._free_ended()

    def _free_ended(self) -> None:
        self.occupants = [row if row is not None and row.mode != DONE else None for row in self.occupants]

    def compact(self) -> None:
        """Drop the free slots, once half of them are, for the last rows of a run. They take no other rows any more."""
        kept = [slot for slot, row in enumerate(self.occupants) if row is not None]
        fixed = self.context is not None or self.config.compile or self.rows is None or self.rows.block is not None
        if fixed or self.written is not None or not 0 < len(kept) <= self.num_slots // 2:
            return
        index = to_device(torch.tensor(kept), self.device)
        self.rows = self.rows.select(index)
        self.cache.select(index)
        self.occupants = [self.occupants[slot] for slot in kept]
        self.num_slots = len(kept)
        self._set_stepper()

    # -- branches -----------------------------------------------------------------------------------------------------
    def save(self, row: Row) -> Branch:
        """What is needed to go on from where an active row is, in any slot and any number of times.

        Raises:
            ValueError: the head reads the states so far, which are not saved.
        """
        if self.written is not None:
            raise ValueError("rows with logits_processor or stopping_criteria cannot be continued twice.")
        if self.context is not None:
            raise ValueError(
                f"a {type(self.model.head).__name__} reads more than the state, so its rows cannot be continued twice. Use "
                "another method of decoding."
            )
        slot = self.occupants.index(row)
        length = row.prompt_length - 1 + len(row.ids)
        state = self.rows.select(torch.tensor([slot], device=self.device))
        return Branch(
            replace(row, ids=[*row.ids], places=[*row.places]),
            state,
            self.cache.read(slot, length),
            row.prompt_length - 1,
        )

    @torch.no_grad()
    def restore(
        self,
        branches: Sequence[Branch],
        row_ids: Sequence[int],
        forced_tokens: Sequence[int] | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Row]:
        """Continue branches, which may be those of another engine of the model, in free slots.

        Args:
            row_ids: keys of the randomness of each.
            forced_tokens: ids that all of them write first (None: what was left to be written).
            max_new_tokens: how much more each of them may write (None: what was left).

        Raises:
            ValueError: there are fewer free slots than branches.
        """
        slots = self.free_slots[: len(branches)]
        if len(slots) < len(branches):
            raise ValueError(f"{len(branches)} branches for {len(slots)} free slots.")
        self._start(branches[0])
        keys = row_keys(self.config.seed, row_ids)
        rows = []
        for at, (branch, slot) in enumerate(zip(branches, slots, strict=True)):
            row, state = branch.copy()
            start = torch.tensor([branch.start], device=self.device)
            state.keys = shift_keys(to_device(keys[at : at + 1], self.device), start)
            if forced_tokens is not None:
                state.force(torch.ones_like(state.answering), forced_tokens)
                row.num_forced = len(forced_tokens)
            if max_new_tokens is not None:
                state.budget, row.budget = state.length + max_new_tokens, len(row.ids) + max_new_tokens
            self.rows.put(torch.tensor([slot], device=self.device), state)
            self.cache.reserve(
                row.prompt_length + row.budget if self.cache.static else row.prompt_length + len(row.ids)
            )
            self.cache.write(slot, branch.cache)
            self.occupants[slot] = row
            rows.append(row)
        return rows

    def _start(self, branch: Branch) -> None:
        """Make an engine that has no rows yet ready to take branches."""
        if self.rows is not None:
            return
        self._set_stepper()
        self.cache = SlotCache(branch.cache, self.num_slots, self.config.cache_implementation == "static")
        self.rows = branch.rows.select(torch.zeros(self.num_slots, dtype=torch.long, device=self.device))
        self.rows.mode = torch.full_like(self.rows.mode, DONE)

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
        )


class History:
    """The states of S rows so far, for heads that read them, and which belong to the text since the last span."""

    def __init__(self, num_slots: int, device: torch.device):
        self.length, self.states = 0, torch.zeros(num_slots, 0, 0, device=device)  # (S, L, D)
        self.text_mask = torch.zeros(num_slots, 0, dtype=torch.bool, device=device)

    def add(self, h: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """The states (S, L, D) with those of this step h (S, D), and the mask of text (S, L)."""
        if self.length == self.states.shape[1]:
            states = h.new_zeros(len(h), 2 * self.length + 64, h.shape[1])
            self.states = torch.cat([self.states, states], 1) if self.length else states
            self.text_mask = F.pad(self.text_mask, (0, states.shape[1]))
        is_text = (rows.mode == WRITING) | ((rows.mode == DRAWING) & (rows.slot == 0))
        self.states[:, self.length], self.text_mask[:, self.length] = h, is_text
        self.length += 1
        return self.states[:, : self.length], self.text_mask[:, : self.length]

    def end_spans(self, closed: torch.Tensor) -> None:
        """Forget the text of rows that are ``closed`` (S,)."""
        self.text_mask &= ~closed[:, None]

    def forget(self, slots: list[int]) -> None:
        """Forget the text of slots that take another row."""
        self.text_mask[slots] = False
