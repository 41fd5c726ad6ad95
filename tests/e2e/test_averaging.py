"""The moving average of trained weights (``optim.ema_decay``): its formula, where it is used, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from resumed_runs import state_of
from tiny_runs import long, recipe, rewarded, short, tiny_checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from latent_reason import checkpoint
from latent_reason.contracts.closeness import assert_close
from train import averaging, export_state, sft
from train.averaging import WeightAverage
from train.config import OptimConfig, SFTConfig
from train.finiteness import StepMonitor
from train.lit_modules import SFTModule
from train.rl import rewards
from train.rl import trainer as rl
from train.trainer import make_run_folder

DECAY = 0.25  # above 1 / 10, the first factor of the warm-up, and below 3 / 12, the third


def train_run(train, made):
    return train(made, make_run_folder(made))[0].state_dict()


def supervised(folder, **changes):
    kept = {"save_steps": 1, "save_total_limit": 0, "eval_steps": 1, "data__val_items": 2, "optim__max_steps": 4}
    return recipe(folder, init_from=str(tiny_checkpoint()), **kept | changes)


def averaged(average: torch.Tensor, weight: torch.Tensor, update: int) -> torch.Tensor:
    """The formula of the docs, in float64."""
    d = min(DECAY, update / (9 + update))
    return d * average.double() + (1 - d) * weight.double()


def test_the_average_is_that_of_the_formula_and_training_does_not_see_it(tmp_path, monkeypatch):
    """The second of four steps is skipped. Validation and the saved model use the average; the weights that train have
    the bits of a run without it."""
    seen: list[dict[str, torch.Tensor]] = []
    loss, check = SFTModule.compute_loss, SFTModule.validation_step

    def poisoned(self, batch, shares=None):
        total, parts = loss(self, batch, shares)
        return (total * float("nan") if self.training and self.trainer.global_step == 1 else total), parts

    def validate(self, *args):
        seen.append({n: p.detach().clone() for n, p in self.named_parameters() if p.requires_grad})
        return check(self, *args)

    monkeypatch.setattr(SFTModule, "compute_loss", poisoned)
    monkeypatch.setattr("train.callbacks.SketchPanel.log_items", lambda *_: None)
    plain = train_run(sft.train, supervised(tmp_path / "plain"))
    monkeypatch.setattr(SFTModule, "validation_step", validate)
    final = train_run(sft.train, supervised(tmp_path / "run", optim__ema_decay=DECAY))
    wanted = {f"reasoner.{n}": t for n, t in checkpoint.load(tiny_checkpoint())[0].state_dict().items()}
    updates = 0
    for step in range(1, 5):
        state, values = state_of(tmp_path / "run", step) if step < 4 else ({}, {})
        weights = {n.removeprefix("module/"): t for n, t in state.items() if n.startswith("module/")}
        if step < 4:
            without, _ = state_of(tmp_path / "plain", step)
            assert all(torch.equal(without[f"module/{n}"], weight) for n, weight in weights.items())
            assert not [n for n in without if n.startswith("average/")]
        else:
            weights = {f"reasoner.{n}": t for n, t in plain.items()}
        updates += step != 2
        used = seen[step - 1]
        for name, value in used.items():
            wanted[name] = averaged(wanted[name], weights[name], updates) if step != 2 else wanted[name]
            assert_close(value, wanted[name])
            assert step == 4 or torch.equal(state[f"average/{name}"], value)
            assert step < 4 or torch.equal(final[name.removeprefix("reasoner.")], value)
        assert step == 4 or values["callbacks"]["WeightAverage"] == {"updates": updates}
    assert any(not torch.equal(plain[n], final[n]) for n in final)
    saved = checkpoint.load(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(saved[name], value) for name, value in final.items())
    out = tmp_path / "out"
    export_state.main([str(tmp_path / "run"), "--step", "3", "--out", str(out)])
    exported = checkpoint.load(out)[0].state_dict()
    assert all(torch.equal(exported[name.removeprefix("reasoner.")], value) for name, value in seen[2].items())


CHANGES = {
    "accumulation": (sft.train, {"data__micro_batch_size": 4, "data__val_items": 0}, [1, 2, 3]),
    "reinforcement learning": (
        rl.train,
        {"rl__num_iterations": 2, "rl__sft_coef": 0.5, "eval_steps": 0, "optim__max_steps": 6},
        [2, 4],
    ),
}


@pytest.mark.parametrize("train, changes, steps", CHANGES.values(), ids=list(CHANGES))
def test_every_optimizer_step_counts_once(tmp_path, monkeypatch, train, changes, steps):
    """Two batches of one step, and two steps of one batch."""
    short(monkeypatch, 8)
    monkeypatch.setitem(rewards.REWARDS, "long", long)
    make = supervised if train is sft.train else rewarded
    if train is rl.train:
        changes = {"rl__rewards": {"long": 1.0}, "save_steps": 1, "save_total_limit": 0} | changes
    final = train_run(train, make(tmp_path / "run", optim__ema_decay=DECAY, **changes))
    for step in steps:
        assert state_of(tmp_path / "run", step)[1]["callbacks"]["WeightAverage"] == {"updates": step}
    assert final and not any(tensor.isnan().any() for tensor in final.values())


def test_split_and_rounded_weights_are_averaged_where_they_are(tmp_path):
    """A module of one process whose weights FSDP2 has split. Copies that were gathered before a change are not used, and
    the average of weights in bfloat16 is finer than they are."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.monitor = torch.nn.Linear(4, 4, bias=False), StepMonitor()

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            module = Module().to(dtype)
            fully_shard(module.inner, mesh=init_device_mesh("cpu", (1,)), reshard_after_forward=False)
            optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
            average = WeightAverage(0.9)
            average.start(module, optimizer)
            x, start = torch.ones(2, 4, dtype=dtype), module.inner.weight.full_tensor().clone()
            module.inner(x).sum().backward()
            optimizer.step()
            after = module.inner.weight.full_tensor().clone()
            wanted = 0.1 * start.double() + 0.9 * after.double()
            (value,) = average.averages.values()
            assert isinstance(value, DTensor) and value.dtype == torch.float32
            assert_close(value.full_tensor(), wanted)
            whole = module.inner(x)  # gathers
            average.on_validation_start(None, module)
            during = module.inner(x)
            assert torch.equal(during, x @ value.full_tensor().to(dtype).T) and not torch.equal(during, whole)
            average.on_validation_end(None, module)
            assert torch.equal(module.inner(x), whole) and torch.equal(module.inner.weight, after)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_is_a_share_below_one(decay):
    with pytest.raises(ValueError, match=r"optim\.ema_decay"):
        OptimConfig(ema_decay=decay)


def test_without_a_decay_nothing_is_averaged(tmp_path, monkeypatch):
    assert recipe(tmp_path, config=SFTConfig).optim.ema_decay == 0
    monkeypatch.setattr(averaging, "get_ema_multi_avg_fn", lambda *_: pytest.fail("averaged"))
    train_run(sft.train, recipe(tmp_path / "run", optim__max_steps=1, data__val_items=0))
