"""Monet (2511.21395): latents distilled from a teacher that reads the images, trained through the latents alone.

Idea: stage 1 trains on traces that contain the images. In stage 2 only the latents after an image may attend to it. The
hidden states at the following text (the observations) must match those of the stage-1 model layer by layer (cosine).
The gradient of that loss reaches the latents only, so the latents must carry the content of the image. Stage 3 removes
the images: the hidden states that produce the latents must match those of the stage-2 model.

What differs from the released code: the latents in the context and the latents in the loss are the same hidden states,
one after the other; the start token is always in the context; a wrong count raises an error; the markers around an
image, which attend to it, are masked with it; the cosine is a mean over layers, not a sum that grows with depth; all
text after the first sketch of a row is an observation. Stage 3 continues from stage 2 unless a recipe names a stage-1
model as ``init_from`` and a stage-2 model as ``teacher``. The released cosine is taken along the positions of a row,
channel by channel, which is torch's default dimension and not the paper's formula: in twenty steps on the tiny model that
loss rises and differs by 5 % between precisions. Here it compares whole states; ``cosine_along="positions"`` is the
released one.
As in the released code, the text loss of stages 2 and 3 reaches the latents too, each through the state that drew it
(``text_through_latents``); stage 3 aligns the latents and all layers at their positions (``align_at="before"``: at the
positions that produce them); the weight of stage 2 is 2 times 2.
Defaults: k = 8, weights 4 (stage 2) and 2 (stage 3), observation weights 2 (stage 1) and 4, all layers, from the released
code.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from ..model.backbones.base import Backbone
from ..model.batch import LATENT, TEXT, BatchLayout, MixedBatch, shift_right, to_device
from ..model.heads import IdentityHead
from ..model.heads.regression import regression_loss
from ..model.processor import EncodedExample
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.attention_masks import hide_observed_images
from ..objectives.forward import all_hidden_states, forward_batch
from ..objectives.latent_inputs import norm_and_cosine
from ..objectives.losses import LossTerms, LossWeights
from ..objectives.objective import Objective, RunOptions
from ..trace import Image, Part, Sketch, Text, Trace
from ..values import Size, SizeOrZero, Weight

PAPER = "2511.21395"
SUMMARY = "hidden states distilled from a teacher that reads the step's image; trained through the latents alone"
MODE = "mixed"
OLDER = {"text_through_latents": False, "align_at": "before", "latent_weight": 2.0}


class MonetObjective(Objective):
    """Stage 1: images are shown. Stage 2: images are shown to the latents alone, whose gradient comes from aligning
    the states of the text after them with a teacher's. Stage 3: no images; latents are aligned with the teacher's."""

    can_pack = False  # a teacher reads the same rows with images in them
    has_teacher = True

    def __init__(
        self,
        run: RunOptions | None = None,
        *,
        stage: int,
        observation_weight: float,
        latent_weight: float,
        text_through_latents: bool,
        cosine_along: str,
        align_at: str,
        jacobi_sweeps: int = 0,
    ):
        super().__init__(
            run, latent_input="self", weights=LossWeights(latent=latent_weight), jacobi_sweeps=jacobi_sweeps
        )
        if self.run.latent_dropout:
            raise ValueError("method.latent_dropout: monet's gradient goes to states that drew latents. Remove it.")
        self.stage, self.observation_weight = stage, observation_weight
        self.text_through_latents, self.cosine_along, self.align_at = text_through_latents, cosine_along, align_at
        self._teacher: LatentReasoner | None = None

    def uses_target(self, model: LatentReasoner) -> bool:
        return False

    def has_latent_loss(self, model: LatentReasoner) -> bool:
        return self.stage > 1

    @property
    def takes_gradients(self) -> bool:
        return self.stage == 2

    @property
    def needs_attention_mask(self) -> bool:
        return self.stage > 1 or super().needs_attention_mask  # images are hidden from later text

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        return self.stage_view(model, trace, self.stage)

    def teacher_view(self, model: LatentReasoner, trace: Trace) -> Trace | None:
        return self.stage_view(model, trace, self.stage - 1) if self.stage > 1 else None

    def encode(self, model: LatentReasoner, trace: Trace) -> EncodedExample:
        """As the base class does. Raises ValueError also where the teacher of stage 2 would not read the text after
        the first latent."""
        row = super().encode(model, trace)
        if self.stage == 2 and row.spans and row.teacher_example is not None:
            opens, first = {start - 1 for start, *_ in row.spans}, row.spans[0][0]
            own = [i for at, i in taught_ids(row) if at > first and at not in opens]
            if own != [i for _, i in taught_ids(row.teacher_example)][-len(own) :] * bool(own):
                raise ValueError(
                    f"trace '{trace.id}': the teacher does not read the same text. Both views of a trace must have the "
                    "same text after its first sketch."
                )
        return row

    def stage_view(self, model: LatentReasoner, trace: Trace, stage: int) -> Trace:
        """The trace of a stage: images shown (1), shown and then sketched (2), or sketched alone (3). Text after the
        first has ``observation_weight``, unless it has a weight of its own."""
        messages = []
        for message in trace.messages:
            parts, after_sketch = list[Part](), False
            for part in message.content:
                if isinstance(part, Sketch):
                    after_sketch = True
                    if stage < 3 and part.image is not None:
                        parts.append(Image(part.image))
                    if stage > 1:
                        parts.append(Sketch(None, model.switch.count))
                elif after_sketch and isinstance(part, Text) and part.loss is None:
                    parts.append(replace(part, loss=self.observation_weight))
                else:
                    parts.append(part)
            messages.append(replace(message, content=tuple(parts)))
        return replace(trace, messages=tuple(messages))

    def loss(self, model: LatentReasoner, batch: MixedBatch, progress: float = 1.0) -> LossTerms:
        if not len(batch.spans):
            return super().loss(model, batch, progress)
        assert batch.teacher_batch is not None  # of teacher_view
        layers, own, drawn = self.hidden_states(model, self.apply_bottleneck(model, batch))
        terms = self.loss_terms(model, batch, shift_right(layers[-1]), None)
        terms = replace(terms, metrics=terms.metrics | norm_and_cosine(own))
        with torch.no_grad():
            goal, goal_own, _ = self.hidden_states(self.teacher(model), batch.teacher_batch)
        if self.stage == 3:
            found = self.latent_states(batch, layers, own), self.latent_states(batch.teacher_batch, goal, goal_own)
            return replace(terms, latent=self.alignment(*found, (batch.layout.token_type == LATENT).sum(1)))
        here = observations(batch.layout)
        if not here.any():  # nothing to align, and a mean of nothing is not a number
            return terms
        there = text_mask(batch.teacher_batch.layout)
        there &= there[:, ::-1].cumsum(1)[:, ::-1] <= here.sum(1, keepdims=True)  # as many, counted from the end
        (row, at), (row_there, at_there) = (
            to_device(torch.tensor(np.stack(mask.nonzero())), layers.device) for mask in (here, there)
        )
        alignment = self.alignment(layers[:, row, at], goal[:, row_there, at_there], here.sum(1))
        return replace(
            terms, latent=through_latents(own, own if own.grad_fn else model.scale_latents(drawn[-1]), alignment)
        )

    def alignment(self, found: torch.Tensor, goal: torch.Tensor, counts: np.ndarray) -> torch.Tensor:
        """1 - cosine of states (L, n, D) with those of the teacher, of which each row has ``counts`` (B,), one row after
        the other."""
        if self.cosine_along == "channels":
            return regression_loss(found, goal, "cosine").mean()
        rows = (states.transpose(1, 2).split(counts[counts > 0].tolist(), 2) for states in (found, goal))
        return torch.stack([regression_loss(a, b, "cosine").mean() for a, b in zip(*rows, strict=True)]).mean()

    def latent_weight(self, batch: MixedBatch) -> torch.Tensor:
        aligned = batch.layout.token_type == LATENT if self.stage == 3 else observations(batch.layout)
        return torch.tensor(int(aligned.sum() if self.cosine_along == "channels" else aligned.any(1).sum()))

    def latent_states(self, batch: MixedBatch, layers: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """What stage 3 aligns, of the states of all layers (L, B, N, D) and the latents (n, D)."""
        _, row, position, _, _ = batch.latent_places()
        if self.align_at == "before":
            return layers[:, row, position - 1]
        return torch.cat([own[None].to(layers.dtype), layers[:, row, position]])

    def hidden_states(
        self, model: LatentReasoner, batch: MixedBatch
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """States after every layer (L, B, N, D) with the model's own latents (n, D) in the context; these latents; and the
        states (L, n, D) that draw them. The latents are detached from the states that drew them, or with
        ``text_through_latents`` from the latents before them."""
        batch = hide_observed_images(batch, model.backbone)
        embeds, own = model.embed_batch(batch), None
        span, row, position, slot, _ = batch.latent_places()
        if len(batch.spans):
            with torch.no_grad():
                own = self.own_latent_states(model, batch, batch.positions)[1][span, slot]
            if self.text_through_latents and torch.is_grad_enabled():
                context = embeds.index_put((row, position), model.backbone.pad_extra(own))
                states = forward_batch(model.backbone, batch, context, batch.positions)
                own = model.scale_latents(states[row, position - 1]).to(own.dtype)
            else:
                own.requires_grad_(torch.is_grad_enabled())
            embeds = embeds.index_put((row, position), model.backbone.pad_extra(own))
        layers = all_hidden_states(model.backbone, batch, embeds, batch.positions)
        return layers, own, layers[:, row, position - 1]

    def teacher(self, model: LatentReasoner) -> LatentReasoner:
        """The frozen teacher: what :meth:`set_teacher` was given, or a copy of the model at its first step."""
        if self._teacher is None:
            self.set_teacher(copy.deepcopy(model))
        teacher = self._teacher
        assert teacher is not None  # as it has just been set
        # a plan's tensors without values cannot be moved
        return teacher if teacher.device == model.device else teacher.to(model.device)

    def teacher_module(self, model: LatentReasoner) -> LatentReasoner | None:
        return self.teacher(model) if self.stage > 1 else None

    def set_teacher(self, teacher: LatentReasoner) -> None:
        self._teacher = teacher.requires_grad_(False).eval()


def taught_ids(row: EncodedExample) -> list[tuple[int, int]]:
    """Position and id of every text token with a loss."""
    return [
        (at, i)
        for at, (i, kind, weight) in enumerate(zip(row.ids, row.token_type, row.loss_weight, strict=True))
        if kind == TEXT and weight > 0
    ]


def text_mask(layout: BatchLayout) -> np.ndarray:
    """(B, N) text with a loss, the open token left out."""
    mask = (layout.token_type == TEXT) & layout.has_loss
    mask[layout.spans[:, 0], layout.spans[:, 1] - 1] = False
    return mask


def observations(layout: BatchLayout) -> np.ndarray:
    """(B, N) text with a loss after the first latent of its row."""
    return text_mask(layout) & ((layout.token_type == LATENT).cumsum(1) > 0)


def through_latents(own: torch.Tensor, drawn: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """The loss with the gradient that it has in the latents fed back, ``own`` (n, D), and in nothing else, passed to
    the states that drew them, ``drawn`` (n, D): as they are fed, they are equal."""
    if not loss.requires_grad:
        return loss
    (gradient,) = torch.autograd.grad(loss, own, retain_graph=True)
    carried = (drawn * gradient).sum()
    return loss.detach() + carried - carried.detach()


def build_model(backbone: Backbone, *, k: Size = 8, max_spans: SizeOrZero = 8) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        head=IdentityHead(backbone.width, backbone.width),
        switch=Switch(count=k, max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    stage: SizeOrZero = 3,
    observation_weight: Weight | None = None,
    latent_weight: Weight | None = None,
    text_through_latents: bool = True,
    cosine_along: Literal["positions", "channels"] = "channels",
    align_at: Literal["latents", "before"] = "latents",
    jacobi_sweeps: SizeOrZero = 0,
) -> MonetObjective:
    if stage not in (1, 2, 3):
        raise ValueError(f"stage={stage!r}: must be 1 (images shown), 2 (through latents alone) or 3 (without images).")
    if stage == 3 and align_at == "latents" and not text_through_latents:
        raise ValueError(
            "text_through_latents=False with align_at='latents': in stage 3 a latent that is detached from the state that "
            "drew it learns nothing from being aligned. Set align_at='before'."
        )
    return MonetObjective(
        run,
        stage=stage,
        observation_weight=observation_weight or (2.0 if stage == 1 else 4.0),
        latent_weight=latent_weight if latent_weight is not None else 4.0 if stage == 2 else 2.0,
        text_through_latents=text_through_latents,
        cosine_along=cosine_along,
        align_at=align_at,
        jacobi_sweeps=jacobi_sweeps,
    )
