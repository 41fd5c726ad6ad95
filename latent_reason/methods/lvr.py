"""LVR, Latent Visual Reasoning (2509.24251): rebuild the tokens of the relevant region before the answer.

Idea: the target is a region of the *input* image (the ``box`` of a sketch; the whole image without a box), so the
context already holds what a latent should be. This makes it a redundant control: its latents cannot carry new
information.

What differs from the released code: training and decoding count latents alike; START keeps its text loss, so the model
learns to open a span; latent positions hold one placeholder instead of sampled ids; regions of more than k tokens are
pooled in 2-D.
Defaults: latent weight 0.1 and the identity head with MSE from the paper. Decoding closes a span by the size of the
region (``count`` fixes it: the paper decodes 4, 8 or 16), by the close token or by ``distance``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..model import heads
from ..model.backbones.base import Backbone
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import ImageRegion
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions, check_images_before_sketches
from ..trace import Sketch, Trace
from ..values import Name, Positive, Size, SizeOrZero, Weight

PAPER = "2509.24251"
SUMMARY = "rebuilds the tokens of a region of the input before the answer: redundant by construction"
MODE = "mixed"


class LvrObjective(Objective):
    """Trains on the first sketch of a trace only: a region of the input need not be drawn twice."""

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        """As the base class does; also refuses a region given by a box where spans close at the count of the image."""
        super().check_trace(model, trace)
        check_images_before_sketches(trace, "lvr")
        counts_image = model.switch.stop == "count" and not model.switch.count
        if counts_image and any(sketch.box is not None for sketch in trace.sketches()):
            raise ValueError(
                "decoding cannot know how many latents its region has. Set count, or set stop: close with supervise: "
                "full."
            )

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with its first sketch alone."""
        *earlier, last = trace.messages
        if last.role != "assistant":
            return trace
        first = next((p for p in last.content if isinstance(p, Sketch)), None)
        content = tuple(p for p in last.content if p is first or not isinstance(p, Sketch))
        return replace(trace, messages=(*earlier, replace(last, content=content)))


def build_model(
    backbone: Backbone,
    *,
    k: Size = 32,
    head: Name = "identity",
    head_options: dict[str, Any] | None = None,
    stop: str = "count",
    supervise: str = "none",
    count: SizeOrZero = 0,
    cap: Positive = 2.0,
    max_spans: SizeOrZero = 1,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=ImageRegion(backbone, k),
        head=heads.make(head, backbone.width, backbone.width, **(head_options or {})),
        switch=Switch(count=count, stop=stop, supervise=supervise, cap=cap, max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 0.1,
    scheduled_sampling: dict[str, Any] | None = None,
) -> LvrObjective:
    return LvrObjective(run, weights=LossWeights(latent=latent_weight), scheduled_sampling=scheduled_sampling)
