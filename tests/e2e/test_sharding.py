"""Weights split between two processes (FSDP2, over gloo on the CPU) learn what whole ones learn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from tiny_runs import ROOT, change_error, recipe, tiny_checkpoint

from latent_reason import checkpoint
from latent_reason.data import native
from latent_reason.tasks import make
from train import sft
from train.config import RLTrainingConfig, SFTConfig, dump
from train.rl import trainer
from train.trainer import make_run_folder, process_options


def trained(folder, script: str, name: str, **changes) -> dict[str, torch.Tensor]:
    """The weights that ``NPROC=2 bash train/SCRIPT`` ends with."""
    config = RLTrainingConfig if script == "rl.sh" else SFTConfig
    made = recipe(folder / name, config=config, optim__name="adamw", optim__lr=1e-3, **changes)
    (folder / f"{name}.yaml").write_text(dump(made))
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    done = subprocess.run(
        ["bash", f"train/{script}", str(folder / f"{name}.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env
        | {
            "PYTHON": sys.executable,
            "NPROC": "2",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = f"step {made.optim.max_steps}/{made.optim.max_steps}"
    assert done.stdout.count(last) == 1 and done.stdout.count("Checkpoint: ") == 1, "one process speaks"
    return dict(checkpoint.load(folder / name)[0].state_dict())


def same(split: dict[str, torch.Tensor], whole: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> None:
    assert any(not torch.equal(value, start[name]) for name, value in whole.items() if name in start), "nothing learnt"
    assert split.keys() == whole.keys() and change_error(split, whole, start) < 0.01


@pytest.mark.slow
def test_sft_split_between_processes_is_sft(tmp_path):
    """On traces of which some have no sketch, so that in a step one process has no use for its head."""
    task = make("frozenlake_plan", level=3, chunk=(1, 1))
    native.write((task.trace(task[i], "text" if i < 3 else "mixed") for i in range(16)), tmp_path / "data")
    changes = {
        "data__batch_size": 2,
        "data__folder": str(tmp_path / "data"),
        "optim__max_steps": 4,
        "data__val_items": 0,
        "init_from": str(tiny_checkpoint()),
    }
    same(
        *(trained(tmp_path, "sft.sh", f"split-{split}", fsdp=split, **changes) for split in (True, False)),
        checkpoint.load(tiny_checkpoint())[0].state_dict(),
    )


@pytest.mark.slow
def test_rewards_split_between_processes_are_rewards(tmp_path):
    """With LoRA; each its own prompts, of which one process may have more that teach than the other, in parts of three
    rollouts, with held-out items looked at in between."""
    changes = {
        "rl__rewards": {"tiny_runs.long": 1.0},
        "rl__num_generations": 4,
        "rl__num_prompts": 2,
        "rl__max_completion_length": 24,
        "rl__micro_batch_size": 3,
        "optim__max_steps": 3,
        "rl__sft_coef": 0.1,
        "rl__beta": 0.1,
        "eval_steps": 2,
        "init_from": str(tiny_checkpoint()),
        "lora__rank": 4,
        "trainable": ["lora", "head"],
    }
    same(
        *(trained(tmp_path, "rl.sh", f"split-{split}", fsdp=split, **changes) for split in (True, False)),
        checkpoint.load(tiny_checkpoint())[0].state_dict(),
    )


@pytest.mark.parametrize(
    "train, config, changes, said",
    [
        (
            sft,
            SFTConfig,
            {"method__options": {"k": 4, "head": "mlp", "latent_input": "self"}},
            "one pass for each latent of a row",
        ),
        (sft, SFTConfig, {"optim__name": "muon"}, "Set optim.name to adamw"),
        (trainer, RLTrainingConfig, {"rl__perturbations": {"necessity": 0.1}}, "Remove one of the two keys"),
    ],
)
def test_what_cannot_be_split_is_refused(train, config, changes, said, tmp_path):
    small = {"optim__name": "adamw", "init_from": str(tiny_checkpoint()), "fsdp": True}
    made = recipe(tmp_path / "run", config=config, **small | changes)
    with pytest.raises(ValueError, match=f"fsdp: .*{said}"):
        train.train(made, make_run_folder(made))


def test_as_many_parts_as_process_options(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert process_options("auto", fsdp=True)["strategy"]._data_parallel_size == 8
