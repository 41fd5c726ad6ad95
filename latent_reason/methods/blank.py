"""Control: the same spans at the same positions, filled with one learned constant. It measures what boundary markers,
pauses of the length of a sketch and extra positions are worth without any image content (2606.01287: markers alone kept
78-100 % of the gain in several published settings).

Defaults: k as in modal_mixed. There are no other options.
"""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.heads import ConstantHead
from ..model.reasoner import LatentReasoner
from ..model.targets import VisionTokens
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions
from ..values import Size

PAPER = "control"
SUMMARY = "the same spans filled with one learned constant: markers and extra compute, no image content"
MODE = "mixed"


def build_model(backbone: Backbone, *, k: Size = 32) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k),  # it says how long a span is
        head=ConstantHead(backbone.width, backbone.width),
        follows_target=False,
    )


def build_objective(run: RunOptions | None = None) -> Objective:
    return Objective(run, weights=LossWeights(latent=0.0), latent_input="blank")
