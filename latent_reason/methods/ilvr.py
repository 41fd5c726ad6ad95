"""ILVR, Interleaved Latent Visual Reasoning (2512.05665): several spans, whose targets are patches that a momentum
teacher selects from the image of the step.

Idea: which part of an image matters depends on the reasoning so far. A slowly following copy of the model reads that
reasoning, and the k patches nearest to its query are the targets (cosine). Stage 2 drops the target.

What differs from the released code: the teacher follows the student (in the released code the update stands in a hook
that the trainer never calls, so the teacher stays the initial model); hidden states are mapped to the space of vision
tokens by least squares over the image positions, where both are known, instead of being compared directly; the query is
the difference between the text of the step and the question, because plain means of hidden states hardly differ;
exactly k patches are selected, because a softmax over raw cosines is almost flat; patches keep row-major order; a wrong
number of patches raises an error instead of skipping the loss. As in the released code, noise of std 0.01 is on the
target in the loss and not on the latents fed, and the cosine is that of raw states and raw tokens;
``noise_on="inputs"`` and ``standardize=True`` move the noise and remove the mean token from both.
Defaults: k = 8, decay 0.999, weights 1 and 1, from the paper; the place of the noise and raw tokens, from the released
code.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ..model.backbones.base import Backbone
from ..model.batch import TEXT, BatchLayout, MixedBatch, to_device
from ..model.heads import IdentityHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import Standardizer, VisionTokens
from ..model.targets.base import pad_spans
from ..model.tokenization import IMAGE
from ..objectives.losses import LossWeights
from ..objectives.objective import Objective, RunOptions, check_images_before_sketches
from ..trace import Trace
from ..values import Positive, Share, Size, SizeOrZero

PAPER = "2512.05665"
SUMMARY = (
    "patches of each step's image, selected by a momentum teacher from the reasoning so far; then own hidden states"
)
MODE = "mixed"
OLDER = {"noise_on": "inputs", "standardize": True}
NOISE = 0.01


class SelectedPatches(VisionTokens):
    """The k tokens of a sketch that a momentum teacher finds nearest to what the text before the sketch adds to the
    question, and to what it selected before. The teacher is a copy of the text model and no part of the weights."""

    renderable = False

    def __init__(self, backbone: Backbone, k: int, decay: float, *, standardize: bool):
        super().__init__(backbone, k, standardize=standardize)
        self.standardizer, self.decay = Standardizer(backbone.width, 1, places=False), decay
        self._teacher: list[torch.nn.Module] = []  # in a list, so that it is no submodule

    def latent_grid(self, height, width, k=None):
        return 1, min(k or self.k, self.k, height * width)

    @property
    def teacher(self) -> torch.nn.Module:
        if not self._teacher:  # a copy in fp32, because in bf16 a small step rounds to zero
            self._teacher.append(copy.deepcopy(self.backbone.text_model).requires_grad_(False).eval())
            for p in self._teacher[0].parameters():
                p.data = p.data.float()
        return self._teacher[0]

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher a little toward the model."""
        for old, new in zip(self.teacher.parameters(), self.backbone.text_model.parameters(), strict=True):
            if new.is_floating_point():  # 4-bit weights never move
                old.lerp_(new.to(old), 1 - self.decay)

    def statistics_samples(self, batch: MixedBatch):
        assert batch.sketches is not None
        return [(t[None].float(), (1, 1)) for tokens in self.encode_images(batch.sketches) for t in tokens[::2]]

    @torch.no_grad()
    def forward(self, batch: MixedBatch) -> torch.Tensor:
        assert batch.images is not None and batch.sketches is not None
        backbone, embeds = self.backbone, self.backbone.pad_extra(self.backbone.embed(batch.ids))
        images = torch.cat(backbone.image_embeddings(batch.images)).to(embeds.dtype)
        embeds = embeds.masked_scatter((batch.token_type == IMAGE)[..., None], images)
        options = {"text_model": self.teacher, "use_cache": False}
        out = backbone.call_text_model(embeds.float(), batch.mask, batch.positions, **options)
        states, center = out.last_hidden_state.float(), self.standardizer.mean[0, 0]
        added, places = self.added_directions(batch, states), image_places(batch.layout, states.device)
        latents, selected_mean = [], dict[int, torch.Tensor]()
        candidates = [t.float() for t in self.encode_images(batch.sketches)]
        for (row, _, _, count), direction, tokens in zip(batch.layout.spans.tolist(), added, candidates, strict=True):
            tokens_in = embeds[row][places[row]][:, : backbone.width].float()
            query = to_vision_space(direction, states[row][places[row]], tokens_in)
            query = query + (selected_mean[row] - center if row in selected_mean else 0)
            score = F.cosine_similarity(tokens - center, query[None], dim=-1)
            selected = tokens[score.topk(count).indices.sort().values]
            selected_mean[row] = selected.mean(0)
            latents.append(selected)
        return pad_spans(latents, batch.layout.longest)

    def added_directions(self, batch: MixedBatch, states: torch.Tensor) -> list[torch.Tensor]:
        """What the text before each span adds to the question: the mean of its states minus that of the question's,
        one (D,) a span, for the states (B, N, D)."""
        layout, weights = batch.layout, []
        at, last_end = np.arange(batch.ids.shape[1]), dict[int, int]()
        for row, start, _, count in layout.spans.tolist():
            text = (layout.token_type[row] == TEXT) & (at < start)
            since = text & (at >= last_end.get(row, 0))
            reasoning = since & layout.has_loss[row]
            reasoning = reasoning if reasoning.any() else since  # text without a loss
            question = text & ~layout.has_loss[row]
            weights.append(reasoning / reasoning.sum() - question / question.sum())
            last_end[row] = start + count
        shares = to_device(torch.tensor(np.stack(weights)), states.device).to(states.dtype)
        return [share @ states[row] for share, row in zip(shares, layout.spans[:, 0].tolist(), strict=True)]


def image_places(layout: BatchLayout, device: torch.device) -> list[torch.Tensor]:
    """The image positions (T,) of each row."""
    is_image = layout.token_type == IMAGE
    places = to_device(torch.tensor(is_image.nonzero()[1]), device)
    return list(places.split(is_image.sum(1).tolist()))


def to_vision_space(direction: torch.Tensor, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """A direction (D,) among states as a direction among vision tokens, by ridge regression over the T image positions
    of its row, where states and tokens (T, D) are both known."""
    states, tokens = states - states.mean(0), tokens - tokens.mean(0)
    gram = states @ states.T
    ridge = (1e-2 * gram.diagonal().mean() + 1e-6) * torch.eye(len(gram), device=gram.device)
    # solve_ex does not wait for the device to say that there is a solution: the ridge sees to that
    return direction @ states.T @ torch.linalg.solve_ex(gram + ridge, tokens).result


class IlvrObjective(Objective):
    """Trains toward patches that a momentum teacher selects; the teacher follows after every optimizer step. Noise of
    std ``target_noise`` is on the targets in the loss, while the model trains."""

    can_pack = False  # its target reads a whole row
    has_moving_teacher = True

    def __init__(self, run: RunOptions | None = None, *, target_noise: float, **options: Any):
        super().__init__(run, **options)
        self.target_noise = target_noise

    def latent_loss(self, model, batch, h, z):
        noise = self.target_noise if model.training else 0.0
        return super().latent_loss(model, batch, h, z + noise * torch.randn_like(z) if noise else z)

    def teacher_module(self, model: LatentReasoner) -> torch.nn.Module:
        return model.target.teacher

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        super().check_trace(model, trace)
        check_images_before_sketches(trace, "ilvr")

    def on_optimizer_step(self, model: LatentReasoner) -> None:
        model.target.update_teacher()


def build_model(
    backbone: Backbone,
    *,
    stage: SizeOrZero = 1,
    k: Size = 8,
    decay: Share = 0.999,
    supervise: str = "end_only",
    cap: Positive = 2.0,
    max_spans: SizeOrZero = 8,
    standardize: bool = False,
) -> LatentReasoner:
    if stage not in (1, 2):
        raise ValueError(f"stage={stage!r}: must be 1 (toward selected patches) or 2 (own states, text loss alone).")
    return LatentReasoner(
        backbone,
        target=SelectedPatches(backbone, k, decay, standardize=standardize),
        head=IdentityHead(backbone.width, backbone.width, loss="cosine"),
        switch=Switch(stop="close", supervise=supervise, cap=cap, max_spans=max_spans),
        follows_target=stage == 1,
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    stage: SizeOrZero = 1,
    noise_on: Literal["target", "inputs"] = "target",
    scheduled_sampling: dict[str, Any] | None = None,
    jacobi_sweeps: SizeOrZero = 0,
) -> IlvrObjective:
    if scheduled_sampling is None and noise_on == "inputs":
        scheduled_sampling = {"noise_std": NOISE}
    return IlvrObjective(
        run,
        target_noise=NOISE if noise_on == "target" else 0.0,
        weights=LossWeights(latent=1.0 if stage == 1 else 0.0),
        latent_input="teacher" if stage == 1 else "self",
        scheduled_sampling=scheduled_sampling,
        jacobi_sweeps=jacobi_sweeps,
    )
