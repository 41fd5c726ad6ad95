"""HyLaR, Hybrid Latent Reasoning (2604.20328): text interleaved with latents whose direction is that of the features of
an external encoder.

Idea: a frozen SigLIP 2 encodes the sketch, and a trained projection maps its pooled features into the backbone's space.
Hidden states are fed back until the model closes the span, and a cosine loss aligns them with these features. This is
the supervised start; reinforcement learning (DePO) then acts on directions with a von Mises-Fisher policy.

What differs from the paper, of which no code was used: a state is fed back with the length of its target (rms 1),
because the cosine loss leaves the length free and decoding would feed other lengths than training; features are
standardized before the projection, which learns on the input path alone, as in skila; ``supervise="full"`` also trains
"do not stop yet". DePO is no part of this method.
Defaults: k = 27, the weight 0.1 and the cap of 2K are those of skila; the paper's are not known to us.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from ..model.backbones.base import Backbone
from ..model.backbones.encoder_files import Encoder
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import ExternalEncoder
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions
from ..values import Positive, Size, SizeOrZero, Weight

PAPER = "2604.20328"
SUMMARY = "the direction of a hidden state as latent, aligned by cosine with features of a frozen external encoder"
MODE = "mixed"


class DirectionHead(IdentityHead):
    """z = the state with rms 1, trained by cosine."""

    def __init__(self, width: int, latent_width: int):
        super().__init__(width, latent_width, loss="cosine")

    def sample(self, h, context=None, noise=None):
        return F.rms_norm(h, h.shape[-1:])


def build_model(
    backbone: Backbone,
    *,
    k: Size = 27,
    encoder: Encoder = "tiny",
    supervise: str = "full",
    cap: Positive = 2.0,
    max_spans: SizeOrZero = 8,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=ExternalEncoder(backbone, encoder, k),
        head=DirectionHead(backbone.width, backbone.width),
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 0.1,
    scheduled_sampling: dict[str, Any] | None = None,
) -> Objective:
    return Objective(run, weights=LossWeights(latent=latent_weight), scheduled_sampling=scheduled_sampling)
