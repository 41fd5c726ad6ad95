"""CoLT, Chain of Latent Thoughts (2606.31986): a few thoughts in place of a chain of thought in text, each supervised by the
text of a step.

Idea: hidden states are fed back as thoughts before the answer. A small decoder, which inference does not use, relates
them to the steps of the textual reasoning: forward, it must write the text of a step from its thought; backward, it must
give the thought from the text before it. An internal loss makes each thought follow from the one before.

What differs from the paper, of which we had the abstract and no code: all details are ours. A step is a group of
sentences, the groups are as even as possible, and the last thought writes the answer; with fewer sentences than
thoughts, the first thoughts write nothing. Forward, the decoder reads the thought and its own text; backward, in a pass
of its own, the question and the text of earlier steps, without images and without thoughts. One decoder with one set of
weights serves all steps. Backward and internal losses are cosines toward a detached thought, so the backward one trains
the decoder, and the internal one predicts the next thought by a linear map. The decoder stays in the checkpoint, as
that of covt. START is forced and has no text loss (``start_loss=True`` gives it one).
Defaults: 3 thoughts ("as few as 3 steps") from the abstract; the rest is ours. ``alignment_weight`` is that of the two
cosines: it is small, because with 1.0 thoughts of different items became alike in a short run of an earlier form, whose
backward loss had a gradient in the thoughts.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import torch
from torch import nn

from ..model.backbones.base import Backbone
from ..model.batch import TEXT, MixedBatch, shift_right
from ..model.heads import IdentityHead
from ..model.heads.regression import regression_loss
from ..model.heads.span_layers import CausalLayer
from ..model.processor import EncodedExample, Processor
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.attention_masks import block_causal_mask
from ..objectives.losses import LossTerms, LossWeights, in_chunks, token_losses, weighted_mean
from ..objectives.objective import Objective, RunOptions, remove_loss, text_places
from ..objectives.sentences import check_texts_can_be_joined, split_sentences
from ..trace import Part, Sketch, Text, Trace
from ..values import Depth, Size, SizeOrZero, Weight

PAPER = "2606.31986"
SUMMARY = "thoughts in place of text reasoning, from which a decoder of training must write each step"
MODE = "text"
LONGEST = 256  # places of a step that the decoder tells apart


class ThoughtHead(IdentityHead):
    """z = h, the state itself; and the decoder of training."""

    def __init__(self, width: int, latent_width: int, thoughts: int, depth: int):
        super().__init__(width, latent_width)
        self.place = nn.Embedding(LONGEST, width)
        nn.init.normal_(self.place.weight, std=0.02)
        self.layers = nn.ModuleList(CausalLayer(width, gcd(8, width)) for _ in range(depth))
        self.norm, self.back = nn.LayerNorm(width), nn.Linear(width, width)
        self.follow = nn.Linear(width, width) if thoughts > 1 else None

    def decode(self, x: torch.Tensor, place: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """Inputs (B, M, D) at places (B, M) of their step, each of which attends to ``allowed`` (B, M, M) -> states."""
        x = x + self.place(place.clamp_max(LONGEST - 1))
        for layer in self.layers:
            x = layer.attend(x, *layer.split(x), mask=allowed[:, None])
        return self.norm(x)


class ColtObjective(Objective):
    """Text loss of the answer after thoughts, and what the decoder says of them, in the name of the latent loss."""

    can_pack = False  # the decoder reads each row as a whole

    def __init__(
        self,
        run: RunOptions | None = None,
        *,
        latent_weight: float,
        alignment_weight: float,
        jacobi_sweeps: int = 0,
    ):
        weights = LossWeights(latent=latent_weight)
        super().__init__(run, weights=weights, latent_input="self", jacobi_sweeps=jacobi_sweeps)
        self.alignment_weight = alignment_weight

    def has_latent_loss(self, model: LatentReasoner) -> bool:
        return bool(self.weights.latent)

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        """As the base class does; also refuses an answer of texts with and without a loss, since it joins them, and a
        sketch in a last turn that is no answer."""
        super().check_trace(model, trace)
        check_texts_can_be_joined(trace, "colt")
        last = trace.messages[-1]
        if last.role != "assistant" and any(isinstance(part, Sketch) for part in last.content):
            raise ValueError(
                f"its last turn is of {last.role!r} and contains a sketch, but method 'colt' draws in an answer alone. "
                "Remove the sketch, or add an answer."
            )

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with one span of thoughts in place of all sentences but the last."""
        *earlier, last = trace.messages
        if last.role != "assistant":
            return trace
        answer = steps_of(trace, 1)[0]
        content: tuple[Part, ...] = (Sketch(None, model.switch.count, loss=float(answer.loss != 0)), answer)
        return replace(trace, messages=(*remove_loss(earlier), replace(last, content=content)))

    def encode(self, model: LatentReasoner, trace: Trace) -> EncodedExample:
        row = super().encode(model, trace)
        processor = Processor(model.vocabulary, model.backbone, None, Switch(stop="close", supervise="full"))
        return replace(row, teacher_example=processor.encode(decoder_view(trace, model.switch.count)))

    def loss_terms(
        self, model: LatentReasoner, batch: MixedBatch, h: torch.Tensor, z: torch.Tensor | None
    ) -> LossTerms:
        terms = super().loss_terms(model, batch, h, None)
        if not len(batch.spans) or not self.weights.latent:
            return terms
        rows, position, _ = batch.latent_slots()
        thoughts, _ = model.head.cast_inputs(h[rows, position], None)
        found = self.step_losses(model, batch, thoughts)
        aligned = torch.stack([loss for name, loss in found.items() if name != "forward"]).sum(0)
        losses = found["forward"] + self.alignment_weight * aligned
        return replace(terms, latent=weighted_mean(losses, batch.span_weight))

    def latent_weight(self, batch: MixedBatch) -> torch.Tensor:
        return batch.span_weight.sum()

    def step_losses(self, model: LatentReasoner, batch: MixedBatch, thoughts: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses (S,) of the thoughts (S, K, D) of each row: ``forward``, ``backward`` and, for several thoughts,
        ``internal``."""
        view, head, backbone = batch.teacher_batch, model.head, model.backbone
        assert view is not None  # of encode
        row, start = view.spans[:, 0], view.spans[:, 1]  # K spans of one latent for each span of the batch, in order
        embeds = backbone.embed(view.ids).to(thoughts.dtype)
        inputs = embeds.index_put((row, start), thoughts.flatten(0, 1))
        is_open = torch.zeros_like(view.mask).index_put((row, start - 1), torch.ones_like(row, dtype=torch.bool))
        at = view.mask.cumsum(1)  # without padding, which differs from batch to batch
        opened = torch.where(is_open, at, 0).cummax(1).values
        allowed = decoder_mask(view, is_open)
        states = head.decode(inputs, at - opened, allowed)
        places = text_places(view)
        losses = in_chunks(
            lambda h, ids: token_losses(backbone.logits(h), ids),
            backbone.vocab_size,
            shift_right(states).to(thoughts.dtype)[places].to(backbone.embed(view.ids[:1, :1]).dtype),
            view.ids[places],
        )
        weight = view.loss_weight[places] * ~is_open[places]
        sums = torch.stack([losses * weight, weight])
        total, count = sums.new_zeros(2, len(view.ids)).index_add(1, places[0], sums)[:, batch.spans[:, 0]]
        given = head.back(head.decode(embeds, at - opened, without_thoughts(view, allowed))[row, start - 1])
        found = {
            "forward": total / count.clamp_min(1e-8),
            "backward": regression_loss(given.view_as(thoughts), thoughts.detach(), "cosine").mean(1),
        }
        if head.follow is not None:
            following = head.follow(thoughts[:, :-1])
            found["internal"] = regression_loss(following, thoughts[:, 1:].detach(), "cosine").mean(1)
        return found


def steps_of(trace: Trace, count: int) -> list[Text]:
    """The answer of a trace as ``count`` texts: the last is its last sentence; the sentences before it are shared among
    the others as evenly as possible, or, where there are fewer, one each among the last of them."""
    texts = [p for p in trace.messages[-1].content if isinstance(p, Text)]
    *reasoning, answer = [s for s in split_sentences("".join(p.text for p in texts)) if s.strip()] or [""]
    loss = texts[-1].loss if texts else None
    groups: list[list[str]] = [[] for _ in range(count - 1)]
    for number, sentence in enumerate(reasoning if groups else []):
        few = len(groups) - len(reasoning)
        groups[number + few if few > 0 else number * len(groups) // len(reasoning)].append(sentence)
    return [Text(" ".join(group), loss) for group in (*groups, [answer])]


def decoder_view(trace: Trace, count: int) -> Trace:
    """The trace as the decoder reads it: the texts of earlier turns, then before each step a latent for its thought."""
    *earlier, last = (replace(m, content=tuple(p for p in m.content if isinstance(p, Text))) for m in trace.messages)
    content = last.content
    if last.role == "assistant":
        content = tuple(part for step in steps_of(trace, count) for part in (Sketch(None, 1), step))
    return replace(trace, messages=(*remove_loss(earlier), replace(last, content=content)))


def decoder_mask(view: MixedBatch, is_open: torch.Tensor) -> torch.Tensor:
    """(B, M, M) what a position of the decoder attends to: those of its own step so far; for an open token (B, M), from
    whose state the next thought is predicted, all text before it."""
    step = is_open.cumsum(1)
    own = (step[:, :, None] == step[:, None]) & ~is_open[:, None]
    text = is_open[:, :, None] & (view.token_type == TEXT)[:, None]
    return block_causal_mask(view.mask) & (own | text | itself(view))


def without_thoughts(view: MixedBatch, allowed: torch.Tensor) -> torch.Tensor:
    """The mask (B, M, M) where nothing attends to a thought but the thought itself."""
    return allowed & ((view.token_type == TEXT)[:, None] | itself(view))


def itself(view: MixedBatch) -> torch.Tensor:
    """(M, M) each position of the decoder attends to itself."""
    return torch.eye(view.ids.shape[1], dtype=torch.bool, device=view.ids.device)


def build_model(
    backbone: Backbone, *, thoughts: Size = 3, depth: Depth = 2, start_loss: bool = False
) -> LatentReasoner:
    return LatentReasoner(
        backbone,
        head=ThoughtHead(backbone.width, backbone.width, thoughts, depth),
        switch=Switch(start="first", count=thoughts, open_loss=start_loss),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    latent_weight: Weight = 1.0,
    alignment_weight: Weight = 0.1,
    jacobi_sweeps: SizeOrZero = 0,
) -> ColtObjective:
    return ColtObjective(
        run, latent_weight=latent_weight, alignment_weight=alignment_weight, jacobi_sweeps=jacobi_sweeps
    )
