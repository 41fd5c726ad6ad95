"""Training on what a base model gets wrong: the items of a task, or the records of a folder."""

from __future__ import annotations

import json

import pytest
from tiny_runs import recipe, short, tiny_checkpoint, untrained, write_uneven_records

from eval import item_filter
from latent_reason.data import native
from latent_reason.decoding.items import Result
from latent_reason.tasks import make
from train import sft
from train.config import RLTrainingConfig
from train.traces import kept, traces
from train.trainer import make_run_folder

RIGHT = (2, 6)


@pytest.fixture
def answered(monkeypatch):
    """A model that answers the items of these numbers right; the modes in which it was asked."""
    asked = []

    def decode(reasoner, decoder, task, items, mode, *, max_new_tokens, progress):
        asked.append((reasoner.method.name, mode, max_new_tokens))
        texts = [f"\\boxed{{{item.answer if item.index in RIGHT else 'X'}}}" for item in items]
        return [Result(i, text, task.score(text, i.meta), None, 0) for i, text in zip(items, texts, strict=True)]

    monkeypatch.setattr("eval.item_filter.decode", decode)
    return asked


def select(*words):
    item_filter.main([str(tiny_checkpoint("direct")), "--keep", "failed", *words])


def test_items_of_a_task_that_the_base_fails_are_trained_on(answered, tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=10)
    file = tmp_path / "failed.json"
    select("--out", str(file), "--n", "8", "--levels", "3", "--options", '{"chunk": [1, 1]}')
    assert answered == [("direct", "direct", 640)]
    found = json.loads(file.read_text())
    assert found["keep"] == [0, 1, 3, 4, 5, 7] and found["kept"] == "failed"
    assert found["solved"] == {"answered right": 2, "answered wrong": 6}
    assert "8 items: 2 answered right, 6 answered wrong" in " ".join(capsys.readouterr().out.split())

    small = {"data__options": {"chunk": [1, 1]}, "data__include_ids": str(file)}
    made = recipe(tmp_path / "run", optim__max_steps=2, method__feedback="norm_matched", **small)
    task = make("frozenlake_plan", level=(3,), chunk=(1, 1))
    assert [t.id for t in traces(made.data, "mixed", "train", 24)] == [task[i].id for i in found["keep"]]
    reasoner, _ = sft.train(made, make_run_folder(made))
    assert reasoner.feedback == "norm_matched"
    rl = recipe(tmp_path / "rl", config=RLTrainingConfig, init_from=str(tmp_path / "run"), **small)
    assert kept(rl.data, 24) == found["keep"]


def test_records_of_a_folder_that_the_base_fails_are_trained_on(answered, tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=10)
    folder, out = write_uneven_records(tmp_path / "data", val=2), tmp_path / "failed"
    records = list(native.read(folder))
    select("--out", str(out), "--folder", str(folder), "--max-new", "30")
    assert answered == [("direct", "direct", 30)]
    said = " ".join(capsys.readouterr().out.split())
    assert "Of 8 training records, 6 are answered wrong (0 more have no answer)" in said and "with 2 of other" in said
    wanted = [r.id for number, r in enumerate(r for r in records if r.split == "train") if number not in RIGHT]
    found = list(native.read(out))
    assert [r.id for r in found if r.split == "train"] == wanted
    assert [r.id for r in found if r.split == "val"] == [r.id for r in records if r.split == "val"]
    made = recipe(tmp_path / "run", data__folder=str(out), data__val_items=2, optim__max_steps=2)
    sft.train(made, make_run_folder(made))


def test_a_model_answers_by_itself(monkeypatch, tmp_path):
    """Without a stand-in: an untrained model fails, and with sketches of its own if it sketches."""
    short(monkeypatch, budget=6)
    reasoner, _ = untrained()
    task = make("frozenlake_plan", level=3)
    assert item_filter.find_failed(reasoner, task, [task[0], task[1]], "mixed", 12) == [0, 1]
    select("--out", str(tmp_path / "a.json"), "--n", "2")
    assert json.loads((tmp_path / "a.json").read_text())["options"] == {"chunk": [1, 1]}, "those of the checkpoint"


@pytest.mark.parametrize(
    "words, said",
    [
        (["--folder", "x", "--keep", "needed"], "Add --keep failed"),
        (["--folder", "x", "--keep", "failed", "--levels", "3"], "no option of a task"),
        (["--keep", "failed", "--options", "[1]"], "write options as JSON"),
        (["--keep", "failed", "--options", '{"chunks": 1}'], "has no option 'chunks'"),
        (["--keep", "needed"], "or --keep failed"),
    ],
)
def test_what_does_not_go_together_is_said(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        item_filter.main([str(tiny_checkpoint("direct")), "--out", str(tmp_path / "o"), *words])
    assert said in str(error.value) + " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o").exists()


def test_a_folder_of_which_nothing_is_left_or_nothing_can_be_graded_is_said(monkeypatch, tmp_path):
    folder = write_uneven_records(tmp_path / "data")
    monkeypatch.setattr("eval.item_filter.find_failed", lambda *_: [])
    with pytest.raises(SystemExit, match="all 8 training records are answered right"):
        select("--out", str(tmp_path / "o"), "--folder", str(folder))
    native.write([r for r in write_val(tmp_path) if r.split == "val"], tmp_path / "val")
    with pytest.raises(SystemExit, match="no training record with an answer"):
        select("--out", str(tmp_path / "o"), "--folder", str(tmp_path / "val"))


def write_val(tmp_path):
    return list(native.read(write_uneven_records(tmp_path / "more", val=2)))
