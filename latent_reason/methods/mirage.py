"""Mirage, Machine Mental Imagery (2506.17218): a few hidden states are first aligned with an image, then left free.

Idea: in stage 1 four hidden states must have the direction of the pooled tokens of the step's image (cosine), with true
latents in the context. Stage 2 drops that target: the model feeds back its own hidden states, and the text loss alone
trains them.

What differs from the released code: every row has its own mode; training and decoding use the same K; pooling is 2-D
and drops no remainder; stage 2 refuses activation checkpointing, under which the stock cache vanished without a message
and users measured 46 % instead of 76 %; ``supervise="full"`` also trains "do not stop yet". Cosine leaves the norm
free: watch ``val/latent_rms`` in the logs. As in the released code, the cosine is that of raw states and raw tokens,
most of which is the constant of their slot; ``standardize=True`` removes that constant from both.
Defaults: K = 4 with a cap of 8, weights 0.1 and 1 (stage 1), 1 and 0 (stage 2), from the paper; raw tokens, from the
released code.
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
from ..values import Positive, Size, SizeOrZero

PAPER = "2506.17218"
SUMMARY = (
    "stage 1: four hidden states aligned with the pooled image by cosine; stage 2: own hidden states, text loss alone"
)
MODE = "mixed"
OLDER = {"standardize": True}


def build_model(
    backbone: Backbone,
    *,
    stage: SizeOrZero = 1,
    k: Size = 4,
    supervise: str = "end_only",
    cap: Positive = 2.0,
    max_spans: SizeOrZero = 8,
    standardize: bool = False,
) -> LatentReasoner:
    if stage not in (1, 2):
        raise ValueError(f"stage={stage!r}: must be 1 (toward the image) or 2 (own states, text loss alone).")
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k, standardize=standardize),
        head=IdentityHead(backbone.width, backbone.width, loss="cosine"),
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        follows_target=stage == 1,
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    stage: SizeOrZero = 1,
    scheduled_sampling: dict[str, Any] | None = None,
    jacobi_sweeps: SizeOrZero = 0,
) -> Objective:
    return Objective(
        run,
        weights=LossWeights(text=0.1, latent=1.0) if stage == 1 else LossWeights(latent=0.0),
        latent_input="teacher" if stage == 1 else "self",
        scheduled_sampling=scheduled_sampling,
        jacobi_sweeps=jacobi_sweeps,
    )
