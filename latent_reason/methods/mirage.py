"""Mirage, Machine Mental Imagery (2506.17218): a few states are pulled toward an image first, then unsupervised.

Idea: in stage 1, four states are trained to point where the pooled tokens of the step's image point (cosine), with
target latents in the context. In stage 2 that target is removed: the model feeds back its own states, trained by the
text loss alone.

What differs from the released code: every row has its own mode. Training and decoding use one K. Pooling is 2-D and
drops no remainder. Stage 2 refuses activation checkpointing, under which the stock cache was dropped without a message
and users got 46 % instead of 76 %. "Not yet" can be supervised (``supervise="full"``). The cosine loss leaves the norm
free.
Defaults: K = 4 with a cap of 8, weights 0.1 and 1 (stage 1), 1 and 0 (stage 2) from the paper.
"""

from __future__ import annotations

from typing import Any

from ..model.backbones.base import Backbone
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import VisionTokens
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions

PAPER = "2506.17218"
SUMMARY = "stage 1: four states pulled toward the pooled image by cosine; stage 2: own states, text loss alone"
MODE = "mixed"


def build_model(
    backbone: Backbone,
    *,
    stage: int = 1,
    k: int = 4,
    supervise: str = "end_only",
    cap: float = 2.0,
    max_spans: int = 8,
) -> LatentReasoner:
    if stage not in (1, 2):
        raise ValueError(f"stage={stage!r}: must be 1 (toward the image) or 2 (own states, text loss alone).")
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k),
        head=IdentityHead(backbone.width, backbone.width, loss="cosine"),
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        follows_target=stage == 1,
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    stage: int = 1,
    scheduled_sampling: dict[str, Any] | None = None,
    jacobi_sweeps: int = 0,
) -> Objective:
    return Objective(
        run,
        weights=LossWeights(text=0.1, latent=1.0) if stage == 1 else LossWeights(latent=0.0),
        latent_input="teacher" if stage == 1 else "self",
        scheduled_sampling=scheduled_sampling,
        jacobi_sweeps=jacobi_sweeps,
    )
