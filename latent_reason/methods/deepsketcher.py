"""DeepSketcher (2509.25866): an editor changes all image tokens at once, conditioned on the text before the span.

Idea: when the model opens a span, the current image tokens (of the last sketch, or of the input) attend to the text
since the last span, pooled to a few vectors. The result is the tokens of the edited image, which enter the context like
an image. Stage 1 trains the text with true edits in the context, stage 2 trains the editor alone, stage 3 trains both
on the model's own edits (``stages`` of a recipe: latent weight 0; text weight 0 and ``trainable: [head]``;
``own_latents: true``).

This file follows the description in the paper, because no code was released: layers and learning rates are our choice.
The control token opens the span; its block is computed at once and enters the context token by token. The editor is
residual and starts at zero, so an untrained edit changes nothing.
Defaults: L1 on standardized tokens, 32 pooled text vectors, 2 layers (ours), latent weight 1, at most 4 edits (ours).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..model.backbones.base import Backbone
from ..model.heads import HeadContext, LatentHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import VisionTokens
from ..objectives.latent_inputs import text_since_span
from ..objectives.losses import LossWeights, weighted_mean
from ..objectives.objective import Objective, RunOptions, check_images_before_sketches
from ..values import Depth, Size, SizeOrZero, Weight

PAPER = "2509.25866"
SUMMARY = "an editor changes the whole grid of image tokens at once, conditioned on the text since the last sketch"
MODE = "mixed"


class EditorHead(LatentHead):
    """Image tokens (n, K, D) and pooled text states (n, P, D) that say what changes -> the tokens after the change."""

    in_hidden_space = needs_context = True

    def __init__(self, width: int, text_states: int, depth: int, heads: int):
        super().__init__(width, width)
        self.text_states = text_states
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.asks = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.leave = nn.Linear(width, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def pool_text(self, states: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """States (n, L, D) and their mask (n, L) -> (n, text_states, D): the marked states, cut into as many parts of
        about equal length, which overlap where there are fewer states; the mean of each."""
        number, count = text_mask.cumsum(1)[:, None] - 1, text_mask.sum(1)[:, None, None]
        part = torch.arange(self.text_states, device=states.device)[:, None]
        first, end = part * count // self.text_states, -(-(part + 1) * count // self.text_states)
        weights = (text_mask[:, None] & (number >= first) & (number < end)).to(states.dtype)
        return weights / weights.sum(-1, keepdim=True) @ states

    def edit(self, tokens: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(n, K, D) and (n, P, D) -> (n, K, D)."""
        x = tokens
        layers = zip(self.asks, self.mlps, self.norms[::2], self.norms[1::2], strict=False)
        for attention, mlp, before, after in layers:
            x = x + attention(before(x), text, text, need_weights=False)[0]
            x = x + mlp(after(x))
        return tokens + self.leave(self.norms[-1](x))

    def reset_memory(self, memory, rows):
        for row in rows.tolist():
            memory.get("grids", {}).pop(row, None)

    def sample(self, h, context: HeadContext | None = None, noise=None):
        assert context is not None
        grids, places = context.memory.setdefault("grids", {}), context.host_places()
        for row in (row for row, j in places if j == 0):  # a grid is drawn with its first latent
            text = self.pool_text(context.states[row][None], context.text_mask[row][None])
            grids[row] = self.edit(grids.get(row, last_image_tokens(context, row))[None].to(h.dtype), text)[0]
        return torch.stack([grids[row][min(j, len(grids[row]) - 1)] for row, j in places])


def last_image_tokens(context: HeadContext, row: int) -> torch.Tensor:
    """The tokens (T, D) of the last image in a row, which the first edit changes."""
    if not (size := int(context.last_image_length[row])):
        raise ValueError(
            f"row {row} of the batch opens a span and has no image: deepsketcher edits the image of the prompt. Add "
            "an image, or set latent_mode='off'."
        )
    return context.image_tokens[row][context.image_mask[row]][-size:]


class DeepSketcherObjective(Objective):
    """Trains whole edits: L1 between the edited grid and the tokens of the sketch."""

    def check_trace(self, model, trace):
        super().check_trace(model, trace)
        check_images_before_sketches(trace, "deepsketcher")

    def latent_weight(self, batch):
        return batch.span_weight.sum()

    def latent_loss(self, model, batch, h, z):
        h, _ = model.head.cast_inputs(h, None)
        rows, lengths = batch.layout.spans[:, 0].tolist(), batch.layout.spans[:, 2:].prod(1).tolist()
        seen = zip(batch.image_rows, model.backbone.encode_images(batch.images), strict=True)
        last_images = dict(seen)  # of each row
        text = model.head.pool_text(h[batch.spans[:, 0]], text_since_span(batch))
        goals, previous, losses = model.target.normalize(z.detach(), batch.spans[:, 2:]), {}, []
        for i, (row, k) in enumerate(zip(rows, lengths, strict=True)):
            tokens = (previous[row] if row in previous else last_images[row]).detach()
            tokens = tokens[torch.arange(k, device=h.device) * len(tokens) // k]  # the sketch has another size
            edited = model.head.edit(tokens[None].to(h.dtype), text[i][None])
            edited = model.target.normalize(edited.float(), batch.spans[i : i + 1, 2:])[0]
            losses.append((edited - goals[i, :k]).abs().mean())
            previous[row] = z[i, :k].to(h.dtype)
        return weighted_mean(torch.stack(losses), batch.span_weight)


def build_model(
    backbone: Backbone, *, text_states: Size = 32, depth: Depth = 2, heads: Size = 4, max_spans: SizeOrZero = 4
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        target=VisionTokens(backbone, k=1024),
        head=EditorHead(backbone.width, text_states, depth, heads),
        switch=Switch(max_spans=max_spans),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    own_latents: bool = False,
    text_weight: Weight = 1.0,
    latent_weight: Weight = 1.0,
    scheduled_sampling: dict[str, Any] | None = None,
) -> DeepSketcherObjective:
    return DeepSketcherObjective(
        run,
        weights=LossWeights(text=text_weight, latent=latent_weight),
        latent_input="self" if own_latents else "teacher",
        scheduled_sampling=scheduled_sampling,
    )
