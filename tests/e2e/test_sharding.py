"""Weights split between two processes (FSDP2, over gloo on the CPU) learn what whole ones learn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from resumed_runs import stopped_copy, weights_of
from tiny_runs import BACKBONE, ROOT, change_error, events, recipe, tiny_checkpoint, tiny_reasoner, write_uneven_records

from latent_reason import checkpoint, methods
from latent_reason.data import native
from latent_reason.model import backbones
from latent_reason.tasks import make
from train import sft, sharding
from train.config import RLTrainingConfig, SFTConfig, dump, parse
from train.model_setup import prepare_model
from train.rl import trainer
from train.trainer import make_run_folder, process_options


def sft_recipe(folder, fsdp: bool):
    """On traces of which some have no sketch, so that in a step one process has no use for its head."""
    task = make("frozenlake_plan", level=3, chunk=(1, 1))
    if not (folder / "data").exists():
        native.write((task.trace(task[i], "text" if i < 3 else "mixed") for i in range(16)), folder / "data")
    changes = {
        "data__global_batch_size": 4,
        "data__folder": str(folder / "data"),
        "optim__max_steps": 4,
        "data__val_items": 0,
    }
    if fsdp:
        changes |= {"fsdp_reshard_after_forward": True, "fsdp_cpu_offload": True}
    return recipe(folder / f"sft-{fsdp}", fsdp=fsdp, **SHARED, **changes)


def rl_recipe(folder, fsdp: bool):
    """With LoRA; each its own prompts, of which one process may have more that teach than the other, in parts of three
    rollouts, with latents drawn again and held-out items looked at in between."""
    changes = {
        "rl__latent_policy": "pathwise",
        "rl__latent_anchor": 0.1,
        "rl__rewards": {"tiny_runs.long": 1.0},
        "rl__num_generations": 4,
        "data__global_batch_size": 4,
        "rl__max_completion_length": 24,
        "data__micro_batch_size": 3,
        "optim__max_steps": 3,
        "rl__sft_coef": 0.1,
        "rl__beta": 0.1,
        "eval_steps": 2,
        "lora__rank": 4,
        "trainable": ["lora", "head"],
    }
    return recipe(folder / f"rl-{fsdp}", config=RLTrainingConfig, fsdp=fsdp, **SHARED, **changes)


def uneven_data(folder) -> dict:
    """Eight uneven records to train on, and five held-out ones."""
    if not (folder / "uneven").exists():
        write_uneven_records(folder / "uneven", val=5)
    return {"data__folder": str(folder / "uneven"), "data__val_items": 5, "eval_steps": 2}


def uneven_recipe(folder, name: str, size: int):
    """Three steps on all of eight uneven records, ``size`` at a time in each process."""
    changes = {"data__global_batch_size": 8, "data__micro_batch_size": size, **uneven_data(folder)}
    changes |= {"optim__max_steps": 3}
    return recipe(folder / name, **SHARED, **changes)


def parallel_recipe(folder, name: str, **changes):
    """Three steps from random weights on all of eight uneven records, with two layers and two key-value heads."""
    backbone = BACKBONE | {"layers": 2, "heads": 4}
    shared = {name: value for name, value in SHARED.items() if name != "init_from"}
    changes = {"data__global_batch_size": 8, **uneven_data(folder)} | changes
    return recipe(folder / name, **shared, backbone__options=backbone, **changes)


#: each row draws its own latents, so that the processes make unequally many passes
OWN_LATENTS = {"method__options": {"k": 4, "head": "mlp", "latent_input": "self"}}
#: with norms of queries and keys, whose gradient comes from the heads of both processes, which draw the same noise
WITH_NORMS = {
    "backbone__name": "tiny-gemma3",
    "method__options": {"k": 4, "head": "flow", "head_options": {"hidden": 32}},
    "method__latent_dropout": 0.3,
    "method__feedback": "norm_matched",
}

SHARED = {
    "optim__name": "adamw",
    "optim__lr": 1e-3,
    "init_from": str(tiny_checkpoint()),
    "save_steps": 1,
    "save_total_limit": 0,
    "optim__ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs of two processes, each recipe with split and with whole weights."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "recipes").mkdir()
    made = [make_recipe(folder, fsdp) for make_recipe in (sft_recipe, rl_recipe) for fsdp in (True, False)]
    made.append(uneven_recipe(folder, "uneven-two", 2))
    made.append(parallel_recipe(folder, "own-two", fsdp=True, data__feature_cache_gb=0.0, **OWN_LATENTS))
    made.append(parallel_recipe(folder, "norms-two", fsdp=True, tensor_parallel_size=2, **WITH_NORMS))
    for one in made:
        (folder / "recipes" / f"{Path(one.run_name).name}.yaml").write_text(dump(one))
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    done = subprocess.run(
        ["bash", "train/launch.sh", "runs_in_turn", str(folder / "recipes")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
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
    assert done.stdout.count("step 4/4") == 4 and done.stdout.count("step 3/3") == 10, "one process speaks"
    assert done.stdout.count("Checkpoint: ") == 14 and done.stdout.count("The run continues after step 2") == 7
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["sft", "rl"])
def test_training_split_between_processes_is_training(trainer, folder):
    start = checkpoint.load(tiny_checkpoint())[0].state_dict()
    split, whole = (checkpoint.load(folder / f"{trainer}-{fsdp}")[0].state_dict() for fsdp in (True, False))
    start |= {name: torch.zeros_like(value) for name, value in whole.items() if "lora_B" in name}
    assert any(not torch.equal(whole[name], value) for name, value in start.items() if name in whole), "nothing learnt"
    assert split.keys() == whole.keys() and change_error(split, whole, start) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft-True", "sft-False", "rl-True", "rl-False", "uneven-two", "own-two", "norms-two"])
def test_what_two_processes_resume_ends_with_the_same_bits(name, folder):
    """Split and whole weights, reinforcement learning, accumulation, own latents, shared matrices."""
    assert weights_of(folder / f"{name}-resumed") == weights_of(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("name, changes", [("own", OWN_LATENTS), ("norms", WITH_NORMS)])
def test_two_processes_with_split_weights_or_matrices_are_one(name, changes, folder):
    """Two with half of a batch each; two that share each matrix, and all rows."""
    made = parallel_recipe(folder, f"{name}-one", **changes)
    start = prepare_model(made)[0].state_dict()
    sft.train(made, make_run_folder(made))
    one, two = (checkpoint.load(folder / f"{name}-{n}")[0].state_dict() for n in ("one", "two"))
    assert change_error(two, one, {n: value for n, value in start.items() if n in one}) < 1e-4
    logged = [events(folder / f"{name}-{n}") for n in ("one", "two")]
    figures = {"train/text": 3, "train/latent": 3, "train/grad_norm": 3, "val/text": 2, "val/latent": 2}
    for figure, count in figures.items():
        values = [[e.value for e in run.Scalars(figure)] for run in logged]
        assert len(values[0]) == count and values[1] == pytest.approx(values[0], rel=1e-4), "of all processes"


@pytest.mark.slow
def test_one_process_continues_what_two_began(folder):
    """Half the processes accumulate twice as many batches, so that each step has the same examples."""
    copy = stopped_copy(folder / "uneven-two", folder / "uneven-fewer", 1)
    made = parse(SFTConfig, ["--resume", str(copy)])
    sft.train(made, make_run_folder(made))
    start, one, two = (
        checkpoint.load(where)[0].state_dict()
        for where in (tiny_checkpoint(), folder / "uneven-fewer", folder / "uneven-two")
    )
    assert change_error(two, one, start) < 0.01
    copy = stopped_copy(folder / "uneven-two", folder / "refused", 1)
    made = parse(SFTConfig, ["--resume", str(copy), "--data.micro_batch_size", "4"])
    with pytest.raises(ValueError, match=r"4 batches a step.*data.micro_batch_size=2"):
        sft.train(made, make_run_folder(made))


@pytest.mark.slow
def test_two_processes_and_accumulation_make_the_step_of_one_large_batch(folder):
    """Norms of gradients too: AdamW would hide that a part of the loss counts half."""
    made = uneven_recipe(folder, "uneven-one", 8)
    sft.train(made, make_run_folder(made))
    start, one, two = (
        checkpoint.load(where)[0].state_dict()
        for where in (tiny_checkpoint(), folder / "uneven-one", folder / "uneven-two")
    )
    assert change_error(two, one, start) < 0.01
    for figure, count in {
        "train/grad_norm": 3,
        "val/text": 2,
    }.items():  # held-out: one batch, and three of two processes
        values = [[e.value for e in events(folder / f"uneven-{n}").Scalars(figure)] for n in ("one", "two")]
        assert len(values[0]) == count and values[1] == pytest.approx(values[0], rel=1e-3)


@pytest.mark.parametrize(
    "train, config, changes, said",
    [
        (sft, SFTConfig, OWN_LATENTS | {"fsdp_reshard_after_forward": True}, "unequally many passes"),
        (sft, SFTConfig, {"method__name": "monet", "method__options": {"k": 2, "stage": 2}}, "inside its loss"),
        (sft, SFTConfig, {"tensor_parallel_size": 2, "lora__rank": 4, "trainable": ["lora"]}, "with a LoRA adapter"),
        (sft, SFTConfig, {"tensor_parallel_size": 3}, "2 attention heads"),
        (trainer, RLTrainingConfig, {"tensor_parallel_size": 2}, "rollouts need whole matrices"),
        (sft, SFTConfig, {"fsdp": False, "fsdp_cpu_offload": True}, "an option of fsdp"),
        (sft, SFTConfig, {"optim__name": "muon"}, "Set optim.name to adamw"),
        (sft, SFTConfig, {"precision": "bf16-true"}, "Set precision to bf16-mixed"),
        (trainer, RLTrainingConfig, {"rl__perturbations": {"necessity": 0.1}}, "Remove one of the two keys"),
    ],
)
def test_what_cannot_be_split_is_refused(train, config, changes, said, tmp_path):
    small = {"optim__name": "adamw", "init_from": str(tiny_checkpoint()), "fsdp": True}
    made = recipe(tmp_path / "run", config=config, **small | changes)
    with pytest.raises(ValueError, match=said):
        train.train(made, make_run_folder(made))


def test_gold_traces_with_own_latents_are_refused_beside_rollouts(tmp_path):
    model = methods.build_method("coconut", backbones.load_backbone("tiny", **BACKBONE))
    start = {
        "init_from": str(checkpoint.save(model, tmp_path / "start")),
        "method__name": "coconut",
        "method__options": {},
    }
    made = recipe(tmp_path / "run", config=RLTrainingConfig, fsdp=True, rl__sft_coef=0.1, optim__name="adamw", **start)
    with pytest.raises(ValueError, match=r"rl.sft_coef: .* one pass for each latent"):
        trainer.train(made, make_run_folder(made))


def test_layers_stay_in_main_memory_until_they_are_split(monkeypatch):
    reasoner, moved = tiny_reasoner(), set()

    def to(tensor, device):
        assert device == "cuda"
        moved.add(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    sharding.move_all_but_layers(reasoner, "cuda")
    tensors = [*reasoner.parameters(), *reasoner.buffers()]
    layers = {p.data_ptr() for p in reasoner.backbone.text_model.layers.parameters()}
    assert layers and moved == {t.data_ptr() for t in tensors} - layers


def test_the_trainers_autocast_stays_where_no_weight_was_rounded():
    with torch.autocast("cpu", torch.bfloat16), sharding.autocast_to_layers(tiny_reasoner()):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_as_many_parts_as_process_options(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = process_options(recipe(tmp_path / "run", fsdp=True, tensor_parallel_size=2))["strategy"]
    assert (found._data_parallel_size, found._tensor_parallel_size) == (4, 2)
    with pytest.raises(ValueError, match="tensor_parallel_size=3: 8 processes cannot form groups of 3"):
        process_options(recipe(tmp_path / "run", fsdp=True, tensor_parallel_size=3))
