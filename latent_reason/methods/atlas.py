"""ATLAS (2605.15198): one discrete functional token in place of each sketch. It is the control that latents must beat.

Idea: a token of the vocabulary stands for a visual operation. The model writes it like any other token, no image says
what it should be, and nothing continuous is drawn. If such a token helps as much as a span of latents, the content of
the latents is not what helps.

What differs from the paper, of which no code was used: there is one functional token for all sketches, not one for each
operation, and its data and its RL (LA-GRPO) are not built. The token is the open token, which the model decides to
write, followed by ``k`` positions of one learned embedding and the close token. So markers, stops and probes are those
of every other method; next to blank, a sketch has one position instead of as many as its image.
Defaults: k = 1 from the paper's one word a sketch; the rest is ours.
"""

from __future__ import annotations

from dataclasses import replace

from ..model.backbones.base import Backbone
from ..model.heads import ConstantHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions
from ..trace import Sketch, Trace
from ..values import Size, SizeOrZero

PAPER = "2605.15198"
SUMMARY = "one discrete learned token in place of each sketch: nothing continuous, the control that latents must beat"
MODE = "mixed"


class AtlasObjective(Objective):
    """Text loss on traces whose sketches are functional tokens."""

    def __init__(self, run: RunOptions | None = None):
        super().__init__(run, weights=LossWeights(latent=0.0), latent_input="blank")

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with a functional token in place of each sketch."""
        messages = []
        for message in trace.messages:
            parts = (
                replace(part, image=None, box=None, k=model.switch.count) if isinstance(part, Sketch) else part
                for part in message.content
            )
            messages.append(replace(message, content=tuple(parts)))
        return replace(trace, messages=tuple(messages))


def build_model(backbone: Backbone, *, k: Size = 1, max_spans: SizeOrZero = 8) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        head=ConstantHead(backbone.width, backbone.width),
        switch=Switch(count=k, max_spans=max_spans),
    )


def build_objective(run: RunOptions | None = None) -> AtlasObjective:
    return AtlasObjective(run)
