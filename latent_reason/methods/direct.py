"""Control: only the answer, on the same items. It measures what the task gives away without any reasoning."""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.reasoner import LatentReasoner
from ..objectives.objective import Objective, RunOptions

PAPER = "control"
SUMMARY = "the answer only: the same items, no reasoning"
MODE = "direct"


def build_model(backbone: Backbone) -> LatentReasoner:
    return LatentReasoner(backbone)


def build_objective(run: RunOptions | None = None) -> Objective:
    return Objective(run)
