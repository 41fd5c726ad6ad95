"""LatentReasoner: a backbone that thinks in words and in latents. A method is a choice of its parts.

target       what a latent should be              head     how it is drawn from the state before it
feedback     what goes back in                    switch   when a sketch starts and stops
latent_input whose latents stand in the context   weights  what is added to the text loss
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ..objectives import latent_inputs
from ..objectives.attention_masks import bottlenecked
from ..objectives.latent_inputs import Exposure, exposure_of
from ..objectives.latent_policies import LatentPolicy
from ..objectives.losses import LossTerms, Weights, in_chunks, stop_logprob, weighted_mean, word_losses
from ..trace import Sketch, Trace
from .backbones.base import Backbone
from .batch import IMAGE, LATENT, TEXT, Collator, MixedBatch, Pictures, before
from .heads import Context, LatentHead
from .switching import Switch
from .targets import OwnVision
from .tokenization import Vocabulary


class Replay(NamedTuple):
    """Log-probabilities of what a rollout chose: of words and of stop decisions (B, T), zero where nothing was chosen,
    and of the actions (n, steps) that its n latents are made of, row by row; and the states (n, D) those were drawn
    in."""

    words: torch.Tensor
    stops: torch.Tensor
    latents: torch.Tensor
    states: torch.Tensor


class LatentReasoner(nn.Module):
    """The one skeleton. ``latent_input`` is ``teacher`` (targets stand in the context while training), ``self``
    (the model's own latents, unrolled through the cache with their gradient) or ``blank`` (what the head gives
    whatever the state). ``exposure`` are the fields of :class:`~latent_reason.objectives.latent_inputs.Exposure`; ``sweeps`` unrolls by
    that many parallel sweeps in place of one step a latent. ``head`` is None for methods that never sketch, ``target``
    where no picture teaches a latent.

    Raises:
        ValueError: ``latent_input="self"`` together with activation checkpointing, or a batch with sketches for a
            method without a head, at the first forward.
    """

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: Vocabulary,
        *,
        target: OwnVision | None = None,
        head: LatentHead | None = None,
        switch: Switch | None = None,
        latent_input: str = "teacher",
        exposure: dict | None = None,
        sweeps: int = 0,
        weights: Weights | None = None,
    ):
        super().__init__()
        if latent_input not in ("teacher", "self", "blank"):
            raise ValueError(f"latent_input={latent_input!r}: 'teacher', 'self' or 'blank'.")
        self.backbone, self.target = backbone, target
        self.head = head
        self.vocabulary, self.switch, self.weights = vocabulary, switch or Switch(), weights or Weights()
        self.latent_input, self.exposure, self.sweeps = latent_input, exposure_of(exposure), sweeps
        if sweeps and head is not None and head.noise:
            raise ValueError(f"sweeps={sweeps}: sweeps over own latents need a head without noise.")
        self.bottleneck = self.dropped = 0.0  # shares, in training: see masks.bottlenecked and latent_inputs.left_out
        self.progress = 1.0  # share of the training steps done; training sets it, and ``redraw`` where it has a decoder
        self.redraw = None
        backbone.grow(vocabulary)

    @property
    def sketches(self) -> bool:
        return self.head is not None

    @property
    def taught(self) -> bool:
        """Whether pictures, or a teacher, say what latents should be: in the context, in the loss or in both."""
        return self.target is not None and (self.latent_input == "teacher" or bool(self.weights.latent))

    @property
    def masks(self) -> bool:
        """Whether positions have masks of their own in training, which not every attention takes."""
        return self.bottleneck > 0

    @property
    def unrolls(self) -> bool:
        """Whether training goes through rows piece by piece, as its own latents have to stand in them."""
        own = self.latent_input == "self" and not self.sweeps
        return self.sketches and (own or bool(self.exposure.own and self.exposure.serial))

    @property
    def droppable(self) -> bool:
        """Whether single latents can be left out in training (``dropped``)."""
        return self.sketches and self.latent_input != "blank" and not self.exposure.own

    @property
    def packs(self) -> bool:
        """Whether several traces may share a row (packing.py): not where something reads a row as a whole."""
        return self.head is None or not self.head.reads

    @property
    def renders(self) -> bool:
        """Whether a latent it draws stands for a piece of a picture, so that a decoder can show it."""
        known = self.taught and self.target is not None and self.latent_input != "blank"
        return known and self.target.shows

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def collator(self) -> Collator:
        """What turns traces into batches for this reasoner."""
        return Collator(
            self.vocabulary, self.backbone.look, self.look, self.backbone.laid, self.span_grid, self.read, self.told
        )

    def span_grid(self, sketch: Sketch, seen) -> tuple[int, int]:
        """The grid of latents of a sketch that comes after the picture ``seen``."""
        size = self.backbone.token_grid(sketch.image)
        return size if self.target is None else self.target.span_grid(self.backbone, sketch, seen)

    def look(self, pictures: list) -> Pictures:
        """The pictures of sketches as the eye of the target takes them."""
        return self.backbone.look_whole(pictures) if self.target is None else self.target.look(self.backbone, pictures)

    def read(self, trace: Trace) -> Trace:
        """A trace as this method wants it. Methods that put their latents elsewhere than the sketches override it."""
        return trace

    def told(self, trace: Trace) -> Trace | None:
        """The trace as a teacher of this method reads it beside; None, for most methods."""
        return None

    def after_step(self) -> None:
        """What is to be done after every optimiser step; training calls it. Nothing, for most methods."""

    # -- latents ---------------------------------------------------------------------------------------------------
    def draw(
        self,
        h: torch.Tensor,
        noise: torch.Tensor | None,
        grids: torch.Tensor,
        slot: torch.Tensor,
        context: Context | None = None,
    ) -> torch.Tensor:
        """States (n, D) -> latents as they are fed back (n, D). ``grids`` (n, 2) and ``slot`` (n,) say where in its
        sketch each latent stands, which is what un-standardising needs; ``context`` is for a head that reads."""
        states, context = self.head.taken(h, context)
        z = self.head.sample(states, noise, context) if self.head.reads else self.head.sample(states, noise)
        return self.fed(z, grids, slot).to(h.dtype)

    def fed(self, z: torch.Tensor, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Latents (n, Z) as a head draws them -> as they are fed back (n, D); ``grids`` and ``slot`` as above."""
        return z if self.head.raw else self.feedback(self.target.unstandard(z, grids, slot))

    def feedback(self, z: torch.Tensor) -> torch.Tensor:
        """Latents (..., Z) as the backbone takes them (..., D)."""
        return z if self.target is None else self.target.feedback(self.backbone, z)

    def plan(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """The grid of the latents of a span after a picture of ``size`` tokens (None: after none)."""
        if self.switch.count:
            return 1, self.switch.count
        if self.target is None:
            return 1, 1
        side = self.target.standardizer.side
        return (side, side) if size is None else self.target.grid(*size)

    def scene(self, batch: MixedBatch) -> Context | None:
        """What a head that reads may look at in the rows of a batch."""
        if self.head is None or not self.head.reads:
            return None
        rows = [[] for _ in batch.ids]
        if batch.images is not None:
            for row, tokens in zip(batch.image_rows.tolist(), self.backbone.see(batch.images), strict=True):
                rows[row].append(tokens)
        nothing = self.backbone.embed(batch.ids[:1, :0])[0]
        last = torch.tensor([len(r[-1]) if r else 0 for r in rows], device=nothing.device)
        rows = [torch.cat([nothing, *r]) for r in rows]
        seen = pad_sequence(rows, batch_first=True)
        if not seen.shape[1]:
            seen = F.pad(seen, (0, 0, 0, 1))  # nothing can be looked at where there is no place at all
        sizes = torch.tensor([len(r) for r in rows], device=seen.device)
        return Context(seen, torch.arange(seen.shape[1], device=seen.device) < sizes[:, None], last)

    def embed(self, batch: MixedBatch, latents: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, D + more) inputs: token embeddings, what pictures bring, and ``latents`` (S, K, D) at their slots."""
        embeds = self.backbone.widen(self.backbone.embed(batch.ids))
        if batch.images is not None:
            seen = torch.cat(self.backbone.inputs(batch.images)).to(embeds.dtype)
            embeds = embeds.masked_scatter((batch.kind == IMAGE)[..., None], seen)
        if latents is not None:
            rows, position, mask = batch.slots()
            latents = self.backbone.widen(latents[mask].to(embeds.dtype))
            embeds = embeds.index_put((rows[mask], position[mask]), latents)
        return embeds

    def context(self, prompt: MixedBatch) -> torch.Tensor:
        """(B, N, D + more) inputs of a prompt. A sketch of an earlier turn stands there as what it was to hold."""
        if not len(prompt.spans):
            return self.embed(prompt)
        known = self.taught and self.latent_input == "teacher"
        latents = self.feedback(self.target(self.backbone, prompt)) if known else self.blanks(prompt)
        return self.embed(prompt, latents)

    def blanks(self, batch: MixedBatch) -> torch.Tensor:
        """(S, K, D) what stands at the latents of a batch where no state is at hand: what the head gives for none."""
        span, row, _, slot, grids = latent_inputs.places(batch)
        nothing = self.backbone.embed(batch.ids[:1, :1])[0].detach().new_zeros(len(slot), self.backbone.width)
        scene = self.scene(batch)
        drawn = self.draw(nothing, None, grids, slot, scene and scene.at(row, slot))
        return drawn.new_zeros(*batch.slots()[2].shape, drawn.shape[-1]).index_put((span, slot), drawn)

    # -- training --------------------------------------------------------------------------------------------------
    def forward(self, batch: MixedBatch) -> LossTerms:
        if len(batch.spans) and not self.sketches:
            raise ValueError(
                f"{len(batch.spans)} sketches for a method that draws none. Train it on traces without sketches."
            )
        positions, z = self.backbone.place(batch), None
        batch = self.narrowed(batch)
        if not len(batch.spans):
            states = self.backbone.trunk(self.embed(batch), batch.attention(), positions)
            return self.losses(batch, before(states), z)
        if self.taught:
            z = self.target(self.backbone, batch)
        if self.latent_input == "self":
            states, _ = self.unroll(batch, positions)
        elif self.latent_input == "blank":
            states = self.backbone.trunk(self.embed(batch, self.blanks(batch)), batch.attention(), positions)
        else:
            states = self.taught_states(batch, positions, z)
        return self.losses(batch, before(states), z)

    def narrowed(self, batch: MixedBatch) -> MixedBatch:
        """The batch with the bottleneck of this training step; a method with a forward of its own calls it too."""
        if not (self.training and self.bottleneck):
            return batch
        return bottlenecked(batch, torch.rand(len(batch.ids), device=self.device) < self.bottleneck)

    def taught_states(self, batch: MixedBatch, positions: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """States (B, N, D) with targets z (S, K, Z) in the context and, while training, what ``exposure`` adds."""
        exposure = self.exposure if self.training else Exposure()
        if exposure.noise:
            z = z + exposure.noise * self.target.spread * torch.randn_like(z)
        fed = self.feedback(z)
        if (left_out := latent_inputs.left_out(self, batch)) is not None:
            fed = torch.where(left_out[..., None], latent_inputs.nothing(self, batch).to(fed.dtype), fed)
        if exposure.redraw:
            if self.redraw is None:
                raise ValueError("exposure.redraw needs a sketch decoder. Start from a checkpoint that has one.")
            fed = self.redraw(batch, fed, torch.rand(len(fed), device=fed.device) < exposure.redraw)
        if share := exposure.own * self.progress:
            own = torch.rand(fed.shape[:2], device=fed.device) < share
            if exposure.serial:
                return latent_inputs.unroll(self, batch, positions, fed, own)[0]
            with torch.no_grad():
                first = self.backbone.trunk(self.embed(batch, fed), batch.attention(), positions)
                fed = torch.where(own[..., None], latent_inputs.drawn_from(self, batch, first).to(fed.dtype), fed)
        return self.backbone.trunk(self.embed(batch, fed), batch.attention(), positions)

    def losses(self, batch: MixedBatch, h: torch.Tensor, z: torch.Tensor | None) -> LossTerms:
        """Loss parts from the states before each position, h (B, N, D), and raw targets (S, K, D)."""
        terms = LossTerms(self.weights)
        spoken = (batch.kind == TEXT) & (batch.weight > 0)
        words = in_chunks(
            lambda h, ids: word_losses(self.backbone.logits(h), ids),
            self.backbone.table_size,
            h[spoken],
            batch.ids[spoken],
        )
        terms.text = weighted_mean(words, batch.weight[spoken])
        if not len(batch.spans) or self.head is None:
            return terms
        rows, position, mask = batch.slots()
        states, grids = h[rows, position], batch.spans[:, 2:]
        if z is not None and self.weights.latent:
            drawn = self.target.standard(states, grids) if self.head.raw else states
            scene = self.scene(batch)
            drawn, scene = self.head.taken(drawn, scene and scene.at(batch.spans[:, 0]))
            loss = self.head.span_loss(drawn, self.target.standard(z.detach(), grids), mask, scene)
            weight = batch.span_weight[:, None].expand_as(mask)[mask]
            terms.latent = weighted_mean(loss, weight)
        if self.switch.supervise != "none":
            terms.stop = self.stop_loss(batch, h, states, mask)
        return terms

    def stop_loss(self, batch, h, states, mask) -> torch.Tensor:
        """Two-way cross-entropy: go on at every slot but the first (weight 1/K, ``full``), close at the end. A stop by
        distance learns to come near the close token's embedding at the end instead."""
        rows, last = batch.spans[:, 0], batch.spans[:, 1] + batch.span_lengths - 1
        if self.switch.stop == "distance":
            end = self.backbone.embed(torch.tensor(self.vocabulary.close, device=h.device)).detach()
            return (h[rows, last + 1] - end).float().square().mean()
        ends = self.stops(h[rows, last + 1])
        losses, weights = [-ends[:, 1]], [torch.ones_like(ends[:, 1])]
        going = mask.clone()
        going[:, 0] = False
        if self.switch.supervise == "full" and going.any():
            losses.append(-self.stops(states[going])[:, 0])
            weights.append((1 / batch.span_lengths.float())[:, None].expand_as(going)[going])
        return weighted_mean(torch.cat(losses), torch.cat(weights))

    def stops(self, h: torch.Tensor) -> torch.Tensor:
        """States (n, D) -> (n, 2) log-probabilities of going on and of closing."""
        return in_chunks(
            lambda h: stop_logprob(self.backbone.logits(h), self.vocabulary.latent, self.vocabulary.close),
            self.backbone.table_size,
            h,
        )

    def unroll(self, batch: MixedBatch, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, N, D) with the model's own latents in the context, and these latents (S, K, D)."""
        if self.sweeps:
            return latent_inputs.sweep(self, batch, positions, self.sweeps)
        return latent_inputs.unroll(self, batch, positions)

    def states_of(self, rollout) -> torch.Tensor:
        """States (B, T, D) before every position of a rollout, from one parallel pass over prompt and generation."""
        prompt = rollout.prompt
        fed = self.backbone.embed(rollout.ids)
        fed = torch.where((rollout.kind == LATENT)[..., None], rollout.vectors.to(fed.dtype), fed)
        embeds = torch.cat([self.context(prompt), self.backbone.widen(fed)], 1)
        mask = torch.cat([prompt.mask, rollout.kind != 0], 1)
        positions = torch.cat([self.backbone.place(prompt), rollout.positions], -1)
        return before(self.backbone.trunk(embeds, mask, positions))[:, prompt.ids.shape[1] :]

    # -- replay ----------------------------------------------------------------------------------------------------
    def replay(self, rollout, policy: LatentPolicy | None = None, temperature: float = 1.0) -> Replay:
        """How likely all was that a rollout chose, in one parallel pass over prompt and generation; its latents as
        ``policy``, which drew them, scores them. Gradients flow.

        Raises:
            ValueError: the rollout was not drawn by a policy, or its records are not those of its latents.
        """
        h = self.states_of(rollout)
        words, stops = torch.zeros(2, *rollout.ids.shape, dtype=torch.float32, device=h.device)
        chosen = rollout.chosen

        def logprob(h, ids, may_open):
            table = (self.masked(self.backbone.logits(h), may_open) / temperature).log_softmax(-1)
            return table.gather(-1, ids[:, None])[:, 0]

        words = words.masked_scatter(
            chosen,
            in_chunks(logprob, self.backbone.table_size, h[chosen], rollout.ids[chosen], rollout.may_open[chosen]),
        )
        if rollout.decided.any():
            two = (self.stops(h[rollout.decided]) / temperature).log_softmax(-1)
            went_on = rollout.kind[rollout.decided] == LATENT
            stops = stops.masked_scatter(rollout.decided, torch.where(went_on, two[:, 0], two[:, 1]))
        drawn = rollout.kind == LATENT
        states = h[drawn] if self.head is None else self.head.taken(h[drawn], None)[0]
        if policy is None or not policy.scored or not drawn.any():
            return Replay(words, stops, words.new_zeros(0, policy.steps if policy else 0), states)
        if rollout.records is None or len(rollout.records) != int(drawn.sum()):
            found = "none" if rollout.records is None else len(rollout.records)
            raise ValueError(
                f"the rollout has {int(drawn.sum())} latents (row by row {drawn.sum(1).tolist()}) and "
                f"records of {found}. Replay what generate(policy=...) gave, whole."
            )
        return Replay(words, stops, policy.log_prob(self.head, states, rollout.records), states)

    def masked(self, logits: torch.Tensor, may_open: torch.Tensor) -> torch.Tensor:
        """(n, V) fp32 logits with everything that may not be written at -inf; ``may_open`` (n,)."""
        v = self.vocabulary
        never = v.forbidden(open_too=False, size=logits.shape[-1], device=logits.device)
        logits = logits.float().masked_fill(never, float("-inf"))
        shut = F.one_hot(torch.full_like(may_open, v.open, dtype=torch.long), logits.shape[-1]).bool()
        return logits.masked_fill(shut & ~may_open[:, None], float("-inf"))
