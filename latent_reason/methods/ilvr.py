"""ILVR, Interleaved Latent Visual Reasoning (2512.05665): Mirage with many spans, where a momentum teacher picks which
patches of a step's picture its latents should be.

Idea: what matters in the picture depends on the reasoning so far, so a slowly following copy of the model reads it, and
the k patches nearest to what it has in mind become the targets (cosine). Stage 2 leaves the target out.

What differs from the released code: the teacher really follows (there its update sat in a hook the trainer never calls,
so it stayed the initial model); states are brought into the space of vision tokens by least squares over the picture
positions, where both are known, instead of being compared as they are; the query is what the words add to the question,
because plain means of states hardly differ; scores pick exactly k patches, because a softmax
over raw cosines is almost flat; patches are in row-major order; a wrong count is an error, not a skipped loss.
Defaults: k = 8, decay 0.999, weights 1 and 1, noise 0.01 on fed latents from the paper.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from ..model.batch import IMAGE, TEXT
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import OwnVision, Standardizer
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights

PAPER = "2512.05665"
SUMMARY = "patches of each step's picture, picked by a momentum teacher from the reasoning so far; then own states"
MODE = "mixed"


class PickedPatches(OwnVision):
    """The k tokens of a sketch that a teacher (a copy of the trunk, no part of the weights) finds nearest to what the
    words before the sketch add to the question, and to what it picked before."""

    shows = False

    def __init__(self, width: int, k: int, decay: float):
        super().__init__(width, k)
        self.standardizer, self.decay, self._teacher = Standardizer(width, 1), decay, []

    def grid(self, height, width, k=None):
        return 1, min(k or self.k, self.k, height * width)

    def teacher(self, backbone):
        if not self._teacher:
            trunk = copy.deepcopy(backbone.language).float()  # in bf16 a small step rounds to none
            self._teacher.append(trunk.requires_grad_(False).eval())
        return self._teacher[0]

    @torch.no_grad()
    def follow(self, backbone) -> None:
        """Move the teacher a little toward the model, after every training step."""
        for old, new in zip(self.teacher(backbone).parameters(), backbone.language.parameters(), strict=True):
            if new.is_floating_point():  # weights of 4 bits never move
                old.lerp_(new.to(old), 1 - self.decay)

    def samples(self, backbone, batch):
        return [(token[None].float(), (1, 1)) for tokens in self.see(backbone, batch.sketches) for token in tokens[::2]]

    @torch.no_grad()
    def forward(self, backbone, batch):
        embeds, image = backbone.widen(backbone.embed(batch.ids)), batch.kind == IMAGE
        embeds = embeds.masked_scatter(image[..., None], torch.cat(backbone.inputs(batch.images)).to(embeds.dtype))
        states = backbone.run(
            embeds.float(), batch.mask, backbone.place(batch), self.teacher(backbone)
        ).last_hidden_state.float()
        latents, k, last, chosen = [], int(batch.span_lengths.max()), {}, {}
        places, centre = torch.arange(batch.ids.shape[1], device=states.device), self.standardizer.mean[0, 0]
        candidates = [t.float() for t in self.see(backbone, batch.sketches)]
        for (row, start, _, count), tokens in zip(batch.spans.tolist(), candidates, strict=True):
            text = (batch.kind[row] == TEXT) & (places < start)
            said, asked = text & (places >= last.get(row, 0)) & (batch.weight[row] > 0), text & (batch.weight[row] == 0)
            meant = states[row][said].mean(0) - states[row][asked].mean(0)  # what these words add to the question
            query = in_vision(meant, states[row][image[row]], embeds[row][image[row]][:, : backbone.width].float())
            query = query + (chosen[row] - centre if row in chosen else 0)
            score = F.cosine_similarity(tokens - centre, query[None], dim=-1)
            picked = tokens[score.topk(count).indices.sort().values]
            last[row], chosen[row] = start + count, picked.mean(0)
            latents.append(F.pad(picked, (0, 0, 0, k - count)))
        return torch.stack(latents)


def in_vision(direction: torch.Tensor, known: torch.Tensor, vision: torch.Tensor) -> torch.Tensor:
    """A direction (D,) among states as a direction among vision tokens, by ridge regression over the T picture
    positions of its row, where states ``known`` and tokens ``vision`` (T, D) are both at hand."""
    known, vision = known - known.mean(0), vision - vision.mean(0)
    gram = known @ known.T
    ridge = (1e-2 * gram.diagonal().mean() + 1e-6) * torch.eye(len(gram), device=gram.device)
    return direction @ known.T @ torch.linalg.solve(gram + ridge, vision)


class Ilvr(LatentReasoner):
    packs = False  # its target looks back over a row

    def after_step(self) -> None:
        self.target.follow(self.backbone)


def build(
    backbone,
    *,
    stage: int = 1,
    k: int = 8,
    decay: float = 0.999,
    supervise: str = "end_only",
    cap: float = 2.0,
    max_spans: int = 8,
    exposure: dict | None = None,
    sweeps: int = 0,
) -> LatentReasoner:
    if stage not in (1, 2):
        raise ValueError(f"stage={stage!r}: 1 (toward picked patches) or 2 (own states, text loss alone).")
    return Ilvr(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=PickedPatches(backbone.width, k, decay),
        head=IdentityHead(backbone.width, backbone.width, loss="cosine"),
        sweeps=sweeps,
        exposure={"noise": 0.01} if exposure is None else exposure,
        latent_input="teacher" if stage == 1 else "self",
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        weights=Weights(latent=1.0 if stage == 1 else 0.0),
    )
