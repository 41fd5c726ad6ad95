"""Larger repetitions of what quick tests check. They run with ``bash tests/run.sh --slow`` only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from chaos import torment, write_recipe
from resumed_runs import weights_of
from tiny_runs import BACKBONE, ROOT, events, recipe

from train.config import dump

pytestmark = pytest.mark.long


def output(words: list[str], env: dict[str, str]) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_that_is_killed_twenty_times_ends_with_the_same_model(tmp_path):
    assert torment(tmp_path, kills=20, seed=2).total() == 20


def test_one_of_two_processes_is_killed_in_a_save_and_torchrun_starts_both_again(tmp_path):
    """The run ends with the bits of a run of two processes that none has killed."""
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ONLY_RANK": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # as train/launch.sh sets it
    }
    said = {}
    for name, point in (("killed", "after files are written"), ("whole", "never")):
        config = write_recipe(tmp_path, name)
        words = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "--max-restarts",
            "1",
            "-m",
            "--",
        ]
        words += ["killed_run", point, "2", "train.sft", "--config", str(config), "--resume", "auto"]
        said[name] = output([sys.executable, *words], env)
    assert "The run continues after step 1" in said["killed"] and "continues" not in said["whole"]
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "changes", [{"fsdp_reshard_after_forward": True}, {"tensor_parallel_size": 2}, {"precision": "bf16-mixed"}]
)
def test_held_out_items_are_decoded_by_weights_that_two_processes_share(changes, tmp_path):
    """One process decodes, or those that share matrices do; the others go on and wait at the next step."""
    backbone = BACKBONE | {"layers": 2, "heads": 4}
    more = {"optim__name": "adamw", "eval_steps": 1, "optim__max_steps": 2, "data__items": 8, "data__val_items": 2}
    made = recipe(tmp_path / "run", fsdp=True, backbone__options=backbone, **more | changes)
    (tmp_path / "run.yaml").write_text(dump(made))
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "NPROC": "2", "PYTHON": sys.executable}
    said = output(["bash", "train/sft.sh", str(tmp_path / "run.yaml")], env)
    assert said.count("held-out items at step") == 2
    assert len(events(tmp_path / "run").Scalars("val/success")) == 2
