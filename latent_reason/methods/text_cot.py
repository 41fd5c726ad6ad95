"""Control: text reasoning on the same items. Where a sketching method emits a sketch of a state, this method states the
same state in full, at the same place. Both methods see the same information in the same order.
"""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.reasoner import LatentReasoner
from ..objectives.objective import Objective, RunOptions

PAPER = "control"
SUMMARY = "the same traces with every sketch stated in text: text chain-of-thought on the same data"
MODE = "text"


def build_model(backbone: Backbone) -> LatentReasoner:
    return LatentReasoner(backbone)


def build_objective(run: RunOptions | None = None) -> Objective:
    return Objective(run)
