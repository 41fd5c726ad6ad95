"""A batch of a recipe is the same on any number of processes, and what cannot be shared is refused with what can."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_runs import EMPTY, command, recipe, tiny_checkpoint

from train import sft
from train.batch_sizes import accumulation_steps, check_batch_sizes, rows_per_process, with_micro_batch
from train.checks import check_run
from train.config import PretrainConfig, RLTrainingConfig, SFTConfig, load

PUBLISHED = Path(__file__).parents[2] / "train" / "recipes" / "published"


def batch(rows: int, micro: int = 0, config=SFTConfig, **changes):
    return load(EMPTY, config, data__global_batch_size=rows, data__micro_batch_size=micro, **changes)


@pytest.mark.parametrize("config", [SFTConfig, PretrainConfig])
@pytest.mark.parametrize("processes, micro, times", [(1, 8, 4), (2, 8, 2), (4, 8, 1), (8, 4, 1), (1, 0, 1), (8, 0, 1)])
def test_rows_times_batches_times_processes_are_the_global_batch(config, processes, micro, times):
    made = batch(32, micro, config)
    assert accumulation_steps(made, processes) == times
    rows = with_micro_batch(made, processes).data.micro_batch_size
    assert rows * times * processes == 32 and (not micro or rows == micro)


def test_processes_that_share_matrices_count_once():
    made = batch(32, 4, fsdp=True, tensor_parallel_size=4)
    assert accumulation_steps(made, 8) == 4 and rows_per_process(made, 8) == 16


@pytest.mark.parametrize(
    "rows, micro, processes, said",
    [
        (32, 8, 6, "48 rows at a time, which do not add up to 32. Set data.global_batch_size to 48, or the number of "
         "data-parallel processes to 4."),
        (32, 3, 2, "global_batch_size to 30 or 36, or data.micro_batch_size to 2 or 4."),
        (100, 0, 8, "by 8 data-parallel processes. Set data.global_batch_size to 96 or 104, or the number of "
         "data-parallel processes to 5 or 10."),
        (1, 1, 8, "Set data.global_batch_size to 8, or the number of data-parallel processes to 1."),
    ],
)  # fmt: skip
def test_what_does_not_divide_is_refused_with_the_nearest_choices(rows, micro, processes, said):
    with pytest.raises(ValueError, match=f"data.global_batch_size={rows}") as error:
        check_batch_sizes(batch(rows, micro), processes)
    assert said in str(error.value)


def test_reinforcement_learning_shares_items_and_not_rollouts():
    made = batch(8, 3, RLTrainingConfig)
    check_batch_sizes(made, 4)
    assert rows_per_process(made, 4) == 2
    with pytest.raises(ValueError, match="by 3 data-parallel processes"):
        check_batch_sizes(made, 3)
    with pytest.raises(
        ValueError, match=r"gives each item three times, so .*=8 on 4 processes is too few. Set it to 12"
    ):
        check_batch_sizes(batch(8, 0, RLTrainingConfig, rl__evidence_triples=True), 4)


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_published_batch_does_not_depend_on_the_number_of_gpus(path):
    """Of 8 GPUs, groups of eight take the batch of one row."""
    made = load(path, SFTConfig)
    for processes in (1, 2, 4, 8):
        if made.data.global_batch_size % (processes * made.data.micro_batch_size) == 0:
            batches = accumulation_steps(made, processes) * processes
            assert batches * made.data.micro_batch_size == made.data.global_batch_size
    assert made.data.global_batch_size % 4 == 0


# -- before a run ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes, said",
    [
        ({"method": {"options": {"kk": 3}}}, "no option 'kk'"),
        ({"data": {"task": "wall_mase"}}, "no task 'wall_mase'"),
        ({"data": {"options": {"chunks": [1, 1]}}}, "has no option 'chunks'"),
        ({"data": {"levels": [99]}}, "the level is the size of the board"),
        ({"data": {"folder": "nowhere"}}, "There is no file or folder 'nowhere'"),
        ({"data": {"include_ids": "nowhere.json"}}, "data.include_ids"),
        ({"data": {"replay_texts": "nowhere.txt"}}, "Text file 'nowhere.txt' not found"),
        ({"data": {"replay_folder": "nothing"}}, "There is no file or folder 'nothing'"),
        ({"data": {"global_batch_size": 9, "micro_batch_size": 4}}, "do not add up to 9"),
        ({"trainable": ["lora"]}, "the model has no LoRA adapter"),
        ({"teacher": "nowhere"}, "has no teacher"),
        ({"method": {"name": "monet", "options": {"stage": 2}}, "teacher": "nowhere"}, "'nowhere' is not a checkpoint"),
    ],
)
def test_every_stage_is_checked_before_the_first_begins(changes, said, tmp_path, monkeypatch):
    stages = [{"seed": 1}, changes]
    small = {"data__items": 8, "accelerator": "cpu", "run_name": str(tmp_path / "run"), "stages": stages}
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        check_run(load(EMPTY, SFTConfig, **small), 1)
    assert "stage 2: " in str(error.value)
    monkeypatch.setattr(sft, "train", None)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"accelerator": "cpu", "stages": stages}))
    ended = command(monkeypatch, sft, "--config", str(tmp_path / "mine.yaml"), "--run_name", str(tmp_path / "run"))
    assert "stage 2: " in ended and not (tmp_path / "run").exists()


def test_stages_that_can_begin_are_not_refused(tmp_path):
    check_run(recipe(tmp_path / "run", init_from=str(tiny_checkpoint()), stages=[{"seed": 1}, {"seed": 2}]), 2)
