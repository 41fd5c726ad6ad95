"""Coconut (2412.06769): language steps are replaced by continuous thoughts, which the text loss alone trains.

Idea: the last hidden state is the next input embedding. Stage s leaves out the first s sentences of the reasoning and
puts c * s thoughts before the rest. ``stages`` in a recipe raises s step by step; each stage starts from the model of
the stage before.

What differs from the released code: the thoughts of a batch need not be aligned; decoding is batched and cached; a step
is a sentence, not a line. As in the released code (``pad_latent_to_max``), all rows of a stage have the same number of
thoughts, because decoding does not know how many steps an answer has.
Defaults: c = 2 from the GSM8K runs of the paper; stage 2 is our choice.
"""

from __future__ import annotations

from dataclasses import replace

from ..model.backbones.base import Backbone
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.objective import Objective, RunOptions, remove_loss
from ..objectives.sentences import check_texts_can_be_joined, split_sentences
from ..trace import Sketch, Text, Trace
from ..values import Size, SizeOrZero

PAPER = "2412.06769"
SUMMARY = "hidden states fed back as thoughts in place of the first sentences, stage by stage; text loss alone"
MODE = "text"


class CoconutObjective(Objective):
    """Replaces the first ``removed_sentences`` of the reasoning by the thoughts of one span."""

    def __init__(self, run: RunOptions | None = None, *, removed_sentences: int, jacobi_sweeps: int = 0):
        super().__init__(run, latent_input="self", jacobi_sweeps=jacobi_sweeps)
        self.removed_sentences = removed_sentences

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        """As the base class does; also refuses an answer of texts with and without a loss, since it joins them."""
        super().check_trace(model, trace)
        if model.can_sketch:
            check_texts_can_be_joined(trace, "coconut")

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace without sketches, its first sentences replaced by one span of thoughts."""
        *earlier, last = trace.messages
        if last.role != "assistant" or not model.can_sketch:
            return trace
        texts = [p for p in last.content if isinstance(p, Text)]
        text, loss = "".join(p.text for p in texts), texts[-1].loss if texts else None
        steps = [step for step in split_sentences(text) if step.strip()] or [""]
        rest = " ".join(steps[min(self.removed_sentences, len(steps) - 1) :])  # the answer is never removed
        content = (Sketch(None, model.switch.count), Text(rest, loss))
        return replace(trace, messages=(*remove_loss(earlier), replace(last, content=content)))


def build_model(backbone: Backbone, *, c: Size = 2, stage: SizeOrZero = 2) -> LatentReasoner:
    if stage == 0:
        return LatentReasoner(backbone)
    return LatentReasoner(
        backbone,
        head=IdentityHead(backbone.width, backbone.width),
        switch=Switch(start="first", count=c * stage),
    )


def build_objective(
    run: RunOptions | None = None, *, stage: SizeOrZero = 2, jacobi_sweeps: SizeOrZero = 0
) -> CoconutObjective:
    return CoconutObjective(run, removed_sentences=stage, jacobi_sweeps=jacobi_sweeps)
