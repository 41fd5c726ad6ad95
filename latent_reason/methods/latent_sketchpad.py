"""Latent Sketchpad (2510.24514): the encoder features of the next image, before the connector, sampled by a separate
head.

Idea: a causal vision head computes the whole grid of encoder features from the hidden states, the latents of its span
so far and the images before. The frozen connector maps the features into the context, and a decoder renders them. Stage
1 trains the text with true features in the context; stage 2 trains the head alone with a frozen backbone (``stages`` of
a recipe: text and latent weight 1, 0, then 0, 1 and ``trainable: [head]``). Training both at once is our default.

What differs from the released code: the head uses a cache; rows of a batch open spans at different steps; the stage is
an option, not a substring of a path; the model decides when to open a span, or, with ``open_after_sentences``, a span
follows every sentence as in the released code, and START, which is then forced, has no text loss (``start_loss=True``
gives it one); targets are standardized; the head sees the images of the prompt alone, whereas the prefix of the released head is the
inputs at all image positions before its span, pictures that were drawn included. That is not an option here: what a
head reads besides states is fixed when a row begins. Latents would have to join it in every step, per row and as they
are fed, because probes replace latents after the head has drawn them. (The backbone sees the drawn pictures in both, so
the states that the head reads depend on them.) As in the released code for Qwen, an L1 after the connector is added to
the loss before it, whatever ``loss`` is; ``connector_weight=0`` leaves it out, as the one for Gemma does.
Defaults: L1, 2 cross-attention and 8 causal layers from the paper; at most 256 latents per image; connector weight 1 from
the released code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..model.backbones.base import Backbone
from ..model.heads import AutoregressiveHead
from ..model.heads.regression import RegressionLoss, regression_loss
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import PreConnectorFeatures
from ..objectives.losses import LossWeights, weighted_mean
from ..objectives.objective import Objective, RunOptions
from ..values import Depth, Size, SizeOrZero, Weight

PAPER = "2510.24514"
SUMMARY = "encoder features before the connector, from a causal head that attends to its span and the images"
MODE = "mixed"
OLDER = {"connector_weight": 0.0, "start_loss": True}


@contextmanager
def frozen(parameters: Iterable[torch.nn.Parameter]) -> Iterator[None]:
    """What is computed inside has no gradient in these parameters."""
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


class SketchpadObjective(Objective):
    """Trains the head on features before the connector and, with ``connector_weight``, by L1 on what the connector makes
    of them."""

    def __init__(self, run: RunOptions | None = None, *, connector_weight: float, **options: Any):
        super().__init__(run, **options)
        self.connector_weight = connector_weight

    def latent_loss(self, model, batch, h, z):
        if not self.connector_weight:
            return super().latent_loss(model, batch, h, z)
        z, (rows, position, _), (span, _, _, slot, grids) = z.detach(), batch.latent_slots(), batch.latent_places()
        context = model.head_context(batch).for_rows(batch.spans[:, 0])
        states, context = model.head.cast_inputs(h[rows, position], context)
        goal = model.target.normalize(z, batch.spans[:, 2:])
        drawn = model.head.predict_span(states, goal, context)[span, slot]
        losses = regression_loss(drawn, goal[span, slot], model.head.kind)
        with frozen(model.backbone.vision_parameters):
            drawn = model.target.denormalize(drawn, grids, slot)
            connected = [model.target.to_embeddings(features) for features in (drawn, z[span, slot])]
        losses = losses + self.connector_weight * regression_loss(*connected, "l1")
        return weighted_mean(losses, batch.span_weight[span])


def build_model(
    backbone: Backbone,
    *,
    k: Size = 256,
    hidden: SizeOrZero = 0,
    depth: Depth = 8,
    cross_attention_layers: Depth = 2,
    loss: RegressionLoss = "l1",
    open_after_sentences: bool = False,
    start_loss: bool = False,
    max_spans: SizeOrZero = 8,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=PreConnectorFeatures(backbone, k),
        head=AutoregressiveHead(
            backbone.width, backbone.feature_width, hidden, depth, cross_attention_layers, longest=k, loss=loss
        ),
        switch=Switch(
            start="rule" if open_after_sentences else "token",
            max_spans=max_spans,
            open_loss=start_loss or not open_after_sentences,
        ),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    text_weight: Weight = 1.0,
    latent_weight: Weight = 1.0,
    connector_weight: Weight = 1.0,
    scheduled_sampling: dict[str, Any] | None = None,
) -> SketchpadObjective:
    return SketchpadObjective(
        run,
        connector_weight=connector_weight,
        weights=LossWeights(text=text_weight, latent=latent_weight),
        scheduled_sampling=scheduled_sampling,
    )
