"""LVR, Latent Visual Reasoning (2509.24251): rebuild the tokens of the relevant region before the answer.

Idea: the target is a region of the *input* image (the ``box`` of a sketch; the whole image without a box), so the
context already holds what a latent should be. This makes it a redundant control: its latents cannot carry new
information.

What differs from the released code: training and decoding count latents alike; START keeps its text loss, so the model
learns to open a span; latent positions hold one placeholder instead of sampled ids; regions of more than k tokens are
pooled in 2-D. As in the released code, every box of a trace has a span of its own (the first ``max_spans`` of them),
states are compared with raw tokens, ``head="mlp"`` is as wide as the states, and ``head="glu"`` as the model's own MLP;
``standardize=True`` compares standardized states and tokens, which a stochastic head needs, and ``mlp_ratio`` widens the
MLP.
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
OLDER = {"standardize": True, "mlp_ratio": 4, "max_spans": 1}


class LvrObjective(Objective):
    """Trains on the first sketches of a trace, as many as decoding may draw."""

    def check(self, model: LatentReasoner, *, packs: bool = False) -> None:
        """As the base class does; also refuses ``max_spans=0``, with which decoding never draws what training teaches."""
        super().check(model, packs=packs)
        if not model.switch.max_spans:
            raise ValueError(
                "max_spans=0: method 'lvr' would train on a region that decoding never draws. Set 1 or more."
            )

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
        """The trace with its first ``max_spans`` sketches, and at least one."""
        *earlier, last = trace.messages
        if last.role != "assistant":
            return trace
        places = [i for i, part in enumerate(last.content) if isinstance(part, Sketch)]
        dropped = places[max(1, model.switch.max_spans) :]
        content = tuple(part for i, part in enumerate(last.content) if i not in dropped)
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
    max_spans: SizeOrZero = 8,
    standardize: bool = False,
    mlp_ratio: Size = 1,
) -> LatentReasoner:
    sizes = {}
    if head == "mlp":
        sizes = {"hidden": mlp_ratio * backbone.width}
    elif head == "glu":
        sizes = {"hidden": backbone.text_model.config.intermediate_size}
    made = heads.make(head, backbone.width, backbone.width, **(sizes | (head_options or {})))
    if made.is_stochastic and not standardize:
        raise ValueError(
            f"head={head!r} draws from noise of unit scale, which raw tokens do not have. Set standardize: true."
        )
    return LatentReasoner(
        backbone,
        target=ImageRegion(backbone, k, standardize=standardize),
        head=made,
        switch=Switch(count=count, stop=stop, supervise=supervise, cap=cap, max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 0.1,
    scheduled_sampling: dict[str, Any] | None = None,
) -> LvrObjective:
    return LvrObjective(run, weights=LossWeights(latent=latent_weight), scheduled_sampling=scheduled_sampling)
