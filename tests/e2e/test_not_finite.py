"""Steps whose loss or gradient is not finite change nothing, and too many of them end the run."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import command, events, long, recipe, rewarded, short

from latent_reason import checkpoint
from train import finiteness, sft
from train.config import dump
from train.lit_modules import SFTModule
from train.rl import rewards
from train.rl import trainer as rl
from train.rl.module import RLModule
from train.trainer import make_run_folder


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    short(monkeypatch, budget=4)


def poison(monkeypatch, steps, value: float = float("nan")) -> None:
    """Multiply the loss of these steps."""
    before = SFTModule.compute_loss

    def compute_loss(self, batch, shares=None):
        loss, parts = before(self, batch, shares)
        is_chosen = self.training and self.trainer.fit_loop.total_batch_idx in steps
        return (loss * value if is_chosen else loss), parts

    monkeypatch.setattr(SFTModule, "compute_loss", compute_loss)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing_and_is_kept_aside(tmp_path, monkeypatch, capsys, value):
    poison(monkeypatch, {1}, value)
    made = recipe(tmp_path / "run", optim__max_steps=2, save_steps=1, save_total_limit=0, data__val_items=0)
    reasoner, _ = sft.train(made, make_run_folder(made))
    assert all(p.isfinite().all() for p in reasoner.parameters())
    one = load_file(next((tmp_path / "run" / "state" / "step-00000001").glob("*.safetensors")))
    for name, p in reasoner.named_parameters():
        if p.requires_grad:
            assert torch.equal(one[f"module/reasoner.{name}"], p), "the second step changed nothing"
    assert "Warning: step 1 was skipped" in capsys.readouterr().out
    kept = tmp_path / "run" / "not-finite" / "step-1-process-0"
    found = json.loads((kept / "step.json").read_text())
    assert found["gradients_not_finite"] and found["losses"] == [str(value)] and len(found["texts"][0]) == 8
    assert load_file(kept / "batch-0.safetensors")["ids"].shape[0] == 8
    assert [e.value for e in events(tmp_path / "run").Scalars("train/skipped_steps")] == [1.0]


def test_too_many_steps_end_the_run_and_the_last_state_is_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(finiteness, "MAX_SKIPPED_STEPS", 3)
    poison(monkeypatch, set(range(2, 100)))
    words = tmp_path / "recipe.yaml"
    words.write_text(dump(recipe(tmp_path / "run", optim__max_steps=9, save_steps=1, data__val_items=0)))
    said = command(monkeypatch, sft, "--config", str(words))
    assert said.startswith("error: 3 steps in a row had a loss or gradient that is not finite")
    newest = sorted((tmp_path / "run" / "state").iterdir())[-1]
    assert all(
        t.isfinite().all() for t in load_file(next(newest.glob("*.safetensors"))).values() if t.is_floating_point()
    )
    assert not (tmp_path / "run" / "model").exists()


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    """Something else than a step has spoilt a weight."""
    before = SFTModule.on_optimizer_step

    def spoil(self):
        before(self)
        if self.trainer.global_step == 1:
            next(p for p in self.parameters() if p.requires_grad).data[0] = float("inf")

    monkeypatch.setattr(SFTModule, "on_optimizer_step", spoil)
    words = tmp_path / "recipe.yaml"
    words.write_text(dump(recipe(tmp_path / "run", optim__max_steps=4, save_steps=1, data__val_items=0)))
    said = command(monkeypatch, sft, "--config", str(words))
    assert said.startswith("error: the weights are not finite (reasoner.") and "step-00000001" in said
    assert [p.name for p in (tmp_path / "run" / "state").iterdir()] == ["step-00000001"]


def test_rewards_that_are_not_finite_do_not_reach_the_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(rewards.REWARDS, "long", long)
    before = RLModule.loss

    def loss(self, experience):
        found, parts = before(self, experience)
        return (found * float("nan") if self.sampler.num_batches == 2 else found), parts

    monkeypatch.setattr(RLModule, "loss", loss)
    made = rewarded(tmp_path / "run", rl__rewards={"long": 1.0}, optim__max_steps=4, data__val_items=0)
    reasoner, _ = rl.train(made, make_run_folder(made))
    assert all(p.isfinite().all() for p in reasoner.parameters()) and "was skipped" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "run")
