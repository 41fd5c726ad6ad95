"""LatentReasoner: a vision-language model that reasons in text and in latents. A method is a choice of its parts.

    target       what a latent should be               head     how it is drawn from the state before it
    switch       when a span of latents starts and stops

Training adds an objective (latent_reason.objectives), which computes the loss of a batch with a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .backbones.base import Backbone
from .batch import IMAGE, MixedBatch, to_device
from .heads.base import HeadContext, LatentHead
from .processor import Processor
from .switching import Switch
from .targets.base import LatentTarget
from .tokenization import Vocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class MethodRecord:
    """Which method a model belongs to: ``name`` of a file in latent_reason/methods (None: built by hand), all its
    ``options``, and ``notes`` on the training run."""

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class LatentReasoner(nn.Module):
    """What inference needs of a method.

    Example:
        >>> reasoner = build_method("modal_mixed", load_backbone("tiny"), k=8)
        >>> rollout = generate(reasoner, reasoner.processor([trace], generate=True))

    ``head`` is None for methods that never sketch, ``target`` where no image says what a latent should be.
    ``follows_target`` says whether training moves latents toward the target. If not, they are not rendered, and
    sketches of earlier turns are filled with placeholder latents. ``hides_images`` says whether text after a span attends
    to no image of the prompt, in decoding too (``GenerationConfig.hide_images``). ``system_prompt`` stands before every
    chat that has no system turn of its own.
    """

    feedback_gain: torch.Tensor | None  # a buffer: see reserve_gain

    def __init__(
        self,
        backbone: Backbone,
        *,
        target: LatentTarget | None = None,
        head: LatentHead | None = None,
        switch: Switch | None = None,
        follows_target: bool = True,
        hides_images: bool = False,
        vocabulary: Vocabulary | None = None,
        method: MethodRecord | None = None,
        system_prompt: str = "",
    ):
        super().__init__()
        self.backbone, self.target, self.head = backbone, target, head
        self.switch = switch or Switch()
        self.follows_target, self.hides_images, self.system_prompt = follows_target, hides_images, system_prompt
        self.vocabulary = vocabulary or Vocabulary(backbone.tokenizer, backbone.layout)
        self.method = method or MethodRecord()
        self.register_buffer("feedback_gain", None)
        backbone.add_control_tokens(self.vocabulary)

    def record_method(self, method: MethodRecord) -> None:
        """Say which method this model belongs to; a checkpoint saves it."""
        self.method = method

    def reserve_statistics(self, stored_means: Sequence[int] | None) -> None:
        """Have room for the statistics of a target that keeps means of several grids; see :class:`.Standardizer`.
        ``stored_means`` is what it says of them; none or empty: it keeps none."""
        if self.target is not None:
            self.target.standardizer.reserve(*(stored_means or (0, 0)))

    def reserve_gain(self, feedback: str | None) -> None:
        """With ``feedback`` ``norm_matched``, have a stored number, 1 at first, by which every latent is multiplied that is
        an input of the text model; see :mod:`latent_reason.objectives.feedback`. Else there is no such tensor."""
        self.register_buffer("feedback_gain", torch.ones(()) if feedback == "norm_matched" else None)

    @property
    def feedback(self) -> str:
        """``raw``, or ``norm_matched``: latents are multiplied by a stored number where they are inputs."""
        return "raw" if self.feedback_gain is None else "norm_matched"

    @property
    def can_sketch(self) -> bool:
        """Whether it has a head that draws latents."""
        return self.head is not None

    @property
    def is_renderable(self) -> bool:
        """Whether a latent stands for a piece of an image, so that a sketch decoder can render it."""
        return self.target is not None and self.follows_target and self.target.renderable

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def processor(self) -> Processor:
        """What turns traces into batches for this model."""
        return Processor(self.vocabulary, self.backbone, self.target, self.switch, self.system_prompt)

    def forward(self, compute: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """``compute(self, *args, **kwargs)`` inside this module's forward, where hooks of FSDP2 gather the weights."""
        return compute(self, *args, **kwargs)

    # -- latents ------------------------------------------------------------------------------------------------------
    def sample_latents(
        self,
        h: torch.Tensor,
        grids: torch.Tensor,
        slot: torch.Tensor,
        noise: torch.Tensor | None = None,
        context: HeadContext | None = None,
        means: torch.Tensor | None = None,
        constants: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """States (n, D) -> latents as inputs of the backbone (n, D). ``grids`` (n, 2) and ``slot`` (n,) say where in
        its sketch each latent stands, ``noise`` is (n, Z), ``context`` is for a head that needs one. Decoding passes
        what it has computed once: ``means`` (n, Z) of the slots and ``constants`` of the head."""
        states, context = self.head.cast_inputs(h, context)
        known = {} if constants is None else {"constants": constants}
        if self.head.reads_slot:
            known["slot"] = slot
        z = self.head.sample(states, context, noise, **known)
        return self.to_embeddings(z, grids, slot, means).to(h.dtype)

    def draw_spans(self, h: torch.Tensor, grids: torch.Tensor, length: int, context: HeadContext) -> torch.Tensor:
        """(n, length, D) the latents of whole spans of ``grids`` (n, 2) as inputs of the backbone, from the states
        (n, D) before their first, for a head that draws whole spans."""
        states, cast = self.head.cast_inputs(h, context)
        z = self.head.draw_span(states, length, cast)
        slot = torch.arange(length, device=h.device).repeat(len(h))
        embeds = self.to_embeddings(z.flatten(0, 1), grids.repeat_interleave(length, 0), slot)
        return embeds.to(h.dtype).unflatten(0, (len(h), length))

    def to_embeddings(
        self, z: torch.Tensor, grids: torch.Tensor, slot: torch.Tensor, means: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Outputs of the head (n, Z) -> inputs of the backbone (n, D); the others as above."""
        if self.head.in_hidden_space:
            return self.scale_latents(z)
        z = self.target.denormalize(z, grids, slot) if means is None else torch.addcmul(means, z, self.target.scale)
        return self.latents_to_embeddings(z)

    def latent_means(self, grids: torch.Tensor, longest: int) -> torch.Tensor | None:
        """(n, longest, Z) the mean latent at each slot of spans of ``grids`` (n, 2): what a head's zero stands for. None
        for a head in the space of the states."""
        if self.head is None or self.head.in_hidden_space:
            return None
        zeros = self.target.std.new_zeros(len(grids), longest, self.head.latent_width)
        slot = torch.arange(longest, device=grids.device).expand(len(grids), -1)
        return self.target.denormalize(zeros, grids[:, None], slot)

    def latents_to_embeddings(self, z: torch.Tensor) -> torch.Tensor:
        """Latents (..., Z) -> inputs of the backbone (..., D)."""
        return self.scale_latents(z if self.target is None else self.target.to_embeddings(z))

    def scale_latents(self, z: torch.Tensor) -> torch.Tensor:
        """Latents (..., D) in the space of states and target embeddings -> the same as they are fed."""
        return z if self.feedback_gain is None else z * self.feedback_gain

    def unscale_latents(self, embeds: torch.Tensor) -> torch.Tensor:
        """The inverse: latents (..., D) as they were fed -> what a sketch decoder renders."""
        return embeds if self.feedback_gain is None else embeds / self.feedback_gain.to(embeds.device)

    def latent_grid_for(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """The grid of the latents of a span after an image of ``size`` tokens (None: after no image)."""
        return self.processor.planned_grid(size)

    def head_context(self, batch: MixedBatch) -> HeadContext | None:
        """What a head that needs context may read of the rows of a batch; None for other heads."""
        if self.head is None or not self.head.needs_context:
            return None
        rows: list[list[torch.Tensor]] = [[] for _ in batch.ids]
        if batch.images is not None and batch.image_rows:
            for row, tokens in zip(batch.image_rows, self.backbone.encode_images(batch.images), strict=True):
                rows[row].append(tokens)
        empty = self.backbone.embed(batch.ids[:1, :0])[0]
        last = torch.tensor([len(r[-1]) if r else 0 for r in rows])
        rows = [torch.cat([empty, *r]) for r in rows]
        tokens = pad_sequence(rows, batch_first=True)
        if not tokens.shape[1]:
            tokens = F.pad(tokens, (0, 0, 0, 1))  # attention needs at least one place
        mask = torch.arange(tokens.shape[1]) < torch.tensor([len(r) for r in rows])[:, None]
        return HeadContext(tokens, to_device(mask, tokens.device), to_device(last, tokens.device))

    def placeholder_latents(self, batch: MixedBatch) -> torch.Tensor:
        """(S, K, D) inputs at latents whose states are unknown: what the head gives for a zero state."""
        span, row, _, slot, grids = batch.latent_places()
        zeros = self.backbone.embed(batch.ids[:1, :1])[0].detach().new_zeros(len(slot), self.backbone.width)
        context = self.head_context(batch)
        latents = self.sample_latents(zeros, grids, slot, context=context and context.for_rows(row, slot))
        empty = latents.new_zeros(len(batch.spans), batch.layout.longest, latents.shape[-1])
        return empty.index_put((span, slot), latents)

    # -- inputs and outputs of the backbone ---------------------------------------------------------------------------
    def embed_batch(self, batch: MixedBatch, latents: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, D + extra_width) inputs: token embeddings, image embeddings, and ``latents`` (S, K, D) at their
        positions."""
        embeds = self.backbone.pad_extra(self.backbone.embed(batch.ids))
        if batch.images is not None:
            images = torch.cat(self.backbone.image_embeddings(batch.images)).to(embeds.dtype)
            embeds = embeds.masked_scatter((batch.token_type == IMAGE)[..., None], images)
        if latents is not None:
            span, row, position, slot, _ = batch.latent_places()
            embeds = embeds.index_put((row, position), self.backbone.pad_extra(latents[span, slot].to(embeds.dtype)))
        return embeds

    def prompt_embeddings(self, prompt: MixedBatch) -> torch.Tensor:
        """(B, N, D + extra_width) inputs of a prompt. A sketch of an earlier turn stands there as its target.

        Raises:
            ValueError: the prompt has sketches and the model has no head.
        """
        if not len(prompt.spans):
            return self.embed_batch(prompt)
        if not self.can_sketch:
            raise ValueError(f"the prompts have {len(prompt.spans)} sketches, but this model has no latent head.")
        target = self.target if self.follows_target else None
        latents = self.latents_to_embeddings(target(prompt)) if target is not None else self.placeholder_latents(prompt)
        return self.embed_batch(prompt, latents)

    def forbidden_tokens(self) -> torch.Tensor:
        """(2, V) what may not be generated as text: where no span may be opened, and where one may."""
        v, size = self.vocabulary, self.backbone.vocab_size
        masks = [v.forbidden_mask(forbid_open=forbidden, size=size, device=self.device) for forbidden in (True, False)]
        return torch.stack(masks)

    def mask_forbidden_tokens(self, logits: torch.Tensor, open_allowed: torch.Tensor) -> torch.Tensor:
        """(n, V) fp32 logits with -inf at everything that may not be generated; ``open_allowed`` (n,)."""
        return logits.float().masked_fill(self.forbidden_tokens()[open_allowed.long()], float("-inf"))

    def stop_log_probs(self, h: torch.Tensor) -> torch.Tensor:
        """States (n, D) -> (n, 2) log-probabilities of continuing the span and of closing it, and nothing else."""
        return stop_log_probs(self.backbone.logits(h), self.vocabulary.latent, self.vocabulary.close)


def stop_log_probs(logits: torch.Tensor, latent: int, close: int) -> torch.Tensor:
    """(n, V) -> (n, 2) log-probabilities of continuing a span and of closing it."""
    return torch.stack([logits[:, latent], logits[:, close]], -1).float().log_softmax(-1)
