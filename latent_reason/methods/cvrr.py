"""CVRR (2609.06746): the image is dropped once the latents have read it, and the answer must do without.

Idea: K continuous thoughts stand between the question and the answer, and may attend to the image. Then keys and values
of the image are dropped: no text after the thoughts attends to them, neither in training nor in decoding. The loss is that
of the text alone.

What differs from the paper, whose text we did not have: that keys and values of the image go is the paper's, the rest
is the plain reading. Thoughts are hidden states fed back, as in coconut and mcout. Keys and values are masked, not
freed, so no memory is saved. The question stays visible, and it has attended to the image; with the mask of livr
nothing would be left but the thoughts. START is forced and has no text loss (``start_loss=True`` gives it one).
``GenerationConfig(hide_images=False)`` shows the image again, and True hides it from any method.
Defaults: K = 8 is ours.
"""

from __future__ import annotations

from ..model.backbones.base import Backbone
from ..model.batch import MixedBatch
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.attention_masks import hide_images_after_spans
from ..objectives.objective import Objective, RunOptions, put_span_first
from ..trace import Trace
from ..values import Size, SizeOrZero

PAPER = "2609.06746"
SUMMARY = "hidden states fed back before the answer, which then attends to no image, in training and in decoding"
MODE = "direct"


class CvrrObjective(Objective):
    """Text loss after thoughts, behind which no image is visible."""

    @property
    def needs_attention_mask(self) -> bool:
        return True

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with its thoughts first, and no sketch."""
        return put_span_first(trace, model.switch.count)

    def apply_bottleneck(self, model: LatentReasoner, batch: MixedBatch) -> MixedBatch:
        return hide_images_after_spans(super().apply_bottleneck(model, batch))


def build_model(backbone: Backbone, *, k: Size = 8, start_loss: bool = False) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        head=IdentityHead(backbone.width, backbone.width),
        switch=Switch(start="first", count=k, open_loss=start_loss),
        hides_images=True,
    )


def build_objective(run: RunOptions | None = None, *, jacobi_sweeps: SizeOrZero = 0) -> CvrrObjective:
    return CvrrObjective(run, latent_input="self", jacobi_sweeps=jacobi_sweeps)
