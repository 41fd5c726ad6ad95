"""What latents weigh beside text in reinforcement learning, and what keeps them near those of the reference model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_runs import rewarded, rolled, tiny_reasoner

from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding import engine
from latent_reason.objectives.replay import replay
from latent_reason.tasks import make
from train.config import OptimConfig
from train.optim import make_optimizer
from train.rl import trainer

pytestmark = pytest.mark.usefixtures("float64")


def module_of(monkeypatch, reference=None, **changes):
    """A module whose rewards are the lengths of texts, and whose rollouts begin with a sketch."""
    options = {
        "rl__latent_policy": "gaussian",
        "rl__latent_policy_options": {"fraction": 0.3},
        "rl__max_completion_length": 12,
        "rl__num_generations": 4,
    }
    reasoner = tiny_reasoner()
    found = trainer.RLModule(
        reasoner, make("frozenlake_plan", level=3), rewarded("unused", **options | changes), reference
    )
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
