"""SCOLAR, Self-Consistent Latent Reasoning (2605.12163): all latents of a sketch are drawn at once, so spans may be long.

Idea: latents that are drawn one after the other depend on those before, and accuracy falls as spans grow. Here the state
before a span decides all of it: each latent has a query of its own, attends to the images of its row, and is aligned
with one token of the target image. No drawn latent is read on the way.

What differs from the paper, of which no code was used: its detransformer attends to the states of the whole sequence,
ours to one state and the image tokens (see WholeSpanHead); its three stages of SFT are one here, and its RL (ALPO) is
not built; a slot attends to earlier slots, because decoding may not know the length of a span. Standardized targets and
``loss="mse"`` are ours.
Defaults: k = 64, twice that of modal_mixed, is ours; so are depth and weights. Keep k large: the paper found that targets
pooled 128 times or more teach no more than meaningless placeholders. An image of N tokens is pooled N / k times.
"""

from __future__ import annotations

from typing import Any

from ..model.backbones.base import Backbone
from ..model.heads import WholeSpanHead
from ..model.heads.regression import RegressionLoss
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import VisionTokens
from ..objectives.losses import LossWeights
from ..objectives.objective import LatentInput, Objective, RunOptions
from ..values import Depth, Size, SizeOrZero, Weight

PAPER = "2605.12163"
SUMMARY = "all latents of a span at once from the state before it and the images; long spans of own vision tokens"
MODE = "mixed"


def build_model(
    backbone: Backbone,
    *,
    k: Size = 64,
    depth: Depth = 2,
    cross_attention_layers: Depth = 1,
    loss: RegressionLoss = "mse",
    max_spans: SizeOrZero = 8,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k),
        head=WholeSpanHead(
            backbone.width,
            backbone.width,
            depth=depth,
            cross_attention_layers=cross_attention_layers,
            longest=max(256, k),
            loss=loss,
        ),
        switch=Switch(max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 1.0,
    latent_input: LatentInput = "teacher",
    scheduled_sampling: dict[str, Any] | None = None,
) -> Objective:
    return Objective(
        run,
        weights=LossWeights(latent=latent_weight),
        latent_input=latent_input,
        scheduled_sampling=scheduled_sampling,
    )
