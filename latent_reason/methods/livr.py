"""LIVR, Latent Implicit Visual Reasoning (2512.21218): learned tokens through which the image must pass, without a target.

Idea: K learned tokens stand between the question and the answer. In stage 1 they alone may attend to the image: neither
the question nor the answer does, so what the answer needs of the image must be in the states at these tokens. Stage 2
trains with the usual mask. The loss is that of the text alone; no image says what a latent should be.

What differs from the paper, which released no code: the tokens are one span of the library, between an open and a close
token at the beginning of the answer, not appended to the question. Stage 1 is a mask of training. Decoding always has
the usual mask, so a model after stage 1 is no finished model. START is forced and has no text loss (``start_loss=True``
gives it one).
Defaults: k = 16 is second-hand; what trains is up to the recipe.
"""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.batch import MixedBatch
from ..model.heads import LearnedTokensHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.attention_masks import hide_images_from_text
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions, put_span_first
from ..trace import Trace
from ..values import Size, SizeOrZero

PAPER = "2512.21218"
SUMMARY = "learned tokens before the answer; stage 1: they alone see the image; no target, text loss alone"
MODE = "direct"


class LivrObjective(Objective):
    """Text loss after learned tokens; in stage 1 no text attends to an image."""

    def __init__(self, run: RunOptions | None = None, *, stage: int):
        super().__init__(run, weights=LossWeights(latent=0.0), latent_input="blank")
        self.stage = stage

    @property
    def needs_attention_mask(self) -> bool:
        return self.stage == 1 or super().needs_attention_mask

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with its learned tokens first, and no sketch."""
        return put_span_first(trace, model.switch.count)

    def apply_bottleneck(self, model: LatentReasoner, batch: MixedBatch) -> MixedBatch:
        batch = super().apply_bottleneck(model, batch)
        return hide_images_from_text(batch) if self.stage == 1 else batch


def build_model(backbone: Backbone, *, k: Size = 16, start_loss: bool = False) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        head=LearnedTokensHead(backbone.width, backbone.width, k),
        switch=Switch(start="first", count=k, open_loss=start_loss),
    )


def build_objective(run: RunOptions | None = None, *, stage: SizeOrZero = 1) -> LivrObjective:
    if stage not in (1, 2):
        raise ValueError(f"stage={stage!r}: must be 1 (the image is seen by latents alone) or 2 (the usual mask).")
    return LivrObjective(run, stage=stage)
