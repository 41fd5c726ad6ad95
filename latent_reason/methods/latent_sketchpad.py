"""Latent Sketchpad (2510.24514): the encoder features of the next image, before the connector, sampled by a separate
head.

Idea: a causal vision head computes the whole grid of encoder features from the hidden states, the latents of its span
so far and the images before. The frozen connector maps the features into the context, and a decoder renders them. Stage
1 trains the text with true features in the context; stage 2 trains the head alone with a frozen backbone (``stages`` of
a recipe: text and latent weight 1, 0, then 0, 1 and ``trainable: [head]``). Training both at once is our default.

What differs from the released code: the head uses a cache; rows of a batch open spans at different steps; the stage is
an option, not a substring of a path; the model decides when to open a span, or, with ``open_after_sentences``, a span
follows every sentence as in the released code; targets are standardized.
Defaults: L1, 2 cross-attention and 8 causal layers from the paper; at most 256 latents per image.
"""

from __future__ import annotations

from typing import Any

from ..model.backbones.base import Backbone
from ..model.heads import AutoregressiveHead
from ..model.heads.regression import RegressionLoss
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import PreConnectorFeatures
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions
from ..values import Depth, Size, SizeOrZero, Weight

PAPER = "2510.24514"
SUMMARY = "encoder features before the connector, from a causal head that attends to its span and the images"
MODE = "mixed"


def build_model(
    backbone: Backbone,
    *,
    k: Size = 256,
    hidden: SizeOrZero = 0,
    depth: Depth = 8,
    cross_attention_layers: Depth = 2,
    loss: RegressionLoss = "l1",
    open_after_sentences: bool = False,
    max_spans: SizeOrZero = 8,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=PreConnectorFeatures(backbone, k),
        head=AutoregressiveHead(
            backbone.width, backbone.feature_width, hidden, depth, cross_attention_layers, longest=k, loss=loss
        ),
        switch=Switch(start="rule" if open_after_sentences else "token", max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    text_weight: Weight = 1.0,
    latent_weight: Weight = 1.0,
    scheduled_sampling: dict[str, Any] | None = None,
) -> Objective:
    return Objective(
        run,
        weights=LossWeights(text=text_weight, latent=latent_weight),
        scheduled_sampling=scheduled_sampling,
    )
