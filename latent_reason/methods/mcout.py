"""MCOUT (2508.12587): a fixed number of continuous thoughts between the prompt and the answer.

Idea: a thought is the last hidden state, fed back (``multi=False``), or that state mixed with the image by attention
(``multi=True``). The answer is also scored after fewer thoughts: (CE after N + mu * sum_k CE after k) / (1 + mu N).

What differs from the released code: there the thoughts stand after the answer, so under a causal mask no answer depends
on them and the attention of Multi gets no gradient; its published gains are no evidence for the mechanism. Here they
stand before the answer, as the paper says. The attention has a padding mask, the loss is divided by 1 + mu N, and
control tokens mark the span. START is forced and has no text loss (``start_loss=True`` gives it one).
Defaults: N = 5, mu = 0.3, 8 heads from the paper (the largest number up to 8 that divides the width).
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import numpy as np
import torch
from torch import nn

from ..model.backbones.base import Backbone
from ..model.batch import PAD, BatchLayout, MixedBatch, shift_right, to_device
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.forward import forward_batch
from ..objectives.latent_inputs import norm_and_cosine
from ..objectives.losses import LossTerms
from ..objectives.objective import Objective, RunOptions, put_span_first
from ..trace import Trace
from ..values import Size, SizeOrZero, Weight

PAPER = "2508.12587"
SUMMARY = "N thoughts between prompt and answer: the hidden state fed back, alone or mixed with the image"
MODE = "direct"
OLDER = {"start_loss": True}


class ImageMixingHead(IdentityHead):
    """LN(W_back LN(attention of W h over the image + W h))."""

    needs_context = True

    def __init__(self, width: int):
        super().__init__(width, width)
        self.ask, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.attend = nn.MultiheadAttention(width, gcd(8, width), batch_first=True)
        self.mixed, self.out = nn.LayerNorm(width), nn.LayerNorm(width)

    def sample(self, h, context=None, noise=None):
        tokens, missing = context.tokens_of_rows()
        query = self.ask(h)[:, None]
        read, _ = self.attend(query, tokens.to(h.dtype), tokens.to(h.dtype), key_padding_mask=missing)
        return self.out(self.back(self.mixed(read + query)))[:, 0]


def truncate_spans(batch: MixedBatch, k: int) -> MixedBatch:
    """The same rows with at most the first k latents of every span, which stand in one row of its grid, and no targets."""
    layout, device = batch.layout, batch.ids.device
    _, rows, position, slots, *_ = np.array(layout.latents, dtype=int)
    keep = layout.token_type != PAD
    keep[rows[slots >= k], position[slots >= k]] = False
    order = keep.argsort(1, kind="stable")  # dropped positions move to the left, where they become padding
    order = order[:, (~keep).sum(1).min() :]
    token_type, has_loss = (
        np.take_along_axis(x, order, 1) for x in (np.where(keep, layout.token_type, PAD), layout.has_loss)
    )
    spans = layout.spans.copy()
    after = keep[:, ::-1].cumsum(1)[:, ::-1]  # positions kept from here on
    spans[:, 1] = order.shape[1] - after[spans[:, 0], spans[:, 1]]
    spans[spans[:, 2] * spans[:, 3] > k, 2:] = 1, k
    dropped = (~keep & (layout.token_type != PAD)).cumsum(1)  # later positions move closer by as many
    order, dropped, kinds, cut = (to_device(torch.tensor(x), device) for x in (order, dropped, token_type, spans))
    allowed = batch.attention_mask
    if allowed is not None:
        allowed = allowed.gather(1, order[:, :, None].expand(-1, -1, allowed.shape[2]))
        allowed = allowed.gather(2, order[:, None].expand(-1, order.shape[1], -1)) & (kinds != PAD)[:, None]
        allowed = allowed | torch.eye(order.shape[1], dtype=torch.bool, device=device)  # padding attends to itself
    positions = batch.positions - dropped
    return replace(
        batch,
        ids=batch.ids.gather(1, order),
        token_type=kinds,
        loss_weight=batch.loss_weight.gather(1, order),
        sketches=None,
        teacher_batch=None,
        attention_mask=allowed,
        spans=cut,
        positions=positions.gather(2, order.expand(len(positions), -1, -1)),
        layout=BatchLayout(token_type, has_loss, spans, device),
    )


class McoutObjective(Objective):
    """Text loss after all thoughts, and, with weight ``mu``, after each smaller number of thoughts."""

    can_pack = False  # rows are truncated, thought by thought

    def __init__(self, run: RunOptions | None = None, *, mu: float, jacobi_sweeps: int = 0):
        super().__init__(run, latent_input="self", jacobi_sweeps=jacobi_sweeps)
        self.mu = mu

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with its thoughts first, and no other sketch."""
        return put_span_first(trace, model.switch.count)

    def loss(self, model: LatentReasoner, batch: MixedBatch, progress: float = 1.0) -> LossTerms:
        if not self.mu or not len(batch.spans):
            return super().loss(model, batch, progress)
        batch = self.apply_bottleneck(model, batch)
        states, thoughts = self.own_latent_states(model, batch, batch.positions)
        terms = self.loss_terms(model, batch, shift_right(states), None)
        span, _, _, slot, _ = batch.latent_places()
        terms = replace(terms, metrics=terms.metrics | norm_and_cosine(thoughts[span, slot]))
        text, n = (1 + self.mu) * terms.text, model.switch.count
        for k in range(1, n):
            fewer = truncate_spans(batch, k)
            embeds = model.embed_batch(fewer, thoughts[:, :k])
            states = forward_batch(model.backbone, fewer, embeds, fewer.positions)
            text = text + self.mu * self.loss_terms(model, fewer, shift_right(states), None).text
        return replace(terms, text=text / (1 + self.mu * n))


def build_model(
    backbone: Backbone, *, thoughts: Size = 5, multi: bool = False, start_loss: bool = False
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        head=ImageMixingHead(backbone.width) if multi else IdentityHead(backbone.width, backbone.width),
        switch=Switch(start="first", count=thoughts, open_loss=start_loss),
    )


def build_objective(
    run: RunOptions | None = None, *, mu: Weight = 0.3, jacobi_sweeps: SizeOrZero = 0
) -> McoutObjective:
    return McoutObjective(run, mu=mu, jacobi_sweeps=jacobi_sweeps)
