"""Prompts that are computed once and taken up again, as by the arms of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..model.batch import to_device
from ..model.reasoner import LatentReasoner
from ..trace import Trace
from .prompts import ComputedPrompts


@dataclass(frozen=True)
class StoredPrompt:
    """One row of :class:`ComputedPrompts`, without padding: keys and values (heads, L - 1, d) of each layer of a prompt of
    L positions, and the rest as there."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    embeds: torch.Tensor
    positions: torch.Tensor
    next: torch.Tensor
    images: torch.Tensor

    @property
    def num_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for pair in self.layers for x in pair)


class PromptStore:
    """Computed prompts of one model by their trace objects. It is full at ``max_bytes`` of keys and values, and then
    keeps what it has: arms take the same items in the same order, so that the newest would push out what comes next.

    Example:
        >>> prompts = PromptStore()
        >>> for request in requests:
        ...     request.prompts = prompts  # the next run with the same trace objects computes no prompt
    """

    def __init__(self, max_bytes: int = 2 * 2**30):
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._stored: dict[int, tuple[Trace, StoredPrompt]] = {}  # the trace is kept, so that its id stays its own

    def find(self, traces: Sequence[Trace]) -> list[StoredPrompt] | None:
        """The prompts of all these traces; None if one is missing."""
        found = [self._stored.get(id(trace)) for trace in traces]
        return None if None in found else [pair[1] for pair in found if pair is not None]

    def add(self, traces: Sequence[Trace], computed: ComputedPrompts) -> None:
        """Keep the prompts of these traces, as far as there is room."""
        lengths, rows, pads = (x.tolist() for x in (computed.length, computed.rows, computed.pads))
        for n, trace in enumerate(traces):
            if id(trace) in self._stored or lengths[n] < 2:
                continue
            columns = slice(pads[n], pads[n] + lengths[n] - 1)
            layers = [(x.keys[rows[n], :, columns], x.values[rows[n], :, columns]) for x in computed.cache.layers]
            size = sum(x.numel() * x.element_size() for pair in layers for x in pair)
            if self.num_bytes + size > self.max_bytes:
                continue
            copied = [(keys.clone(), values.clone()) for keys, values in layers]
            images = computed.images[n, : lengths[n] - 1]
            rest = (x.clone() for x in (computed.embeds[n], computed.positions[:, n], computed.next[n], images))
            self._stored[id(trace)] = trace, StoredPrompt(copied, *rest)
            self.num_bytes += size


def join_prompts(model: LatentReasoner, prompts: Sequence[StoredPrompt]) -> ComputedPrompts:
    """Stored prompts as rows that begin together, padded on the left."""
    lengths = [len(prompt.images) for prompt in prompts]
    longest, device = max(lengths), prompts[0].embeds.device
    cache = model.backbone.new_cache()
    for layer in range(len(prompts[0].layers)):
        keys, values = (
            torch.stack(
                [
                    F.pad(prompt.layers[layer][part], (0, 0, longest - n, 0))
                    for prompt, n in zip(prompts, lengths, strict=True)
                ]
            )
            for part in (0, 1)
        )
        cache.update(keys, values, layer)
    length = to_device(torch.tensor(lengths), device)
    images = [F.pad(prompt.images, (0, longest + 1 - n)) for prompt, n in zip(prompts, lengths, strict=True)]
    return ComputedPrompts(
        cache,
        torch.arange(len(prompts), device=device),
        longest - length,
        length + 1,
        torch.stack([prompt.embeds for prompt in prompts]),
        torch.stack([prompt.positions for prompt in prompts], 1),
        torch.stack([prompt.next for prompt in prompts]),
        torch.stack(images),
    )
