"""MCOUT (2508.12587): a fixed number of continuous thoughts between the prompt and the answer.

Idea: a thought is the last state, fed back (``multi=False``), or that state mixed with the picture by attention
(``multi=True``). The answer is also scored after fewer thoughts: (CE after N + mu * sum_k CE after k) / (1 + mu N).

What differs from the released code: there thoughts stand after the answer, so under a causal mask no answer depends on
them and the attention of Multi gets no gradient; its published gains are no evidence for the mechanism. Here they stand
before it, as the paper says. The attention has a padding mask; the loss is divided by 1 + mu N; the span has marks.
Defaults: N = 5, mu = 0.3, 8 heads from the paper (as many as divide the width).
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from torch import nn

from ..model.batch import before
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.tokenization import Vocabulary
from ..objectives.losses import LossTerms
from ..trace import Sketch, Text, Trace

PAPER = "2508.12587"
SUMMARY = "N thoughts between prompt and answer: the state fed back, alone or mixed with the picture"
MODE = "direct"


class LookingHead(IdentityHead):
    """LN(W_back LN(attention of W h over the picture + W h))."""

    reads = True

    def __init__(self, width: int):
        super().__init__(width, width)
        self.ask, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.attend = nn.MultiheadAttention(width, gcd(8, width), batch_first=True)
        self.mixed, self.out = nn.LayerNorm(width), nn.LayerNorm(width)

    def sample(self, h, noise=None, context=None):
        tokens, missing = context.pictures()
        asked = self.ask(h)[:, None]
        looked, _ = self.attend(asked, tokens.to(h.dtype), tokens.to(h.dtype), key_padding_mask=missing)
        return self.out(self.back(self.mixed(looked + asked)))[:, 0]


class Mcout(LatentReasoner):
    packs = False  # rows are shortened, thought by thought
    mu = 0.0

    def read(self, trace: Trace) -> Trace:
        """The trace with its thoughts first, and no other sketch."""
        *asked, last = trace.messages
        if last.role != "assistant":
            return trace
        words = tuple(p for p in last.content if isinstance(p, Text))
        return replace(trace, messages=(*asked, replace(last, content=(Sketch(None, self.switch.count), *words))))

    def forward(self, batch) -> LossTerms:
        if not self.mu or not len(batch.spans):
            return super().forward(batch)
        batch = self.narrowed(batch)
        states, thoughts = self.unroll(batch, self.backbone.place(batch))
        terms = self.losses(batch, before(states), None)
        text, n = (1 + self.mu) * terms.text, self.switch.count
        for k in range(1, n):
            fewer = batch.shortened(k)
            states = self.backbone.trunk(
                self.embed(fewer, thoughts[:, :k]), fewer.attention(), self.backbone.place(fewer)
            )
            text = text + self.mu * self.losses(fewer, before(states), None).text
        terms.text = text / (1 + self.mu * n)
        return terms


def build(backbone, *, thoughts: int = 5, multi: bool = False, mu: float = 0.3, sweeps: int = 0) -> LatentReasoner:
    head = LookingHead(backbone.width) if multi else IdentityHead(backbone.width, backbone.width)
    reasoner = Mcout(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        head=head,
        switch=Switch(start="first", count=thoughts),
        latent_input="self",
        sweeps=sweeps,
    )
    reasoner.mu = mu
    return reasoner
