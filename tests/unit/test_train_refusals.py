"""What training refuses: every wrong recipe, checkpoint or record is one sentence, and no folder is left."""

from __future__ import annotations

import pytest
from tiny_runs import command, recipe, short

from latent_reason import checkpoint
from latent_reason.data import native
from latent_reason.tasks import make
from train import sft
from train.config import dump


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    short(monkeypatch, budget=12)


def test_make_run_folder_that_exists_is_refused_and_untouched(monkeypatch, tmp_path, small):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("dear")
    said = command(monkeypatch, sft, *small)
    assert said.startswith("error: run folder") and "exists" in said and "nothing was touched" in said
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


REFUSED = {
    "unknown method": (["--method.name", "modal_mixd"], "unknown method 'modal_mixd'", "Did you mean 'modal_mixed'?"),
    "unknown option": (["--method.options.kk", "3"], "has no option 'kk'", "Did you mean 'k'?"),
    "unknown head": (["--method.options.head", "flw"], "known heads are", "flow"),
    "unknown head option": (["--method.options.head_options.hiden", "3"], "no option 'hiden'", "'hidden'"),
    "unknown task": (["--data.task", "frozenlake_pln"], "no task 'frozenlake_pln'", "'frozenlake_plan'"),
    "unknown task option": (["--data.options.chnk", "[1,1]"], "no option 'chnk'", "Did you mean 'chunk'?"),
    "level": (["--data.levels", "[2]"], "the level is the size of the board, 3 to 10", "2"),
    "unknown part": (["--trainable", "[txt_model]"], "trainable: expected a list of text_model", "got txt_model"),
    "nothing trains": (["--trainable", "[]"], "no parameter trains", "text_model"),
    "checkpoint": (["--init_from", "checkpoints/none"], "'checkpoints/none' is not a checkpoint", "no such folder"),
    "backbone": (["--backbone.name", "./none"], "backbone './none'", "no such folder"),
    "backbone option": (
        ["--backbone.options.foo", "1"],
        "backbone.options has no option 'foo'",
        "Available: cells, corpus",
    ),
    "dtype": (
        ["--backbone.options.dtype", "bfloat17"],
        "dtype='bfloat17'",
        "Use float32, bfloat16 or float16",
    ),
    "options that are no keys": (
        ["--backbone.options", "[1]"],
        "backbone.options: expected {NAME: VALUE, ...}; got [1]",
    ),
    "teacher": (["--teacher", "checkpoints/none"], "method 'modal_mixed' has no teacher"),
    "devices": (["--devices", "many"], "devices: expected INTEGER|auto; got many"),
    "accelerator": (["--accelerator", "toaster"], "accelerator: expected one of auto, cpu", "got toaster"),
    "data folder": (["--data.folder", "none"], "There is no file or folder 'none'"),
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_wrong_value_is_one_sentence_and_leaves_no_folder(words, monkeypatch, tmp_path, small):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    more, *parts = words
    said = command(monkeypatch, sft, *small, *more)
    assert said and said.startswith("error: ") and all(part in said for part in parts), said
    assert "\n" not in said and not (tmp_path / "run").exists()


def records(folder, change=lambda line: line):
    """Native records of a few boards, with one line changed."""
    task = make("frozenlake_plan", level=3, chunk=(1, 1))
    file = native.write((task.trace(task[i]) for i in range(10)), folder)
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([change(first), *rest]) + "\n")
    return folder


BROKEN = {
    "picture is missing": (lambda s: s.replace("img/", "img/none-", 1), "traces.jsonl:1:"),
    "path leaves the folder": (lambda s: s.replace('"img/', '"../img/', 1), "traces.jsonl:1:"),
    "not JSON": (lambda s: s[:40], "JSON"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_records_are_one_sentence(broken, monkeypatch, tmp_path, small):
    change, part = broken
    said = command(monkeypatch, sft, *small, "--data.folder", str(records(tmp_path / "data", change)))
    assert said.startswith("error: ") and part in said and "\n" not in said, said
    assert not (tmp_path / "run").exists()


def test_records_of_a_folder_are_trained_on(monkeypatch, tmp_path, small):
    assert command(monkeypatch, sft, *small, "--data.folder", str(records(tmp_path / "data"))) is None
    assert (tmp_path / "run" / "model" / checkpoint.CONFIG_FILE).is_file()


def test_unreadable_picture_is_one_sentence(monkeypatch, tmp_path, small):
    data = records(tmp_path / "data")
    for picture in (data / "img").iterdir():
        picture.write_bytes(b"no picture")
    said = command(monkeypatch, sft, *small, "--data.folder", str(data))
    assert said.startswith("error: ") and "traces.jsonl:1:" in said and "\n" not in said, said


def test_sketches_for_a_method_that_draws_none_are_refused(monkeypatch, tmp_path, small):
    (tmp_path / "small.yaml").write_text(dump(recipe(tmp_path / "run", method="text_cot")))
    said = command(monkeypatch, sft, *small, "--data.folder", str(records(tmp_path / "data")))
    assert "contains a sketch, but method 'text_cot' has no latent head" in said


def test_records_without_a_training_split_are_refused(monkeypatch, tmp_path, small):
    data = records(tmp_path / "data")
    (data / "traces.jsonl").write_text((data / "traces.jsonl").read_text().replace('"split":"train"', '"split":"test"'))
    assert "has no record with split train" in command(monkeypatch, sft, *small, "--data.folder", str(data))


def test_fast_dev_run_leaves_nothing(monkeypatch, tmp_path, small, capsys):
    assert command(monkeypatch, sft, *small, "--fast_dev_run") is None
    assert "Nothing was kept" in capsys.readouterr().out and not (tmp_path / "run").exists()
