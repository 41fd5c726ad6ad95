"""What reinforcement learning learns where only a latent, or only the switch, decides the reward."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_runs import recipe, rolled, untrained

from latent_reason import methods
from latent_reason.decoding import engine
from latent_reason.model.batch import ImageBatch
from latent_reason.tasks import make
from train.config import RLTrainingConfig
from train.rl import trainer
from train.rl.rewards import Graded

float64 = pytest.mark.usefixtures("float64")
OPTIONS = {
    "pathwise": {},
    "gaussian": {"fraction": 0.5},
    "flow_sde": {},
    "ddpm_sde": {},
    "mask": {},
    "reward_weighted": {},
    "vlpo": {},
    "vmf": {"fraction": 0.3},
}
UPDATES = {"vlpo": 2}


def bandit(policy: str, monkeypatch, grade, forced_tokens=None, **changes):
    """A module on one item whose reward is ``grade(rollout, row)``; rows begin with the tokens of ``queue``."""
    settings = {
        "rl__latent_policy": policy,
        "rl__latent_policy_options": OPTIONS[policy],
        "rl__num_generations": 16,
        "data__global_batch_size": 1,
        "rl__max_completion_length": 3,
        "rl__loss_type": "dapo" if policy in UPDATES else "reinforce",
        "rl__num_iterations": UPDATES.get(policy, 1),
        "rl__rewards": {"accuracy": 1.0},
    }
    made = recipe("unused", config=RLTrainingConfig, **settings | changes)
    backbone = seen_once(untrained()[0].backbone, monkeypatch)
    head = {"gaussian": "mlp", "ddpm_sde": "diffusion"}.get(policy, "flow")
    torch.manual_seed(0)
    reasoner = methods.build_method("modal_mixed", backbone, k=1, head=head)
    reasoner.target.standardizer.fitted.fill_(True)
    task = make("frozenlake_plan", level=3)
    module = trainer.RLModule(reasoner, task, made)
    if forced_tokens:
        forced = [[getattr(reasoner.vocabulary, token) for token in forced_tokens]] * made.rl.num_generations
        monkeypatch.setattr("train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=forced))
    monkeypatch.setattr(
        module.sampler,
        "grade",
        lambda rollout, row, item, measured, step: Graded(item, "", grade(reasoner, rollout, row), 1, 0, 0, True),
    )
    monkeypatch.setattr(module, "log_dict", lambda *args, **options: None)
    return module, [task[0]]


def seen_once(backbone, monkeypatch):
    """A backbone with a frozen vision encoder that encodes one picture: that of the item, which every row asks about.
    In float64 the encoder takes two thirds of the time."""
    torch.nn.ParameterList(backbone.vision_parameters).requires_grad_(False)
    encode, seen = backbone.encode_pixels, []

    @torch.no_grad()
    def encode_pixels(images):
        if not seen:
            seen.append(encode(ImageBatch(images.grid[:1], images.pixels[: images.grid[0].prod()]))[0])
        return seen * len(images.grid)

    monkeypatch.setattr(backbone, "encode_pixels", encode_pixels)
    return backbone


def learn(module, items, steps: int, lr: float, parts: str = "") -> list[float]:
    """Rewards step by step, until five in a row are nearly as high as they can be: 80 rollouts, of which chance would
    reward half."""
    trained = [p for n, p in module.named_parameters() if parts in n and p.requires_grad]
    optimizer, earned = torch.optim.Adam(trained, lr=lr), []
    for _ in range(steps):
        found = rolled(module, items)
        loss, _ = module.loss(found)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        earned.append(float(found.total.mean()))
        if min(earned[-5:]) > 0.9 and len(earned) > 5:
            break
    return earned


def by_latent(reasoner, rollout, row) -> float:
    """1 where the latent points into half of its space."""
    span = rollout.spans_of(row)[0]
    z = (
        rollout.policy_records[sum(s.length for s in rollout.spans if s.row < row)][-1]
        if rollout.policy_records is not None
        else (reasoner.target.normalize(rollout.latents(span)[None], torch.tensor([span.grid]))[0, 0])
    )
    return float(z[:8].sum() < -1.0)


@float64
@pytest.mark.parametrize("policy", ["gaussian", "flow_sde"])
def test_what_the_latent_alone_decides_is_learnt_by_a_policy_of_latents(policy, monkeypatch):
    module, items = bandit(policy, monkeypatch, by_latent, forced_tokens=["open"])
    earned = learn(module, items, 40, 5e-3, "head.")
    assert earned[0] < 0.8 and sum(earned[-5:]) / 5 > 0.9


@float64
def test_and_not_where_latents_are_no_action(monkeypatch):
    """All that could be learnt is what follows the latent, which earns nothing."""
    module, items = bandit("mask", monkeypatch, by_latent, forced_tokens=["open"])
    found = rolled(module, items)
    loss, parts = module.loss(found)
    loss.backward()
    assert "latent" not in parts and 0 < float(found.total.mean()) < 1
    assert all(p.grad is None or not p.grad.any() for n, p in module.named_parameters() if "head." in n)
    module.zero_grad()
    earned = learn(module, items, 20, 5e-3)
    assert sum(earned[-10:]) / 10 < 0.85, "what moves by training the rest is chance"


def by_switch(reasoner, rollout, row) -> float:
    return float(bool(rollout.spans_of(row)))


@float64
@pytest.mark.parametrize("policy", OPTIONS)
def test_what_the_switch_alone_decides_is_learnt_by_all(policy, monkeypatch):
    module, items = bandit(policy, monkeypatch, by_switch, rl__latent_weight=0.1)
    v, plain = module.reasoner.vocabulary, module.reasoner.backbone.logits
    bias = torch.zeros(len(module.reasoner.backbone.model.get_output_embeddings().weight))
    bias[v.open], bias[v.end] = 3.0, 5.0  # untrained, it would hardly ever open a span
    monkeypatch.setattr(module.reasoner.backbone, "logits", lambda states: plain(states) + bias)
    earned = learn(module, items, 30, 2e-2)
    assert earned[0] < 0.6 and sum(earned[-5:]) / 5 > 0.9
