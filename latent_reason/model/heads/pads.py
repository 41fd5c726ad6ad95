"""The head of blank positions: learned pads go in, and the states at them must rebuild maps of a picture (CoVT
2511.19418)."""

from __future__ import annotations

import torch
from torch import nn

from .base import LatentHead


class PadHead(LatentHead):
    """Pads to be fed, and what rebuilds the maps (S, T, C) from the states at them (S, K, D): for each expert cells
    that ask its pads by attention."""

    in_hidden_space = is_constant = needs_context = True

    def __init__(self, width: int, pads: list[int], channels: list[int], weights: list[float], cells: int, heads: int):
        super().__init__(width, width)
        self.pads, self.sizes, self.channels, self.weights = nn.Embedding(sum(pads), width), pads, channels, weights
        self.enter = nn.ModuleList(nn.Linear(width, width) for _ in pads)
        self.cells = nn.ParameterList(0.02 * torch.randn(cells, width) for _ in pads)
        self.ask = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in pads)
        self.leave = nn.ModuleList(nn.Linear(width, c) for c in channels)

    def sample(self, h, context=None, noise=None):
        return self.pads(context.slot.clamp_max(self.pads.num_embeddings - 1)).to(h.dtype)

    def maps_loss(self, states, maps):
        total, parts, golds = 0.0, states.split(self.sizes, 1), maps.split(self.channels, -1)
        for number, (part, gold) in enumerate(zip(parts, golds, strict=True)):
            pads = self.enter[number](part)
            asked = self.cells[number].to(pads.dtype).expand(len(pads), -1, -1)
            error = self.leave[number](self.ask[number](asked, pads, pads, need_weights=False)[0]).float() - gold
            total = total + self.weights[number] * (error.square() if number else error.abs()).mean((1, 2))
        return total
