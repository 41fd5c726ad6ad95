"""Which parameters train, by which rule, at which rate; and that one optimizer steps both rules right."""

from __future__ import annotations

import copy
from itertools import cycle, pairwise

import lightning as L
import pytest
import torch
from conftest import objective_for
from lightning.pytorch.plugins import MixedPrecision
from tiny_runs import recipe, untrained
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from latent_reason.contracts.closeness import assert_close, relative_error
from train import muon
from train import trainer as running
from train.batches import StepBatches
from train.config import OptimConfig
from train.data import TraceData
from train.lit_modules import SFTModule, TrainingModule, parameter_table, set_trainable
from train.muon import MuonWithAdamW, orthogonalize
from train.optim import make_optimizer, make_schedule, split_parameters
from train.rl.trainer import RLModule

SHAPES = {"tall": (24, 8), "wide": (8, 24), "square": (16, 16), "vector": (24,)}


# -- which parameters --------------------------------------------------------------------------------------------------
def test_muon_gets_the_inner_matrices_only():
    reasoner, _ = untrained()
    module = SFTModule(reasoner, objective_for(reasoner), OptimConfig())
    matrices, others = split_parameters(module)
    names = {id(p): name for name, p in module.named_parameters()}
    assert all(p.ndim == 2 for p in matrices) and len(matrices) + len(others) == len(list(module.parameters()))
    chosen = [names[id(p)] for p in matrices]
    assert any("layers.0" in n for n in chosen) and any(".head." in n for n in chosen)
    assert not [n for n in chosen if "embed" in n or "lm_head" in n or "norm" in n]
    optim = OptimConfig(lr=0.3, adamw_lr=0.1, weight_decay=0.2)
    muon, adamw = make_optimizer(module, optim).param_groups
    assert (muon["rule"], muon["lr"], muon["weight_decay"]) == ("muon", 0.3, 0.2) and len(muon["params"]) == len(chosen)
    assert (adamw["rule"], adamw["lr"], adamw["weight_decay"]) == ("adamw", 0.1, 0.0)
    optim.name = "adamw"
    groups = make_optimizer(module, optim).param_groups
    assert [(g["rule"], g["lr"], g["weight_decay"]) for g in groups] == [("adamw", 0.3, 0.2), ("adamw", 0.3, 0.0)]


def test_factors_of_lora_are_not_orthogonalised():
    module = torch.nn.ModuleDict({name: torch.nn.Linear(4, n, bias=False) for name, n in (("lora_A", 2), ("net", 4))})
    matrices, others = split_parameters(module)
    assert [p.shape for p in matrices] == [(4, 4)] and [p.shape for p in others] == [(2, 4)]


def test_only_embeddings_have_one_group():
    reasoner, _ = untrained()
    set_trainable(reasoner, ["embeddings"])
    groups = make_optimizer(SFTModule(reasoner, objective_for(reasoner), OptimConfig()), OptimConfig()).param_groups
    assert [g["rule"] for g in groups] == ["adamw"]


def test_parameter_table_counts_everything_once():
    reasoner, _ = untrained()
    set_trainable(reasoner, ["text_model", "head"])
    table = {part: (total, trains) for part, total, trains in parameter_table(reasoner)}
    assert sum(total for total, _ in table.values()) == sum(p.numel() for p in reasoner.parameters())
    assert {part for part, (_, trains) in table.items() if trains} == {"text_model", "head"}
    assert table["head"][0] == table["head"][1] and table["vision_encoder"][1] == table["embeddings"][1] == 0


# -- the steps ---------------------------------------------------------------------------------------------------------
def parameters(names=SHAPES) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(SHAPES[name])) for name in names]


def give_gradients(params, seed: int) -> None:
    torch.manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape)


def combined(params) -> MuonWithAdamW:
    matrices, others = [p for p in params if p.ndim == 2], [p for p in params if p.ndim != 2]
    return MuonWithAdamW(
        [
            {"params": matrices, "rule": "muon", "lr": 0.1, "weight_decay": 0.1},
            {"params": others, "rule": "adamw", "lr": 0.01, "weight_decay": 0.2},
        ],
        (0.9, 0.98),
    )


def test_each_group_steps_as_torch_does():
    """Muon of torch iterates in bfloat16, ours here in float32: the two agree to bfloat16. AdamW is the same."""
    ours, theirs = parameters(), parameters()
    one = combined(ours)
    pair = [
        torch.optim.Muon([p for p in theirs if p.ndim == 2], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for p in theirs if p.ndim != 2], lr=0.01, weight_decay=0.2, betas=(0.9, 0.98)),
    ]
    for step in range(3):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        before = [p.detach().clone() for p in ours]
        for optimizer in (one, *pair):
            optimizer.step()
        for p, q, start in zip(ours, theirs, before, strict=True):
            limit = 0.05 if p.ndim == 2 else 1e-3  # the change is a hundredth of a weight that is rounded
            assert relative_error(p - start, q - start) < limit, tuple(p.shape)
            q.data.copy_(p)


def test_muon_is_the_update_of_its_paper():
    """Momentum, Nesterov, orthogonalization in float64, the scale 0.2 sqrt(max(m, n)), decoupled decay."""
    (p,) = params = parameters(["wide"])
    weight, momentum = p.detach().double(), torch.zeros(p.shape, dtype=torch.float64)
    optimizer = MuonWithAdamW([{"params": params, "rule": "muon", "lr": 0.1, "weight_decay": 0.3}])
    for step in range(4):
        give_gradients(params, step)
        gradient = p.grad.double()
        momentum = 0.95 * momentum + 0.05 * gradient
        update = orthogonalize(0.05 * gradient + 0.95 * momentum, torch.float64)
        weight = weight * (1 - 0.1 * 0.3) - 0.1 * 0.2 * max(p.shape) ** 0.5 * update
        optimizer.step()
        assert_close(p, weight)


@pytest.mark.parametrize("name", ["tall", "wide", "square"])
def test_orthogonalized_matrices_have_singular_values_near_one(name):
    (p,) = parameters([name])
    values = torch.linalg.svdvals(orthogonalize(p.detach()))
    assert 0.6 < values.min() and values.max() < 1.3


def test_state_goes_on_where_it_was_saved():
    first, second = parameters(), parameters()
    optimizer = combined(first)
    for step in range(3):
        give_gradients(first, step)
        optimizer.step()
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p)
    other = combined(second)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert {len(state) for state in other.state.values()} == {1, 3}
    for step in range(3, 5):
        for params, one in ((first, optimizer), (second, other)):
            give_gradients(params, step)
            one.step()
    for p, q in zip(first, second, strict=True):
        assert_close(p, q)


def test_what_cannot_be_stepped_is_refused():
    with pytest.raises(ValueError, match="rule 'sgd'"):
        MuonWithAdamW([{"params": parameters(), "rule": "sgd", "lr": 1.0, "weight_decay": 0.0}])
    with pytest.raises(ValueError, match="Muon steps matrices only"):
        MuonWithAdamW([{"params": parameters(), "rule": "muon", "lr": 1.0, "weight_decay": 0.0}])


def test_learning_rates_warm_up_and_decay_alike():
    optim = OptimConfig(max_steps=100, warmup_steps=10, min_lr_ratio=0.05)
    optimizer = combined(parameters())
    schedule, rates = make_schedule(optimizer, optim), []
    for _ in range(101):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    for rate, peak in zip(zip(*rates, strict=True), (0.1, 0.01), strict=True):
        assert rate[0] == pytest.approx(peak / 10) and max(rate) == pytest.approx(peak, rel=0.05)
        assert rate.index(max(rate)) == 9 and rate[100] == pytest.approx(peak / 20)
        assert all(a < b for a, b in pairwise(rate[:10])) and all(a > b for a, b in pairwise(rate[9:]))


# -- in Lightning ------------------------------------------------------------------------------------------------------
def test_a_batch_is_one_step(tmp_path):
    made = recipe(tmp_path / "run", optim__max_steps=5, data__items=16)
    reasoner, _ = untrained()
    set_trainable(reasoner, made.trainable)
    data = TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True)
    data.setup()
    module = SFTModule(reasoner, data.objective, made.optim)
    trainer = running.fit(made, module, data, tmp_path / "run", lambda where, weights=None: where)
    (optimizer,) = trainer.optimizers
    steps = {int(state["step"]) for state in optimizer.state.values() if "step" in state}
    assert trainer.global_step == 5 == trainer.fit_loop.epoch_loop.total_batch_idx + 1, "more than the 2 of an epoch"
    assert steps <= {1, 2, 3, 4, 5} and max(steps) == 5 and isinstance(optimizer, MuonWithAdamW)


@pytest.mark.parametrize("rule, lr", [("adamw", 1e-5), ("muon", 1e-4)])
def test_weights_in_bf16_move_as_weights_in_fp32(rule, lr):
    """A step of 1e-5 is lost in bf16 numbers near 1, such as those of a norm; a hundred of them are not."""
    start = torch.linspace(0.5, 2, 64).reshape(8, 8).bfloat16()
    fine, coarse = (nn.Parameter(start.to(dtype, copy=True)) for dtype in (torch.float32, torch.bfloat16))
    groups = [{"params": [p], "rule": rule, "lr": lr, "weight_decay": 0.0} for p in (fine, coarse)]
    optimizers = [MuonWithAdamW([group]) for group in groups]
    gradients = torch.randn(1000, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    for gradient in gradients.bfloat16():
        for p, optimizer in zip((fine, coarse), optimizers, strict=True):
            p.grad = gradient.to(p.dtype)
            optimizer.step()
    assert torch.equal(coarse, fine.bfloat16()) and coarse.dtype == torch.bfloat16
    assert (coarse != start).float().mean() > 0.3, "after a thousand steps, many have crossed a rounding edge"


def test_gradients_in_bf16_have_copies_in_fp32_by_parts(monkeypatch):
    """Copies of all gradients at once would be 4 bytes a weight, 12 GiB at 3B."""
    sizes = []
    monkeypatch.setattr(
        muon, "adamw", lambda weights, gradients, *_, **__: sizes.append([g.numel() for g in gradients])
    )
    with FakeTensorMode():
        params = [nn.Parameter(torch.zeros(n, dtype=torch.bfloat16)) for n in (2**26, 2**26, 2**25, 2**28, 2**20)]
        for p in params:
            p.grad = torch.zeros_like(p)
        MuonWithAdamW([{"params": params, "rule": "adamw", "lr": 0.1, "weight_decay": 0.0}]).step()
    assert sizes == [[2**26, 2**26], [2**25], [2**28], [2**20]], "one after the other; a larger weight is alone"


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_a_loaded_optimizer_goes_on_as_if_it_had_not_stopped(rule):
    """Also with weights in bf16, whose state torch alone would round."""
    start, gradients = torch.linspace(0.5, 2, 64).reshape(8, 8).bfloat16(), torch.randn(40, 8, 8).bfloat16()

    def take(p, optimizer, some):
        for gradient in some:
            p.grad = gradient.clone()
            optimizer.step()

    whole, first = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [
        MuonWithAdamW([{"params": [p], "rule": rule, "lr": 1e-4, "weight_decay": 0.0}]) for p in (whole, first)
    ]
    take(whole, optimizers[0], gradients)
    take(first, optimizers[1], gradients[:20])
    again = nn.Parameter(first.detach().clone())
    loaded = MuonWithAdamW([{"params": [again], "rule": rule, "lr": 1e-4, "weight_decay": 0.0}])
    loaded.load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    assert {t.dtype for t in loaded.state[again].values()} == {torch.float32}
    take(again, loaded, gradients[20:])
    assert torch.equal(loaded.state[again]["master"], optimizers[0].state[whole]["master"]) and torch.equal(
        again, whole
    )


class Regression(TrainingModule):
    """A network of two matrices and their biases that is fitted to random targets."""

    sharded = False

    def __init__(self, optim: OptimConfig):
        super().__init__(optim)
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
        self.reasoner, self.norms = nn.Module(), []

    def compute_loss(self, batch, shares=None):
        loss = (self.net(batch[:, :8]) - batch[:, 8:]).square().mean()
        return loss * (shares["loss"] if shares else 1), {"loss": loss}

    def loss_weights(self, batch):
        return {"loss": torch.tensor(len(batch))}

    def count(self, batch):
        """Its batches are tensors."""

    def log(self, name, value, **options):
        if name == "train/grad_norm":
            self.norms.append(float(value))


class ManualRegression(Regression):
    """The same with the manual optimization of reinforcement learning, in two backward passes a batch."""

    update, on_before_optimizer_step = RLModule.update, RLModule.on_before_optimizer_step

    def __init__(self, optim: OptimConfig):
        super().__init__(optim)
        self.automatic_optimization = False

    def training_step(self, step_batch, index):
        self.update(self.compute_loss(half)[0] / 2 for half in step_batch.batch.chunk(2))


class Repeated:
    """The same batches again and again, as a source of training batches."""

    def __init__(self, batches):
        self.batches = batches

    def start(self, place):
        return cycle(self.batches)

    def place(self):
        return {}


def fit_regression(rows: int, accumulate: int = 1, steps: int = 2, module=Regression, scale: float | None = None):
    """The module after ``steps`` steps of ``accumulate`` batches; with ``scale``, in mixed precision in float16 as on a
    GPU, with a gradient scaler that begins there."""
    optim = OptimConfig(max_steps=steps, warmup_steps=1, max_grad_norm=0.5)
    module = module(optim)
    is_automatic = module.automatic_optimization
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None
    torch.manual_seed(1)
    data = torch.cat([torch.randn(32, 8), torch.randn(32, 4)], 1)
    batches = StepBatches(Repeated(data.split(rows)), accumulate, module.loss_weights)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)] if scale else None,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"accumulate_grad_batches": accumulate, "gradient_clip_val": optim.max_grad_norm} if is_automatic else {}),
    )
    with running.quiet():
        trainer.fit(module, batches, [])
    return module


def assert_same_weights(one: Regression, other: Regression, limit: float) -> None:
    for p, q in zip(one.net.parameters(), other.net.parameters(), strict=True):
        assert relative_error(p, q) < limit


def test_accumulated_batches_make_the_step_of_one_large_batch():
    large, small = fit_regression(16), fit_regression(4, accumulate=4)
    assert len(large.norms) == 2 and max(large.norms) > 0.5, "clipped"
    assert_close(small.norms, large.norms)
    assert_close(dict(small.net.named_parameters()), dict(large.net.named_parameters()))


def test_manual_optimization_takes_the_same_steps():
    large, manual = fit_regression(16), fit_regression(16, module=ManualRegression)
    assert_close(manual.norms, large.norms)
    assert_close(dict(manual.net.named_parameters()), dict(large.net.named_parameters()))


@pytest.mark.parametrize("module", [Regression, ManualRegression])
def test_gradients_are_clipped_unscaled_with_fp16(module):
    plain, half = fit_regression(16), fit_regression(16, module=module, scale=2.0**10)
    assert half.norms == pytest.approx(plain.norms, rel=0.02), "not 1,024 times as large"
    assert_same_weights(half, plain, 0.02)


@pytest.mark.parametrize("module", [Regression, ManualRegression])
def test_an_overflow_with_fp16_skips_its_step_and_the_run_goes_on(module):
    """The first scale makes gradients infinite; the scaler halves it, and the weights stay finite."""
    half = fit_regression(4, steps=8, module=module, scale=2.0**20)
    has_overflowed = [not torch.tensor(norm).isfinite() for norm in half.norms]
    assert has_overflowed[0] and not has_overflowed[-1], half.norms
    assert all(p.isfinite().all() for p in half.net.parameters())
    start = Regression(OptimConfig()).net
    assert all(relative_error(p, q) > 0 for p, q in zip(half.net.parameters(), start.parameters(), strict=True))
