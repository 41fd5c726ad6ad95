"""Monet (2511.21395): latents distilled from a teacher that saw the pictures, taught through the latents alone.

Idea: stage 1 reads traces with their pictures in them. In stage 2 a picture may be seen by the latents after it and by
nothing else, and the states at the words that follow (the observations) must be, layer by layer, those of the stage-1
model (cosine); the gradient of that goes into the latents only, so that they have to carry what the picture told. Stage
3 leaves the pictures out, and the states that draw the latents must be those of the stage-2 model.

What differs from the released code: the latents fed and those taught are the same states, one after the other; the
start token is always fed; a wrong count is an error; the marks around a picture, which have seen it, are hidden with
it; the cosine is a mean over layers, not a sum that grows with depth; every word after a row's first sketch is an
observation. Stage 3 goes on from stage 2 unless a recipe names a stage-1 model as ``init`` and a stage-2 one
as ``teacher``.
Defaults: k = 8, weight 2, observations weigh 2 (stage 1) and 4, all layers, from the paper.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from ..model.batch import LATENT, TEXT, MixedBatch, before
from ..model.heads import IdentityHead
from ..model.heads.regression import regression_loss
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.tokenization import Vocabulary
from ..objectives.attention_masks import veiled
from ..objectives.losses import LossTerms, Weights
from ..trace import Image, Sketch, Text, Trace

PAPER = "2511.21395"
SUMMARY = "states that must tell what a teacher read off the step's picture; taught through the latents alone"
MODE = "mixed"


class Monet(LatentReasoner):
    packs = False  # a teacher reads the same rows with pictures in them
    stage, observed = 3, 4.0

    @property
    def taught(self) -> bool:
        return self.stage > 1

    @property
    def masks(self) -> bool:
        return self.taught or super().masks  # it veils pictures, or its teacher does

    @property
    def droppable(self) -> bool:
        return False  # its gradient goes to the states that drew what was fed

    def read(self, trace: Trace, stage: int = 0) -> Trace:
        """The trace as ``stage`` (0: this one) wants it: pictures shown (1), then thought (2), or thought alone (3).
        Words after the first weigh ``observed``, unless they say what they weigh."""
        stage, messages = stage or self.stage, []
        for message in trace.messages:
            parts, thought = [], False
            for part in message.content:
                if isinstance(part, Sketch):
                    thought, shown = True, stage < 3 and part.image is not None
                    parts += [Image(part.image)] * shown + [Sketch(None, self.switch.count)] * (stage > 1)
                elif thought and isinstance(part, Text) and part.loss is None:
                    parts.append(replace(part, loss=self.observed))
                else:
                    parts.append(part)
            messages.append(replace(message, content=tuple(parts)))
        return replace(trace, messages=tuple(messages))

    def told(self, trace: Trace) -> Trace | None:
        return self.read(trace, self.stage - 1) if self.taught else None

    def forward(self, batch: MixedBatch) -> LossTerms:
        if not len(batch.spans):
            return super().forward(batch)
        layers, own, drawn = self.layers(self.narrowed(batch))
        terms = self.losses(batch, before(layers[-1]), None)
        with torch.no_grad():
            goal, _, goal_drawn = self.teacher().layers(batch.told)
        if self.stage == 3:
            terms.latent = regression_loss(drawn, goal_drawn, "cosine").mean()
            return terms
        here, there = self.words(batch) & ((batch.kind == LATENT).cumsum(1) > 0), self.words(batch.told)
        there &= there.flip(1).cumsum(1).flip(1) <= here.sum(1, keepdim=True)  # as many, counted from the end
        if not torch.equal(batch.ids[here], batch.told.ids[there]):
            raise ValueError("the teacher does not read the same words. Both come of one trace; was it changed since?")
        terms.latent = through(own, drawn[-1], regression_loss(layers[:, here], goal[:, there], "cosine").mean())
        return terms

    def layers(self, batch: MixedBatch) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """States after every layer (L, B, N, D) with the model's own latents (n, D), cut off from what drew them, in
        the context; and the states (L, n, D) which draw these."""
        positions, batch = self.backbone.place(batch), veiled(batch, self.backbone)
        embeds, own = self.embed(batch), None
        rows, position, mask = batch.slots()
        if len(batch.spans):
            with torch.no_grad():
                own = self.unroll(batch, positions)[1][mask]
            own.requires_grad_(torch.is_grad_enabled())
            embeds = embeds.index_put((rows[mask], position[mask]), self.backbone.widen(own))
        layers = self.backbone.layers(embeds, batch.attention(), positions)
        return layers, own, layers[:, rows[mask], position[mask] - 1]

    def words(self, batch: MixedBatch) -> torch.Tensor:
        """(B, N) the words taught, START left out."""
        words = (batch.kind == TEXT) & (batch.weight > 0)
        return words.index_put((batch.spans[:, 0], batch.spans[:, 1] - 1), torch.zeros_like(words[0, 0]))

    def teacher(self) -> Monet:
        """The frozen model that tells what states should be, no part of the weights: this one as it was at first, or
        what :meth:`learn_from` was given."""
        if not self._teacher:
            self.learn_from(copy.deepcopy(self))
        return self._teacher[0]

    def learn_from(self, teacher: Monet) -> None:
        self._teacher = [teacher.to(self.device).requires_grad_(False).eval()]


def through(own: torch.Tensor, drawn: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """The loss with the gradient it has in the latents fed, ``own`` (n, D), and in nothing else, handed on to the
    states that drew them, ``drawn`` (n, D), which are equal."""
    if not loss.requires_grad:
        return loss
    (gradient,) = torch.autograd.grad(loss, own, retain_graph=True)
    carried = (drawn * gradient).sum()
    return loss.detach() + carried - carried.detach()


def build(
    backbone,
    *,
    stage: int = 3,
    k: int = 8,
    observed: float | None = None,
    latent_weight: float = 2.0,
    max_spans: int = 8,
    sweeps: int = 0,
) -> LatentReasoner:
    if stage not in (1, 2, 3):
        raise ValueError(f"stage={stage!r}: 1 (pictures shown), 2 (through latents alone) or 3 (without pictures).")
    reasoner = Monet(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        latent_input="self",
        sweeps=sweeps,
        head=IdentityHead(backbone.width, backbone.width),
        switch=Switch(count=k, max_spans=max_spans),
        weights=Weights(latent=latent_weight),
    )
    reasoner.stage, reasoner._teacher = stage, []
    reasoner.observed = observed or (2.0 if stage == 1 else 4.0)
    return reasoner
