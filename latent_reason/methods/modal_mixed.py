"""Modal-Mixed CoT (2602.00574): text interleaved with compact visual sketches.

Idea: the model's own frozen vision encoder defines the target of a sketch. A small diffusion head, conditioned on the
backbone's hidden state, samples it latent by latent. A control token opens a span, and the planned count closes it.

What differs from the paper, which released no code: targets are standardized per slot and channel; the default head is
a flow around a regression mean, the best of twelve on the tiny model (paper_figs/data/heads.json); an image of fewer
than k tokens keeps its own grid instead of being enlarged to k. The head of the paper is ``head="diffusion",
head_options={"prediction": "eps", "residual": False}``.
Defaults: k = 32 and latent weight 1 from the paper (second-hand), the rest is ours.
"""

from __future__ import annotations

from typing import Any

from ..model import heads
from ..model.backbones.base import Backbone
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import VisionTokens
from ..objectives.losses import LossWeights
from ..objectives.objective import LatentInput, Objective, RunOptions
from ..values import Name, Size, SizeOrZero, Weight

PAPER = "2602.00574"
SUMMARY = "own vision tokens, pooled, sampled by a small diffusion or flow head; the count closes a span"
MODE = "mixed"


def build_model(
    backbone: Backbone,
    *,
    k: Size = 32,
    head: Name = "flow",
    head_options: dict[str, Any] | None = None,
    stop: str = "count",
    supervise: str = "none",
    max_spans: SizeOrZero = 8,
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k),
        head=heads.make(head, backbone.width, backbone.width, **(head_options or {})),
        switch=Switch(stop=stop, supervise=supervise, max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 1.0,
    latent_input: LatentInput = "teacher",
    scheduled_sampling: dict[str, Any] | None = None,
) -> Objective:
    return Objective(
        run,
        weights=LossWeights(latent=latent_weight),
        latent_input=latent_input,
        scheduled_sampling=scheduled_sampling,
    )
