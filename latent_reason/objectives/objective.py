"""Objective: what a method trains. It prepares examples and computes the loss of a batch with a model.

Model and objective are apart: a :class:`~latent_reason.model.reasoner.LatentReasoner` holds what inference needs, an
objective what training adds. A method's file builds both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..model.batch import MixedBatch, shift_right
from ..model.processor import EncodedExample, Processor
from ..model.reasoner import LatentReasoner
from ..trace import Image, Message, Part, Sketch, Text, Trace
from . import latent_inputs
from .attention_masks import apply_bottleneck
from .forward import forward_batch
from .latent_inputs import Reencode, ScheduledSampling, norm_and_cosine
from .losses import LossTerms, LossWeights, in_chunks, token_losses, weighted_mean
from .packing import collate_examples

LatentInput = Literal["teacher", "self", "blank"]


@dataclass(frozen=True)
class RunOptions:
    """Options of a training run that any method may use.

    Args:
        attention_bottleneck_prob: share of rows in which text after a sketch attends neither to the input images nor
            to the text of earlier steps, so that the latents must carry what it needs.
        latent_dropout: share of latents replaced by the mean of their slot.
        reencode: renders sketches and encodes them again, for ``scheduled_sampling.reencode_prob``.
    """

    attention_bottleneck_prob: float = 0.0
    latent_dropout: float = 0.0
    reencode: Reencode | None = None


class Objective:
    """Joint next-token, latent and stop loss.

    Args:
        run: options of the training run.
        weights: weight of each part of the loss.
        latent_input: which latents stand in the context: ``teacher`` (the target's), ``self`` (the model's own,
            unrolled through the cache with their gradient) or ``blank`` (what the head gives for a zero state).
        scheduled_sampling: fields of :class:`~.latent_inputs.ScheduledSampling`.
        jacobi_sweeps: draw own latents by that many parallel sweeps instead of one step a latent; 0: step by step.

    Example:
        >>> objective = build_objective("modal_mixed", k=8)
        >>> terms = reasoner(objective.loss, objective.collate(reasoner, traces))
        >>> terms.total.backward()
    """

    can_pack = True  # whether several examples may share a row
    has_teacher = False  # whether it learns from another model
    has_moving_teacher = False  # whether its teacher changes while it trains

    def __init__(
        self,
        run: RunOptions | None = None,
        *,
        weights: LossWeights | None = None,
        latent_input: LatentInput = "teacher",
        scheduled_sampling: dict | None = None,
        jacobi_sweeps: int = 0,
    ):
        if latent_input not in ("teacher", "self", "blank"):
            raise ValueError(f"latent_input={latent_input!r}: must be 'teacher', 'self' or 'blank'.")
        self.run, self.weights = run or RunOptions(), weights or LossWeights()
        self.latent_input, self.jacobi_sweeps = latent_input, jacobi_sweeps
        self.scheduled_sampling = ScheduledSampling.from_options(scheduled_sampling)
        if self.run.latent_dropout and (latent_input == "blank" or self.scheduled_sampling.prob):
            raise ValueError(
                f"method.latent_dropout cannot be used with latent_input={latent_input!r} and "
                f"scheduled_sampling.prob={self.scheduled_sampling.prob}. Remove it."
            )

    # -- what this objective needs ------------------------------------------------------------------------------------
    def uses_target(self, model: LatentReasoner) -> bool:
        """Whether images of sketches are encoded: as inputs, for the loss, or for both."""
        return model.target is not None and (self.latent_input == "teacher" or bool(self.weights.latent))

    def has_latent_loss(self, model: LatentReasoner) -> bool:
        """Whether the loss has a latent part."""
        return self.uses_target(model) and bool(self.weights.latent)

    @property
    def unrolls_latents(self) -> bool:
        """Whether rows go through the text model piece by piece, because the model's own latents stand in them."""
        own = self.latent_input == "self" and not self.jacobi_sweeps
        return own or bool(self.scheduled_sampling.prob and self.scheduled_sampling.sequential)

    @property
    def makes_one_pass(self) -> bool:
        """Whether every batch goes through the text model exactly once, with sketches or without."""
        return self.latent_input != "self" and not self.scheduled_sampling.prob

    @property
    def takes_gradients(self) -> bool:
        """Whether the loss itself takes a gradient, before the backward pass."""
        return False

    @property
    def needs_attention_mask(self) -> bool:
        """Whether positions have masks of their own, which flash attention does not take."""
        return self.run.attention_bottleneck_prob > 0

    def check(self, model: LatentReasoner, *, packs: bool = False) -> None:
        """Check that this objective can train this model.

        Raises:
            ValueError: says which option to change.
        """
        name = model.method.name
        if self.jacobi_sweeps and model.can_sketch and model.head.is_stochastic:
            raise ValueError(f"jacobi_sweeps={self.jacobi_sweeps} needs a head that is not stochastic. Set it to 0.")
        if self.run.latent_dropout and not model.can_sketch:
            raise ValueError(f"method.latent_dropout: method {name!r} has no latents. Remove it.")
        if packs and (not self.can_pack or (model.can_sketch and model.head.needs_context)):
            raise ValueError(
                f"method {name!r} reads each row as a whole, so examples cannot share one. Remove the packing key of "
                "data."
            )
        if self.scheduled_sampling.reencode_prob and self.run.reencode is None:
            raise ValueError(
                "scheduled_sampling.reencode_prob needs a sketch decoder. Start from a checkpoint that has one."
            )

    # -- examples -----------------------------------------------------------------------------------------------------
    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace as this method trains on it. Methods whose latents do not stand at the sketches override it."""
        return trace

    def processor_for(self, model: LatentReasoner, trace: Trace) -> Processor:
        """What encodes a trace for training. Methods whose spans have other lengths than in decoding override it."""
        return model.processor

    def teacher_view(self, model: LatentReasoner, trace: Trace) -> Trace | None:
        """The trace as a teacher of this method reads it; None for most methods."""
        return None

    def set_teacher(self, teacher: LatentReasoner) -> None:
        """Learn from this model. Raises ValueError for methods without a teacher."""
        raise ValueError("teacher: this method has no teacher. Remove the key.")

    def teacher_module(self, model: LatentReasoner) -> torch.nn.Module | None:
        """The module that this objective keeps beside the model, made of the model where it is not there yet; None for
        most methods."""
        return None

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        """Check that this method can train on a trace, and that decoding then reads what training read.

        Raises:
            ValueError: one sentence on what the method does not support, and what to do.
        """
        name = model.method.name
        if trace.sketches() and not model.can_sketch:
            raise ValueError(
                f"it contains a sketch, but method {name!r} has no latent head. Use traces without sketches."
            )
        earlier = any(isinstance(part, Sketch) for message in trace.messages[:-1] for part in message.content)
        is_known = model.target is not None and model.follows_target and self.latent_input == "teacher"
        if earlier and not is_known:
            raise ValueError(
                f"an earlier turn contains a sketch. Method {name!r} draws its own latents there in training, and "
                "decoding cannot know them. Make each turn a trace of its own, or choose a method that follows a target."
            )

    def encode(self, model: LatentReasoner, trace: Trace) -> EncodedExample:
        """Encode one trace for training. Raises ValueError where :meth:`check_trace` does."""
        try:
            self.check_trace(model, trace)
        except ValueError as error:
            raise ValueError(f"trace '{trace.id}': {error}") from None
        row = self.processor_for(model, trace).encode(self.prepare_example(model, trace))
        view = self.teacher_view(model, trace)
        return replace(row, teacher_example=None if view is None else model.processor.encode(view))

    def collate(self, model: LatentReasoner, traces: list[Trace]) -> MixedBatch:
        """Encode traces for training and collate them into one batch on the CPU."""
        return collate_examples(model.processor, [self.encode(model, trace) for trace in traces])

    # -- loss ---------------------------------------------------------------------------------------------------------
    def loss(self, model: LatentReasoner, batch: MixedBatch, progress: float = 1.0) -> LossTerms:
        """Loss parts of a batch. ``progress`` is the share of training steps done, for scheduled sampling. Call it as
        ``model(objective.loss, batch)``, so that sharded weights are gathered.

        Raises:
            ValueError: the batch has sketches and the model has no head.
        """
        if len(batch.spans) and not model.can_sketch:
            raise ValueError(f"{len(batch.spans)} sketches for a model without a latent head. Use traces without them.")
        positions, z = batch.positions, None
        batch = self.apply_bottleneck(model, batch)
        if not len(batch.spans):
            states = forward_batch(model.backbone, batch, model.embed_batch(batch), positions)
            return self.loss_terms(model, batch, shift_right(states), z)
        if self.uses_target(model):
            assert model.target is not None  # or it is not used
            z = model.target(batch)
        if self.latent_input == "self":
            states, latents = self.own_latent_states(model, batch, positions)
        elif self.latent_input == "blank":
            latents = model.placeholder_latents(batch)
            states = forward_batch(model.backbone, batch, model.embed_batch(batch, latents), positions)
        else:
            states, latents = self.teacher_forced_states(model, batch, positions, z, progress)
        terms = self.loss_terms(model, batch, shift_right(states), z)
        span, _, _, slot, _ = batch.latent_places()
        return replace(terms, metrics=terms.metrics | norm_and_cosine(latents[span, slot]))

    def apply_bottleneck(self, model: LatentReasoner, batch: MixedBatch) -> MixedBatch:
        """The batch with the attention bottleneck of this training step."""
        prob = self.run.attention_bottleneck_prob
        if not (model.training and prob):
            return batch
        return apply_bottleneck(batch, torch.rand(len(batch.ids), device=batch.ids.device) < prob)

    def dropped_latents(self, model: LatentReasoner, batch: MixedBatch) -> torch.Tensor | None:
        """(S, K) the latents that this training step drops; None: none."""
        if not (model.training and self.run.latent_dropout):
            return None
        shape = len(batch.spans), batch.layout.longest
        return torch.rand(shape, device=batch.ids.device) < self.run.latent_dropout

    def own_latent_states(
        self,
        model: LatentReasoner,
        batch: MixedBatch,
        positions: torch.Tensor,
        keep: torch.Tensor | None = None,
        is_own: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, N, D) with the model's own latents in the context, and these latents (S, K, D); with ``keep`` and
        ``is_own``, only some of them (see :func:`.latent_inputs.unroll_latents`)."""
        if self.jacobi_sweeps and keep is None:
            return latent_inputs.sweep_latents(model, batch, positions, self.jacobi_sweeps)
        dropped = self.dropped_latents(model, batch)
        empty = None if dropped is None else self.empty_latents(model, batch)
        return latent_inputs.unroll_latents(
            model, batch, positions, keep=keep, is_own=is_own, dropped=dropped, empty=empty
        )

    def empty_latents(self, model: LatentReasoner, batch: MixedBatch) -> torch.Tensor:
        """(S, K, D) what stands in place of dropped latents: the mean of each slot, zeros where nothing is a target."""
        means = latent_inputs.mean_latents(model, batch)
        return means if self.uses_target(model) else torch.zeros_like(means)

    def teacher_forced_states(
        self,
        model: LatentReasoner,
        batch: MixedBatch,
        positions: torch.Tensor,
        z: torch.Tensor,
        progress: float = 1.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, N, D) with targets z (S, K, Z) in the context and, in training, what scheduled sampling adds; and the
        latents (S, K, D) that stood there."""
        sampling = self.scheduled_sampling if model.training else ScheduledSampling()
        if sampling.noise_std:
            z = z + sampling.noise_std * model.target.std * torch.randn_like(z)
        latents = model.latents_to_embeddings(z)
        if (dropped := self.dropped_latents(model, batch)) is not None:
            latents = torch.where(dropped[..., None], self.empty_latents(model, batch).to(latents.dtype), latents)
        if sampling.reencode_prob and self.run.reencode is not None:
            chosen = torch.rand(len(latents), device=latents.device) < sampling.reencode_prob
            latents = self.run.reencode(model, batch, latents, chosen)
        if share := sampling.prob * progress:
            is_own = torch.rand(latents.shape[:2], device=latents.device) < share
            if sampling.sequential:
                return self.own_latent_states(model, batch, positions, latents, is_own)
            with torch.no_grad():
                first = forward_batch(model.backbone, batch, model.embed_batch(batch, latents), positions)
                own = latent_inputs.latents_from_states(model, batch, first).to(latents.dtype)
                latents = torch.where(is_own[..., None], own, latents)
        return forward_batch(model.backbone, batch, model.embed_batch(batch, latents), positions), latents

    def loss_terms(
        self, model: LatentReasoner, batch: MixedBatch, h: torch.Tensor, z: torch.Tensor | None
    ) -> LossTerms:
        """Loss parts from the states before each position, h (B, N, D), and raw targets z (S, K, Z)."""
        text = text_loss(model, batch, h)
        if not len(batch.spans) or not model.can_sketch:
            return LossTerms(self.weights, text)
        latent = self.latent_loss(model, batch, h, z) if z is not None and self.weights.latent else None
        stop = stop_loss(model, batch, h) if model.switch.supervise != "none" else None
        return LossTerms(self.weights, text, latent, stop)

    def loss_weights(self, model: LatentReasoner, batch: MixedBatch) -> dict[str, torch.Tensor]:
        """The weight of each part of the loss in a batch: the denominator of its weighted mean, a scalar on the CPU or
        the batch's device. It needs no forward pass, so that a training step can add it up over the batches of all
        accumulation steps and processes before it computes a loss."""
        return {
            "text": batch.loss_weight[text_places(batch)].sum(),
            "latent": self.latent_weight(batch),
            "stop": stop_weights(model, batch).sum(),
        }

    def latent_weight(self, batch: MixedBatch) -> torch.Tensor:
        """The weight (scalar) of the latent loss of a batch: the weights of all latents of its spans."""
        return (batch.span_weight * batch.span_lengths).sum()

    def latent_loss(self, model: LatentReasoner, batch: MixedBatch, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Loss of the latents, weighted by span."""
        rows, position, _ = batch.latent_slots()
        span, _, _, slot, _ = batch.latent_places()
        states, grids, context = h[rows, position], batch.spans[:, 2:], model.head_context(batch)
        states = model.target.normalize(states, grids) if model.head.in_hidden_space else states
        states, context = model.head.cast_inputs(states, context and context.for_rows(batch.spans[:, 0]))
        losses = model.head.span_loss(states, model.target.normalize(z.detach(), grids), (span, slot), context)
        return weighted_mean(losses, batch.span_weight[span])

    def on_optimizer_step(self, model: LatentReasoner) -> None:
        """Called after every optimizer step. Nothing, for most methods."""


def check_images_before_sketches(trace: Trace, name: str) -> None:
    """Raises ValueError if a sketch of a trace has no image before it."""
    has_image = False
    for part in (part for message in trace.messages for part in message.content):
        has_image = has_image or isinstance(part, Image)
        if isinstance(part, Sketch) and not has_image:
            raise ValueError(f"a sketch has no image before it, but method {name!r} draws from one. Add an image.")


def put_span_first(trace: Trace, count: int) -> Trace:
    """The trace whose answer is one span of ``count`` latents without a target, then its text. No other turn has a
    loss, nor has the span where no text of the answer has one."""
    *earlier, last = trace.messages
    if last.role != "assistant":
        return trace
    texts = [p for p in last.content if isinstance(p, Text)]
    content: tuple[Part, ...] = (Sketch(None, count, loss=float({p.loss for p in texts} != {0})), *texts)
    return replace(trace, messages=(*remove_loss(earlier), replace(last, content=content)))


def remove_loss(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Earlier turns without a loss: a method that rewrites the answer of the last turn teaches no other answer."""
    return tuple(
        replace(m, content=tuple(replace(p, loss=0.0) if isinstance(p, Text) else p for p in m.content))
        for m in messages
    )


def text_places(batch: MixedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (n,) and positions (n,) of text with a loss."""
    rows, positions = batch.layout.text_index
    return rows, positions


def text_loss(model: LatentReasoner, batch: MixedBatch, h: torch.Tensor) -> torch.Tensor:
    """Weighted next-token loss from the states before each position, h (B, N, D)."""
    places = text_places(batch)
    losses = in_chunks(
        lambda h, ids: token_losses(model.backbone.logits(h), ids),
        model.backbone.vocab_size,
        h[places],
        batch.ids[places],
    )
    return weighted_mean(losses, batch.loss_weight[places])


def stop_loss(model: LatentReasoner, batch: MixedBatch, h: torch.Tensor) -> torch.Tensor:
    """Two-way cross-entropy: continue at every slot but the first (weight 1/K, with ``supervise="full"``), close at
    the end. A stop by distance learns to come near the close token's embedding at the end instead."""
    last = batch.spans[:, 1] + batch.span_lengths - 1
    at_end = h[batch.spans[:, 0], last + 1]
    if model.switch.stop == "distance":
        close = model.backbone.embed(torch.full((1,), model.vocabulary.close, device=h.device)).detach()
        return (at_end - close).float().square().mean()
    losses = [-in_chunks(model.stop_log_probs, model.backbone.vocab_size, at_end)[:, 1]]
    if has_continue_loss(model):
        _, row, position, _, _ = batch.latent_places()
        losses.append(-in_chunks(model.stop_log_probs, model.backbone.vocab_size, h[row, position])[:, 0])
    return weighted_mean(torch.cat(losses), stop_weights(model, batch))


def has_continue_loss(model: LatentReasoner) -> bool:
    """Whether the stop loss also teaches when a span goes on."""
    return model.switch.supervise == "full" and model.switch.stop != "distance"


def stop_weights(model: LatentReasoner, batch: MixedBatch) -> torch.Tensor:
    """(n,) weights of the stop loss: 1 for each of S ends, then 1/K for each latent after the first of a span, and 0
    for the first."""
    ends = torch.ones_like(batch.span_weight)
    if not has_continue_loss(model):
        return ends
    span, _, _, slot, _ = batch.latent_places()
    return torch.cat([ends, (slot > 0) / batch.span_lengths[span].float()])
