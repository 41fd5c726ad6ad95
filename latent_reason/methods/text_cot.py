"""Control: reasoning in text on the same items.

Where a sketching method draws a state, this control writes the same state in full, in the same place. So both arms
carry equal information in equal order.
"""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.reasoner import LatentReasoner
from ..objectives.objective import Objective, RunOptions

PAPER = "control"
SUMMARY = "the same traces with every sketch written as text: the same-data text-only control"
MODE = "text"


def build_model(backbone: Backbone) -> LatentReasoner:
    return LatentReasoner(backbone)


def build_objective(run: RunOptions | None = None) -> Objective:
    return Objective(run)
