"""Training runs, end to end, on the smallest model: what they leave behind, what they refuse, how they stop."""

from __future__ import annotations

import io
import os
import re
import signal
from contextlib import contextmanager
from itertools import islice

import pytest
import torch
from conftest import objective_for
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file
from tiny_runs import change_error, command, events, recipe, short, tiny_checkpoint, untrained, write_uneven_records

from latent_reason import checkpoint
from latent_reason.contracts.closeness import relative_error
from train import decoder, pretrain, sft
from train import progress as progressing
from train import trainer as running
from train.batches import LengthGrouped
from train.config import DecoderConfig, PretrainConfig, SFTConfig, load
from train.data import TraceData
from train.lit_modules import SFTModule
from train.model_setup import build_objective, prepare_model


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    short(monkeypatch, budget=12)


@pytest.fixture
def ctrl_c():
    """Lightning turns Ctrl-C off once it was pressed."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


CONFIGS = {pretrain.train: PretrainConfig, sft.train: SFTConfig, decoder.train: DecoderConfig}


def run(train, folder, **changes):
    """What ``python -m train.NAME`` does, as a call."""
    made = recipe(folder, config=CONFIGS[train], **changes)
    return train(made, running.make_run_folder(made)), folder


def weights(folder, part: str = "backbone/model") -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / f"{part}.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pretraining run and a run of sft that starts from it."""
    with pytest.MonkeyPatch.context() as patch:
        short(patch, budget=12)
        _, first = run(
            pretrain.train,
            tmp_path_factory.mktemp("runs") / "first",
            method="direct",
            optim__max_steps=2,
            data__items=16,
            trainable=["vision_encoder", "text_model", "embeddings"],
        )
        _, second = run(sft.train, first.parent / "second", init_from=str(first))
    return first, second


# -- what a run leaves ---------------------------------------------------------------------------------------------
def test_runs_leave_checkpoints_recipe_and_logs(trained):
    for folder, config in zip(trained, (PretrainConfig, SFTConfig), strict=True):
        assert sorted(p.name for p in folder.iterdir()) == ["logs", "model", "recipe.yaml"]
        assert load(folder / "recipe.yaml", config).run_name == str(folder)
        reasoner, drawn_by = checkpoint.load(folder)
        assert drawn_by is not None and reasoner.method.notes["data"]["levels"] == [3]


def test_losses_are_logged_apart_with_a_panel_of_sketches(trained):
    found = events(trained[1])
    scalars = found.Tags()["scalars"]
    assert {
        "train/text",
        "train/latent",
        "val/text",
        "val/latent",
        "val/success",
        "val/sketch_equal",
        "train/grad_norm",
    } <= set(scalars)
    rates = {name for name in scalars if name.startswith("train/learning_rate")}
    assert rates == {f"train/learning_rate{group}" for group in ("", "/matrices", "/others")}
    assert [e.value for e in found.Scalars("train/learning_rate")] == [
        e.value for e in found.Scalars("train/learning_rate/matrices")
    ]
    measured = "loss tokens_per_second samples_per_second data_wait_share peak_memory_gb share_with_sketches".split()
    assert {*(f"train/{name}" for name in measured), "step_time", "num_tokens", "latents/norm"} <= set(scalars)
    assert 0 <= found.Scalars("train/data_wait_share")[-1].value <= 1
    assert max(e.value for e in found.Scalars("train/share_with_sketches")) == 1
    assert [e.step for e in found.Scalars("train/latent")] == [0, 1, 2]
    assert found.Tags()["images"] == ["sketches"] and found.Images("sketches")[0].width > 400
    assert {"train/text", "train/reconstruction", "val/token_accuracy"} <= set(events(trained[0]).Tags()["scalars"])


def test_what_does_not_fit_into_memory_is_looked_at_again(capsys):
    """The same batches, whether all is kept, some, or nothing; and nothing is kept that does not fit."""
    reasoner, _ = untrained()
    found, kept = [], []
    for room in (1.0, 2e-5, 0.0):
        made = recipe(None, data__items=70, data__feature_cache_gb=room).data
        data = TraceData(made, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True)
        data.setup()
        rows = data.rows["train"]
        found.append(data.collate(rows[:2] + rows[-2:]))
        kept.append(sum(len(row.image_features or ()) for row in rows))
    assert kept[0] == 70 and kept[1] == 64 and kept[2] == 0
    assert "fill 2e-05 GB (data.feature_cache_gb)" in capsys.readouterr().out
    for other in found[1:]:
        for one, two in ((found[0].images, other.images), (found[0].sketches, other.sketches)):
            assert torch.equal(one.grid, two.grid)
            assert max(map(relative_error, one.features, two.features)) < 2e-3, "kept in float16"


def test_frozen_eye_stays_and_the_rest_learns(trained):
    before, after = (weights(folder) for folder in trained)
    changed = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert changed and not [name for name in changed if "visual" in name]
    assert any("layers" in name for name in changed) and any("embed_tokens" in name for name in changed)
    statistics = weights(trained[1], "reasoner")
    assert statistics["target.standardizer.fitted"] and statistics["target.standardizer.mean"].abs().sum() > 0


def test_same_seed_gives_the_same_weights(trained, tmp_path):
    first, second = trained
    again = weights(run(sft.train, tmp_path / "again", init_from=str(first))[1])
    assert all(torch.equal(t, again[name]) for name, t in weights(second).items())
    other = weights(run(sft.train, tmp_path / "other", init_from=str(first), seed=1)[1])
    assert not all(torch.equal(t, other[name]) for name, t in weights(second).items())
    assert change_error(other, weights(second), weights(first)) > 0.1, "what the other tests allow is far less"


def test_decoder_run_trains_the_decoder_only(trained, tmp_path):
    _, folder = run(decoder.train, tmp_path / "decoder", init_from=str(trained[1]), optim__name="adamw")
    part = "decoder/diffusion_pytorch_model"
    for name in ("backbone/model", "reasoner"):
        before, after = weights(trained[1], name), weights(folder, name)
        assert all(torch.equal(before[n], t) for n, t in after.items())
    assert not all(torch.equal(t, weights(folder, part)[n]) for n, t in weights(trained[1], part).items())
    assert "train/reconstruction" in events(folder).Tags()["scalars"]


def test_decoder_run_needs_a_model(tmp_path):
    with pytest.raises(ValueError, match="--init_from"):
        run(decoder.train, tmp_path / "decoder")


def test_a_run_goes_on_from_a_checkpoint_of_its_method(trained, tmp_path):
    """Head and statistics too, not the backbone alone."""
    made = recipe(tmp_path, init_from=str(trained[1]))
    reasoner, _ = prepare_model(made)
    stored = weights(trained[1], "reasoner")
    assert all(torch.equal(t, stored[n]) for n, t in reasoner.state_dict().items() if n in stored)
    made.method.options = {"k": 2, "head": "mlp"}
    other, _ = prepare_model(made)
    assert not other.target.standardizer.fitted, "another head starts anew"


# -- what it prints ------------------------------------------------------------------------------------------------
def test_console_shows_losses_and_time_and_nothing_else(trained, tmp_path, capfd, recwarn):
    run(sft.train, tmp_path / "quiet", init_from=str(trained[0]), optim__max_steps=20, data__items=16)
    shown, noise = capfd.readouterr()
    shown = "\n".join(line for line in shown.splitlines() if "latents collapse" not in line)  # rightly said
    lines = [line for line in shown.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 1/20  text ") and lines[-1].startswith("step 20/20  text ")
    assert all("latent" in line and line.endswith(" left") for line in lines)
    assert "held-out items at step 20 of 20" in shown and re.search(r"text +\d\.\d{3} +nats a token", shown)
    assert re.search(r"success +\d\.\d{3} +share of items", shown)
    for word in ("Tip", "TPU", "GPU available", "Warning", "Epoch", "configured", "LeafSpec", "eval mode"):
        assert word not in shown + noise, word
    warned = [w.message for w in recwarn if not issubclass(w.category, FutureWarning | PendingDeprecationWarning)]
    assert noise == "" and not warned, "what libraries say of their future versions may be said"


def test_warnings_of_substance_are_heard():
    with pytest.warns(UserWarning, match="substance"), progressing.quiet():
        import warnings

        warnings.warn("of substance")


# -- how it stops --------------------------------------------------------------------------------------------------
@contextmanager
def during(step: int, do):
    """Call ``do`` in the middle of the step after ``step``."""
    before = SFTModule.training_step

    def training_step(self, batch, index):
        if self.trainer.global_step == step:
            do()
        return before(self, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SFTModule, "training_step", training_step)
        yield


@pytest.mark.parametrize("number, status", [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 75)])
def test_a_signal_stops_the_run_after_its_step_and_it_can_continue(
    monkeypatch, tmp_path, small, capsys, number, status
):
    """The signal is sent in the middle of the second step."""
    before = signal.getsignal(signal.SIGTERM)
    with during(1, lambda: os.kill(os.getpid(), getattr(signal, number))):
        assert command(monkeypatch, sft, *small) == status
    run = tmp_path / "run"
    assert f"Stopped after step 2 by a signal. Continue with --resume {run}" in capsys.readouterr().out
    assert [p.name for p in (run / "state").iterdir()] == ["step-00000002"] and not (run / "model").exists()
    assert signal.getsignal(signal.SIGTERM) is before, "the handlers of before are back"
    assert command(monkeypatch, sft, "--resume", str(run)) is None
    assert checkpoint.load(run) and sorted(p.name for p in run.iterdir()) == ["logs", "model", "recipe.yaml"]
    assert command(monkeypatch, sft, "--resume", str(run)) is None and "has ended" in capsys.readouterr().out


def test_a_second_ctrl_c_stops_at_once(monkeypatch, tmp_path, small, capsys, ctrl_c):
    with during(1, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]):
        assert command(monkeypatch, sft, *small) in (1, "stopped by Ctrl-C; no incomplete file was left")
    assert "Stopped at step 1 (KeyboardInterrupt). No state was saved yet." in capsys.readouterr().out


def test_ctrl_c_while_data_is_made_takes_the_folder_away(monkeypatch, tmp_path, small):
    monkeypatch.setattr(TraceData, "setup", lambda self, stage=None: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert "stopped by Ctrl-C" in command(monkeypatch, sft, *small) and not (tmp_path / "run").exists()


def test_an_error_in_training_is_not_hidden_and_says_what_is_kept(monkeypatch, tmp_path, small, capsys):
    with during(2, lambda: 1 / 0), pytest.raises(ZeroDivisionError):
        command(monkeypatch, sft, *small, "--save_steps", "1")
    kept = tmp_path / "run" / "state" / "step-00000002"
    assert kept.is_dir()
    assert f"The state in '{kept}' is kept: continue with --resume {tmp_path / 'run'}" in capsys.readouterr().out


def test_full_disk_at_the_end_is_one_sentence(monkeypatch, tmp_path, small, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("latent_reason.checkpoint.io.save_file", full)
    monkeypatch.setattr("train.saving.RETRY_SECONDS", 0)
    said = command(monkeypatch, sft, *small)
    assert said.startswith("error: The disk is full: ") and str(tmp_path / "run" / "model") in said
    assert capsys.readouterr().out.count("the model could not be saved") == 3, "it is tried again"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["logs", "recipe.yaml"], "nothing half-written"


def test_a_save_that_fails_is_tried_again_and_the_run_goes_on(monkeypatch, tmp_path, small, capsys):
    """The disk is full at the first of three saves."""
    from train.state_files import StateFiles

    commit, calls = StateFiles._commit, []

    def full_once(self, *given):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        commit(self, *given)

    monkeypatch.setattr(StateFiles, "_commit", full_once)
    assert command(monkeypatch, sft, *small, "--save_steps", "1", "--optim.max_steps", "4") is None
    assert "could not be saved" in capsys.readouterr().out and len(calls) == 3 and checkpoint.load(tmp_path / "run")


def test_a_log_that_cannot_be_written_does_not_end_the_run(monkeypatch, tmp_path, small, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    assert command(monkeypatch, sft, *small) is None and checkpoint.load(tmp_path / "run")
    assert capsys.readouterr().out.count("the log could not be written") == 1


def test_what_cannot_be_printed_does_not_end_the_run(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    progressing.console.print("a figure")
    with pytest.raises(OSError):
        print("a figure")


# -- several processes ---------------------------------------------------------------------------------------------
def test_processes_share_the_batches_of_a_run():
    """The same batches in the same order for any number of processes, over the ends of epochs."""
    lengths = [i % 7 for i in range(53)]
    alone = [batch for _, batch in islice(LengthGrouped(lengths, 4, seed=3).batches(), 30)]
    shares = [list(islice(LengthGrouped(lengths, 4, 3, world=3).batches(rank), 10)) for rank in range(3)]
    assert [batch for group in zip(*shares, strict=True) for _, batch in group] == alone
    assert [number for group in zip(*shares, strict=True) for number, _ in group] == list(range(30))
    assert sorted(i for batch in alone[:13] for i in batch) == sorted({i for batch in alone[:13] for i in batch})
    assert alone[:13] != alone[13:26], "another order in another epoch"
    later = LengthGrouped(lengths, 4, 3, world=3).batches(rank=1, start=4)
    assert list(islice(later, 3)) == shares[1][4:7]
    assert LengthGrouped(lengths[:3], 4, 0, world=3).batch_size == 1, "fewer rows than a batch for each"


def test_only_the_first_process_makes_the_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(running.rank_zero_only, "rank", 1)
    made = recipe(tmp_path / "run")
    assert running.make_run_folder(made) == tmp_path / "run" and not (tmp_path / "run").exists()
    save = running.make_saver(made, *untrained())
    assert save(tmp_path / "model") is None and not (tmp_path / "model").exists()


def test_processes_are_those_of_torchrun(monkeypatch, tmp_path):
    made = recipe(tmp_path / "run")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert running.process_options(made)["devices"] == 1 and running.process_options(made)["strategy"] == "auto"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = running.process_options(made)
    assert (found["devices"], found["num_nodes"], type(found["strategy"])) == (4, 2, DDPStrategy)
    assert found["strategy"]._ddp_kwargs["gradient_as_bucket_view"], "or memory holds each gradient twice"


def test_bf16_rounds_the_weights_of_the_backbone_and_nothing_else(tmp_path, monkeypatch):
    """Not the head, the statistics of its target or weights of losses."""
    seen = []
    compute_loss = SFTModule.compute_loss

    def spy(self, batch, shares=None):
        target, backbone = self.reasoner.target, self.reasoner.backbone
        dtypes = {"loss_weight": batch.loss_weight, "std": target.std}
        dtypes |= {"head": next(self.reasoner.head.parameters()), "backbone": backbone.model.lm_head.weight}
        dtypes |= {"frequencies": backbone.text_model.rotary_emb.inv_freq}
        seen.append({name: value.dtype for name, value in dtypes.items()})
        return compute_loss(self, batch, shares)

    monkeypatch.setattr(SFTModule, "compute_loss", spy)
    _, folder = run(sft.train, tmp_path / "run", init_from=str(tiny_checkpoint()), precision="bf16-true")
    assert len(seen) >= 3 and all(dtypes == seen[0] for dtypes in seen)
    assert seen[0] == {
        "loss_weight": torch.float32,
        "std": torch.float32,
        "head": torch.float32,
        "backbone": torch.bfloat16,
        "frequencies": torch.float32,
    }
    saved = checkpoint.load(folder / "model")[0]
    assert saved.backbone.model.dtype == torch.bfloat16 and next(saved.head.parameters()).dtype == torch.float32
    first = checkpoint.load(tiny_checkpoint())[0]
    assert not torch.equal(saved.backbone.model.lm_head.weight.float(), first.backbone.model.lm_head.weight)


def test_a_backbone_in_bf16_learns_with_a_decoder_in_fp32(tmp_path):
    (reasoner, decoder), _ = run(pretrain.train, tmp_path / "run", precision="bf16-true", optim__max_steps=1)
    assert reasoner.backbone.model.dtype == torch.bfloat16
    assert next(decoder.parameters()).dtype == torch.float32


class SFTGradients(SFTModule):
    """Keeps the gradients of every step, before they are clipped."""

    def __init__(self, *args):
        super().__init__(*args)
        self.kept = []

    def on_before_optimizer_step(self, optimizer):
        self.kept.append({n: p.grad.clone() for n, p in self.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("size", [1, 2, 4])
def test_accumulated_batches_make_the_step_of_one_large_batch(size, tmp_path):
    """Rows of many and of few taught tokens, and with and without a sketch, which batches hold in other shares."""
    folder = write_uneven_records(tmp_path / "records")
    whole, cut = (gradients(folder, tmp_path, rows) for rows in (8, size))
    assert len(whole) == len(cut) == 2 and whole[0].keys() == cut[0].keys()
    for one, other in zip(whole, cut, strict=True):
        for name, gradient in one.items():
            assert relative_error(other[name], gradient) < 1e-3, name


def gradients(folder, tmp_path, size: int) -> list[dict[str, torch.Tensor]]:
    """The gradients of two steps, each on all eight records, ``size`` at a time."""
    made = recipe(
        tmp_path / f"run-{size}",
        init_from=str(tiny_checkpoint()),
        data__folder=str(folder),
        data__global_batch_size=8,
        data__micro_batch_size=size,
        data__val_items=0,
        optim__max_steps=2,
        optim__lr=1e-4,
        precision="64-true",
    )
    reasoner, _ = prepare_model(made)
    objective = build_objective(made, reasoner)
    data = TraceData(made.data, reasoner, objective, "mixed", made.seed, frozen_vision=True)
    data.setup()
    module = SFTGradients(reasoner.double(), objective, made.optim)
    running.fit(made, module, data, tmp_path / f"run-{size}", lambda where, weights=None: where)
    return module.kept
