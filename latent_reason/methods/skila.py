"""SkiLa, Sketch-in-Latents (2512.16584): the last state is the latent, trained toward an outside encoder's features.

Idea: a frozen SigLIP looks at the sketch; a trained projection brings its pooled features into the backbone's space;
while sketching, states are fed back until the model closes the span.

What differs from the released code: the target is detached in the loss, where there the loss also pulled the target
toward the prediction (the projection learns on the input path alone); features are standardised before they are
projected; pooling is 2-D, not by rows of the flat sequence; "not yet" can be taught (``supervise="full"``).
Defaults: K = 27 (of a square picture 9 x 3), latent weight 0.1, close token with a cap of 2K, all from the paper;
'full' is ours.
"""

from __future__ import annotations

from ..model.backbones.encoders import load_encoder
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import OutsideEncoder
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights

PAPER = "2512.16584"
SUMMARY = "states as latents, trained toward a frozen outside encoder's projected features; the model closes"
MODE = "mixed"


def build(
    backbone,
    *,
    k: int = 27,
    encoder: str = "tiny",
    loss: str = "mse",
    latent_weight: float = 0.1,
    supervise: str = "full",
    cap: float = 2.0,
    max_spans: int = 8,
    exposure: dict | None = None,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=OutsideEncoder(load_encoder(encoder), backbone.width, k),
        head=IdentityHead(backbone.width, backbone.width, loss),
        exposure=exposure,
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        weights=Weights(latent=latent_weight),
    )
