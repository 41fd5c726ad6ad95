"""Control: the same spans in the same places, filled with one learned constant.

It measures what control tokens, pauses of the length of a sketch and extra positions to compute at bring without any
image in them (2606.01287: control tokens alone kept 78-100 % of the gain in several published settings).

Defaults: k as modal_mixed; there are no other choices.
"""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.heads import ConstantHead
from ..model.reasoner import LatentReasoner
from ..model.targets import VisionTokens
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions

PAPER = "control"
SUMMARY = "the same spans filled with a learned constant: control tokens and extra compute, no image"
MODE = "mixed"


def build_model(backbone: Backbone, *, k: int = 32) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k),  # it says how long a span is
        head=ConstantHead(backbone.width, backbone.width),
        follows_target=False,
    )


def build_objective(run: RunOptions | None = None) -> Objective:
    return Objective(run, weights=LossWeights(latent=0.0), latent_input="blank")
