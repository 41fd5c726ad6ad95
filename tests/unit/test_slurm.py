"""The job scripts with stand-ins for srun and scontrol: what they start, and that they continue themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import ROOT, recipe

from train import trainer

SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$CALLS"
trap 'echo "saved" >> "$CALLS"; exit 143' TERM
[ -z "${ENDS:-}" ] || exit "$ENDS"
while true; do sleep 0.05; done
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$CALLS"
[ "$1" = show ] && printf 'node-7\\nnode-8\\n'
exit 0
"""


@pytest.fixture
def job(tmp_path):
    """``job(script, **env)`` starts a job script with a training command; ``job.calls()`` is what it called."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    started = []

    def start(script: str, **env: str) -> subprocess.Popen:
        given = {k: v for k, v in os.environ.items() if not k.startswith("SLURM") and k != "VIRTUAL_ENV"}
        given |= {"PATH": f"{tmp_path}:{given['PATH']}", "CALLS": str(calls), "PYTHON": sys.executable}
        given |= {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "41", "SLURM_GPUS_ON_NODE": "8"} | env
        words = ["train.sft", "--config", "train/recipes/quickstart.yaml", "--run_name", "mine"]
        done = subprocess.Popen(["bash", f"train/slurm/{script}", *words], cwd=ROOT, env=given)
        started.append(done)
        return done

    start.calls = lambda: calls.read_text().splitlines() if calls.exists() else []
    yield start
    for process in started:
        process.kill()


def wait_for(calls, word: str) -> None:
    end = time.time() + 60
    while time.time() < end and not any(line.startswith(word) for line in calls()):
        time.sleep(0.05)


def test_many_nodes_meet_at_the_first_and_go_on_by_themselves(job):
    process = job("many_nodes.sbatch", ENDS="0", SLURM_NNODES="2", SLURM_JOB_NODELIST="node-[7-8]")
    assert process.wait(60) == 0
    (started,) = [line for line in job.calls() if line.startswith("srun")]
    for words in ("--ntasks=2 --ntasks-per-node=1", "--nproc-per-node 8", "--rdzv-endpoint node-7:29500"):
        assert words in started
    assert started.endswith("train.sft --config train/recipes/quickstart.yaml --run_name mine --resume auto")


def test_a_seed_is_a_run_of_its_own(job):
    assert job("seeds.sbatch", ENDS="0", SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_JOB_ID="41").wait(60) == 0
    assert job.calls()[0].endswith("--run_name mine-3 --seed 3 --resume auto")


@pytest.mark.parametrize("env, name", [({}, "41"), ({"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}, "40_3")])
def test_a_job_whose_time_runs_out_saves_and_goes_back_into_the_queue(job, env, name):
    process = job("seeds.sbatch" if env else "one_node.sbatch", **env)
    wait_for(job.calls, "srun")
    time.sleep(0.2)  # srun has its handler
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0 and job.calls()[1:] == ["saved", f"scontrol requeue {name}"]


def test_a_job_that_fails_says_so(job):
    assert job("one_node.sbatch", ENDS="1").wait(60) == 1 and len(job.calls()) == 1


def test_a_job_that_is_ended_saves(job):
    process = job("one_node.sbatch")
    wait_for(job.calls, "srun")
    time.sleep(0.2)
    process.terminate()
    assert process.wait(60) == 143 and job.calls()[1:] == ["saved"]


def test_copies_that_srun_starts_are_refused(monkeypatch, tmp_path):
    made = recipe(tmp_path / "run")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(ValueError, match=r"srun started 8 tasks .*srun --ntasks-per-node=1 torchrun"):
        trainer.check_launch(made)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    trainer.check_launch(made)
    made = recipe(tmp_path / "run", fsdp=True, tensor_parallel_size=3)
    with pytest.raises(ValueError, match="tensor_parallel_size=3: 8 processes cannot form groups of 3"):
        trainer.check_launch(made)


def test_scripts_are_valid_bash():
    for script in sorted(Path(ROOT / "train" / "slurm").iterdir()):
        subprocess.run(["bash", "-n", str(script)], check=True)
