"""Training in stages: each from the model of the one before, with what it changes, and nothing lost between them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import EMPTY, command, recipe, short

from latent_reason import checkpoint, methods
from train import sft
from train.config import SFTConfig, dump, load, stages_of
from train.traces import traces


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    short(monkeypatch, budget=12)


def test_stages_change_the_recipe_one_by_one():
    base = load(
        EMPTY,
        SFTConfig,
        method__name="coconut",
        optim__max_steps=9,
        stages=[
            {"method": {"options": {"stage": 0}}},
            {"method": {"options": {"stage": 1}}, "optim": {"max_steps": 4}},
            {"trainable": ["text_model"]},
        ],
    )
    first, second, third = stages_of(base)
    assert [s.method.options for s in (first, second, third)] == [{"stage": 0}, {"stage": 1}, {}]
    assert [s.optim.max_steps for s in (first, second, third)] == [9, 4, 9] and third.trainable == ["text_model"]
    assert all(s.stages == [] for s in (first, second, third)) and stages_of(first) == [first]


@pytest.mark.parametrize(
    "stage, said",
    [
        ({"optim": {"max_stps": 3}}, "Did you mean 'optim.max_steps'"),
        ({"run_name": "x"}, "none of arms, dry_run, init_from, run_name, stages"),
        ({"optim": {"max_steps": 0}}, "optim.max_steps=0"),
    ],
)
def test_a_wrong_stage_is_named_before_anything_runs(stage, said):
    with pytest.raises(ValueError, match="stage 2") as error:
        load(EMPTY, SFTConfig, stages=[{}, stage])
    assert said in str(error.value)


def test_mirage_goes_from_the_picture_to_its_own_states(tmp_path, monkeypatch, capsys):
    made = recipe(
        tmp_path / "run",
        optim__max_steps=2,
        method__name="mirage",
        method__options={"k": 4},
        stages=[
            {"method": {"options": {"stage": 1}}},
            {"method": {"options": {"stage": 2}}, "trainable": ["text_model"]},
        ],
    )
    (tmp_path / "two.yaml").write_text(dump(made))
    assert command(monkeypatch, sft, "--config", str(tmp_path / "two.yaml")) is None
    first, last = tmp_path / "run" / "stage-1", tmp_path / "run"
    one, two = checkpoint.load(first)[0], checkpoint.load(last)[0]
    assert (one.method.options["stage"], two.method.options["stage"]) == (1, 2)
    assert torch.equal(one.target.standardizer.mean, two.target.standardizer.mean) and two.target.standardizer.fitted
    was, now = (load_file(f / "model" / "backbone" / "model.safetensors") for f in (first, last))
    moved = {n for n in was if not torch.equal(was[n], now[n])}
    assert moved and not [n for n in moved if "embed_tokens" in n or "visual" in n], "what the stage trains, no more"
    said = capsys.readouterr().out
    assert "stage 1 of 2" in said and "stage 2 of 2" in said


def test_what_a_stage_cannot_take_over_is_said(tmp_path, monkeypatch, capsys):
    made = recipe(
        tmp_path / "run",
        optim__max_steps=1,
        stages=[{"method": {"options": {"head": "mlp"}}}, {"method": {"options": {"head_options": {"hidden": 16}}}}],
    )
    sft.train(made, _made(tmp_path / "run"))
    assert "Starts from random weights, because kind or size differ: head" in " ".join(capsys.readouterr().out.split())


def _made(folder):
    folder.mkdir()
    return folder


def test_modes_are_taken_in_turn():
    data = load(EMPTY, SFTConfig, data__modes=["text", "vision", "mixed"], data__levels=[5], data__items=9).data
    found = list(traces(data, "mixed", "train", 9))
    assert [t.mode for t in found] == ["text", "vision", "mixed"] * 3
    assert methods.load("swimbird").MODE == "mixed"
