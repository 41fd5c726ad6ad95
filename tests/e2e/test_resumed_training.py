"""A run that is stopped and resumed ends with the same bits as one that is not."""

from __future__ import annotations

import shutil

import pytest
import torch
from resumed_runs import state_of, stopped_copy, weights_of
from safetensors.torch import load_file, save_file
from tiny_runs import long, recipe, rewarded, short, tiny_checkpoint

from latent_reason import checkpoint, tasks
from latent_reason.data import native, packed
from train import decoder, export_state, pretrain, sft
from train.config import DecoderConfig, PretrainConfig, SFTConfig, dump, parse
from train.rl import rewards
from train.rl import trainer as rl
from train.trainer import locked, make_run_folder

FLOW = {"k": 4, "head": "flow", "head_options": {"hidden": 32, "depth": 1}}


def run(train, config):
    return train(config, make_run_folder(config))


def check_resumed(train, made, tmp_path, step: int = 2) -> None:
    """Train a config, then once more from the state that it saved after ``step``: the last state and the model have
    to be equal."""
    run(train, made)
    copy = stopped_copy(tmp_path / "run", tmp_path / "copy", step)
    run(train, parse(type(made), ["--resume", str(copy)]))
    assert weights_of(copy) == weights_of(tmp_path / "run")
    newest = max(int(state.name.removeprefix("step-")) for state in (tmp_path / "run" / "state").iterdir())
    assert newest > step
    (found, values), (wanted, wanted_values) = (state_of(where, newest) for where in (copy, tmp_path / "run"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], value) for name, value in wanted.items())
    differ = {key for key in wanted_values if values.get(key) != wanted_values[key]}
    assert not differ, {key: (values.get(key), wanted_values[key]) for key in differ - {"random"}}


def small(tmp_path, method="modal_mixed", config=SFTConfig, **changes):
    shared = {"optim__max_steps": 4, "save_steps": 1, "save_total_limit": 0, "eval_steps": 3, "data__val_items": 2}
    return recipe(tmp_path / "run", method, config, **shared | changes)


SUPERVISED = {
    "accumulation": {"method__options": FLOW, "data__micro_batch_size": 4},
    "packed rows, averages of bf16 weights": {
        "data__packing_length": 300,
        "precision": "bf16-true",
        "optim__name": "adamw",
        "optim__ema_decay": 0.9,
    },
    "lora with dropout": {
        "init_from": str(tiny_checkpoint()),
        "lora__rank": 4,
        "lora__dropout": 0.2,
        "trainable": ["lora", "head"],
        "optim__ema_decay": 0.9,
    },
    "scheduled sampling, end of an epoch": {
        "method__options": FLOW | {"scheduled_sampling": {"prob": 0.5}},
        "data__items": 8,
        "data__global_batch_size": 4,
    },
}


@pytest.mark.parametrize("changes", SUPERVISED.values(), ids=list(SUPERVISED))
def test_supervised_training_continues_bit_by_bit(tmp_path, monkeypatch, changes):
    short(monkeypatch, 8)
    check_resumed(sft.train, small(tmp_path, **changes), tmp_path)


METHODS = {
    "a teacher that follows": {"method__name": "ilvr", "method__options": {"k": 4, "decay": 0.3}},
    "a teacher that is a copy of the start": {"method__name": "monet", "method__options": {"k": 4, "stage": 2}},
    "the number of what is fed": {
        "method__name": "coconut",
        "method__options": {"stage": 1},
        "method__feedback": "norm_matched",
        "trainable": ["text_model", "embeddings"],
    },
    "pixels and boxes": {"method__name": "covt", "method__options": {}},
}


@pytest.mark.parametrize("changes", METHODS.values(), ids=list(METHODS))
def test_what_a_method_keeps_beside_the_model_continues(tmp_path, monkeypatch, changes):
    short(monkeypatch, 8)
    check_resumed(sft.train, small(tmp_path, data__val_items=0, **changes), tmp_path)
    if changes["method__name"] == "ilvr":
        early, late = (state_of(tmp_path / "run", step)[0] for step in (1, 3))
        names = [name for name in early if name.startswith("teacher/")]
        assert names and not all(torch.equal(early[name], late[name]) for name in names), "it follows, and is kept"


def test_validation_does_not_move_the_random_numbers_of_training(tmp_path, monkeypatch):
    """The whole run validates after step 3, the resumed one, which was stopped after the save of step 3, does not."""
    short(monkeypatch, 8)
    made = small(tmp_path, optim__max_steps=5, method__options=FLOW, optim__ema_decay=0.9)
    run(sft.train, made)
    copy = stopped_copy(tmp_path / "run", tmp_path / "copy", 3)
    run(sft.train, parse(SFTConfig, ["--resume", str(copy)]))
    assert weights_of(copy) == weights_of(tmp_path / "run")


def test_stages_continue_where_they_were(tmp_path, monkeypatch):
    """The first stage has ended, and the second was stopped; then the first was stopped."""
    short(monkeypatch, 8)
    stages = [{"trainable": ["head"]}, {"method": {"options": FLOW}}]
    check_resumed(sft.train, small(tmp_path, stages=stages, data__val_items=0, optim__ema_decay=0.9), tmp_path)
    copy = tmp_path / "earlier"
    shutil.copytree(tmp_path / "run", copy)
    for gone in ("model", "state", "stage-1/model"):
        shutil.rmtree(copy / gone)
    for state in ("stage-1/state/step-00000002", "stage-1/state/step-00000003"):
        shutil.rmtree(copy / state)
    run(sft.train, parse(SFTConfig, ["--resume", str(copy)]))
    assert weights_of(copy) == weights_of(tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_continues_in_the_middle(tmp_path, workers):
    """Three shards of uneven size, of which 20 items are read: the first epoch ends on the way."""
    task = tasks.make("frozenlake_plan", split="train", level=3)
    packed.write([task.trace(task[i], "mixed") for i in range(12)], tmp_path / "packed", "tar", shard_items=5)
    changes = {"data__folder": str(tmp_path / "packed"), "data__streaming": True, "data__num_workers": workers}
    made = small(tmp_path, data__global_batch_size=3, data__val_items=0, optim__max_steps=7, **changes)
    check_resumed(sft.train, made, tmp_path, step=3)


REWARDED = {
    "shuffled items, several steps on a batch": {
        "rl__latent_policy": "gaussian",
        "rl__latent_policy_options": {"fraction": 0.3},
        "rl__num_iterations": 2,
        "optim__max_steps": 6,
        "rl__beta": 0.1,
        "rl__sft_coef": 0.5,
        "optim__ema_decay": 0.9,
    },
    "items by pass rate": {
        "rl__sampler": "pass_rate",
        "rl__difficulty_weighting": True,
        "data__levels": [3, 4],
        "rl__dynamic_sampling": 1,
    },
}


@pytest.mark.parametrize("changes", REWARDED.values(), ids=list(REWARDED))
def test_reinforcement_learning_continues_bit_by_bit(tmp_path, monkeypatch, changes):
    short(monkeypatch, 8)
    monkeypatch.setitem(rewards.REWARDS, "long", long)
    kept = {"save_steps": 1, "save_total_limit": 0, "eval_steps": 0, "optim__max_steps": 4, "data__val_items": 2}
    made = rewarded(tmp_path / "run", rl__rewards={"long": 1.0}, **kept | changes)
    check_resumed(rl.train, made, tmp_path)


def test_pretraining_and_decoders_continue(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"row {i} column {i}" for i in range(9)))
    made = small(tmp_path / "first", config=PretrainConfig, data__replay_texts=str(texts), data__packing_length=200)
    check_resumed(pretrain.train, made, tmp_path / "first")
    made = small(tmp_path / "second", config=DecoderConfig, init_from=str(tiny_checkpoint()), optim__ema_decay=0.9)
    check_resumed(decoder.train, made, tmp_path / "second")
    for name, kind in (("first", "module"), ("second", "average")):
        export_state.main([str(tmp_path / name / "run"), "--step", "3", "--out", str(tmp_path / name / "out")])
        own = checkpoint.load(tmp_path / name / "out")[1].state_dict()
        tensors, _ = state_of(tmp_path / name / "run", 3)
        assert own and all(torch.equal(tensors[f"{kind}/decoder.{key}"], value) for key, value in own.items())


def test_a_state_becomes_a_checkpoint(tmp_path, capsys):
    """Of the last state but one: what the model was then."""
    run(sft.train, small(tmp_path, data__val_items=0, method__feedback="norm_matched"))
    export_state.main([str(tmp_path / "run"), "--step", "3", "--out", str(tmp_path / "out")])
    reasoner, _ = checkpoint.load(tmp_path / "out")
    tensors, _ = state_of(tmp_path / "run", 3)
    own = reasoner.state_dict()
    assert "feedback_gain" in own
    found = [name.removeprefix("module/reasoner.") for name in tensors if name.startswith("module/reasoner.")]
    assert found and all(torch.equal(own[name], tensors[f"module/reasoner.{name}"]) for name in found)
    with pytest.raises(SystemExit, match=r"no such training state. Steps with a state: 1, 2, 3"):
        export_state.main([str(tmp_path / "run"), "--step", "9", "--out", str(tmp_path / "other")])


def test_an_older_run_continues_as_it_began(tmp_path):
    """Its recipe lacks the option, and so does that of an older run of swimbird, whose state becomes a checkpoint."""
    older = {"mirage": {"standardize": True}, "swimbird": {"system_prompt": False}}
    for name, options in older.items():
        made = small(tmp_path / name, data__val_items=0, method__name=name, method__options={"k": 4, **options})
        run(sft.train, made)
        for folder in (tmp_path / name / "run", stopped_copy(tmp_path / name / "run", tmp_path / name / "copy", 2)):
            made.method.options = {"k": 4}
            (folder / "recipe.yaml").write_text(dump(made))
        out = tmp_path / name / "out"
        export_state.main([str(tmp_path / name / "run"), "--step", "3", "--out", str(out)])
        trained = checkpoint.read_config(tmp_path / name / "run" / "model")["options"]
        assert checkpoint.read_config(out)["options"] == trained and trained.items() >= options.items()
        run(sft.train, parse(SFTConfig, ["--resume", str(tmp_path / name / "copy")]))
        assert weights_of(tmp_path / name / "copy") == weights_of(tmp_path / name / "run")
        assert checkpoint.read_config(tmp_path / name / "copy" / "model")["options"] == trained


def test_a_damaged_state_is_named_and_the_one_before_it_is_used(tmp_path, capsys):
    run(sft.train, small(tmp_path, data__val_items=0))
    copy = stopped_copy(tmp_path / "run", tmp_path / "copy", 3)
    file = next((copy / "state" / "step-00000003").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (copy / "state" / ".step-00000009.unfinished").mkdir()
    run(sft.train, parse(SFTConfig, ["--resume", str(copy)]))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"State '{file.parent}' is damaged: the checksum of {file.name} differs. The state before it is used." in said
    )
    assert "continues after step 2" in said and weights_of(copy) == weights_of(tmp_path / "run")
    assert not (copy / "state" / ".step-00000009.unfinished").exists(), "swept"


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    """Other keys, another start, no such run, another run in the folder."""
    start = tmp_path / "start"
    shutil.copytree(tiny_checkpoint(), start)
    run(sft.train, small(tmp_path, data__val_items=0, init_from=str(start), trainable=["head"]))
    copy = stopped_copy(tmp_path / "run", tmp_path / "copy", 2)
    with pytest.raises(ValueError, match=r"--resume: optim.lr is 0.5, but the run in .* has"):
        parse(SFTConfig, ["--resume", str(copy), "--optim.lr", "0.5"])
    with pytest.raises(FileNotFoundError, match=r"--resume: .*none' is no folder of a run"):
        parse(SFTConfig, ["--resume", "none"])
    made = parse(SFTConfig, ["--resume", str(copy), "--logging_steps", "3", "--eval_steps", "7"])
    assert made.logging_steps == 3 and made.run_name == str(copy)
    file = start / "backbone" / "model.safetensors"
    tensors = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="frozen weights differ from those of the stopped run"):
        run(sft.train, made)
    with locked(copy), pytest.raises(FileExistsError, match="another process trains into"), locked(copy):
        pass


def test_other_data_are_refused(tmp_path):
    task = tasks.make("frozenlake_plan", split="train", level=3)
    native.write((task.trace(task[i], "mixed") for i in range(12)), tmp_path / "data")
    made = small(tmp_path, data__folder=str(tmp_path / "data"), data__val_items=0)
    run(sft.train, made)
    copy = stopped_copy(tmp_path / "run", tmp_path / "copy", 2)
    shutil.rmtree(tmp_path / "data")
    native.write((task.trace(task[i], "mixed") for i in range(1, 13)), tmp_path / "data")
    with pytest.raises(ValueError, match="the training data differ from those of the stopped run"):
        run(sft.train, parse(SFTConfig, ["--resume", str(copy)]))


def test_auto_begins_what_is_not_there_and_continues_what_is(tmp_path):
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(dump(small(tmp_path, data__val_items=0)))
    words = ["--config", str(recipe_file), "--resume", "auto"]
    made = parse(SFTConfig, words)
    assert made.resume is None
    run(sft.train, made)
    again = parse(SFTConfig, words)
    assert again.resume == str(tmp_path / "run")
    with pytest.raises(ValueError, match=r"seed is 5"):
        parse(SFTConfig, [*words, "--seed", "5"])
