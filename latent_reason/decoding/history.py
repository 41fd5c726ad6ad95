"""The states of rows so far, for heads that read them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..model.switching import DRAWING, WRITING
from .rows import Rows


class History:
    """The states of S rows so far, for heads that read them, and which belong to the text since the last span."""

    def __init__(self, num_slots: int, device: torch.device):
        self.length, self.states = 0, torch.zeros(num_slots, 0, 0, device=device)  # (S, L, D)
        self.text_mask = torch.zeros(num_slots, 0, dtype=torch.bool, device=device)

    def add(self, h: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """The states (S, L, D) with those of this step h (S, D), and the mask of text (S, L)."""
        if self.length == self.states.shape[1]:
            states = h.new_zeros(len(h), self.length + 64, h.shape[1])
            self.states = torch.cat([self.states, states], 1) if self.length else states
            self.text_mask = F.pad(self.text_mask[:, : self.length], (0, states.shape[1]))
        is_text = (rows.mode == WRITING) | ((rows.mode == DRAWING) & (rows.slot == 0))
        self.states[:, self.length], self.text_mask[:, self.length] = h, is_text
        self.length += 1
        return self.states[:, : self.length], self.text_mask[:, : self.length]

    def drop(self, steps: int) -> None:
        """Forget the first ``steps`` steps, in which no row that is active has begun."""
        if steps:
            self.states, self.text_mask = self.states[:, steps:].clone(), self.text_mask[:, steps:].clone()
            self.length -= steps

    def end_spans(self, closed: torch.Tensor) -> None:
        """Forget the text of rows that are ``closed`` (S,)."""
        self.text_mask &= ~closed[:, None]

    def forget(self, slots: list[int]) -> None:
        """Forget the text of slots that take another row."""
        self.text_mask[slots] = False
