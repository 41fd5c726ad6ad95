"""Rows that go on from one moment more than once, as the paths of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..model.batch import to_device
from .engine import Engine
from .host_rows import Row
from .rows import Rows
from .sampling import row_keys, shift_keys


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


def save_branch(engine: Engine, row: Row) -> Branch:
    """What is needed to go on from where an active row is, in any slot and any number of times.

    Raises:
        ValueError: the head reads more than the state, or there are hooks on text; what they read is not saved.
    """
    if engine.slots.written is not None:
        raise ValueError("rows with logits_processor or stopping_criteria cannot be continued twice.")
    if engine.slots.context is not None:
        raise ValueError(
            f"a {type(engine.model.head).__name__} reads more than the state, so its rows cannot be continued twice. Use "
            "another method of decoding."
        )
    slot = engine.occupants.index(row)
    length = row.prompt_length - 1 + len(row.ids)
    state = engine.slots.rows.select(torch.tensor([slot], device=engine.device))
    copied = replace(row, ids=[*row.ids], places=[*row.places])
    return Branch(copied, state, engine.slots.cache.read(slot, length), row.prompt_length - 1)


@torch.no_grad()
def restore_branches(
    engine: Engine,
    branches: Sequence[Branch],
    row_ids: Sequence[int],
    forced_tokens: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    max_new_tokens: int | None = None,
) -> list[Row]:
    """Continue branches, which may be those of another engine of the model, in free slots.

    Args:
        row_ids, seeds: of the randomness of each (seeds None: that of the configuration).
        forced_tokens: ids that all of them write first (None: what was left to be written).
        max_new_tokens: how much more each of them may write (None: what was left).

    Raises:
        ValueError: there are fewer free slots than branches.
    """
    slots = engine.free_slots[: len(branches)]
    if len(slots) < len(branches):
        raise ValueError(f"{len(branches)} branches for {len(slots)} free slots.")
    keys, rows = row_keys(engine.config.seed if seeds is None else seeds, row_ids), []
    for at, (branch, slot) in enumerate(zip(branches, slots, strict=True)):
        row, state = branch.copy()
        start = torch.tensor([branch.start], device=engine.device)
        state.keys = shift_keys(to_device(keys[at : at + 1], engine.device), start)
        if forced_tokens is not None:
            ids = torch.tensor(list(forced_tokens), dtype=torch.long, device=engine.device)
            state.force(torch.ones_like(state.answering), ids)
            row.num_forced = len(forced_tokens)
        if max_new_tokens is not None:
            state.budget, row.budget = state.length + max_new_tokens, len(row.ids) + max_new_tokens
        engine.slots.place(torch.tensor([slot], device=engine.device), state, branch.cache)
        engine.slots.cache.reserve(row.prompt_length + (row.budget if engine.slots.cache.static else len(row.ids)))
        engine.slots.cache.write(slot, branch.cache)
        engine.occupants[slot] = row
        rows.append(row)
    return rows
