"""The state of the rows that are decoded: one tensor a field, one entry a slot."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..model.switching import DONE, WRITING, Switch, SwitchState
from .sampling import shift_keys

STRATEGY = "strategy."


class Block(NamedTuple):
    """Inputs (m, Q, D) of rows in ``slots`` (m,) at ``positions`` (axes, m, Q), of which each takes ``lengths`` (m,).
    ``host_slots`` are the same slots as numbers."""

    host_slots: list[int]
    slots: torch.Tensor
    embeds: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor

    def keep(self, slots: set[int]) -> Block | None:
        """The inputs of rows in these slots; None if there are none."""
        kept = [at for at, slot in enumerate(self.host_slots) if slot in slots]
        if len(kept) in (0, len(self.host_slots)):
            return self if kept else None
        at = torch.tensor(kept, device=self.slots.device)
        host = [self.host_slots[i] for i in kept]
        return Block(host, self.slots[at], self.embeds[at], self.positions[:, at], self.lengths[at])


class Rows(SwitchState):
    """S rows, each with its mode, budget and place in its own answer.

    Attributes:
        grids: (S, 2) the latent grid of the row's spans.
        length: (S,) its columns in the cache, the input of this step left out. Every position takes one.
        budget: (S,) the length at which it may generate no more.
        keys: (S,) of its random numbers, which the length numbers.
        next: (S,) the position of the next text token; ``span_start`` (S,) that of the open span.
        embeds: (S, D) the input of this step; ``positions`` (axes, S) where it stands.
        queue: (S, Q) ids it is forced to write; ``queue_at`` and ``queue_length`` (S,) say which are left.
        answering: (S,) whether its budget was used up and it was forced to answer.
        last: (S,) the id it wrote last.
        means: (S, K + 1, Z) means of the latents at each slot; None for a head in the space of the states.
        images: (S, P) columns of its images, for ``hide_images``.
        block: inputs of whole spans, which rows take at once in the next step; None: there are none.
        strategy: what a test-time method keeps of each row, by name.
    """

    def __init__(
        self,
        switch: Switch,
        plan: torch.Tensor,
        *,
        grids: torch.Tensor,
        budget: torch.Tensor,
        keys: torch.Tensor,
        position: torch.Tensor,
        length: torch.Tensor,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        queue: list[list[int]],
        images: torch.Tensor,
        last: torch.Tensor,
        means: torch.Tensor | None,
        strategy: dict[str, torch.Tensor],
    ):
        super().__init__(switch, plan)
        self.grids, self.length = grids, length
        self.budget, self.keys = length + budget, shift_keys(keys, length)
        self.next, self.span_start = position, position.clone()
        self.embeds, self.positions, self.images = embeds, positions, images
        self.last, self.means, self.strategy = last, means, strategy
        longest = max(1, *map(len, queue))
        self.queue = torch.tensor([q + [0] * (longest - len(q)) for q in queue], device=plan.device)
        self.queue_length = torch.tensor([len(q) for q in queue], device=plan.device)
        self.queue_at = torch.zeros_like(plan)
        self.block: Block | None = None
        self.answering = torch.zeros(len(plan), dtype=torch.bool, device=plan.device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All fields, with the row as their first axis."""
        fields = {name: x for name, x in vars(self).items() if isinstance(x, torch.Tensor)}
        kept = {f"{STRATEGY}{name}": x for name, x in self.strategy.items()}
        return fields | {"positions": self.positions.T} | kept

    def _set(self, tensors: dict[str, torch.Tensor]) -> None:
        self.strategy = dict(self.strategy)
        for name, x in tensors.items():
            if name.startswith(STRATEGY):
                self.strategy[name.removeprefix(STRATEGY)] = x
            else:
                setattr(self, name, x.T.contiguous() if name == "positions" else x)

    def select(self, index: torch.Tensor) -> Rows:
        """Some of the rows, which may repeat."""
        rows = copy.copy(self)
        rows._set({name: x[index] for name, x in self.tensors().items()})
        return rows

    def put(self, index: torch.Tensor, other: Rows) -> None:
        """Replace the rows at ``index`` by all of ``other``."""
        theirs = other.tensors()
        for name, x in self.tensors().items():
            new = theirs[name]
            if x.ndim > 1 and x.shape[1] != new.shape[1]:  # queues, images or spans of another length
                width = max(x.shape[1], new.shape[1])
                x, new = (F.pad(t, (0, 0) * (t.ndim - 2) + (0, width - t.shape[1])) for t in (x, new))
            self._set({name: x.index_copy(0, index, new)})

    def copy_tensors(self) -> None:
        """Move all fields to memory of their own."""
        self._set({name: x.clone() for name, x in self.tensors().items()})

    # -- forced tokens and budgets ------------------------------------------------------------------------------------
    def queued(self) -> torch.Tensor:
        """(S,) whether the row is forced to write a token of its queue."""
        return self.queue_at < self.queue_length

    def next_in_queue(self) -> torch.Tensor:
        """(S,) the id that comes next; any id where none is left."""
        at = self.queue_at.clamp_max(self.queue.shape[1] - 1)
        return self.queue.gather(1, at[:, None])[:, 0]

    def force(self, rows: torch.Tensor, ids: torch.Tensor) -> None:
        """Force ``rows`` (S,) to write ``ids`` (n,) next, in place of what is left in their queue."""
        width = max(self.queue.shape[1], len(ids))
        padded = F.pad(ids, (0, width - len(ids)))
        self.queue = torch.where(rows[:, None], padded, F.pad(self.queue, (0, width - self.queue.shape[1])))
        self.queue_at = self.queue_at.masked_fill(rows, 0)
        self.queue_length = self.queue_length.masked_fill(rows, len(ids))

    def must_end_span(self) -> torch.Tensor:
        """(S,) whether the budget leaves no room for another latent."""
        return self.length >= self.budget - 1

    def end_spent(self, answer_prefix: torch.Tensor, answer_budget: int) -> None:
        """End rows whose budget is used up. With an ``answer_prefix`` (n,), they are forced to answer first."""
        spent = (self.length >= self.budget) & (self.mode == WRITING)
        if len(answer_prefix):
            asked = spent & ~self.answering
            self.force(asked, answer_prefix)
            self.budget = torch.where(asked, self.length + len(answer_prefix) + answer_budget, self.budget)
            self.answering, spent = self.answering | asked, spent & ~asked
        self.mode = self.mode.masked_fill(spent, DONE)
