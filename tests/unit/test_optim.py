"""Who is trained, by which optimiser, at which rate."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny_runs import recipe, untrained

from train import trainer as running
from train.config import Optim
from train.data import TraceData
from train.lit_modules import Sft, parameter_table, set_trainable
from train.muon import Muon, orthogonal
from train.optim import groups, optimizers, schedule


def test_each_optimiser_steps_once_a_batch(monkeypatch, tmp_path):
    steps = {"Muon": 0, "AdamW": 0}

    def counted(module, optim):
        made = optimizers(module, optim)
        for one in made:
            one.register_step_post_hook(lambda o, *_: steps.update({type(o).__name__: steps[type(o).__name__] + 1}))
        return made

    monkeypatch.setattr("train.lit_modules.optimizers", counted)
    made = recipe(tmp_path / "run", optim__steps=5, data__items=16)
    reasoner, _ = untrained()
    set_trainable(reasoner, made.trainable)
    data = TraceData(made.data, reasoner, "mixed", 0, frozen_eye=True)
    data.setup()
    trainer = running.fit(made, Sft(reasoner, made.optim), data, tmp_path / "run", lambda where, weights=None: where)
    assert steps == {"Muon": 5, "AdamW": 5} and trainer.global_step == 5
    assert trainer.fit_loop.epoch_loop.total_batch_idx + 1 == 5 and trainer.current_epoch > 0, "over several epochs"


def test_muon_gets_the_inner_matrices_only():
    reasoner, _ = untrained()
    module = Sft(reasoner, Optim())
    matrices, others = groups(module)
    names = {id(p): name for name, p in module.named_parameters()}
    assert all(p.ndim == 2 for p in matrices) and len(matrices) + len(others) == len(list(module.parameters()))
    chosen = [names[id(p)] for p in matrices]
    assert any("layers.0" in n for n in chosen) and any(".head." in n for n in chosen)
    assert not [n for n in chosen if "embed" in n or "lm_head" in n or "norm" in n]
    assert {type(o).__name__ for o in optimizers(module, Optim())} == {"Muon", "AdamW"}
    assert [type(o).__name__ for o in optimizers(module, Optim(name="adamw"))] == ["AdamW"]


def test_factors_of_lora_are_not_orthogonalised():
    module = torch.nn.ModuleDict({name: torch.nn.Linear(4, n, bias=False) for name, n in (("lora_A", 2), ("net", 4))})
    matrices, others = groups(module)
    assert [p.shape for p in matrices] == [(4, 4)] and [p.shape for p in others] == [(2, 4)]


def test_one_optimiser_where_only_embeddings_train():
    reasoner, _ = untrained()
    set_trainable(reasoner, ["embeddings"])
    assert [type(o).__name__ for o in optimizers(Sft(reasoner, Optim()), Optim())] == ["AdamW"]


def test_learning_rate_warms_up_and_decays():
    optim = Optim(steps=100, warmup=10, final=0.05)
    one = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    following, rates = schedule(one, optim), []
    for _ in range(101):
        rates.append(one.param_groups[0]["lr"])
        one.step()
        following.step()
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(2.0, abs=0.1)
    assert rates.index(max(rates)) == 9 and rates[100] == pytest.approx(0.1)
    assert all(a < b for a, b in pairwise(rates[:10])) and all(a > b for a, b in pairwise(rates[9:]))


def test_parameter_table_counts_everything_once():
    reasoner, _ = untrained()
    set_trainable(reasoner, ["trunk", "head"])
    table = {part: (total, trains) for part, total, trains in parameter_table(reasoner)}
    assert sum(total for total, _ in table.values()) == sum(p.numel() for p in reasoner.parameters())
    assert {part for part, (_, trains) in table.items() if trains} == {"trunk", "head"}
    assert table["head"][0] == table["head"][1] and table["eye"][1] == table["embeddings"][1] == 0


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_muon_in_fp32_takes_the_steps_of_torch(shape):
    """torch's iterates in bf16: after three steps the two agree to that; decay and rate are the same."""
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    pair = (
        Muon([ours], lr=0.1, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for one in pair:
            one.step()
        step = 0.1 * 0.2 * max(shape) ** 0.5  # the length of every singular value
        torch.testing.assert_close(ours, theirs, atol=0.05 * step, rtol=0)
    values = torch.linalg.svdvals(orthogonal(ours.grad, (3.4445, -4.7750, 2.0315), 5, 1e-7))
    assert 0.6 < values.min() and values.max() < 1.3
