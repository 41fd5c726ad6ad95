"""What a run logs, where, and what it prints."""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image as PILImage
from rich.console import Console
from rich.progress import Progress
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tiny_runs import recipe, rewarded, tiny_reasoner

from latent_reason import tasks
from latent_reason.methods import objective_of
from latent_reason.objectives.latent_inputs import norm_and_cosine
from latent_reason.objectives.packing import collate_examples, pack_examples
from train import figures, progress, throughput
from train.config import RLCompareConfig, machine
from train.log_writers import CHARTS, CSVWriter, RunTitle, TensorBoardWriter, TrackioWriter, WandbWriter
from train.logs import RunLogger, make_logger
from train.rl.compare import check_loggers
from train.throughput import Counts, text_flops_per_token
from train.trainer import steps_between_validations

IMAGE = PILImage.new("RGB", (8, 6), "red")


def write_run(folder: Path, steps: range, after_step: int | None = None) -> None:
    """A part of a run whose value at each step is the step, logged by TensorBoard and CSV."""
    with RunLogger(folder, [TensorBoardWriter(folder), CSVWriter(folder)]) as logger:
        if after_step is not None:
            logger.continue_after(after_step)
        for step in steps:
            logger.log_metrics({"train/text": torch.tensor(float(step))}, step)
            logger.log_metrics({"train/grad_norm": 1.0} if step % 2 else {"val/text": 0.5}, step)
        logger.log_image("sketches", IMAGE, steps[-1])
        logger.log_text("rollouts", "**text**", steps[-1])


def test_a_resumed_run_continues_the_same_log_in_every_place(tmp_path):
    write_run(tmp_path, range(6))
    write_run(tmp_path, range(3, 8), after_step=2)
    with open(tmp_path / "logs" / "csv" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["train/text"]] == list(range(8))
    assert [float(row["train/text"]) for row in rows if row["train/text"]] == list(range(8))
    assert sum(bool(row["val/text"]) for row in rows) == 4
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [e.step for e in events.Scalars("train/text")] == list(range(8))
    assert (events.Images("sketches")[-1].width, events.Images("sketches")[-1].height) == (8, 6)


def test_tensorboard_begins_with_losses(tmp_path):
    write_run(tmp_path, range(1))
    assert CONFIG_SUMMARY_TAG in EventAccumulator(str(tmp_path / "logs")).Reload().Tags()["tensors"]
    first, *_ = sorted(CHARTS)
    shown = [tag for chart in CHARTS[first].values() for tag in chart]
    for tag in ("train/text", "train/latent", "val/text", "val/latent", "reward", "train/reconstruction"):
        assert any(re.match(pattern, tag) for pattern in shown), tag  # as TensorBoard matches
    assert not any(re.match(pattern, "val/latent_cosine") for pattern in shown)


def test_runs_of_a_comparison_and_stages_of_a_run_are_groups(tmp_path):
    root = tmp_path / "checkpoints"
    titles = [RunTitle.of(root / name, root) for name in ("mine", "mine/stage-1", "heads/mlp-0", "heads/flow-0")]
    assert [(t.name, t.group) for t in titles] == [
        ("mine", "mine"),
        ("mine/stage-1", "mine"),
        ("heads/mlp-0", "heads"),
        ("heads/flow-0", "heads"),
    ]
    assert RunTitle.of(tmp_path / "elsewhere" / "arm-1", root) == RunTitle("elsewhere/arm-1", "elsewhere")


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_services_get_title_recipe_metrics_and_images(name, tmp_path, monkeypatch):
    calls: list = []
    run = SimpleNamespace(
        log=lambda values, **options: calls.append(values | options),
        finish=lambda **options: calls.append("finish"),
        define_metric=lambda *args, **options: None,
    )
    library = ModuleType(name)
    library.init = lambda *args, **options: calls.append((args, options)) or run
    library.Image = library.Markdown = lambda value: value
    library.Table = lambda columns, data: data[0][1]
    monkeypatch.setitem(sys.modules, name, library)
    made = recipe(tmp_path / "cmp" / "arm-0", logger=[name])
    for resumes in (False, True):
        made.resume = str(tmp_path) if resumes else None
        with make_logger(made, tmp_path / "cmp" / "arm-0") as logger:
            logger.log_metrics({"train/text": torch.tensor(0.5)}, 3)
            logger.log_image("sketches", IMAGE, 3)
            logger.log_text("rollouts", "hello", 3)
    (args, options), *entries = calls[:5]
    step = {"step": 3} if name == "trackio" else {"train/global_step": 3}
    assert entries == [{"train/text": 0.5} | step, {"sketches": IMAGE} | step, {"rollouts": "hello"} | step, "finish"]
    named = dict(zip(("project", "name", "group"), args, strict=False)) | options
    assert (named["project"], named["name"], named["group"]) == ("latent_reason", "cmp/arm-0", "cmp")
    assert named["config"]["optim"]["max_steps"] == 3
    again = calls[5][1]
    if name == "wandb":
        assert again["id"] == options["id"] and again["resume"] == "allow"
    else:
        assert (options["resume"], again["resume"]) == ("never", "allow")


def test_a_service_that_refuses_is_one_sentence(tmp_path, monkeypatch):
    library = ModuleType("wandb")

    def init(**_):
        raise RuntimeError("no API key\nconfigured")

    library.init = init
    monkeypatch.setitem(sys.modules, "wandb", library)
    writer = WandbWriter(tmp_path, RunTitle("a", "a"), {}, False)
    with pytest.raises(ValueError, match=r"^logger: wandb could not start \(no API key configured\)\.$"):
        RunLogger(tmp_path, [writer]).log_metrics({"x": 1.0}, 0)


def test_trackio_itself_continues_a_run_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "database"))  # read when trackio is imported
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'trackio>=0.40'")
    from trackio.sqlite_storage import SQLiteStorage

    for resumes, steps in ((False, range(3)), (True, range(3, 5))):
        writer = TrackioWriter(tmp_path, RunTitle("cmp/arm-0", "cmp"), {"seed": 0}, resumes)
        with RunLogger(tmp_path, [writer]) as logger:
            for step in steps:
                logger.log_metrics({"train/text": float(step)}, step)
            logger.log_image("sketches", IMAGE, steps[-1])
    assert SQLiteStorage.get_runs("latent_reason") == ["cmp/arm-0"]
    found = [row for row in SQLiteStorage.get_logs("latent_reason", "cmp/arm-0") if "train/text" in row]
    assert [(row["step"], row["train/text"]) for row in found] == [(step, float(step)) for step in range(5)]


def test_wandb_itself_logs_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'wandb>=0.24'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for number in (0, 1):
        writer = WandbWriter(tmp_path, RunTitle("cmp/arm-0", "cmp"), {"seed": 0}, bool(number))
        with RunLogger(tmp_path, [writer]) as logger:
            logger.log_metrics({"train/text": 1.0}, number)
            logger.log_image("sketches", IMAGE, number)
    known = (tmp_path / "logs" / "wandb_id").read_text()
    assert len({p.name for p in (tmp_path / "logs" / "wandb").glob(f"offline-run-*-{known}")}) >= 1


# -- the key -----------------------------------------------------------------------------------------------------------
def test_a_missing_package_is_a_sentence_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    machine.check_loggers(["tensorboard", "csv"])
    with pytest.raises(ValueError, match=r"^logger: trackio is not installed\. Run pip install 'trackio>=0\.40', or "):
        machine.check_machine(recipe("unused", logger=["tensorboard", "trackio"]))


@pytest.mark.parametrize("wrong", [[], ["csv", "csv"], "tensorbord", ["csv", 3]])
def test_a_wrong_logger_is_refused(wrong):
    with pytest.raises(ValueError, match="logger"):
        recipe("unused", logger=wrong)


def test_one_name_is_a_list_of_one():
    assert recipe("unused", logger="csv").logger == ["csv"] and recipe("unused").logger == ["tensorboard"]


def test_curves_of_arms_need_tensorboard():
    made = rewarded("unused")
    arms = {"plain": {}, "quiet": {"logger": ["csv"]}}
    config = recipe("unused", config=RLCompareConfig, arms=arms, init_from=made.init_from)
    with pytest.raises(ValueError, match="arm 'quiet': the curves of a comparison are read from TensorBoard"):
        check_loggers(config)


def test_runs_are_validated_four_times_unless_they_are_short():
    assert [steps_between_validations(0, n) for n in (3, 50, 100, 1000, 2001)] == [3, 50, 50, 250, 501]
    assert steps_between_validations(7, 1000) == 7 and steps_between_validations(70, 20) == 20


# -- what is measured --------------------------------------------------------------------------------------------------
def test_tokens_examples_and_sketches_are_counted_packed_or_not():
    reasoner = tiny_reasoner()
    objective, task = objective_of(reasoner), tasks.make("frozenlake_plan", split="train", level=(3, 4), chunk=(1, 2))
    modes = ["mixed", "text", "mixed", "direct", "text"]
    rows = [objective.encode(reasoner, task.trace(task[i], mode)) for i, mode in enumerate(modes)]
    for batch in (rows, pack_examples(rows, 2 * max(len(row.ids) for row in rows))):
        counts = Counts()
        counts.add_batch(collate_examples(reasoner.processor, batch))
        assert vars(counts) == {"tokens": sum(len(row.ids) for row in rows), "examples": 5, "with_sketches": 2}


def test_operations_of_a_token_are_six_for_a_trained_weight_and_two_for_one_that_only_reads():
    reasoner = tiny_reasoner()
    backbone = reasoner.backbone
    inner = (
        sum(p.numel() for p in backbone.text_model.parameters() if p.ndim == 2) - backbone.vocab_size * backbone.width
    )
    head = backbone.vocab_size * backbone.width
    backbone.requires_grad_(True)
    assert text_flops_per_token(reasoner) == 6 * inner + 4 * head
    backbone.requires_grad_(False)
    assert text_flops_per_token(reasoner) == 2 * (inner + head)


def test_utilization_is_of_devices_that_are_known():
    assert throughput.utilization(98.9e12, "NVIDIA H200") == {"train/mfu": pytest.approx(0.1)}
    assert throughput.utilization(1e12, "NVIDIA T4") == {}


def test_rates_are_means_since_the_last_entry_without_validations(monkeypatch):
    """Steps of two batches: 2 s each, of which the data take half a second; a validation takes 100 s."""
    clock, logged, groups = (
        SimpleNamespace(now=0.0),
        [],
        [{"name": "matrices", "lr": 0.1}, {"name": "others", "lr": 0.2}],
    )
    monkeypatch.setattr(throughput.time, "monotonic", lambda: clock.now)
    batches = SimpleNamespace(wait_seconds=0.0)
    trainer = SimpleNamespace(
        train_dataloader=batches,
        accumulate_grad_batches=2,
        log_every_n_steps=3,
        optimizers=[SimpleNamespace(param_groups=groups)],
    )
    module = SimpleNamespace(
        counts=Counts(),
        device=torch.device("cpu"),
        num_processes=1,
        automatic_optimization=True,
        sum_over_processes=lambda values: values,
        log_dict=logged.append,
    )
    measured = throughput.Throughput()
    measured.on_train_start(trainer, module)
    for index in range(12):
        measured.on_train_batch_start(trainer, module, None, index)
        clock.now, batches.wait_seconds = clock.now + 1, batches.wait_seconds + 0.25
        module.counts.tokens, module.counts.examples = module.counts.tokens + 600, module.counts.examples + 6
        module.counts.with_sketches += 3
        measured.on_train_batch_end(trainer, module, None, None, index)
        if index == 7:
            measured.on_validation_start(trainer, module)
            clock.now += 100
            measured.on_validation_end(trainer, module)
    assert len(logged) == 2, "every three steps of two batches"
    for number, entry in enumerate(logged, 1):
        assert entry.pop("train/peak_memory_gb") > 0.01
        assert entry == {
            "step_time": 2.0,
            "num_tokens": 3600.0 * number,
            "train/tokens_per_second": 600.0,
            "train/samples_per_second": 6.0,
            "train/share_with_sketches": 0.5,
            "train/data_wait_share": 0.25,
            "train/learning_rate": 0.1,
            "train/learning_rate/matrices": 0.1,
            "train/learning_rate/others": 0.2,
        }
    again = throughput.Throughput()
    again.load_state_dict(measured.state_dict())
    assert again.num_tokens == 7200


def test_norm_and_cosine_of_latents():
    z = torch.tensor([[3.0, 4.0], [3.0, 4.0], [-4.0, 3.0]])
    found = norm_and_cosine(z)
    assert float(found["latents/norm"]) == pytest.approx(5.0)
    assert float(found["latents/pairwise_cos"]) == pytest.approx(1 / 3)  # 1, 0 and 0
    assert norm_and_cosine(z[:0]) == {}


# -- what is printed ---------------------------------------------------------------------------------------------------
def test_fields_and_sentences_are_not_broken_at_80_columns():
    fields = ["step 120/2,000", *(f"a_rather_long_name_{i} {i}.123" for i in range(6)), "3 h 20 min left"]
    lines = figures.join_fields(fields).split("\n")
    assert len(lines) > 1 and all(len(line) <= 80 for line in lines)
    assert [field for line in lines for field in line.strip().split("  ")] == fields
    command = f"  python -m eval.run {'x' * 90}"
    shown = progress.wrap(f"{'word ' * 30}{'y' * 90} end-of-it\n{command}", 80).split("\n")
    assert shown[-1] == command and "y" * 90 in shown and max(len(line) for line in shown[:2]) <= 80


def test_times_left_are_read_at_a_glance():
    assert [figures.show_duration(s) for s in (0, 119, 121, 7000, 12_345)] == [
        "0 s",
        "119 s",
        "2 min",
        "117 min",
        "3 h 26 min",
    ]


def test_held_out_figures_have_units_and_changes():
    console = Console(file=io.StringIO(), width=80)
    now, before = {"text": 1.25, "success": 0.5, "latent_rank": 3.0, "true_rank": 4.0}, {"text": 1.5, "success": 0.5}
    console.print(figures.held_out_table("held-out items at step 5 of 9", now, before))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["text", "1.250", "-0.250", "nats", "a", "token"] in lines
    assert ["success", "0.500", "+0.000", "share", "of", "items"] in lines
    assert ["latent_rank", "3.000", "dimensions"] in lines and not any("true_rank" in line for line in lines)
    assert max(map(len, console.file.getvalue().splitlines())) <= 80


def test_a_line_every_ten_seconds_and_at_both_ends(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    trainer = SimpleNamespace(global_step=0, max_steps=100, progress_bar_metrics={"train/text": 2.0})
    shown = progress.StepProgress()
    shown.on_train_start(trainer, None)
    for trainer.global_step in range(1, 101):
        clock.now += 0.7
        shown.on_train_batch_end(trainer, None, None, None, 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1/100  text 2.000  69 s left" and lines[-1] == "step 100/100  text 2.000  0 s left"
    steps = [int(re.match(r"step (\d+)", line)[1]) for line in lines]
    assert steps == [1, 16, 31, 46, 61, 76, 91, 100]


def test_the_console_prints_while_rich_draws(monkeypatch):
    """rich puts itself in the place of sys.stdout then; the console must not print into what prints into it."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    console = progress.RunConsole(file=progress.StandardOutput(), force_terminal=True, width=80)
    with Progress(console=console) as bar:
        bar.add_task("items", total=2)
        console.print("a sentence")
        print("another")
    assert "a sentence" in out.getvalue() and "another" in out.getvalue()
