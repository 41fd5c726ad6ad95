"""Runs on own records: a few held-out ones are decoded, graded and shown while the model trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_runs import events, recipe, short, tiny_checkpoint

from latent_reason import checkpoint
from latent_reason.data import native
from latent_reason.tasks import make
from train import sft
from train import trainer as running
from train.held_out import HeldOutRecords


@pytest.fixture
def folder(tmp_path):
    """Eight training records and four val records, of which one has no answer and one a wrong one."""
    task = make("frozenlake_plan", split="train", level=3, chunk=(1, 1))
    traces = [task.trace(task[i], "mixed") for i in range(12)]
    val = [replace(trace, split="val") for trace in traces[8:]]
    val[1] = replace(val[1], answer=None)
    val[2] = replace(val[2], checker="number")  # its checker rejects its own answer
    native.write([*traces[:8], *val], tmp_path / "records")
    return tmp_path / "records"


def test_only_records_that_can_be_graded_are_decoded(folder):
    records = HeldOutRecords(folder, 8)
    assert [trace.id[-7:] for trace in records.traces] == ["0000008", "0000011"]
    assert len(HeldOutRecords(folder, 1)) == 1 and records[0].answer == records.traces[0].answer
    reasoner, _ = checkpoint.load(tiny_checkpoint())
    lengths = [len(reasoner.processor.encode(t).ids) for t in records.traces]
    prompts = [len(reasoner.processor.encode(t, generate=True).ids) for t in records.traces]
    assert records.longest_answer(reasoner) == max(a - b for a, b in zip(lengths, prompts, strict=True)) > 5


def test_a_run_on_records_shows_their_sketches_and_grades_their_answers(folder, tmp_path, monkeypatch):
    short(monkeypatch, budget=12)
    made = recipe(tmp_path / "run", init_from=str(tiny_checkpoint()), data__folder=str(folder))
    sft.train(made, running.make_run_folder(made))
    logged = events(tmp_path / "run")
    assert "val/accuracy" in logged.Tags()["scalars"] and "sketches" in logged.Tags()["images"]
    notes = checkpoint.read_config(tmp_path / "run")["notes"]["data"]
    assert (notes["task"], notes["levels"], notes["folder"]) == (None, None, str(folder)), "of a task it used nothing"
    without = recipe(tmp_path / "none", init_from=str(tiny_checkpoint()), data__folder=str(folder), data__val_items=0)
    sft.train(without, running.make_run_folder(without))
    assert "val/accuracy" not in events(tmp_path / "none").Tags()["scalars"]
