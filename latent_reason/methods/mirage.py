"""Mirage, Machine Mental Imagery (2506.17218): a few states pulled toward a picture first, then left to themselves.

Idea: in stage 1 four states must point where the pooled tokens of the step's picture do (cosine), with true latents in
the context; in stage 2 that target goes and the model feeds back its own states, taught by the words alone.

What differs from the released code: every row has its own mode; training and decoding use one K; pooling is 2-D and
drops no remainder; stage 2 refuses activation checkpointing, under which the stock cache silently vanished and users
got 46 % in place of 76 %; "not yet" can be taught (``supervise="full"``). Cosine leaves the norm free: watch it.
Defaults: K = 4 with a cap of 8, weights 0.1 and 1 (stage 1), 1 and 0 (stage 2) from the paper.
"""

from __future__ import annotations

from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import OwnVision
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights

PAPER = "2506.17218"
SUMMARY = "stage 1: four states pulled toward the pooled picture by cosine; stage 2: own states, text loss alone"
MODE = "mixed"


def build(
    backbone,
    *,
    stage: int = 1,
    k: int = 4,
    supervise: str = "end_only",
    cap: float = 2.0,
    max_spans: int = 8,
    exposure: dict | None = None,
    sweeps: int = 0,
) -> LatentReasoner:
    if stage not in (1, 2):
        raise ValueError(f"stage={stage!r}: 1 (toward the picture) or 2 (own states, text loss alone).")
    return LatentReasoner(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=OwnVision(backbone.width, k),
        head=IdentityHead(backbone.width, backbone.width, loss="cosine"),
        exposure=exposure,
        latent_input="teacher" if stage == 1 else "self",
        sweeps=sweeps,
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        weights=Weights(text=0.1, latent=1.0) if stage == 1 else Weights(latent=0.0),
    )
