"""SkiLa, Sketch-in-Latents (2512.16584): the last hidden state is the latent, trained toward the features of an
external encoder.

Idea: a frozen SigLIP encodes the sketch, and a trained projection maps its pooled features into the backbone's space.
While sketching, hidden states are fed back until the model closes the span.

What differs from the released code: the target is detached in the loss (in the released code the loss also pulled the
target toward the prediction; here the projection trains on the input path alone, so ``trainable`` must name ``target``:
a frozen projection stays random); features are standardized before the projection, and its output has unit rms, because
the text loss alone would enlarge it and the latent loss follow; pooling is 2-D, not by rows of the flat sequence;
``supervise="full"`` also trains "do not stop yet".
Defaults: K = 27 (9 x 3 for a square image), latent weight 0.1, close token with a cap of 2K, all from the paper;
``supervise="full"`` is ours.
"""

from __future__ import annotations

from typing import Any

from ..model.backbones.base import Backbone
from ..model.backbones.encoder_files import Encoder
from ..model.heads import IdentityHead
from ..model.heads.regression import RegressionLoss
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import ExternalEncoder
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions
from ..values import Positive, Size, SizeOrZero, Weight

PAPER = "2512.16584"
SUMMARY = (
    "hidden states as latents, trained toward the projected features of a frozen external encoder; the model closes"
)
MODE = "mixed"


def build_model(
    backbone: Backbone,
    *,
    k: Size = 27,
    encoder: Encoder = "tiny",
    loss: RegressionLoss = "mse",
    supervise: str = "full",
    cap: Positive = 2.0,
    max_spans: SizeOrZero = 8,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=ExternalEncoder(backbone, encoder, k),
        head=IdentityHead(backbone.width, backbone.width, loss),
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 0.1,
    scheduled_sampling: dict[str, Any] | None = None,
) -> Objective:
    return Objective(run, weights=LossWeights(latent=latent_weight), scheduled_sampling=scheduled_sampling)
