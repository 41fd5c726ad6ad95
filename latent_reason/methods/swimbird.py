"""SwimBird (2602.06040): the model selects text, sketches or both per question; the number of latents follows the size
of the sketch.

Idea: the target is the output of the model's own frozen vision encoder at a small pixel budget, so a sketch has as many
latents as it has tokens at that budget (2 to 32). Hidden states are fed back, and the model closes the span. Trained on
traces of all three modes (``data.modes: [text, vision, mixed]``), it selects the mode by itself.

What differs from the released code: ``supervise="full"`` also trains "do not stop yet", the latent loss is logged, and
targets are standardized. As in the released code, a system turn names the three modes in training and in decoding; its
words are ours, and a chat with a system turn of its own keeps that. ``system_prompt=False`` leaves it out.
Defaults: budget 32, latent weight 0.2, cap 2 (64 of 32), from the paper; ``supervise="full"`` is ours.
"""

from __future__ import annotations

from typing import Any

from ..model.backbones.base import Backbone
from ..model.heads import IdentityHead
from ..model.heads.regression import RegressionLoss
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import VisionTokens
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions
from ..values import Positive, Size, SizeOrZero, Weight

PAPER = "2602.06040"
SUMMARY = "text, sketches or both, selected by the model; own vision tokens of a small image; the model closes"
MODE = "mixed"
OLDER = {"system_prompt": False}
SYSTEM_PROMPT = (
    "You can reason in three modes: in text alone, in sketches alone, or in text and sketches by turns. Use the mode that "
    "the question needs, then answer."
)


def build_model(
    backbone: Backbone,
    *,
    k: Size = 32,
    loss: RegressionLoss = "mse",
    supervise: str = "full",
    cap: Positive = 2.0,
    max_spans: SizeOrZero = 8,
    system_prompt: bool = True,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k, resize_input=True),
        head=IdentityHead(backbone.width, backbone.width, loss),
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        system_prompt=SYSTEM_PROMPT if system_prompt else "",
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 0.2,
    scheduled_sampling: dict[str, Any] | None = None,
) -> Objective:
    return Objective(run, weights=LossWeights(latent=latent_weight), scheduled_sampling=scheduled_sampling)
