"""Measures of what sketches contain, on the published checkpoint, whose plans follow from its sketches."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import tiny_reasoner

from latent_reason import checkpoint
from latent_reason.decoding.engine import generate
from latent_reason.model.batch import LATENT
from latent_reason.tasks import make
from train.rl import rewards
from train.rl.anchors import anchor_distance
from train.rl.content_measures import (
    attention_to_latents,
    ends_of_spans,
    foreign_latents,
    latent_attention,
    sketch_right,
    sketch_useful,
)
from train.rl.reward_context import RewardContext
from train.rl.rewards import Graded, compute


@pytest.fixture(scope="module")
def drawn():
    """The published model with its decoder, four boards and their rollout, of which one row does not sketch."""
    reasoner, decoder = checkpoint.load("checkpoints/frozenlake-tiny", device="cpu")
    options = reasoner.method.notes["data"].get("options", {})
    task = make("frozenlake_plan", split="test", level=4, **options)
    items = [task[i] for i in range(4)]
    prompt = reasoner.processor([task.trace(item, "mixed") for item in items], generate=True)
    v = reasoner.vocabulary
    silent = [*v.encode_text("\\boxed{R}"), v.end]
    rollout = generate(reasoner, prompt, max_new_tokens=300, forced_tokens=[[], [], [], silent])
    return RewardContext(reasoner, reasoner, decoder, task, "mixed"), rollout, items


def test_sketches_are_right_as_they_were_drawn_and_not_blank(drawn):
    context, rollout, items = drawn
    found = sketch_right(context, rollout, items)
    assert sum(found[:3]) > 2 and found[3] == 0
    blank = replace(rollout, latent_embeds=torch.zeros_like(rollout.latent_embeds))
    assert sketch_right(context, blank, items) == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="sketch_right needs decoded sketches"):
        sketch_right(replace(context, decoder=None), rollout, items)


def test_foreign_latents_are_those_of_another_item(drawn):
    context, rollout, items = drawn
    changed = foreign_latents(context.reasoner, rollout, items)
    is_latent = rollout.token_type == LATENT
    assert torch.equal(changed[~is_latent], rollout.latent_embeds[~is_latent])
    for row, donor in ((0, 1), (1, 2), (2, 0)):
        own, theirs = rollout.spans_of(row), rollout.spans_of(donor)
        for span, other in zip(own, theirs, strict=False):
            there = changed[row, span.start : span.start + span.length]
            assert torch.equal(there, rollout.latents(other)) and not torch.equal(there, rollout.latents(span))
    same = foreign_latents(context.reasoner, rollout, [items[0]] * 4)
    span = rollout.spans_of(0)[0]
    means = same[0, span.start : span.start + span.length]
    assert not torch.equal(means, rollout.latents(span)) and torch.isfinite(means).all(), "no other item: the mean"


def test_sketches_of_the_published_model_are_useful(drawn):
    context, rollout, items = drawn
    assert ends_of_spans(rollout, 4)[3] is None
    found = sketch_useful(context, rollout, items)
    assert all(0 <= value <= 1 for value in found) and sum(found[:3]) > 1.5 and found[3] == 0
    useless = replace(rollout, latent_embeds=torch.zeros_like(rollout.latent_embeds))
    assert sketch_useful(context, useless, items) == pytest.approx([0, 0, 0, 0], abs=1e-6), "all have the same latents"


def test_attention_to_latents_is_relative_to_the_reference(drawn):
    context, rollout, items = drawn
    assert latent_attention(context, rollout, items) == pytest.approx([1, 1, 1, 0])
    mass = attention_to_latents(context.reasoner, rollout, 4)
    assert (mass[:3] > 0.02).all() and (mass < 1).all() and mass[3] == 0
    with pytest.raises(ValueError, match="needs the reference model"):
        latent_attention(replace(context, reference=None), rollout, items)
    assert context.reasoner.backbone.attn_implementation == "sdpa"


def test_anchors_are_near_what_the_published_model_draws(drawn):
    """Its encoder sees in the rendering of a latent this latent; at another number of pixels a token it would not. It
    accepts any picture, and the anchor to the rendering only the same one."""
    context, rollout, items = drawn
    reasoner, decoder = context.reasoner, context.decoder
    spans = [span for row in range(len(items)) for span in rollout.spans_of(row)]
    grids = [torch.tensor([span.grid]) for span in spans]
    z = torch.cat(
        [reasoner.target.normalize(rollout.latents(s)[None], g)[0] for s, g in zip(spans, grids, strict=True)]
    )
    experience = SimpleNamespace(rollout=rollout, graded=[SimpleNamespace(item=item) for item in items])

    def distance(to: str, drawn: torch.Tensor) -> float:
        with torch.no_grad():
            return float(anchor_distance(to, reasoner, decoder, experience, drawn, z))

    noisy = z + torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    assert distance("start", z) == distance("rendering", z) == 0 and distance("encoder", z) < 0.05
    assert distance("start", noisy) == pytest.approx(1, abs=0.1)
    assert distance("encoder", noisy) > 0.5 and distance("rendering", noisy) > 0.02
    others = z.roll(spans[0].length, 0)  # each sketch in the place of the next
    assert distance("encoder", others) < 0.05 and distance("rendering", others) > 0.1


@pytest.mark.parametrize("name", ["sketch_right", "sketch_useful", "attend_latents"])
def test_they_are_paid_to_right_answers_unless_a_recipe_says_all(name):
    reward, item = rewards.find(name), make("frozenlake_plan", level=3)[0]
    measured = {"sketch_right": 0.5, "sketch_useful": 0.5, "latent_attention": 0.5}
    group = [Graded(item, "", score, 1, 1, 1, True, measured=measured) for score in (1.0, 0.0)]
    assert compute(name, reward, group) == [0.5, 0.0]
    assert compute(name, reward, group, pays_wrong=True) == [0.5, 0.5]


def test_a_method_whose_latents_show_nothing_has_no_right_sketch():
    context = RewardContext(tiny_reasoner(), None, None, make("frozenlake_plan", level=3), "mixed")
    with pytest.raises(ValueError, match="sketch decoder"):
        sketch_right(context, None, [])
