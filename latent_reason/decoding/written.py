"""The ids of rows as logits processors and stopping criteria of transformers read them."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class WrittenIds:
    """The ids (S, L) of S rows so far on the device, prompts included. All end at the last column; padding stands before
    prompts and after the end of a row."""

    def __init__(self, num_slots: int, pad: int, device: torch.device):
        self.pad, self.ids = pad, torch.full((num_slots, 0), pad, device=device)

    def admit(self, slots: torch.Tensor, prompt: torch.Tensor) -> None:
        """Begin rows at ``slots`` (n,) with left-padded prompts (n, N)."""
        width = max(self.ids.shape[1], prompt.shape[1])
        ids, prompt = (F.pad(x, (width - x.shape[1], 0), value=self.pad) for x in (self.ids, prompt))
        self.ids = ids.index_copy(0, slots, prompt)

    def keep(self, width: int) -> None:
        """Forget all but the last ``width`` columns."""
        self.ids = self.ids[:, max(0, self.ids.shape[1] - width) :].clone()

    def add(self, new: torch.Tensor) -> None:
        """Add the ids (S,) of one step."""
        self.ids = torch.cat([self.ids, new[:, None]], 1)
