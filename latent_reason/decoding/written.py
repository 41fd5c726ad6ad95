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

    def add(self, new: torch.Tensor, counts: list[int]) -> None:
        """Add ids (S, n) of one step, of which row s has taken the first ``counts[s]``."""
        self.ids = torch.cat([self.ids, new], 1)
        if min(counts) < new.shape[1]:  # some rows have drawn whole spans: the others move to the right
            shift = new.shape[1] - torch.tensor(counts, device=new.device)
            columns = torch.arange(self.ids.shape[1], device=new.device) - shift[:, None]
            self.ids = self.ids.gather(1, columns.clamp_min(0)).masked_fill(columns < 0, self.pad)
