"""Control: reasoning in words on the same items. Where the sketching methods draw a state, this one says the same
state in full, in the same place, so both arms carry equal information in equal order."""

from __future__ import annotations

from ..model.reasoner import LatentReasoner
from ..model.tokenization import Vocabulary

PAPER = "control"
SUMMARY = "the same traces with every sketch said in words: the same-data text-only arm"
MODE = "text"


def build(backbone) -> LatentReasoner:
    return LatentReasoner(backbone, Vocabulary(backbone.tokenizer, backbone.layout))
