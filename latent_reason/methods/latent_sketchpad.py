"""Latent Sketchpad (2510.24514): the features of the next picture, before the connector, drawn by a head of its own.

Idea: a causal vision head draws the whole grid of encoder features from the states, the latents of its span so far and
the pictures before; the frozen connector brings them into the context; a decoder renders them. First the backbone
learns its words with true features in the context, then the head alone learns with the backbone frozen (a recipe's
``stages``: text and latent weight 1, 0, then 0, 1 and ``trainable: [head]``). Both at once is ours, and the default.

What differs from the released code: the head is cached; rows of a batch sketch at their own steps; the stage is an
option, not a substring of a path; opening is the model's choice, or, with ``rule``, forced after every sentence as
there; targets are standardised.
Defaults: L1, 2 cross-attentions and 8 causal layers from the paper; at most 256 latents a picture.
"""

from __future__ import annotations

from ..model.heads import AutoregressiveHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import BeforeConnector
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights

PAPER = "2510.24514"
SUMMARY = "encoder features before the connector, drawn by a causal head that reads its span and the pictures"
MODE = "mixed"


def build(
    backbone,
    *,
    k: int = 256,
    text_weight: float = 1.0,
    latent_weight: float = 1.0,
    hidden: int = 0,
    depth: int = 8,
    looks: int = 2,
    loss: str = "l1",
    rule: bool = False,
    max_spans: int = 8,
    exposure: dict | None = None,
) -> LatentReasoner:
    head = AutoregressiveHead(backbone.width, backbone.feature_width, hidden, depth, looks, longest=k, loss=loss)
    return LatentReasoner(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=BeforeConnector(backbone.feature_width, k),
        head=head,
        switch=Switch(start="rule" if rule else "token", max_spans=max_spans),
        exposure=exposure,
        weights=Weights(text=text_weight, latent=latent_weight),
    )
