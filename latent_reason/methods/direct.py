"""Control: the answer only, on the same items. What the task gives away without any reasoning."""

from __future__ import annotations

from ..model.reasoner import LatentReasoner
from ..model.tokenization import Vocabulary

PAPER = "control"
SUMMARY = "answers at once: the same items, no reasoning"
MODE = "direct"


def build(backbone) -> LatentReasoner:
    return LatentReasoner(backbone, Vocabulary(backbone.tokenizer, backbone.layout))
