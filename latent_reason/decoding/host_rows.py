"""What the host knows of rows without reading them from the device."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..model.batch import Grid, MixedBatch
from ..model.switching import DONE, DRAWING, WRITING


@dataclass(eq=False)
class Row:
    """One row: its ``number`` among all rows, the columns of its prompt, its budget, the grid and the most latents of
    its spans, what it has written, the step and slot of each of these positions, and its mode."""

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
    answering: bool = False  # whether its budget was used up and it was forced to answer

    @property
    def sure_latents(self) -> int:
        """How many latents it will draw before anything else can happen, in a span of a counted length."""
        if self.mode != DRAWING:
            return 0
        return max(0, min(self.limit - self.latents, self.budget - 1 - len(self.ids)))

    def force_answer(self, prefix_length: int, answer_budget: int) -> None:
        """Note that it is forced to write an answer prefix, and may then write so much more."""
        self.answering, self.num_forced = True, prefix_length
        self.budget = len(self.ids) + prefix_length + answer_budget


@dataclass(eq=False)
class Group:
    """Rows that were admitted together: their prompt, and the step at which they began."""

    prompt: MixedBatch
    rows: list[Row]
    start: int

    @property
    def is_done(self) -> bool:
        return all(row.mode == DONE for row in self.rows)
