"""SwimBird (2602.06040): the model picks words, sketches or both per question; latents follow the sketch's size.

Idea: the target is the model's own frozen eye looking at the sketch at a tiny pixel budget, so a sketch has as many
latents as it has tokens then (2 to 32); states are fed back; the model closes. Trained on traces of all three modes
(``data.modes: [text, vision, mixed]``), it chooses by itself.

What differs from the released code: "not yet" can be taught (``supervise="full"``), the latent loss is logged, targets
are standardised.
Defaults: budget 32, latent weight 0.2, cap 2 (64 of 32) from the paper; 'full' is ours.
"""

from __future__ import annotations

from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import OwnVision
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights

PAPER = "2602.06040"
SUMMARY = "words, sketches or both, as the model likes; own vision tokens of a small picture; the model closes"
MODE = "mixed"


def build(
    backbone,
    *,
    k: int = 32,
    loss: str = "mse",
    latent_weight: float = 0.2,
    supervise: str = "full",
    cap: float = 2.0,
    max_spans: int = 8,
    exposure: dict | None = None,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=OwnVision(backbone.width, k, shrink=True),
        head=IdentityHead(backbone.width, backbone.width, loss),
        exposure=exposure,
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        weights=Weights(latent=latent_weight),
    )
