"""What latents weigh beside text in reinforcement learning, and what keeps them near those of the reference model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_runs import rewarded, rolled, tiny_reasoner, untrained

from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding import engine
from latent_reason.objectives.replay import replay
from latent_reason.tasks import make
from latent_reason.visualization.sketch_decoder import fill_grid
from latent_reason.visualization.storyboard import decode_sketches
from train.config import OptimConfig
from train.optim import make_optimizer
from train.rl import trainer
from train.rl.anchors import render
from train.rl.losses import drawn_latents

pytestmark = pytest.mark.usefixtures("float64")


def module_of(monkeypatch, reference=None, decoder=None, level=3, **changes):
    """A module whose rewards are the lengths of texts, and whose rollouts begin with a sketch."""
    options = {
        "rl__latent_policy": "gaussian",
        "rl__latent_policy_options": {"fraction": 0.3},
        "rl__max_completion_length": 12,
        "rl__num_generations": 4,
    }
    reasoner = tiny_reasoner()
    made = rewarded("unused", **options | changes)
    found = trainer.RLModule(reasoner, make("frozenlake_plan", level=level), made, reference, decoder)
    found.log_dict = lambda *args, **options: None
    found.log = lambda *args, **options: None
    found.sampler.rewards = {"long": (lambda group: [float(len(one.text)) for one in group], 1.0)}
    opened = partial(engine.generate, forced_tokens=[[reasoner.vocabulary.open]] * 8)
    monkeypatch.setattr("train.rl.rollout_sampler.generate", opened)
    return found


def items(module):
    return [module.sampler.task[i] for i in range(2)]


def test_balanced_weights_give_both_gradients_one_norm(monkeypatch):
    module = module_of(monkeypatch, rl__latent_weight="balanced")
    found = rolled(module, items(module))
    pieces = [found.select(rows, module.reasoner) for rows in ([0, 1, 2], [3, 4, 5, 6, 7])]
    assert module.latent_weight == 0.0
    module.update_balance([module.loss(piece)[1] for piece in pieces])
    norms = {}
    new = module.reasoner(replay, found.rollout, module.policy, 1.0)
    _, parts = module.loss(found)
    for name in ("text", "latent"):
        norms[name] = float(parts[f"grad_norm/{name}"])
        assert norms[name] > 0
    assert new.hidden.shape[:2] == found.rollout.ids.shape
    assert module.latent_weight == pytest.approx(norms["text"] / norms["latent"], rel=1e-6), "however rows are cut"
    first = module.latent_weight
    module.update_balance([{"grad_norm/text": torch.tensor(2.0), "grad_norm/latent": torch.tensor(0.5)}])
    assert module.latent_weight == pytest.approx(first**0.9 * 4**0.1, rel=1e-5)
    module.update_balance([{"grad_norm/text": torch.tensor(2.0)}])
    assert module.latent_weight == pytest.approx(first**0.9 * 4**0.1, rel=1e-5), "an update without latents"
    other = module_of(monkeypatch, rl__latent_weight="balanced")
    other.load_counters(module.counters())
    assert other.latent_weight == module.latent_weight


def test_the_weight_scales_the_loss_of_latents_alone(monkeypatch):
    found = []
    for weight in (0.0, 1.0, 3.0):
        module = module_of(monkeypatch, rl__latent_weight=weight)
        module.loss(rolled(module, items(module)))[0].backward()
        grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters())
        found.append(torch.cat([grad.flatten() for grad in grads]))
    assert (found[1] - found[0]).norm() > 0
    assert_close(found[2] - found[0], 3 * (found[1] - found[0]), depth=64)


@pytest.mark.parametrize(("policy", "options"), [("gaussian", {"fraction": 0.3}), ("pathwise", {})])
def test_an_anchor_pulls_latents_to_those_of_the_reference(policy, options, monkeypatch):
    chosen = {"rl__latent_policy": policy, "rl__latent_policy_options": options, "rl__latent_anchor": 2.0}
    reference = tiny_reasoner().eval()
    module = module_of(monkeypatch, reference, **chosen)
    module.reasoner.load_state_dict(reference.state_dict())
    found = rolled(module, items(module))
    _, parts = module.loss(found)
    assert parts["train/latent_anchor"].detach() < 1e-20 and float(parts["latents/cos_to_sft"]) == pytest.approx(1)
    with torch.no_grad():
        for p in module.reasoner.head.parameters():
            p.add_(0.1 * torch.randn_like(p))
    loss, parts = module.loss(found)
    module.sampler.rl = replace(module.rl, latent_anchor=0.0)
    without, _ = module.loss(found)
    assert parts["train/latent_anchor"].detach() > 1e-6
    assert_close(loss - without, 2.0 * parts["train/latent_anchor"], depth=64)
    (2.0 * parts["train/latent_anchor"]).backward()
    assert any(p.grad is not None and p.grad.any() for p in module.reasoner.head.parameters())


def anchored(monkeypatch, to: str):
    """A module with this anchor, its rollouts with sketches of two sizes and a latent fewer than they have places, a
    reference with the same weights, and a decoder."""
    reference, (_, decoder) = tiny_reasoner().eval().requires_grad_(False), untrained()
    chosen = {
        "rl__latent_policy": "pathwise",
        "rl__latent_policy_options": {},
        "rl__latents_per_span": 3,
        "rl__latent_anchor": 2.0,
        "rl__latent_anchor_to": to,
    }
    module = module_of(monkeypatch, reference, decoder.requires_grad_(False), level=(3, 4), **chosen)
    module.reasoner.load_state_dict(reference.state_dict())
    return module, rolled(module, items(module)), decoder


@pytest.mark.parametrize("to", ["rendering", "encoder"])
def test_an_anchor_keeps_latents_renderable(to, monkeypatch):
    module, found, _ = anchored(monkeypatch, to)
    _, parts = module.loss(found)
    assert (parts["train/latent_anchor"].detach() < 1e-20) == (to == "rendering")
    with torch.no_grad():
        for p in module.reasoner.head.parameters():
            p.add_(0.1 * torch.randn_like(p))
    loss, parts = module.loss(found)
    away = parts["train/latent_anchor"]
    module.sampler.rl = replace(module.rl, latent_anchor=0.0, latent_anchor_to="start")
    without, _ = module.loss(found)
    assert away.detach() > 1e-6
    assert_close(loss - without, 2.0 * away, depth=64)
    away.backward()
    assert any(p.grad is not None and p.grad.any() for p in module.reasoner.head.parameters())
    assert not any(p.grad is not None for p in module.reference.parameters())


def test_the_distance_from_the_encoder_is_that_of_the_rendering_encoded_again(monkeypatch):
    module, found, decoder = anchored(monkeypatch, "encoder")
    reasoner, rollout = module.reference, found.rollout
    _, parts = module.loss(found)
    far = []
    for row, one in enumerate(found.graded):
        pictures = decode_sketches(reasoner, decoder, rollout, row, one.item.images[-1])
        shown = [picture.resize(one.item.images[-1].size) for picture in pictures]
        images = reasoner.processor.preprocess_sketches(shown)
        for span, encoded in zip(rollout.spans_of(row), reasoner.target.encode_embeddings(images), strict=True):
            gap = (rollout.latents(span) - encoded[: span.length]) / reasoner.target.std
            far.append(gap.square().mean(-1))
    assert_close(parts["train/latent_anchor"], torch.cat(far).mean(), depth=64)


def test_a_rendering_is_that_of_the_decoder_whatever_the_sizes(monkeypatch):
    module, found, decoder = anchored(monkeypatch, "rendering")
    reference, rollout = module.reference, found.rollout
    z = drawn_latents(module.loss_context(), reference, module.reasoner(replay, rollout, module.policy).states, rollout)
    pixels = render(reference, decoder, z, found)
    expected, sizes = [], set()
    for row, one in enumerate(found.graded):
        size = reference.backbone.token_grid(one.item.images[-1])
        for span in rollout.spans_of(row):
            expected.append(decoder(fill_grid(rollout.latents(span), span.grid)[None], span.grid, size).flatten())
            sizes.add(size)
    assert len(sizes) == 2 and {span.length for span in rollout.spans} == {3}
    assert_close(pixels.sort().values, torch.cat(expected).sort().values, depth=64)


@pytest.mark.parametrize("to", ["rendering", "encoder"])
def test_an_anchor_that_needs_renderings_is_refused_without_a_decoder(to, monkeypatch):
    chosen = {"rl__latent_anchor": 0.1, "rl__latent_anchor_to": to}
    with pytest.raises(ValueError, match=f"latent_anchor_to={to} needs decoded sketches"):
        module_of(monkeypatch, tiny_reasoner(), **chosen)
    with pytest.raises(ValueError, match=f"latent_anchor_to={to} has no effect"):
        rewarded("unused", rl__latent_anchor_to=to)


def test_gradients_of_head_and_trunk_are_clipped_apart(monkeypatch):
    module = module_of(monkeypatch)
    head = {id(p) for p in module.reasoner.head.parameters()}
    for p in module.parameters():
        p.grad = torch.randn_like(p) * (100.0 if id(p) in head else 0.0001)
    trunk = [p.grad.clone() for p in module.parameters() if id(p) not in head]
    norm = module.clip_grad_norm(1.0)
    assert norm > 100
    assert_close(next(p.grad for p in module.parameters() if id(p) not in head), trunk[0])
    size = torch.stack([p.grad.norm() for p in module.reasoner.head.parameters()]).norm()
    assert float(size) == pytest.approx(1, rel=1e-4)


def test_a_head_may_learn_at_a_rate_of_its_own(monkeypatch):
    module = module_of(monkeypatch)
    head = {id(p) for p in module.reasoner.head.parameters()}
    groups = make_optimizer(module, OptimConfig(name="adamw", lr=0.1, head_lr_scale=5.0)).param_groups
    for group in groups:
        is_head = {id(p) in head for p in group["params"]}
        assert len(is_head) == 1 and group["lr"] == pytest.approx(0.5 if is_head == {True} else 0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    assert len(make_optimizer(module, OptimConfig(name="adamw")).param_groups) == 2


@pytest.mark.parametrize("options", [{"path": "full"}, {"credit": "span"}])
def test_split_weights_refuse_as_many_passes_as_a_rollout_has_latents_or_sketches(options, monkeypatch):
    module = module_of(monkeypatch)
    split = replace(module.config, fsdp=True, rl=replace(module.rl, latent_policy_options=options))
    with pytest.raises(ValueError, match="path=full and credit=span of"):
        trainer.check_fsdp(split, module)
