"""DeepSketcher (2509.25866): an editor changes all tokens of the picture at once, as the words before it say.

Idea: when the model opens a span, the current picture tokens (of the last sketch, else of the input) attend to the
words since the last span, pooled to a few, and become the tokens of the edited picture, which stand in the context as a
picture. First true edits stand there and the words learn; then the editor alone; then both, on own edits (a recipe's
``stages``: latent weight 0; text weight 0 and ``trainable: [head]``; ``own: true``).

This follows descriptions, as no code was released: layers and rates are ours. The span is opened by the control token,
its block is drawn at once and fed token by token; an edit changes nothing until it is learnt (residual, zero at first).
Defaults: L1 on standardised tokens, 32 pooled words, 2 layers (ours), latent weight 1, at most 4 edits (ours).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..model.heads import Context, LatentHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import OwnVision
from ..model.tokenization import Vocabulary
from ..objectives.latent_inputs import said_before
from ..objectives.losses import Weights, weighted_mean

PAPER = "2509.25866"
SUMMARY = "an editor changes the whole grid of picture tokens at once, as the words since the last sketch say"
MODE = "mixed"


class EditorHead(LatentHead):
    """Picture tokens (n, K, D) and the words (n, P, D) that say what changes -> the tokens after the change."""

    raw = reads = True

    def __init__(self, width: int, words: int, depth: int, heads: int):
        super().__init__(width, width)
        self.words = words
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.asks = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.leave = nn.Linear(width, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def pooled(self, states, said):
        """States (n, L, D) of which ``said`` (n, L) count -> (n, words, D)."""
        pools = [F.adaptive_avg_pool1d(s[m].T[None], self.words)[0].T for s, m in zip(states, said, strict=True)]
        return torch.stack(pools)

    def edit(self, current, words):
        x = current
        for ask, mlp, before, after in zip(self.asks, self.mlps, self.norms[::2], self.norms[1::2], strict=False):
            x = x + ask(before(x), words, words, need_weights=False)[0]
            x = x + mlp(after(x))
        return current + self.leave(self.norms[-1](x))

    def loss(self, h, z):
        raise NotImplementedError("an edit is taught as a whole, by its method.")

    def sample(self, h, noise=None, context: Context | None = None):
        blocks, rows, slot = context.memory.setdefault("blocks", {}), context.rows.tolist(), context.slot.tolist()
        for row in (row for row, j in zip(rows, slot, strict=True) if j == 0):  # a block is drawn when its first is due
            first = shown(context, row)
            words = self.pooled(context.states[row][None], context.said[row][None])
            blocks[row] = self.edit(blocks.get(row, first)[None].to(h.dtype), words)[0]
        return torch.stack([blocks[row][min(j, len(blocks[row]) - 1)] for row, j in zip(rows, slot, strict=True)])


def shown(context: Context, row: int) -> torch.Tensor:
    """The tokens of the last picture in a row, which is what the first edit changes."""
    if not (size := int(context.last[row])):
        raise ValueError(
            f"row {row} of the batch opens a span and holds no picture: deepsketcher edits the picture "
            "that it is shown. Show one, or forbid sketching there."
        )
    return context.seen[row][context.there[row]][-size:]


class DeepSketcher(LatentReasoner):
    def losses(self, batch, h, z):
        terms = super().losses(batch, h, None)
        if z is None or not self.weights.latent:
            return terms
        h, scene = self.head.taken(h, self.scene(batch))
        rows, mask = batch.spans[:, 0].tolist(), batch.slots()[2]
        words = self.head.pooled(h[batch.spans[:, 0]], said_before(batch))
        standard, before, losses = self.target.standard(z.detach(), batch.spans[:, 2:]), {}, []
        for i, (row, k) in enumerate(zip(rows, batch.span_lengths.tolist(), strict=True)):
            current = (before[row] if row in before else shown(scene, row)).detach()
            current = current[torch.arange(k, device=h.device) * len(current) // k]  # of a sketch of another size
            drawn = self.head.edit(current[None].to(h.dtype), words[i][None])
            drawn = self.target.standard(drawn.float(), batch.spans[i : i + 1, 2:])[0]
            losses.append((drawn - standard[i, :k]).abs().mean())
            before[row] = z[i, mask[i]].to(h.dtype)
        terms.latent = weighted_mean(torch.stack(losses), batch.span_weight)
        return terms


def build(
    backbone,
    *,
    words: int = 32,
    depth: int = 2,
    heads: int = 4,
    own: bool = False,
    text_weight: float = 1.0,
    latent_weight: float = 1.0,
    max_spans: int = 4,
    exposure: dict | None = None,
) -> LatentReasoner:
    return DeepSketcher(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=OwnVision(backbone.width, k=1024),
        head=EditorHead(backbone.width, words, depth, heads),
        latent_input="self" if own else "teacher",
        exposure=exposure,
        switch=Switch(max_spans=max_spans),
        weights=Weights(text=text_weight, latent=latent_weight),
    )
