"""Coconut (2412.06769): language steps give way to continuous thoughts, and the text loss alone teaches them.

Idea: the last state is fed back as the next input. Stage s leaves out the first s sentences of the reasoning and puts
c * s thoughts before what is left; a recipe's ``stages`` raises s one by one, each from the model before it.

What differs from the released code: thoughts of a batch need not be aligned, decoding is batched and cached, and a
sentence, not a line, is a step. As there, every row of a stage has the same number of thoughts, however many steps it
had (``pad_latent_to_max``), because decoding cannot know.
Defaults: c = 2 from the paper's GSM8K runs; stage 2 is ours.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.tokenization import Vocabulary
from ..trace import Sketch, Text, Trace

PAPER = "2412.06769"
SUMMARY = "states fed back as thoughts in place of the first sentences, stage by stage; text loss alone"
MODE = "text"


class Coconut(LatentReasoner):
    removed = 0  # sentences

    def read(self, trace: Trace) -> Trace:
        """The trace without sketches, its first ``removed`` sentences replaced by the thoughts of one span."""
        *asked, last = trace.messages
        if last.role != "assistant" or not self.sketches:
            return trace
        said = "".join(p.text for p in last.content if isinstance(p, Text))
        steps = [step for step in re.split(r"(?<=\.)\s+|(?<=\n)", said) if step.strip()] or [""]
        rest = " ".join(steps[min(self.removed, len(steps) - 1) :])  # the answer is never removed
        return replace(trace, messages=(*asked, replace(last, content=(Sketch(None, self.switch.count), Text(rest)))))


def build(backbone, *, c: int = 2, stage: int = 2, sweeps: int = 0) -> LatentReasoner:
    vocabulary = Vocabulary(backbone.tokenizer, backbone.layout)
    if stage == 0:
        return LatentReasoner(backbone, vocabulary)
    reasoner = Coconut(
        backbone,
        vocabulary,
        head=IdentityHead(backbone.width, backbone.width),
        switch=Switch(start="first", count=c * stage),
        latent_input="self",
        sweeps=sweeps,
    )
    reasoner.removed = stage
    return reasoner
