"""Control: the same spans in the same places, filled with one learned constant. What boundary markers, sketch-sized
pauses and extra positions to compute at are worth without any picture in them (2606.01287: markers alone kept
78-100 % of the gain in several published settings).

Defaults: k as modal_mixed; everything else has nothing to choose.
"""

from __future__ import annotations

from ..model.heads import ConstantHead
from ..model.reasoner import LatentReasoner
from ..model.targets import OwnVision
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights

PAPER = "control"
SUMMARY = "the same spans filled with a learned constant: markers and extra compute, no picture"
MODE = "mixed"


def build(backbone, *, k: int = 32) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=OwnVision(backbone.width, k),
        head=ConstantHead(backbone.width, backbone.width),
        latent_input="blank",
        weights=Weights(latent=0.0),
    )
